package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/node/front/certs/certstest"
)

func TestMain(m *testing.M) {
	leaks.Main(m,
		// For good by design: certmagic's limiter, one for each authority and
		// account, and pebble's queue of validations.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

var silent = log.New(io.Discard, "", 0)

// startPebble runs an authority that looks for every name at the ports of at.
func startPebble(t *testing.T, at At, o certstest.Options) *certstest.Authority {
	t.Helper()
	return certstest.Start(t, at.Plain.Port(), at.TLS.Port(), o)
}

// testNode is what a node has to do with certificates: a TLS port, a port for
// plain HTTP, and a keeper whose clock the test turns.
type testNode struct {
	t          *testing.T
	plain, tls netip.AddrPort
	keeper     atomic.Pointer[Keeper]
	log        *lockedLog
	redirects  atomic.Int64

	waits chan wait
	mu    sync.Mutex
	now   time.Time
}

// wait is what the keeper asks its clock for.
type wait struct {
	d    time.Duration
	done chan time.Time
}

func newTestNode(t *testing.T) *testNode {
	t.Helper()
	n := &testNode{t: t, log: &lockedLog{}, waits: make(chan wait), now: time.Now().Add(time.Minute)} // the authority begins certificates with this second
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.keeper.Load().HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.redirects.Add(1)
			http.Redirect(w, r, "https://"+r.Host, http.StatusMovedPermanently)
		})).ServeHTTP(w, r)
	}))
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = silent
	secure.TLS = &tls.Config{
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return n.keeper.Load().Get(h) },
		NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
	}
	secure.Listener = tlsOnly{secure.Listener, secure.TLS}
	secure.Start()
	t.Cleanup(secure.Close)
	n.plain = netip.MustParseAddrPort(plain.Listener.Addr().String())
	n.tls = netip.MustParseAddrPort(secure.Listener.Addr().String())
	return n
}

// tlsOnly is a TLS listener: httptest's own would bring its certificate along.
type tlsOnly struct {
	net.Listener
	cfg *tls.Config
}

func (l tlsOnly) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(c, l.cfg), nil
}

func (n *testNode) clock() Clock {
	return Clock{
		Now: func() time.Time { n.mu.Lock(); defer n.mu.Unlock(); return n.now },
		After: func(d time.Duration) <-chan time.Time {
			w := wait{d, make(chan time.Time, 1)}
			n.waits <- w
			return w.done
		},
	}
}

// run runs the keeper until the test ends.
func (n *testNode) run(k *Keeper, at At) {
	n.t.Helper()
	n.keeper.Store(k)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx, at) }()
	n.t.Cleanup(func() {
		stop()
		for {
			select {
			case w := <-n.waits:
				close(w.done)
			case err := <-ended:
				if err != nil {
					n.t.Errorf("Run: %v", err)
				}
				return
			}
		}
	})
}

// settle waits until the keeper has nothing to do, and says for how long.
func (n *testNode) settle() wait {
	n.t.Helper()
	select {
	case w := <-n.waits:
		return w
	case <-time.After(2 * time.Minute): // never reached unless something hangs
		n.t.Fatalf("the keeper does not settle; its log:\n%s", n.log)
		return wait{}
	}
}

// pass lets the time of a wait pass, and the keeper go on.
func (n *testNode) pass(w wait, d time.Duration) {
	n.mu.Lock()
	n.now = n.now.Add(d)
	now := n.now
	n.mu.Unlock()
	w.done <- now
}

func (n *testNode) state() State { return n.keeper.Load().State() }

// shown is the certificate that a client gets.
func (n *testNode) shown(name string) *x509.Certificate {
	n.t.Helper()
	conn, err := tls.Dial("tcp", n.tls.String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// believed reports whether a client that trusts the pool takes the certificate.
func (n *testNode) believed(name string, pool *x509.CertPool) error {
	n.mu.Lock()
	now := n.now
	n.mu.Unlock()
	conn, err := tls.Dial("tcp", n.tls.String(), &tls.Config{ServerName: name, RootCAs: pool, Time: func() time.Time { return now }})
	if err != nil {
		return err
	}
	return conn.Close()
}

func (n *testNode) acme(p *certstest.Authority, names ...string) ACMEConfig {
	return ACMEConfig{Directory: p.Directory, Email: "operator@example.org", Names: names, Roots: p.Roots,
		Dir: n.t.TempDir(), Clock: n.clock(), Log: slog.New(slog.NewTextHandler(n.log, nil))}
}

func (n *testNode) both() At { return At{Plain: n.plain, TLS: n.tls} }

// lockedLog is a log that a test can read while it is written.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// closed is an address where nobody listens.
var closed = netip.MustParseAddrPort("127.0.0.1:1")

func addrOf(s *httptest.Server) netip.AddrPort {
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}
