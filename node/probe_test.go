package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/domicile/domicile/node/reach/probe"
	"github.com/domicile/domicile/residency/identity"
)

// secure makes a node's configuration serve HTTPS, as node.test on loopback.
func (m *testMesh) secure(cfg Config) Config {
	m.t.Helper()
	key, err := identity.GenerateKey()
	if err != nil {
		m.t.Fatal(err)
	}
	now := time.Now()
	sans := identity.SANs{DNS: []string{"node.test"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	der, err := m.ca.IssueServer(key.Public(), sans, now.Add(-time.Hour), now.Add(24*time.Hour))
	if err != nil {
		m.t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	cfg.ServerCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
	cfg.Listen.HTTPS = freePort(m.t)
	cfg.Listen.Media = cfg.Listen.HTTPS // one port for all, as in production
	cfg.Listen.Redirect = freePort(m.t)
	cfg.PublicURL = fmt.Sprintf("https://%s", cfg.Listen.HTTPS)
	return cfg
}

// look probes a node as `domicile check --reach` does.
func (m *testMesh) look(n *testNode, edit func(*probe.Config)) probe.Report {
	m.t.Helper()
	cfg := probe.Config{Host: "127.0.0.1", Port: n.cfg.Listen.HTTPS.Port(), Roots: m.ca.Pool(), RedirectPort: n.cfg.Listen.Redirect.Port()}
	if edit != nil {
		edit(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := probe.Run(ctx, cfg)
	if m.t.Failed() || testing.Verbose() {
		r.Print(m.t.Output()) //nolint:errcheck // it is for people
	}
	return r
}

func outcomes(r probe.Report, over probe.Over) map[probe.Way]probe.Outcome {
	m := map[probe.Way]probe.Outcome{}
	for _, x := range r.Results {
		if x.Over == over {
			m[x.Way] = x.Outcome
		}
	}
	return m
}

func TestProbeOverEveryWay(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1))
	n := m.start(m.secure(m.config("fra DE origin")))
	r := m.look(n, nil)
	got := outcomes(r, probe.IPv4)
	for _, w := range []probe.Way{probe.TCP, probe.TLS, probe.HTTP1, probe.HTTP2, probe.HTTP3, probe.WebSocket, probe.DirectUDP, probe.TURNUDP, probe.ICETCP, probe.TURNTLS, probe.Redirect} {
		if got[w] != probe.Works {
			t.Errorf("%s: %q, want it to work", w, got[w])
		}
	}
	if !r.OK || r.Node == nil || r.Node.Name != "fra" {
		t.Errorf("ok %v, node %+v", r.OK, r.Node)
	}
	promptly(t, 3*time.Second, fmt.Sprint("all tests are over", n.reach.Sessions()), func() bool { return n.reach.Sessions() == 0 })
}
