package membership

import (
	"context"
	"crypto"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/hashicorp/memberlist"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var (
	goodKey  = []byte("0123456789abcdef0123456789abcdef")
	otherKey = []byte("fedcba9876543210fedcba9876543210")
	loopback = netip.MustParseAddrPort("127.0.0.1:0")
)

// soon bounds every wait on the mesh; it is far above what any of them takes.
const soon = 20 * time.Second

func node(name residency.NodeName, country residency.Country, roles ...residency.Role) residency.Node {
	if len(roles) == 0 {
		roles = []residency.Role{residency.RoleEdge}
	}
	return residency.Node{Name: name, Country: country, Operator: "Example GmbH", OperatorCountry: "DE",
		Parent: "Example SE", ParentCountry: "FR", Roles: roles}
}

var (
	fra = node("fra", "DE", residency.RoleOrigin, residency.RoleEdge)
	waw = node("waw", "PL")
	nyc = node("nyc", "US")
)

func newCA(t *testing.T) *identity.CA {
	t.Helper()
	ca, err := identity.CreateCA(t.TempDir(), "Test CA", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue makes the certificate of a node.
func issue(t *testing.T, ca *identity.CA, n residency.Node, from, to time.Time) tls.Certificate {
	t.Helper()
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(key.Public(), n, identity.SANs{}, from, to)
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := identity.Verify(der, ca.Pool(), from)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
}

func issueNow(t *testing.T, ca *identity.CA, n residency.Node) tls.Certificate {
	t.Helper()
	return issue(t, ca, n, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
}

// claimOf signs a claim after it was changed.
func claimOf(t *testing.T, cert tls.Certificate, gossip netip.AddrPort, issued time.Time, change func(*identity.Claim)) []byte {
	t.Helper()
	c, err := identity.ClaimOf(cert.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	c.GossipAddr, c.Issued = gossip, issued
	if change != nil {
		change(&c)
	}
	b, err := identity.SignClaim(c, cert.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// logbook keeps what was logged, for tests that look at it.
type logbook struct {
	mu    sync.Mutex
	lines []string
	added chan struct{}
}

func newLogbook() *logbook { return &logbook{added: make(chan struct{}, 1)} }

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.lines = append(l.lines, string(b))
	l.mu.Unlock()
	select {
	case l.added <- struct{}{}:
	default:
	}
	return len(b), nil
}

// count returns how many lines hold all the words.
func (l *logbook) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for _, line := range l.lines {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		n++
	}
	return n
}

func (l *logbook) wait(t *testing.T, words ...string) {
	t.Helper()
	timeout := time.After(soon)
	for l.count(words...) == 0 {
		select {
		case <-l.added:
		case <-timeout:
			t.Fatalf("nothing logged with %q", words)
		}
	}
}

// running is a Mesh that runs until the test ends.
type running struct {
	*Mesh
	log   *logbook
	leave func() // ends Run and waits for it
}

// start runs a mesh; change may adapt its configuration.
func start(t *testing.T, ca *identity.CA, n residency.Node, join []string, change func(*Config)) *running {
	t.Helper()
	log := newLogbook()
	cfg := Config{Self: n, Certificate: issueNow(t, ca, n), Roots: ca.Pool(), Bind: loopback, Join: join, Keys: [][]byte{goodKey},
		Claim: func() identity.Claim { return identity.Claim{Epoch: 1} }, Log: log.logger()}
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	r := &running{Mesh: m, log: log}
	r.leave = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.leave)
	r.await(t, "it gossips", func(s *Snapshot) bool { return s.Self.Gossip.IsValid() })
	return r
}

// await waits for a snapshot.
func (r *running) await(t *testing.T, what string, ok func(*Snapshot) bool) *Snapshot {
	t.Helper()
	timeout := time.After(soon)
	for {
		if s := r.Snapshot(); ok(s) {
			return s
		}
		select {
		case <-r.Changes():
		case <-timeout:
			t.Fatalf("%s: not until %s: members %v, refused %v", what, r.Snapshot().Self.Node.Name, names(r.Snapshot()), r.Snapshot().Refused)
		}
	}
}

func (r *running) addr() []string { return []string{r.Snapshot().Self.Gossip.String()} }

// refusal waits until a node is refused.
func (r *running) refusal(t *testing.T, name residency.NodeName, rule string) Refusal {
	t.Helper()
	var found Refusal
	r.await(t, "refusal of "+string(name)+" by "+rule, func(s *Snapshot) bool {
		for _, f := range s.Refused {
			if f.Name == name && f.Rule == rule {
				found = f
				return true
			}
		}
		return false
	})
	return found
}

func names(s *Snapshot) (out []residency.NodeName) {
	for _, m := range s.Members {
		out = append(out, m.Node.Name)
	}
	return out
}

// impostor is a node whose every word the test chooses: memberlist without Mesh.
type impostor struct {
	list *memberlist.Memberlist
	in   *inbox
	addr netip.AddrPort
}

// impersonate starts an impostor that has the gossip key.
func impersonate(t *testing.T, name residency.NodeName) *impostor {
	t.Helper()
	in := newInbox(string(name))
	conf, err := listConfig(Config{Self: residency.Node{Name: name}, Bind: loopback, Keys: [][]byte{goodKey}, Log: slog.New(slog.DiscardHandler)}, in)
	if err != nil {
		t.Fatal(err)
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		t.Fatal(err)
	}
	i := &impostor{list: list, in: in, addr: addrOf(list.LocalNode())}
	t.Cleanup(i.die)
	return i
}

// say gossips metadata and shows certificates.
func (i *impostor) say(meta []byte, certs ...tls.Certificate) {
	var ders [][]byte
	for _, c := range certs {
		ders = append(ders, c.Certificate[0])
	}
	state := encodeState(ders)
	meta = pad(meta, 0)
	i.in.meta.Store(&meta)
	i.in.state.Store(&state)
	_ = i.list.UpdateNode(time.Nanosecond)
}

func (i *impostor) join(t *testing.T, r *running) {
	t.Helper()
	if _, err := i.list.Join(r.addr()); err != nil {
		t.Fatal(err)
	}
}

// die ends the impostor without a word.
func (i *impostor) die() { _ = i.list.Shutdown() }
