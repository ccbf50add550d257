package identity

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

const testALPN = "domicile-test"

func (h holder) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{h.der}, PrivateKey: h.key}
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// handshake connects the two over loopback and returns what each saw.
func handshake(t *testing.T, server, client *tls.Config) (s, c tls.ConnectionState, errServer, errClient error) {
	t.Helper()
	a, b := connected(t)
	srv, cli := tls.Server(a, server), tls.Client(b, client)
	done := make(chan struct{})
	go func() {
		defer close(done)
		errServer = srv.Handshake()
		s = srv.ConnectionState()
		_ = a.Close()
	}()
	errClient = cli.Handshake()
	c = cli.ConnectionState()
	if errClient == nil {
		// A client is done before the server has judged its certificate; read on
		// so that the server's alert finds a reader.
		_, _ = io.Copy(io.Discard, cli)
	}
	_ = b.Close()
	<-done
	return s, c, errServer, errClient
}

// connected returns the two ends of a TCP connection; an in-memory pipe has no
// buffer, so two alerts that cross would wait for each other.
func connected(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if b, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if a, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestTLS(t *testing.T) {
	ca := testCA(t)
	waw := fra()
	waw.Name, waw.Country = "waw", "PL"
	server, _ := TLS(Fixed(issue(t, ca, fra()).pair()), ca.Pool(), testALPN, at(start))
	_, client := TLS(Fixed(issue(t, ca, waw).pair()), ca.Pool(), testALPN, at(start))
	s, c, errServer, errClient := handshake(t, server, Expecting(client, "fra"))
	if errServer != nil || errClient != nil {
		t.Fatalf("server: %v, client: %v", errServer, errClient)
	}
	if s.Version != tls.VersionTLS13 || s.DidResume || c.DidResume {
		t.Errorf("got %x, resumed %v", s.Version, s.DidResume)
	}
	for _, e := range []struct {
		cs   tls.ConnectionState
		want residency.NodeName
	}{{s, "waw"}, {c, "fra"}} {
		if n, err := PeerNode(e.cs); err != nil || n.Name != e.want {
			t.Errorf("peer: got %+v, %v, want %s", n, err, e.want)
		}
	}
}

func TestTLSRefuses(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	mine, foreign := issue(t, ca, fra()), issue(t, other, fra())
	webKey := testKey(t)
	web, err := ca.IssueServer(webKey.Public(), SANs{DNS: []string{"x"}}, start, start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	browser := holder{key: webKey, der: web}
	roots := func(ca *CA) *x509.CertPool { return ca.Pool() }
	type side struct {
		h     holder
		roots *x509.CertPool
		now   time.Time
		alpn  string
	}
	good := side{mine, roots(ca), start, testALPN}
	with := func(change func(*side)) side {
		s := good
		change(&s)
		return s
	}
	for _, c := range []struct {
		name           string
		server, client side
		change         func(server, client *tls.Config)
		byClient       string // what the client says, if it is the one to refuse
		byServer       string
	}{
		{name: "client of another CA", server: good, client: with(func(s *side) { s.h = foreign }), byServer: "unknown authority"},
		{name: "server of another CA", server: with(func(s *side) { s.h = foreign }), client: good, byClient: "unknown authority"},
		{name: "client with a web certificate", server: good, client: with(func(s *side) { s.h = browser }), byServer: "extended key usages"},
		{name: "server with a web certificate", server: with(func(s *side) { s.h = browser }), client: good, byClient: "extended key usages"},
		{name: "client's certificate has expired for the server", server: with(func(s *side) { s.now = start.Add(25 * time.Hour) }), client: good, byServer: "expired"},
		{name: "server's certificate has expired for the client", server: good, client: with(func(s *side) { s.now = start.Add(25 * time.Hour) }), byClient: "expired"},
		{name: "client without a certificate", server: good, client: good, byServer: "didn't provide a certificate",
			change: func(_, c *tls.Config) { c.GetClientCertificate = nil }},
		{name: "client of TLS 1.2", server: good, client: good, byServer: "unsupported versions",
			change: func(_, c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		{name: "another protocol", server: good, client: with(func(s *side) { s.alpn = "h3" }), byServer: "unsupported application protocols"},
		{name: "no protocol", server: good, client: good, byClient: `protocol "": want "domicile-test"`,
			change: func(_, c *tls.Config) { c.NextProtos = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, _ := TLS(Fixed(c.server.h.pair()), c.server.roots, c.server.alpn, at(c.server.now))
			_, client := TLS(Fixed(c.client.h.pair()), c.client.roots, c.client.alpn, at(c.client.now))
			if c.change != nil {
				c.change(server, client)
			}
			_, _, errServer, errClient := handshake(t, server, client)
			if c.byServer != "" {
				wantError(t, errServer, c.byServer)
			}
			if c.byClient != "" {
				wantError(t, errClient, c.byClient)
			}
		})
	}
}

func TestExpecting(t *testing.T) {
	ca := testCA(t)
	server, client := TLS(Fixed(issue(t, ca, fra()).pair()), ca.Pool(), testALPN, at(start))
	_, _, _, err := handshake(t, server, Expecting(client, "waw"))
	wantError(t, err, `node "fra" answers where node "waw" was expected`)
}

func TestPeerNodeWithoutCertificate(t *testing.T) {
	_, err := PeerNode(tls.ConnectionState{})
	wantError(t, err, "it showed no certificate")
}
