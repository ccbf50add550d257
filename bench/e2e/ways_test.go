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
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
)

// way is a network that lets out little, and how an attendee's browser gets
// through it.
type way struct {
	name  string
	holes []netlab.Hole // what its firewall lets out
	node  string        // the attendee's
	query string        // of the page
	launch
	// What carries the media, as the browser's statistics say. Where it may be one
	// of two, the browser takes what comes first.
	want  []string
	media int // the hole that the media goes through
	after func(t *testing.T)
}

// Ways as carrier names them.
const (
	direct  = "udp"
	iceTCP  = "tcp"
	turnUDP = "TURN over udp"
	turnTLS = "TURN over tls"
)

// carrier names the way that carries an attendee's media.
func (p *tab) carrier() string {
	local := p.stats().CandidatePair.Local
	if local.RelayProtocol != "" {
		return "TURN over " + local.RelayProtocol
	}
	return local.Protocol
}

// comesOver waits until an attendee's media comes over one of some ways, and returns which.
func (p *tab) comesOver(want ...string) (way string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%s uses one of %v", p.name, want), 4*time.Second, func() bool {
		if now := p.carrier(); now != way {
			way = now
			p.t.Logf("%s uses %s", p.name, way)
		}
		return slices.Contains(want, way)
	})
	return way
}

// servers is JavaScript that has the browser use other TURN servers than it is told:
// what becomes of the list s.
func servers(s string) string {
	return `
	const Real = window.RTCPeerConnection
	const change = (s) => ` + s + `
	window.RTCPeerConnection = class extends Real {
		constructor(c = {}) { super({ ...c, iceServers: change(c.iceServers ?? []) }) }
		setConfiguration(c) { super.setConfiguration({ ...c, iceServers: change(c.iceServers ?? []) }) }
	}`
}

var (
	noTURN = servers(`[]`)
	// TURN over UDP is served, but no browser is told of it where it need not
	// relay: Chromium takes every packet from a TURN server's address for the
	// server's own, and would never use UDP directly to the same port.
	overUDP = servers(`s.map(one => ({ ...one, urls: "turn:" + location.hostname + ":443?transport=udp" }))`)
)

// TestPageOverUDP443 opens the page where nothing but UDP 443 is let out: it comes
// over HTTP/3. A browser that has been to the node by TCP learns of HTTP/3 from
// Alt-Svc; this one is told beforehand. It gets no further: see TestWaysIn.
func TestPageOverUDP443(t *testing.T) {
	lab := parallelLab(t, netlab.New)
	m := startProduction(t, lab.Host, productionNode{Name: "gate", Country: "DE", Roles: "origin,edge", HTTPS: 443, Port: 443})
	node := netip.AddrPortFrom(lab.Host, 443)
	lab.Firewall(t, netlab.UDP(node))
	p := startBrowsers(t, lab.Name).openWith("inside", m.node("gate").Page, launch{without: []string{"--disable-quic"}, flags: []string{
		"--enable-quic", "--origin-to-force-quic-on=" + node.String(), trust(t, m, "gate")}})
	p.until("shows where to type one's name", 10*time.Second, `return !!document.querySelector("input")`)
	var protocols []string
	p.must(`return performance.getEntries().filter(e => e.nextHopProtocol !== undefined).map(e => e.nextHopProtocol)`, &protocols)
	if len(protocols) < 2 || slices.ContainsFunc(protocols, func(s string) bool { return s != "h3" }) {
		t.Errorf("the page and its parts came over %q, want h3", protocols)
	}
	if seen := lab.Seen(t); seen.Passed[0].In < 50_000 || seen.In > 0 {
		t.Errorf("seen: %+v", seen)
	}
}

// TestWaysIn has an attendee behind a firewall meet another one, who has an open
// network and uses UDP: pictures, sound, chat and a shared screen, through port
// 443 of one address (R18). The firewall is another one each time; its counters,
// a capture of everything that passed it and the browser's statistics say which
// way was used, and that nothing else got out.
//
// Where only UDP 443 is open to the node, signalling takes the HTTP proxy of the
// case before: browsers speak no WebSocket over HTTP/3 (Chromium has RFC 9220 behind
// a switch that is off), so that there always has to be one way for TCP. The page
// itself comes over HTTP/3 there: TestPageOverUDP443.
func TestWaysIn(t *testing.T) {
	lab := parallelLab(t, netlab.NewDual)
	m := startProduction(t, lab.Host,
		productionNode{Name: "gate", Country: "DE", Roles: "origin,edge", HTTPS: 443, Port: 443},
		productionNode{Name: "six", Country: "PL", Roles: "edge", HTTPS: 443, Port: 443, Mesh: 8444, At: lab.Host6})
	p := startProxy(t, lab.Host, netip.AddrPortFrom(lab.Host, 443))
	outside := startBrowsers(t, "").open("outside", m.page("gate", "ways", "outside"))
	inside := startBrowsers(t, lab.Name)
	for _, w := range networks(m, lab, p) {
		t.Run(w.name, func(t *testing.T) { w.meet(t, m, lab, inside.in(t), outside.in(t)) })
	}
}

