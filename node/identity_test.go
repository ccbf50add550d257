package node

import (
	"crypto"
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// another issues one more certificate to a node, changed by change.
func (m *testMesh) another(n *testNode, from, to time.Time, change func(*residency.Node)) tls.Certificate {
	m.t.Helper()
	key, err := identity.GenerateKey()
	if err != nil {
		m.t.Fatal(err)
	}
	node := n.self()
	if change != nil {
		change(&node)
	}
	der, err := m.ca.Issue(key.Public(), node, identity.SANs{}, from, to)
	if err != nil {
		m.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// fresh is a certificate that is valid for an hour from now.
func (m *testMesh) fresh(n *testNode) tls.Certificate {
	return m.another(n, time.Now().Add(-time.Minute), time.Now().Add(time.Hour), nil)
}

// startBy starts a node that reads a clock.
func (m *testMesh) startBy(clock *testClock, place string) *testNode {
	m.t.Helper()
	cfg := m.config(place)
	cfg.Now = clock.now
	return m.start(cfg)
}

// shorten gives a node a certificate that ends in a minute and returns when: enough
// for what comes before on a crowded machine, and what a claim may be behind the
// clock of its reader.
func (m *testMesh) shorten(n *testNode, now time.Time) (end time.Time) {
	m.t.Helper()
	end = now.Add(time.Minute).Truncate(time.Second)
	if err := n.Renew(m.another(n, end.Add(-time.Hour), end, nil)); err != nil {
		m.t.Fatal(err)
	}
	return end
}

// testClock is the time of day, moved on by advance.
type testClock struct{ ahead atomic.Int64 }

func (c *testClock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *testClock) advance(to time.Time) { c.ahead.Add(int64(to.Sub(c.now()))) }

// judged waits until a node judges another, on their link and by what gossip says,
// by its present certificate.
func judged(t *testing.T, by, other *testNode, limit time.Duration) {
	t.Helper()
	of := other.self()
	within(t, limit, "the link is judged by the new certificate", func() bool {
		l := by.link(of.Name)
		return l != nil && l.Peer().Serial == of.Serial
	})
	within(t, limit, "gossip has brought the new certificate", func() bool {
		known, _, _ := by.peer(of.Name)
		return known.Serial == of.Serial
	})
}

// settles waits for two seconds of media: rooms look once in half a second whether
// the permits that they send by may be renewed.
func (c *client) settles(camera string) {
	c.t.Helper()
	for seen := c.packets(camera); c.packets(camera) < seen+100; {
		c.hears(camera)
	}
}

// TestRenewalDuringACall renews the certificates of both nodes of a call before
// they end, and lets the first ones end. The link stays, and nothing is lost.
func TestRenewalDuringACall(t *testing.T) {
	m := newMesh(t, testBundle(1))
	clock := &testClock{}
	fra, waw := m.startBy(clock, "fra DE origin"), m.startBy(clock, "waw PL")
	m.converge()
	bob := enter(t, fra, "town", "bob", nil)
	camera, voice := bob.publish("camera", livekit.TrackType_VIDEO), bob.publish("voice", livekit.TrackType_AUDIO)
	eve := enter(t, waw, "town", "eve", nil)
	eve.hears(camera)
	eve.hears(voice)
	steady(t, func() string { return m.renewed(clock, eve, map[string]string{"camera": camera, "voice": voice}) })
}

// renewed renews the certificates of fra and waw, has their first ones end, and says
// what somebody at waw has noticed.
func (m *testMesh) renewed(clock *testClock, eve *client, tracks map[string]string) (wrong string) {
	t, fra, waw := m.t, m.node("fra"), m.node("waw")
	t.Helper()
	start := clock.now()
	m.shorten(fra, start)
	end := m.shorten(waw, start)
	judged(t, waw, fra, end.Sub(clock.now()))
	judged(t, fra, waw, end.Sub(clock.now()))
	eve.settles(tracks["camera"])
	link, serials := waw.link("fra"), []string{fra.self().Serial, waw.self().Serial}
	for _, sid := range tracks {
		eve.flow(sid).since()
	}
	for _, n := range []*testNode{fra, waw} {
		if err := n.Renew(m.fresh(n)); err != nil {
			t.Fatal(err)
		}
	}
	for i, pair := range [][2]*testNode{{waw, fra}, {fra, waw}} {
		of := pair[1].self()
		judged(t, pair[0], pair[1], end.Sub(clock.now()))
		if of.Serial == serials[i] {
			t.Error("the serial number is the old one")
		}
	}
	eve.settles(tracks["camera"])
	clock.advance(end.Add(time.Second))
	for _, sid := range tracks {
		eve.hears(sid)
	}
	if waw.link("fra") != link {
		t.Error("there is another link")
	}
	for what, sid := range tracks {
		missing, pause := eve.flow(sid).since()
		t.Logf("%s: %d packets missing, longest pause %s", what, missing, pause.Round(time.Millisecond))
		// What waits in the relay when the clock jumps looks a minute old and is
		// dropped. A permit that has ended costs half a second of media or all.
		if missing > 20 || pause > 2*time.Second {
			wrong = what + " was interrupted"
		}
	}
	return wrong
}

// TestCertificateEndsDuringACall is the control: without a renewal the media stops when the certificate ends, and comes back when it is renewed after all.
func TestCertificateEndsDuringACall(t *testing.T) {
	m := newMesh(t, testBundle(1))
	clock := &testClock{}
	fra, waw := m.startBy(clock, "fra DE origin"), m.startBy(clock, "waw PL")
	m.converge()
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, waw, "town", "eve", nil)
	eve.hears(camera)
	end := m.shorten(waw, clock.now())
	judged(t, fra, waw, end.Sub(clock.now()))
	clock.advance(end)
	promptly(t, time.Second, "the link ends", func() bool { return fra.link("waw") == nil })
	promptly(t, 3*time.Second, "waw knows it", func() bool { return waw.state().Identity.Stage == identity.StageEnded })
	eve.await("is sent away", func() bool { return eve.leave != nil })
	if status, text := refusedJoin(t, waw, "town", "eve", nil); status == 200 {
		t.Errorf("waw serves on: %d %q", status, text)
	}
	promptly(t, 3*time.Second, "waw says so", func() bool { return strings.Contains(waw.log.String(), "certificate has ended") })
	if err := waw.Renew(m.fresh(waw)); err != nil {
		t.Fatal(err)
	}
	m.converge()
	judged(t, fra, waw, patience) // gossip may be behind the link
	again := enter(t, waw, "town", "again", nil)
	again.hears(camera)
}

// TestRevocation stops everything towards a node within a second of the bundle
// that revokes its certificate.
func TestRevocation(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, waw, "town", "eve", nil)
	eve.hears(camera)
	b := testBundle(2)
	b.Revoked = []string{waw.self().Serial}
	link := fra.link("waw")
	start := time.Now()
	fra.setBundle(b)
	promptly(t, time.Second, "the link ends", func() bool { return fra.link("waw") == nil })
	t.Logf("link ended after %s", time.Since(start).Round(time.Millisecond))
	<-link.Done()
	last := eve.packets(camera)
	sent := link.Stats().TxPackets
	within(t, patience, "a second has passed", func() bool { return time.Since(start) > time.Second })
	if n := eve.packets(camera) - last; n > 20 {
		t.Errorf("%d packets came after the link had ended", n)
	}
	if n := link.Stats().TxPackets - sent; n != 0 || fra.link("waw") != nil {
		t.Errorf("%d packets left after the end, link %v", n, fra.link("waw"))
	}
	if strings.Contains(waw.log.String(), "is revoked") {
		t.Error("waw knows before it was told")
	}

	waw.setBundle(b)
	eve.await("is sent away", func() bool { return eve.leave != nil })
	promptly(t, 3*time.Second, "waw says so", func() bool { return strings.Contains(waw.log.String(), "certificate is revoked") })
	if s := waw.state().Identity; !s.Revoked {
		t.Errorf("state: %+v", s)
	}
	if status, text := refusedJoin(t, waw, "town", "eve", nil); status != 403 || !strings.Contains(text, "revoked") {
		t.Errorf("waw serves on: %d %q", status, text)
	}

	// Another certificate brings it back: what is revoked is a serial number.
	if err := waw.Renew(m.fresh(waw)); err != nil {
		t.Fatal(err)
	}
	m.converge()
	judged(t, fra, waw, patience) // gossip may be behind the link
	again := enter(t, waw, "town", "again", nil)
	again.hears(camera)
}

// TestRenewRefuses has files offer what may not take a node's place.
func TestRenewRefuses(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	fra := m.node("fra")
	now := time.Now()
	revoked := m.fresh(fra)
	_, node, err := identity.Verify(revoked.Certificate[0], m.ca.Pool(), now)
	if err != nil {
		t.Fatal(err)
	}
	b := testBundle(2)
	b.Revoked = []string{node.Serial}
	fra.setBundle(b)
	foreign, err := identity.CreateCA(t.TempDir(), "another CA", now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	stranger := (&testMesh{t: t, ca: foreign}).fresh(fra)
	change := func(f func(*residency.Node)) tls.Certificate {
		return m.another(fra, now.Add(-time.Minute), now.Add(time.Hour), f)
	}
	before := fra.self()
	for what, c := range map[string]struct {
		pair tls.Certificate
		want string
	}{
		"another country":  {change(func(n *residency.Node) { n.Country = "US" }), `the country is "US" now and was "DE"`},
		"another name":     {change(func(n *residency.Node) { n.Name = "waw" }), `the name is "waw"`},
		"another operator": {change(func(n *residency.Node) { n.Operator = "Other" }), `the operator is "Other"`},
		"another parent":   {change(func(n *residency.Node) { n.ParentCountry = "US" }), `the parent country is "US"`},
		"other roles":      {change(func(n *residency.Node) { n.Roles = n.Roles[1:] }), `the roles is "edge"`},
		"ended":            {m.another(fra, now.Add(-time.Hour), now.Add(-time.Minute), nil), "expired"},
		"not yet valid":    {m.another(fra, now.Add(time.Minute), now.Add(time.Hour), nil), "not yet valid"},
		"another CA":       {stranger, "unknown authority"},
		"revoked":          {revoked, "revoke certificate"},
		"nothing":          {tls.Certificate{}, "there is none"},
	} {
		if err := fra.Renew(c.pair); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
	}
	if after := fra.self(); after.Serial != before.Serial || !slices.Equal(after.Roles, before.Roles) {
		t.Errorf("the node is %+v", after)
	}
}

// TestIdentityFilesAreFollowed renews by way of the files, after a try that is refused.
func TestIdentityFilesAreFollowed(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1))
	dir := t.TempDir()
	cfg := m.config("fra DE origin")
	cfg.IdentityFiles = IdentityFiles{Certificate: filepath.Join(dir, "fra.pem"), Key: filepath.Join(dir, "fra-key.pem")}
	put := func(pair tls.Certificate) {
		t.Helper()
		next := t.TempDir()
		cert, key := filepath.Join(next, "c"), filepath.Join(next, "k")
		if err := identity.WriteCertificates(cert, pair.Certificate[0]); err != nil {
			t.Fatal(err)
		}
		if err := identity.WriteKey(key, pair.PrivateKey.(crypto.Signer)); err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{key: cfg.IdentityFiles.Key, cert: cfg.IdentityFiles.Certificate} {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(cfg.Certificate)
	fra := m.start(cfg)
	first := fra.self().Serial
	put(m.another(fra, time.Now().Add(-time.Minute), time.Now().Add(time.Hour), func(n *residency.Node) { n.Country = "FR" }))
	eventually(t, "the refusal is shown", func() bool { return strings.Contains(fra.state().Identity.Problem, "country") })
	if fra.self().Serial != first || !strings.Contains(fra.log.String(), "takes a restart") {
		t.Error("another country is taken over, or it is not said what to do")
	}
	put(m.fresh(fra))
	eventually(t, "the renewed certificate is in use", func() bool { return fra.self().Serial != first })
	eventually(t, "nothing is wrong any more", func() bool { s := fra.state().Identity; return s.Problem == "" && s.Renewals == 1 })
}
