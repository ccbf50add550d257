package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/internal/freeport"
	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

func TestMain(m *testing.M) {
	leaks.Main(m,
		// For good by design: certmagic's limiter, and the queue of the test authority.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"),
		goleak.IgnoreAnyFunction("github.com/domicile/domicile/node.live"))
}

// patience bounds every wait of these tests; nothing waits for it to pass.
const patience = 30 * time.Second

var testKeys = control.Keys{"devkey": "secret-of-at-least-thirty-two-bytes",
	"eu-key": "another-secret-of-thirty-two-bytes", "ru-key": "a-third-secret-of-thirty-two-bytes"}

// eventually polls until ok. What it is used for has no event to wait for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, patience, what, ok)
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-end.C:
			if !ok() { // both may have come while this process was halted
				t.Fatalf("%s: not within %s", what, limit)
			}
			return
		}
	}
}

// promptly is for what a node has to do in a certain time, of that which this process
// has lived.
func promptly(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for begun := lived(); !ok(); <-poll.C {
		if lived()-begun > limit {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// lived is how long this process has run. It goes on by a moment while the machine stands
// still, or gives all of its time to others: that is no delay of a node's.
func lived() time.Duration {
	living.Do(func() { go live() })
	return time.Duration(life.Load())
}

var (
	living sync.Once
	life   atomic.Int64
)

func live() {
	const moment = 50 * time.Millisecond
	last := time.Now()
	for range time.Tick(5 * time.Millisecond) {
		now := time.Now()
		life.Add(int64(min(now.Sub(last), moment)))
		last = now
	}
}

// steady takes a measurement that says what is wrong with it, "" for nothing. One
// during which this process was halted tells of the machine and not of the node: it is
// taken again, nine times at most.
func steady(t *testing.T, measure func() (wrong string)) {
	t.Helper()
	var wrong string
	for range 10 {
		began, own := time.Now(), lived()
		wrong = measure()
		if wrong == "" {
			return
		}
		halted := time.Since(began) - (lived() - own)
		if halted < 20*time.Millisecond {
			break
		}
		t.Logf("%s; but this process was halted for %s", wrong, halted)
	}
	t.Error(wrong)
}

// never fails when bad happens while something else, which takes a while, is awaited.
func never(t *testing.T, what string, bad func() bool, during <-chan struct{}) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if bad() {
			t.Fatal(what)
		}
		select {
		case <-poll.C:
		case <-during:
			return
		}
	}
}

func zones(z residency.Zone) map[residency.Class]residency.Zone {
	m := map[residency.Class]residency.Zone{}
	for _, c := range residency.Classes() {
		m[c] = z
	}
	return m
}

// testBundle has the two policies of the first requirements and one that asks
// for consent. The default is the wider one, so that a lost binding shows.
func testBundle(epoch residency.Epoch) *residency.Bundle {
	members, _ := residency.NamedZone("EEA")
	eea := residency.Zone{Name: "EEA", Countries: members}
	global := zones(residency.Zone{Name: "stored", Countries: []residency.Country{"DE", "FR", "PL"}})
	for _, c := range []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat} {
		global[c] = eea
	}
	recorded := residency.RecordingRule{Allowed: true, Notice: true}
	return &residency.Bundle{Epoch: epoch, Default: "global", Policies: map[string]*residency.Policy{
		"global":     {Name: "global", Title: "Global", Zones: global, EdgeOutside: true, Recording: recorded},
		"eea-only":   {Name: "eea-only", Title: "EEA", Zones: zones(eea), Recording: recorded},
		"consent":    {Name: "consent", Zones: zones(eea), Recording: residency.RecordingRule{Allowed: true, Consent: true}},
		"unrecorded": {Name: "unrecorded", Zones: zones(eea)},
	}, Overrides: onLoopback("fra", "par", "waw", "vie", "osl", "nyc")}
}

// onLoopback believes nodes that all run on one machine: they are nearer to each
// other than their countries can be.
func onLoopback(names ...residency.NodeName) []residency.Override {
	var out []residency.Override
	for _, name := range names {
		out = append(out, residency.Override{Node: name, Reason: "the test runs on one machine", Until: time.Now().Add(24 * time.Hour)})
	}
	return out
}

// testMesh is a mesh of nodes in this process, on loopback.
type testMesh struct {
	t      *testing.T
	ca     *identity.CA
	bundle *residency.Bundle
	join   []string
	nodes  map[residency.NodeName]*testNode
	parted sync.Once
}

type testNode struct {
	*Node
	cfg  Config
	addr netip.AddrPort // HTTP and WebSocket
	log  *logBuffer

	stop func() // has it stop, and waits until it has
}

// logBuffer keeps what a node logs, to look for what must not be there.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newMesh(t *testing.T, b *residency.Bundle, places ...string) *testMesh {
	t.Helper()
	return newMeshOf(t, b, func(*testMesh, *Config) {}, places...)
}

