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
	{"node/room", []string{"node/record", "node/rtc", "node/room/...", "node/sfu/...", "node/signal", "control", "relay", "relay/wire", "residency/..."},
		"a room joins attendees, links and the recorder; it listens nowhere"},
	{"node/signal", []string{"control"}, "signalling carries messages and checks tokens; it knows no room and no media"},
	{"node/rtc", []string{"node/rtc/jsep", "node/sfu/...", "node/transport"}, "WebRTC sessions feed the media plane and know nothing of rooms"},
	{"node/rtc/jsep", nil, "descriptions are negotiated as values, whatever carries the media"},
	{"node/transport", nil, "sockets and seals know no tracks, no rooms and no descriptions"},
	{"node/whip", []string{"control"}, "WHIP and WHEP are HTTP and tokens; what is behind a session is the node's affair"},
	{"node/sfu", nil, "the media plane knows nothing of networks, rooms or policies"},
	{"node/sfu/speakers", nil, "who speaks is decided from levels alone"},
	{"node/sfu/quality", nil, "quality is judged from figures, wherever they come from"},
	{"node/room/reliable", nil, "the order of messages does not depend on what carries them"},
	{"node/sfu/bwe", nil, "an estimate follows from what was sent and reported, from nothing else"},
	{"node/sfu/allocate", nil, "bits are divided among numbers; whose pictures they are is not asked"},
	{"node/record", []string{"node/sfu", "residency/vault"}, "the recorder subscribes like an attendee and writes to the vault only"},
	{"node/front", nil, "the front door hands connections over and does not care to whom"},
	{"node/turn", nil, "TURN passes packets and knows nothing of what is in them"},

	{"control", []string{"control/store", "control/membership", "router", "residency/..."},
		"rooms, tokens and APIs stand above the mesh and below the node"},
	{"control/membership", []string{"router", "residency", "residency/identity"}, "gossip carries nodes, not people"},
	{"control/store", []string{"residency"}, "a store keeps rows; what they mean is decided above it"},

	{"relay", []string{"relay/wire", "residency"}, "links know bytes and permits, not rooms"},
	{"relay/wire", nil, "wire formats are pure"},
	{"relay/relaytest", []string{"relay", "relay/wire", "residency"}, "a simulated network for tests of links"},

	{"router", []string{"residency"}, "placement decides on values within what residency allows"},
	{"router/geo/...", []string{"router/...", "residency"}, "databases feed the router's values"},

	{"residency", nil, "where bytes may go depends on nothing but policies and certificates"},
	{"residency/...", []string{"residency/..."}, "identity, evidence and vault serve residency, whoever uses them"},

	{"web", nil, "the page is files; its API belongs to the node"},
	{"internal/lint", nil, "rules are used by nobody"},
	{"bench/...", []string{"bench/...", "configs/...", "node/...", "control/...", "relay/...", "router/...", "residency/..."},
		"load and scenarios may drive every part"},
}

// pure are the cores: they decide on values and `now`, so that a test can try a
// million cases and an operator can replay one.
var pure = []string{"residency", "router", "node/sfu", "node/rtc/jsep", "node/sfu/bwe", "node/sfu/allocate", "node/sfu/speakers", "node/sfu/quality", "node/room/reliable", "relay/wire"}

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
	{"github.com/pion/turn/", []string{"node/turn"}, "two major versions of pion/turn live in the binary, ours behind one package"},
	{"github.com/pion/webrtc/", []string{"node/rtc", "bench/..."}, "WebRTC is one way in among others"},
	{"github.com/pion/ice/", []string{"node/rtc", "bench/..."}, "WebRTC is one way in among others"},
	{"github.com/pion/srtp/", []string{"node/transport", "bench/..."}, "one package seals: a nonce that is used twice gives the keys away"},
	{"github.com/pion/dtls/", []string{"node/transport", "node/rtc", "bench/..."}, "one package shakes hands and checks fingerprints"},
	{"github.com/pion/stun/", []string{"node/transport", "bench/..."}, "one package answers checks"},
	{"github.com/pion/sctp", []string{"node/transport", "bench/..."}, "data channels can be exchanged"},
	{"github.com/pion/datachannel", []string{"node/transport", "bench/..."}, "data channels can be exchanged"},
	{"github.com/quic-go/", []string{"relay", "bench/..."}, "the carriage of a link can be exchanged"},
	{"github.com/hashicorp/memberlist", []string{"control/membership"}, "gossip can be exchanged"},
	{"github.com/oschwald/", []string{"router/geo/..."}, "the router sees coordinates, not databases"},
	{"modernc.org/sqlite", []string{"control/store/..."}, "one package knows SQL"},
	{"filippo.io/age", []string{"residency/..."}, "keys are wrapped in one place"},
}

// maxLines bounds a file that is not a test: what is longer holds two ideas.
const maxLines = 600
