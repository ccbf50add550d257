package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
)

// TestOnlyTCP443 has an attendee meet another one from a network that lets out
// nothing but TCP to port 443 of one address (R18). The media of the two
// crosses a link between nodes as well: they are on different ones.
func TestOnlyTCP443(t *testing.T) {
	lab := netlab.New(t)
	m := startProduction(t, lab.Host,
		productionNode{Name: "gate", Country: "DE", Roles: "origin,edge", HTTPS: 443, Port: 7882},
		productionNode{Name: "other", Country: "PL", Roles: "edge", HTTPS: 8443, Port: 7892})
	lab.Firewall(t, netip.AddrPortFrom(lab.Host, 443))
	veth := startCapture(t, interfaceOf(t, lab.Host), "ip host "+lab.Inside.String())

	outside := startBrowsers(t, "").open("outside", m.page("other", "behind", "outside"))
	trust := "--ignore-certificate-errors-spki-list=" + spki(t, filepath.Join(m.node("gate").dir(), "tls.pem"))
	inside := startBrowsers(t, lab.Name).open("inside", m.page("gate", "behind", "inside"), trust)
	for _, p := range []*tab{inside, outside} {
		p.until("sees and hears the other", 40*time.Second, fmt.Sprintf(sees, 1))
	}
	if pair := inside.stats().CandidatePair; pair.RelayProtocol != "tls" {
		t.Errorf("the attendee behind the firewall uses %+v, want TURN over TLS", pair)
	}
	if pair := outside.stats().CandidatePair; pair.RelayProtocol != "" || pair.Protocol != "udp" {
		t.Errorf("the other attendee uses %+v, want UDP", pair)
	}
	dropped := lab.Dropped(t)
	if dropped.UDP == 0 {
		t.Error("the firewall dropped no UDP: nothing was tried, or it let it pass")
	}
	count, bytes := 0, 0
	for _, p := range veth.stop() {
		if p.protocol != 6 || p.src != netip.AddrPortFrom(lab.Host, 443) && p.dst != netip.AddrPortFrom(lab.Host, 443) {
			t.Errorf("protocol %d from %s to %s passed the firewall", p.protocol, p.src, p.dst)
		}
		count, bytes = count+1, bytes+p.size
	}
	if bytes < 200_000 {
		t.Errorf("%d bytes on the way in and out, want a meeting's worth", bytes)
	}
	t.Logf("%d packets, %d bytes over TCP 443; dropped: %+v", count, bytes, dropped)
}

// spki is how Chromium names a public key that it is to trust.
func spki(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("%s: no PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
