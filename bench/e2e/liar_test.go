package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/control/membership"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// TestNodeThatLiesAboutItsCountry replaces nyc by a node of its name, with its
// true certificate, keys and addresses, that says in gossip that it stands in
// Germany. While it tells the truth it is a member; once it lies it is none, the
// others say why with both countries, and it gets nothing of a meeting.
func TestNodeThatLiesAboutItsCountry(t *testing.T) {
	t.Parallel()
	m := startMesh(t, product, t.TempDir())
	m.kill("nyc")
	eventually(t, "the others miss nyc", 15*time.Second, func() bool { return m.linked("fra") == 2 && m.linked("waw") == 2 })
	l := startLiar(t, m)
	for _, n := range []string{"fra", "waw"} {
		eventually(t, "nyc, which tells the truth, is linked with "+n, 30*time.Second, func() bool { return m.linked(n) == 3 })
	}
	l.lies.Store(true)
	for _, n := range []string{"fra", "waw"} {
		eventually(t, n+" refuses nyc", 30*time.Second, func() bool {
			s := m.state(n)
			return len(s.Members) == 2 && len(s.Refused) == 1
		})
		r := m.state(n).Refused[0]
		if r.Name != "nyc" || r.Rule != membership.RuleClaim {
			t.Errorf("%s refuses %+v, want nyc for its claim", n, r)
		}
		contains(t, "the reason in the state of "+n, r.Reason, "DE", "US")
		eventually(t, n+" has no link with nyc", 10*time.Second, func() bool { return len(m.state(n).Links) == 1 })
	}
	contains(t, "the log of fra", m.log("fra"), "node is not part of the mesh", "DE", "US")
	before := l.got.Load()

	b := startBrowsers(t, "")
	for _, p := range []*tab{b.open("fra", m.page("fra", "lied", "fra", "policy=eea-only")), b.open("waw", m.page("waw", "lied", "waw", "policy=eea-only"))} {
		p.until("sees and hears the other", 40*time.Second, fmt.Sprintf(sees, 1))
	}
	if got := l.got.Load() - before; got != 0 {
		t.Errorf("the liar was sent %d messages", got)
	}
	for _, link := range l.fabric.Links() {
		t.Errorf("the liar has a link: %+v", link.Stats())
	}
	out, _ := m.domicile("explain", "--room", "lied", "--ip", m.node("nyc").TestAddress)
	contains(t, "explain for an attendee in New York", out, "fra")
	t.Logf("fra: %s", m.state("fra").Refused[0].Reason)
}

// liar gossips and links as nyc.
type liar struct {
	lies   atomic.Bool
	got    atomic.Int64 // messages and requests from other nodes
	fabric *relay.Fabric
}

func startLiar(t *testing.T, m *mesh) *liar {
	t.Helper()
	l := &liar{}
	y, err := configs.LoadNode(m.node("nyc").Config)
	if err != nil {
		t.Fatal(err)
	}
	files, err := y.CheckFiles(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := identity.Pool(files.Authorities...)
	server, client := identity.TLS(identity.Fixed(files.Certificate), roots, "domicile/1", time.Now)
	l.fabric, err = relay.New(relay.Config{Self: files.Node, Listen: y.Listen.Relay, ServerTLS: server, ClientTLS: client,
		PeerNode: identity.PeerNode, Epoch: func() residency.Epoch { return files.Bundle.Epoch }, Handler: l})
	if err != nil {
		t.Fatal(err)
	}
	var peers []relay.Peer
	for _, n := range m.Nodes {
		if n.Name != "nyc" {
			peers = append(peers, relay.Peer{Name: residency.NodeName(n.Name), Addr: n.Relay})
		}
	}
	l.fabric.SetPeers(peers)
	cfg := membership.Config{Log: slog.New(slog.DiscardHandler), Self: files.Node, Certificate: files.Certificate, Roots: roots, Bind: y.Listen.Gossip, Join: y.Gossip.Join,
		Claim: func() identity.Claim { return l.claim(files, y) }}
	for _, k := range y.Gossip.Keys {
		cfg.Keys = append(cfg.Keys, k[:])
	}
	gossip, err := membership.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, part := range []func(context.Context) error{l.fabric.Run, gossip.Run} {
		running.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("the liar: %v", err)
			}
		})
	}
	t.Cleanup(func() { stop(); running.Wait() })
	return l
}

func (l *liar) claim(files *configs.Files, y *configs.Node) identity.Claim {
	n := files.Node
	c := identity.Claim{Name: n.Name, Country: n.Country, Operator: n.Operator, OperatorCountry: n.OperatorCountry,
		Parent: n.Parent, ParentCountry: n.ParentCountry, Roles: n.Roles, Epoch: files.Bundle.Epoch,
		RelayAddr: y.Listen.Relay, GossipAddr: y.Listen.Gossip, URL: y.Public.URL}
	if l.lies.Load() {
		c.Country = "DE"
	}
	return c
}

// LinkUp implements relay.Handler.
func (l *liar) LinkUp(*relay.Link) {}

// LinkDown implements relay.Handler.
func (l *liar) LinkDown(*relay.Link, error) {}

// Message implements relay.Handler.
func (l *liar) Message(*relay.Link, relay.Kind, string, residency.Class, []byte) { l.got.Add(1) }

// Request implements relay.Handler.
func (l *liar) Request(context.Context, *relay.Link, relay.Kind, string, residency.Class, []byte) ([]byte, residency.Permit, error) {
	l.got.Add(1)
	return nil, residency.Permit{}, errors.New("not here")
}