// newMeshOf starts nodes whose configurations are changed before.
func newMeshOf(t *testing.T, b *residency.Bundle, change func(*testMesh, *Config), places ...string) *testMesh {
	t.Helper()
	ca, err := identity.CreateCA(t.TempDir(), "test CA", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m := &testMesh{t: t, ca: ca, bundle: b, nodes: map[residency.NodeName]*testNode{}}
	for _, p := range places {
		cfg := m.config(p)
		change(m, &cfg)
		m.start(cfg)
	}
	m.converge()
	return m
}

// freePort finds a port that is free for UDP and TCP.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
}

// config makes a node's configuration from a place such as "fra DE origin".
func (m *testMesh) config(place string) Config {
	m.t.Helper()
	f := strings.Fields(place)
	self := residency.Node{Name: residency.NodeName(f[0]), Country: residency.Country(f[1]), Operator: "Example GmbH",
		OperatorCountry: "DE", Parent: "Example GmbH", ParentCountry: "DE", Roles: []residency.Role{residency.RoleEdge}}
	if slices.Contains(f[2:], "origin") {
		self.Roles = []residency.Role{residency.RoleOrigin, residency.RoleEdge}
	}
	key, err := identity.GenerateKey()
	if err != nil {
		m.t.Fatal(err)
	}
	now := time.Now()
	der, err := m.ca.Issue(key.Public(), self, identity.SANs{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		m.t.Fatal(err)
	}
	_, self, err = identity.Verify(der, m.ca.Pool(), now)
	if err != nil {
		m.t.Fatal(err)
	}
	any := netip.MustParseAddrPort("127.0.0.1:0")
	gossip := freePort(m.t)
	cfg := Config{
		Self: self, Bundle: m.bundle, Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, Roots: m.ca.Pool(),
		Mesh:      Mesh{Join: slices.Clone(m.join), Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}},
		Listen:    Listen{HTTP: any, Media: any, Relay: any, RelayMedia: any, Gossip: gossip},
		PublicURL: "https://" + f[0] + ".example", City: f[0], Keys: testKeys,
		Geo: Geo{Unknown: router.FallbackLocal, AcceptClaimed: true}, Page: Page{Guests: true, GuestsMayRecord: true},
		DataDir: filepath.Join(m.t.TempDir(), f[0]), Version: "test", Policies: Policies{Open: m.open},
	}
	m.join = append(m.join, gossip.String())
	return cfg
}

func (m *testMesh) start(cfg Config) *testNode {
	m.t.Helper()
	tn := &testNode{cfg: cfg, log: &logBuffer{}}
	ready := make(chan struct{})
	cfg.Log = slog.New(slog.NewTextHandler(tn.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Ready = func(a Addresses) { tn.addr = a.HTTP; close(ready) }
	n, err := New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	tn.Node = n
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	tn.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				m.t.Errorf("node %s: %v", cfg.Self.Name, err)
			}
		case <-time.After(patience):
			m.t.Errorf("node %s does not stop", cfg.Self.Name)
		}
	})
	m.t.Cleanup(func() {
		m.part()
		tn.stop()
		if m.t.Failed() && testing.Verbose() {
			m.t.Logf("log of %s:\n%s", cfg.Self.Name, tn.log)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		m.t.Fatalf("node %s ended: %v", cfg.Self.Name, err)
	}
	m.nodes[cfg.Self.Name] = tn
	return tn
}

// part has all nodes but one stop, at once. That one hears them take their leave: what
// nobody hears is given up after a second.
func (m *testMesh) part() {
	m.parted.Do(func() {
		var leave sync.WaitGroup
		stays := true
		for _, n := range m.nodes {
			if !stays {
				leave.Go(n.stop)
			}
			stays = false
		}
		leave.Wait()
	})
}

// halt stops a node and takes it out of the mesh.
func (m *testMesh) halt(name residency.NodeName) {
	m.nodes[name].stop()
	delete(m.nodes, name)
}

// converge waits until every node has a link to every other and agrees with it
// on the epoch.
func (m *testMesh) converge() {
	m.t.Helper()
	for _, n := range m.nodes {
		for _, o := range m.nodes {
			eventually(m.t, fmt.Sprintf("%s meets %s", n.cfg.Self.Name, o.cfg.Self.Name), func() bool {
				_, epoch, ok := n.peer(o.cfg.Self.Name)
				return ok && epoch == o.gate().Epoch() && (n == o || n.link(o.cfg.Self.Name) != nil)
			})
		}
	}
}

func (m *testMesh) node(name residency.NodeName) *testNode { return m.nodes[name] }

// adopt puts a bundle in force on every node.
func (m *testMesh) adopt(b *residency.Bundle) {
	m.bundle = b
	for _, n := range m.nodes {
		n.setBundle(b)
	}
}

// media counts the media packets that left a node for another.
func (n *testNode) media(to residency.NodeName) uint64 {
	if l := n.link(to); l != nil {
		return l.Stats().TxPackets
	}
	return 0
}