func networks(m *mesh, lab *netlab.Lab, p *proxy) []way {
	gate, six := netip.AddrPortFrom(lab.Host, 443), netip.AddrPortFrom(lab.Host6, 443)
	inspected := netlab.Hole{Network: "tcp", To: gate, OnlyTLS: true}
	proxied := "--proxy-server=http://" + p.addr().String()
	return []way{
		{name: "TCP 443", holes: []netlab.Hole{netlab.TCP(gate)}, want: []string{iceTCP, turnTLS}},
		{name: "TCP 443, no TURN", holes: []netlab.Hole{netlab.TCP(gate)}, launch: launch{first: noTURN}, want: []string{iceTCP}},
		{name: "TCP 443, nothing but TLS", holes: []netlab.Hole{inspected}, want: []string{turnTLS}},
		{name: "HTTP proxy", holes: []netlab.Hole{netlab.TCP(p.addr())}, launch: launch{flags: []string{proxied}}, want: []string{turnTLS},
			after: func(t *testing.T) { t.Log("proxy: ", p.said()) }},
		{name: "UDP 443, signalling through the proxy", holes: []netlab.Hole{netlab.UDP(gate), netlab.TCP(p.addr())},
			launch: launch{flags: []string{proxied}}, want: []string{direct}},
		{name: "TURN over UDP 443", holes: []netlab.Hole{netlab.UDP(gate), netlab.TCP(gate)}, query: "relay=1",
			launch: launch{first: overUDP}, want: []string{turnUDP}},
		{name: "IPv6, UDP 443", node: "six", holes: []netlab.Hole{netlab.UDP(six), netlab.TCP(six)}, want: []string{direct}},
		{name: "IPv6, TCP 443, nothing but TLS", node: "six", holes: []netlab.Hole{{Network: "tcp", To: six, OnlyTLS: true}}, want: []string{turnTLS}},
	}
}

// meet has an attendee come through the firewall, meet the other one, and leave.
func (w way) meet(t *testing.T, m *mesh, lab *netlab.Lab, b *browsers, outside *tab) {
	if w.node == "" {
		w.node = "gate"
	}
	lab.Firewall(t, w.holes...)
	wire := startCapture(t, interfaceOf(t, lab.Host), "ip host "+lab.Inside.String()+" or ip6 host "+lab.Inside6.String())
	w.flags = append(slices.Clone(w.flags), trust(t, m, w.node),
		"--auto-select-desktop-capture-source=Entire screen", "--auto-accept-this-tab-capture")
	began := time.Now()
	inside := b.openWith("inside", m.page(w.node, "ways", "inside", w.query), w.launch)
	for _, p := range []*tab{inside, outside} {
		p.until("sees and hears the other", 40*time.Second, fmt.Sprintf(sees, 1))
	}
	met := time.Since(began)
	shareAndChat(t, inside, outside)
	// A browser whose best way came late has begun by another one, and changes.
	way := inside.comesOver(w.want...)
	outside.comesOver(direct)
	inside.close()
	outside.until("sees the other leave", 10*time.Second, `return window.__domicile.room.remoteParticipants.size === 0`)
	seen := lab.Seen(t)
	if passed := seen.Passed[w.media]; passed.In < 50_000 || passed.Out < 50_000 {
		t.Errorf("through %+v passed %+v, want a meeting's worth", w.holes[w.media], passed)
	}
	if w.after != nil {
		w.after(t)
	}
	// What came out; of what was on its way in the firewall let nothing else in.
	const neighbours = 58 // ICMPv6: who has which address
	for _, p := range wire.stop() {
		through := slices.ContainsFunc(w.holes, func(h netlab.Hole) bool { return p.through(h) })
		if out := p.src.Addr() == lab.Inside || p.src.Addr() == lab.Inside6; out && !through && p.protocol != neighbours {
			t.Errorf("protocol %d from %s to %s passed the firewall", p.protocol, p.src, p.dst)
			break
		}
	}
	t.Logf("met over %s after %s; seen: %+v", way, met.Round(10*time.Millisecond), seen)
}

// through says whether a packet is on its way out through a hole.
func (p packet) through(h netlab.Hole) bool {
	protocol := map[string]byte{"tcp": 6, "udp": 17}[h.Network]
	return p.protocol == protocol && p.dst == h.To
}

// shareAndChat has one attendee show a screen to the other, and both write.
func shareAndChat(t *testing.T, one, other *tab) {
	t.Helper()
	one.must(`await window.__domicile.room.localParticipant.setScreenShareEnabled(true)`, nil)
	other.until("sees the screen", 20*time.Second, `
		const frames = async () => (await window.__domicile.stats()).participants[0]?.screen?.framesDecoded ?? 0
		const before = await frames()
		await new Promise(r => setTimeout(r, 300))
		return before > 0 && await frames() > before`)
	for _, p := range []struct{ from, to *tab }{{one, other}, {other, one}} {
		text := fmt.Sprintf("%s to %s in %s", p.from.name, p.to.name, t.Name())
		p.from.must(fmt.Sprintf(`await window.__domicile.sendChat(%q)`, text), nil)
		p.to.until("reads the other's line", 10*time.Second,
			fmt.Sprintf(`return window.__domicile.chat.some(l => l.text === %q)`, text))
	}
}

// said tells what the proxy did.
func (p *proxy) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d tunnels, closed for not speaking TLS: %d; refused: %v", p.tunnels, p.notTLS, p.refused)
}

// trust is the flag with which Chromium trusts a node's certificate, for TURN and
// QUIC too. It names the public key.
func trust(t *testing.T, m *mesh, node string) string {
	t.Helper()
	path := filepath.Join(m.node(node).dir(), "tls.pem")
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
	return "--ignore-certificate-errors-spki-list=" + base64.StdEncoding.EncodeToString(sum[:])
}
