package lint

// module is the path before every package of ours.
const module = "github.com/domicile/domicile"

// rule says what a package may import of ours, and why not more. A pattern that
// ends in /... stands for the package and what is below it, the longest pattern
// that fits counts. Packages that do not exist yet do no harm.
type rule struct {
	pkg   string
	may   []string
	cause string
}

// imports is docs/architecture.md as a table: cmd → configs → node → control →
// control/membership → router → residency; node → relay → relay/wire;
// node → node/rtc → node/sfu. Packages only appear to the left of what they use.
var imports = []rule{
	{"cmd/...", []string{"configs/...", "node/...", "control/...", "relay/...", "router/...", "residency/...", "web"},
		"commands put everything together and are used by nobody"},
	{"configs/...", []string{"node", "control", "control/membership", "router/...", "residency/..."},
		"a file is turned into the plain configuration of what lies below"},

	{"node", []string{"node/...", "control/...", "relay", "relay/wire", "router/...", "residency/...", "web"},
		"the composition root of a node knows its parts; none of them knows it"},
	{"node/room", []string{"node/record", "node/rtc", "node/room/...", "node/sfu/...", "node/signal", "control", "relay", "relay/wire", "router/cascade", "residency/..."},
		"a room joins attendees, links and the recorder; it listens nowhere"},
	{"node/signal", []string{"control"}, "signalling carries messages and checks tokens; it knows no room and no media"},
	{"node/rtc", []string{"node/rtc/jsep", "node/sfu/...", "node/transport"}, "WebRTC sessions feed the media plane and know nothing of rooms"},
	{"node/rtc/jsep", nil, "descriptions are negotiated as values, whatever carries the media"},
	{"node/transport", []string{"node/stream"}, "sockets and seals know no tracks, no rooms and no descriptions"},
	{"node/drainage", nil, "who is sent away next follows from who is here; where to is placement's affair"},
	{"node/witness", []string{"residency", "residency/evidence"}, "which receipts are due is decided on figures; who counts and who sends is the node's affair"},
	{"node/orders", []string{"residency", "residency/retention"}, "orders are kept as they are; what they mean is decided elsewhere"},
	{"node/owed", []string{"residency", "residency/evidence"}, "what is about to go is noted as it is; who erases and who signs is the node's affair"},
	{"node/slips", []string{"residency", "residency/vault"}, "a page is kept sealed, whatever it says and whoever it names"},
	{"node/webhook", nil, "what is told, and to whom it may be, is the node's affair; this brings it there"},
	{"node/outbox", []string{"residency", "residency/evidence"}, "receipts wait as they are, whoever brings them away"},
	{"node/whip", []string{"control"}, "WHIP and WHEP are HTTP and tokens; what is behind a session is the node's affair"},
	{"node/reach", nil, "a test session is limits and an echo; the node makes its connection"},
	{"node/reach/probe", nil, "who looks at a node from outside knows what every client knows"},
	{"node/sfu", nil, "the media plane knows nothing of networks, rooms or policies"},
	{"node/sfu/speakers", nil, "who speaks is decided from levels alone"},
	{"node/sfu/quality", nil, "quality is judged from figures, wherever they come from"},
	{"node/room/reliable", nil, "the order of messages does not depend on what carries them"},
	{"node/sfu/bwe", nil, "an estimate follows from what was sent and reported, from nothing else"},
	{"node/sfu/allocate", nil, "bits are divided among numbers; whose pictures they are is not asked"},
	{"node/record", []string{"node/sfu", "residency/vault"}, "the recorder subscribes like an attendee and writes to the vault only"},
	{"node/prepared", []string{"residency", "residency/vault"}, "what is prepared waits on a shelf; what it is and whose is not asked there"},
	{"node/sheet", nil, "a table is written as spreadsheets read it, whatever it tells"},
	{"node/sealedzip", nil, "an archive is written, whatever is in it"},
	{"node/stream", nil, "a connection that never waits does not care what is written"},
	{"node/front", []string{"node/front/...", "node/stream"}, "the front door hands connections over and does not care to whom"},
	{"node/front/certs", nil, "a certificate is kept for whoever shakes hands with it"},
	{"node/sockets", nil, "sockets are carried on by whoever needs them open"},
	{"node/front/certs/certstest", nil, "an authority for tests knows no node"},
	{"node/names", []string{"residency"}, "names are answered from what the node says of the mesh; who may serve is not decided there"},
	{"node/front/admission", nil, "who may come in is decided from addresses and counts alone"},
	{"node/turn", []string{"node/turn/alloc", "node/transport", "node/stream"}, "TURN decides who may pass and has packets carried; it knows nothing of what is in them"},
	{"node/turn/alloc", nil, "who may have an allocation is decided on values, whatever carries the packets"},

	{"control", []string{"control/store", "control/membership", "router", "residency/..."},
		"rooms, tokens and APIs stand above the mesh and below the node"},
	{"control/membership", []string{"router", "residency", "residency/identity"}, "gossip carries nodes, not people"},
	{"control/store", []string{"residency"}, "a store keeps rows; what they mean is decided above it"},

	{"relay", []string{"relay/wire", "relay/seal", "relay/flow", "node/sfu/bwe", "udp", "residency"}, "links know bytes and permits, not rooms; the estimate of a path is the one of attendees"},
	{"relay/seal", []string{"relay/wire"}, "what is sealed is not looked at"},
	{"relay/flow", []string{"relay/seal", "relay/wire"}, "what a link does with its datagrams follows from numbers and times"},
	{"udp", nil, "datagrams are carried, whatever is in them"},
	{"relay/wire", nil, "wire formats are pure"},
	{"relay/relaytest", []string{"relay", "relay/wire", "residency"}, "a simulated network for tests of links"},

	{"router", []string{"residency"}, "placement decides on values within what residency allows"},
	{"router/plan", []string{"residency"}, "what would change is a difference of the gate's answers, and of nothing else"},
	{"router/replan", []string{"router", "residency"}, "what other rules would change is a difference of placements, and of nothing else"},
	{"router/explain", []string{"router", "residency"}, "an explanation is the gate's and the router's answers, and nothing else"},
	{"router/cascade", []string{"residency"}, "a tree follows from round trips, limits and a yes or no for each way, and from nothing else"},
	{"router/geo/...", []string{"router/...", "residency"}, "databases feed the router's values"},

	{"residency", nil, "where bytes may go depends on nothing but policies and certificates"},
	{"residency/...", []string{"residency/..."}, "identity, evidence and vault serve residency, whoever uses them"},

	{"web", nil, "the page is files; its API belongs to the node"},
	{"internal/lint", nil, "rules are used by nobody"},
	{"internal/leaks", nil, "what is left is asked at the end of any tests"},
	{"internal/steady", nil, "a measurement is taken again, whatever is measured"},
	{"internal/samples", nil, "what was sent is kept, whoever sent it"},
	{"internal/pgtest", []string{"internal/freeport"}, "a database for a test knows nothing of who uses it"},
	{"internal/freeport", nil, "a port is free for whoever asks"},
	{"internal/faults", nil, "faults are laid over the sources, and used by nobody"},
	{"bench/...", []string{"bench/...", "udp", "internal/freeport", "configs/...", "node/...", "control/...", "relay/...", "router/...", "residency/..."},
		"load and scenarios may drive every part"},
}

