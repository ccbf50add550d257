package node

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/whereabouts"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/geo"
)

// unbelieved is the test's bundle without the override for one node.
func unbelieved(epoch residency.Epoch, name residency.NodeName) *residency.Bundle {
	b := testBundle(epoch)
	b.Overrides = slices.DeleteFunc(b.Overrides, func(o residency.Override) bool { return o.Node == name })
	return b
}

// TestQuarantine has three nodes on one machine, one of them in the US by its
// certificate: light cannot be that fast. As long as the operator vouches for
// it, it serves; then it gets nothing within a second, and everybody is told why.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, nyc, "town", "eve", nil)
	eve.hears(camera)
	eventually(t, "fra finds nyc too near, and believes it", func() bool {
		d := doubtOf(fra, "nyc")
		return d != nil && d.Ground == whereabouts.GroundRTT && !d.Quarantined && strings.Contains(d.Reason, "light takes")
	})
	eve.hears(camera)

	m.adopt(unbelieved(2, "nyc"))
	promptly(t, time.Second, "fra serves nothing to nyc", func() bool { return !serves(fra, nyc) })
	still, stopped := fra.media("nyc"), time.Now()
	eventually(t, "the log of waw says so", func() bool { return strings.Contains(m.node("waw").log.String(), "a node is in quarantine") })
	within(t, patience, "a second has passed", func() bool { return time.Since(stopped) > time.Second })
	if n := fra.media("nyc"); n != still {
		t.Errorf("%d packets went on to nyc", n-still)
	}
	if d := doubtOf(fra, "nyc"); d == nil || !d.Quarantined || d.Override != nil {
		t.Errorf("fra has of nyc: %+v", d)
	}
	p := fra.place(room.Record{Name: "town"}, router.Attendee{Country: "US", Known: true}, seat{})
	i := slices.IndexFunc(p.Ranked, func(r router.Ranked) bool { return r.Node == "nyc" })
	if r := p.Ranked[i]; r.Allowed || r.Rule != residency.RuleQuarantine || !strings.Contains(r.Reason, "not believed to be in US") {
		t.Errorf("fra explains: %+v", r)
	}
	if got := scrape(fra); !strings.Contains(got, `domicile_mesh_contradicted{ground="round-trip",quarantined="true"} 1`) {
		t.Errorf("metrics:\n%s", got)
	}
	status, text := refusedJoin(t, nyc, "other", "mallory", nil)
	if status == http.StatusOK || !strings.Contains(text, "not believed to be in US") {
		t.Errorf("a join through nyc: %d %q", status, text)
	}

	m.adopt(testBundle(3))
	m.converge()
	late := enter(t, nyc, "town", "late", nil)
	late.hears(camera)
}

// TestQuarantineWhileMediaFlows: nothing in the policies changes; the node is
// found out while it is being served.
func TestQuarantineWhileMediaFlows(t *testing.T) {
	m := newMesh(t, unbelieved(1, "nyc"), "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	eventually(t, "fra finds out", func() bool { return fra.contradiction("nyc") != "" })
	promptly(t, time.Second, "fra serves nothing to nyc", func() bool { return !serves(fra, nyc) })
	bob := enter(t, fra, "town", "bob", nil)
	bob.publish("camera", livekit.TrackType_VIDEO)
	bob.negotiate()
	if status, text := refusedJoin(t, nyc, "town", "eve", nil); status != http.StatusForbidden || !strings.Contains(text, "not believed to be in US") {
		t.Errorf("%d %q", status, text)
	}
	if n := fra.media("nyc"); n != 0 {
		t.Errorf("%d packets went to nyc", n)
	}
}

func doubtOf(n *testNode, of residency.NodeName) *DoubtState {
	for _, d := range n.state().Doubted {
		if d.Node == of {
			return &d
		}
	}
	return nil
}

func scrape(n *testNode) string {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{n.Node})
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	var b bytes.Buffer
	b.ReadFrom(w.Body)
	return b.String()
}

// TestDatabasesThatAreNoEvidence: a GeoIP database that is missing, broken, cut
// or old contradicts nobody, and says so (A17).
func TestDatabasesThatAreNoEvidence(t *testing.T) {
	london, unknown := netip.MustParseAddr("81.2.69.142"), netip.MustParseAddr("9.9.9.9")
	whole, err := os.ReadFile("../router/geo/testdata/GeoIP2-City-Test.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "geo.mmdb")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	noise := bytes.Clone(whole)
	for i := range 4000 {
		noise[i] ^= byte(i * 31)
	}
	built := func(path string) time.Time {
		db, err := geo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().AddDate(-30, 0, 0) // the test databases are some years old
		for db.Warning(at.AddDate(0, 0, 30)) == "" && at.Before(time.Now()) {
			at = at.AddDate(0, 0, 30)
		}
		return at
	}
	fresh := built(write(whole))
	for _, c := range []struct {
		name string
		path string
		now  time.Time
		addr netip.Addr
		want residency.Country
	}{
		{"whole and new", write(whole), fresh, london, "GB"}, // the control
		{"an address that it does not know", write(whole), fresh, unknown, ""},
		{"no address", write(whole), fresh, netip.Addr{}, ""},
		{"stale", write(whole), fresh.AddDate(30, 0, 0), london, ""},
		{"cut", write(whole[:len(whole)-200]), fresh, london, ""},
		{"corrupt", write(noise), fresh, london, ""},
		{"its tree is wrong", "../router/geo/testdata/GeoIP2-City-Test-Invalid-Node-Count.mmdb", fresh, london, ""},
		{"missing", filepath.Join(t.TempDir(), "none.mmdb"), fresh, london, ""},
		{"none", "", fresh, london, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &Node{now: func() time.Time { return c.now }}
			n.geo, _ = geo.Open(c.path)
			if got := n.countryOf(c.addr); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if warned := n.geo.Warning(c.now) != ""; warned != (c.want == "" && c.addr == london) {
				t.Errorf("it warns of %q", n.geo.Warning(c.now))
			}
		})
	}
}

// TestFalseSuspicion: somebody who holds the gossip key has a node declared dead,
// again and again. The link to it is up, so the meeting goes on (A13).
func TestFalseSuspicion(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, waw, "town", "eve", nil)
	eve.hears(camera)
	link := fra.link("waw")
	for i := range uint32(20) {
		declareDead(t, fra.cfg.Listen.Gossip, "waw", 1000+1000*i)
		if _, _, ok := fra.peer("waw"); !ok {
			t.Fatal("fra has forgotten waw")
		}
		eve.hears(camera)
	}
	if fra.link("waw") != link || !serves(fra, waw) {
		t.Error("the link was given up")
	}
}

// declareDead says in gossip that a node is dead: memberlist's message 5, in its
// encryption of version 1.
func declareDead(t *testing.T, to netip.AddrPort, node string, incarnation uint32) {
	t.Helper()
	word := func(s string) []byte { return append([]byte{0xa0 | byte(len(s))}, s...) }
	plain := slices.Concat([]byte{5, 0x83}, word("Incarnation"), binary.BigEndian.AppendUint32([]byte{0xce}, incarnation),
		word("Node"), word(node), word("From"), word("nyc"))
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, 32)) // the test mesh's key
	if err != nil {
		t.Fatal(err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, seal.NonceSize())
	rand.Read(nonce)
	conn, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(seal.Seal(append([]byte{1}, nonce...), nonce, plain, nil)); err != nil {
		t.Fatal(err)
	}
}