// pure are the cores: they decide on values and `now`, so that a test can try a
// million cases and an operator can replay one.
var pure = []string{"residency", "router", "router/plan", "router/replan", "router/explain", "router/cascade", "node/sfu", "node/rtc/jsep", "node/sfu/bwe", "node/sfu/allocate", "node/sfu/speakers", "node/sfu/quality", "node/room/reliable", "node/witness", "node/front/admission", "node/turn/alloc", "relay/wire", "relay/flow", "relay/seal", "residency/whereabouts", "residency/retention"}

// impureImports are what a core has no business with.
var impureImports = map[string]string{
	"os": "I/O", "os/exec": "I/O", "os/signal": "I/O", "io/ioutil": "I/O", "syscall": "I/O",
	"net": "the network", "net/http": "the network", "crypto/tls": "the network",
	"log": "a log", "log/slog": "a log", "math/rand": "chance", "math/rand/v2": "chance", "crypto/rand": "chance",
}

// clockCalls are the functions of package time that read or wait for the clock.
var clockCalls = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"Tick": true, "NewTicker": true, "NewTimer": true,
}

// homes keeps a foreign library behind the package that wraps it: prefix of its
// import path → who may import it. Tests may import what they like.
var homes = []struct {
	prefix string
	pkgs   []string
	cause  string
}{
	{"github.com/livekit/protocol", []string{"node", "node/room", "node/signal", "control", "bench/..."},
		"LiveKit's types stop at the edge: our own cores speak our own words"},
	{"github.com/pion/turn/", []string{"node/reach/probe"}, "the TURN server is ours; the library is the other side of it"},
	{"github.com/pion/webrtc/", []string{"node/rtc", "node/reach/probe", "bench/..."}, "WebRTC is one way in among others"},
	{"github.com/pion/ice/", []string{"node/rtc", "node/reach/probe", "bench/..."}, "WebRTC is one way in among others"},
	{"github.com/pion/srtp/", []string{"node/transport", "bench/..."}, "one package seals: a nonce that is used twice gives the keys away"},
	{"github.com/pion/dtls/", []string{"node/transport", "node/rtc", "bench/..."}, "one package shakes hands and checks fingerprints"},
	{"github.com/pion/stun/", []string{"node/transport", "node/turn/alloc", "node/reach/probe", "bench/..."}, "one package answers checks, one TURN's requests"},
	{"github.com/pion/sctp", []string{"node/transport", "bench/..."}, "data channels can be exchanged"},
	{"github.com/pion/datachannel", []string{"node/transport", "bench/..."}, "data channels can be exchanged"},
	{"github.com/quic-go/", []string{"relay", "node/front", "node/reach/probe", "bench/..."}, "the carriage of a link can be exchanged"},
	{"github.com/coreos/go-systemd/", []string{"node/sockets", "cmd/..."}, "the node runs without systemd, too"},
	{"github.com/pires/go-proxyproto", []string{"node/front"}, "the front door alone asks who stands behind a proxy"},
	{"github.com/caddyserver/certmagic", []string{"node/front/certs"}, "one package asks authorities for certificates"},
	{"github.com/mholt/acmez/", []string{"node/front/certs"}, "one package asks authorities for certificates"},
	{"github.com/letsencrypt/pebble/", []string{"node/front/certs/certstest"}, "the test authority stays out of the product"},
	{"go.uber.org/zap", []string{"node/front/certs"}, "logs are slog's; a library of ACME wants another"},
	{"github.com/hashicorp/go-retryablehttp", []string{"node/webhook"}, "one package sends to programs outside of the mesh"},
	{"github.com/hashicorp/serf", []string{"control/membership"}, "gossip can be exchanged"},
	{"github.com/hashicorp/memberlist", []string{"control/membership"}, "gossip can be exchanged"},
	{"github.com/oschwald/", []string{"router/geo/..."}, "the router sees coordinates, not databases"},
	{"modernc.org/sqlite", []string{"control/store/..."}, "one package knows SQL"},
	{"github.com/jackc/pgx/", []string{"control/store"}, "one package knows SQL"},
	{"github.com/minio/minio-go/", []string{"residency/vault/bucket"}, "one package speaks to object stores"},
	{"filippo.io/age", []string{"residency/..."}, "keys are wrapped in one place"},
	{"github.com/xuri/excelize", []string{"node/sheet"}, "one package writes spreadsheets, and sees to it that nothing is a formula"},
	{"golang.org/x/mod/", []string{"residency/evidence/..."}, "one package knows how a log is hashed"},
}

// maxLines bounds a file that is not a test: what is longer holds two ideas.
const maxLines = 600
