package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
	"github.com/domicile/domicile/residency/identity"
)

// sign makes a bundle as this test's opener reads it: the authority's signature is
// the real one, and JSON stands for YAML.
func (m *testMesh) sign(b *residency.Bundle) bundles.Signed {
	m.t.Helper()
	text, err := json.Marshal(b)
	if err != nil {
		m.t.Fatal(err)
	}
	sig, err := m.ca.Sign(text)
	if err != nil {
		m.t.Fatal(err)
	}
	return bundles.Signed{Policy: text, Signature: sig}
}

// open is the opener of the mesh's nodes.
func (m *testMesh) open(s bundles.Signed) (*residency.Bundle, error) {
	if err := identity.VerifySignature(s.Policy, s.Signature, m.ca.Certificate()); err != nil {
		return nil, err
	}
	b := &residency.Bundle{}
	return b, json.Unmarshal(s.Policy, b)
}

// agreed waits until every node decides by the epoch and counts the others as doing so.
func (m *testMesh) agreed(epoch residency.Epoch) {
	m.t.Helper()
	for _, n := range m.nodes {
		for _, o := range m.nodes {
			eventually(m.t, fmt.Sprintf("%s and %s agree on epoch %d", n.cfg.Self.Name, o.cfg.Self.Name, epoch), func() bool {
				_, e, _ := n.peer(o.cfg.Self.Name)
				return n.gate().Epoch() == epoch && e == epoch
			})
		}
	}
}

// longest measures the longest time within which no packet of a track came, until done.
func (c *client) longest(sid string, done <-chan struct{}) time.Duration {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	last, at, worst := c.packets(sid), time.Now(), time.Duration(0)
	for {
		select {
		case now := <-poll.C:
			if n := c.packets(sid); n != last {
				last, at = n, now
			}
			worst = max(worst, now.Sub(at))
		case <-done:
			return worst
		}
	}
}

// TestApply takes a bundle over on one node while people meet: all follow, what is
// allowed flows on over the same tracks, what is not stops.
func TestApply(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "nyc US")
	fra, waw, nyc := m.node("fra"), m.node("waw"), m.node("nyc")
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	voice := bob.publish("voice", livekit.TrackType_AUDIO)
	ann, eve := enter(t, waw, "town", "ann", nil), enter(t, nyc, "town", "eve", nil)
	for _, c := range []*client{ann, eve} {
		c.hears(camera)
		c.hears(voice)
	}

	var inForce bundles.Signed
	epoch := residency.Epoch(1)
	t.Run("nothing changes for those who stay allowed", func(t *testing.T) {
		revoked := func() uint64 {
			return fra.link("waw").Stats().Drops["revoked"] + fra.link("nyc").Stats().Drops["revoked"]
		}
		steady(t, func() string { // a track waits 300 ms for its next permit, halted or not
			before, done := revoked(), make(chan struct{})
			gap := make(chan time.Duration, 1)
			go func() { gap <- ann.longest(camera, done) }()
			for range 4 {
				epoch++
				inForce = m.sign(testBundle(epoch))
				if err := waw.applyBundle(inForce, "waw"); err != nil {
					t.Fatal(err)
				}
				m.agreed(epoch)
			}
			eve.hears(camera)
			ann.hears(voice)
			close(done)
			t.Logf("longest gap: %s", <-gap)
			if n := revoked() - before; n > 0 {
				return fmt.Sprintf("%d packets to waw and nyc were thrown away", n)
			}
			return ""
		})
		ann.sees("bob", "eve")
		eve.sees("bob", "ann")
	})

	t.Run("what is bad changes nothing", func(t *testing.T) {
		foreign := newMesh(t, testBundle(1))
		other := testBundle(epoch)
		other.Default = "eea-only"
		good := m.sign(testBundle(epoch + 1))
		for what, s := range map[string]bundles.Signed{
			"foreign signature":               foreign.sign(testBundle(epoch + 1)),
			"older":                           m.sign(testBundle(epoch - 1)),
			"same epoch with another content": m.sign(other),
			"cut":                             {Policy: good.Policy[:len(good.Policy)-1], Signature: good.Signature},
			"huge":                            {Policy: make([]byte, bundles.MaxPolicy+1), Signature: good.Signature},
			"empty":                           {},
		} {
			if err := fra.applyBundle(s, "nyc"); err == nil {
				t.Errorf("%s: taken over", what)
			}
			if len(s.Policy) == 0 || len(s.Policy) > bundles.MaxPolicy {
				continue
			}
			nyc.policies.mu.Lock()
			delete(nyc.policies.offering, "fra")
			nyc.policies.mu.Unlock()
			nyc.offer("fra", s)
		}
		if e := fra.gate().Epoch(); e != epoch {
			t.Errorf("epoch %d", e)
		}
		if err := fra.applyBundle(m.sign(other), "fra"); !errors.Is(err, bundles.ErrConflict) {
			t.Errorf("other content: %v", err)
		}
		if err := fra.applyBundle(bundles.Signed{Policy: inForce.Policy, Signature: m.sign(testBundle(epoch + 4)).Signature}, "fra"); err != nil {
			t.Errorf("the one in force: %v", err)
		}
		eve.hears(camera)
	})

	t.Run("what is forbidden stops everywhere", func(t *testing.T) {
		start := time.Now()
		if err := waw.applyBundle(m.sign(tightened(epoch+1)), "waw"); err != nil {
			t.Fatal(err)
		}
		promptly(t, time.Second, "fra serves nothing to nyc", func() bool { return !serves(fra, nyc) })
		eve.await("is sent away", func() bool { return eve.leave != nil })
		t.Logf("over after %s", time.Since(start))
		m.agreed(epoch + 1)
		ann.hears(camera)
	})

	t.Run("a node that a bundle excludes refuses everything", func(t *testing.T) {
		b := tightened(epoch + 2)
		b.Nodes = []residency.Registered{{Name: "fra", Country: "DE"}, {Name: "nyc", Country: "US"}}
		if err := fra.applyBundle(m.sign(b), "fra"); err != nil {
			t.Fatal(err)
		}
		ann.await("is sent away", func() bool { return ann.leave != nil })
		if v := waw.gate().Decide(residency.Request{Class: residency.ClassMedia, Peer: fra.self(), PeerEpoch: epoch + 2, Now: time.Now()}); v.Rule != residency.RuleRegister {
			t.Errorf("waw may send: %+v", v)
		}
		status, text := refusedJoin(t, waw, "town", "late", nil)
		if status != 403 {
			t.Errorf("%d %q", status, text)
		}
	})
}

// A node whose disk takes its time, or is full, is not left behind, and writes the bundle
// when it can.
func TestDiskDoesNotHoldPolicies(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	var full, tried atomic.Bool
	full.Store(true)
	begun, written := make(chan bool), make(chan bool)
	p := &fra.policies
	p.keeping.Lock()
	store := p.store
	p.store = func(epoch residency.Epoch, s bundles.Signed) error {
		switch {
		case epoch == 2:
			begun <- true
			<-written
		case full.Load():
			tried.Store(true)
			return errors.New("no room")
		}
		return store(epoch, s)
	}
	p.keeping.Unlock()
	kept := func(epoch residency.Epoch) func() bool {
		return func() bool {
			b, err := fra.policyDir().Newest(m.open)
			return err == nil && b != nil && b.Bundle.Epoch == epoch
		}
	}

	if err := waw.applyBundle(m.sign(testBundle(2)), "waw"); err != nil {
		t.Fatal(err)
	}
	<-begun
	m.agreed(2)
	if err := waw.applyBundle(m.sign(testBundle(3)), "waw"); err != nil {
		t.Fatal(err)
	}
	m.agreed(3)
	if kept(2)() {
		t.Fatal("the test does not hold the disk up")
	}
	close(written)
	eventually(t, "fra has found its disk full", tried.Load)
	full.Store(false)
	eventually(t, "fra has written the bundle after all", kept(3))

	// What is applied on the node itself is refused by a full disk, and nobody hears of it.
	full.Store(true)
	if err := fra.applyBundle(m.sign(testBundle(4)), "fra"); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("applied on a full disk: %v", err)
	}
	if e := waw.gate().Epoch(); e != 3 || fra.gate().Epoch() != 3 {
		t.Errorf("epochs %d and %d", e, fra.gate().Epoch())
	}
}

// Policies that come while the log's disk takes nothing are kept beside the log later, each
// of them, and hold nobody up.
func TestPoliciesOfEvidenceAreKeptLater(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	dir := filepath.Join(fra.evidenceDir(), "policies")
	if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	var signed []bundles.Signed
	for epoch := residency.Epoch(2); epoch <= 4; epoch++ {
		signed = append(signed, m.sign(testBundle(epoch)))
		if err := waw.applyBundle(signed[len(signed)-1], "waw"); err != nil {
			t.Fatal(err)
		}
		m.agreed(epoch)
	}
	eventually(t, "the log says so", func() bool { return strings.Contains(fra.log.String(), "keeping the policies for evidence") })
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	for i, s := range signed {
		epoch := residency.Epoch(i + 2)
		eventually(t, fmt.Sprintf("the policies of epoch %d are kept", epoch), func() bool {
			p, err := fra.testimony.log.Policy(epoch)
			return err == nil && bytes.Equal(p.Text, s.Policy) && bytes.Equal(p.Signature, s.Signature)
		})
	}
}

// A node that was away gets the newest bundle when it comes back, and one that is
// started again has what it had.
func TestBundlesSurvive(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra := m.node("fra")
	m.halt("waw")
	for epoch := residency.Epoch(2); epoch < 12; epoch++ {
		if err := fra.applyBundle(m.sign(testBundle(epoch)), "fra"); err != nil {
			t.Fatal(err)
		}
	}
	m.start(m.config("waw PL"))
	m.agreed(11)

	dir := fra.policyDir()
	kept, err := dir.Newest(m.open)
	if err != nil || kept.Bundle.Epoch != 11 {
		t.Fatalf("%v, %v", kept, err)
	}
	folders, err := os.ReadDir(string(dir))
	if err != nil || len(folders) != 8 {
		t.Errorf("%d folders are kept, %v", len(folders), err)
	}
	for what, spoil := range map[string]func(policy string) error{
		"cut":     func(p string) error { return os.Truncate(p, 10) },
		"missing": func(p string) error { return os.Remove(p) },
	} {
		if err := spoil(filepath.Join(string(dir), fmt.Sprint(kept.Bundle.Epoch), "policy.yaml")); err != nil {
			t.Fatal(err)
		}
		before := kept.Bundle.Epoch
		if kept, err = dir.Newest(m.open); kept == nil || kept.Bundle.Epoch != before-1 || err == nil || !strings.Contains(err.Error(), fmt.Sprintf("epoch %d", before)) {
			t.Fatalf("%s: %v, %v", what, kept, err)
		}
	}
	if err := os.Rename(filepath.Join(string(dir), "9"), filepath.Join(string(dir), "20")); err != nil {
		t.Fatal(err)
	}
	if kept, err = dir.Newest(m.open); kept.Bundle.Epoch != 8 || !strings.Contains(err.Error(), "they state epoch 9") {
		t.Errorf("%v, %v", kept, err)
	}
}

// The policy file is followed; one whose signature does not fit changes nothing.
func TestPolicyFileIsFollowed(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	cfg := m.config("waw PL")
	cfg.Policies.File = filepath.Join(t.TempDir(), "policy.yaml")
	write := func(s bundles.Signed) {
		for path, b := range map[string][]byte{cfg.Policies.File: s.Policy, cfg.Policies.File + ".sig": s.Signature} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(m.sign(testBundle(1)))
	waw := m.start(cfg)
	m.converge()
	second := m.sign(testBundle(2))
	write(bundles.Signed{Policy: second.Policy, Signature: m.sign(testBundle(3)).Signature})
	eventually(t, "the signature is refused", func() bool { return strings.Contains(waw.log.String(), "not taken over") })
	if e := waw.gate().Epoch(); e != 1 {
		t.Errorf("epoch %d", e)
	}
	write(second)
	m.agreed(2)
}

// TestApplyInFlight measures repeated changes in a running meeting: the longest gap
// in a flow that stays allowed, and how long one lasts that is not.
func TestApplyInFlight(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	ann := enter(t, m.node("waw"), "town", "ann", nil)
	ann.hears(camera)
	var gaps, ends []time.Duration
	epoch := residency.Epoch(1)
	for range 5 {
		eve := enter(t, nyc, "town", "eve", nil)
		eve.hears(camera)
		done, gap := make(chan struct{}), make(chan time.Duration, 1)
		go func() { gap <- ann.longest(camera, done) }()
		epoch++
		start := lived()
		if err := nyc.applyBundle(m.sign(tightened(epoch)), "nyc"); err != nil {
			t.Fatal(err)
		}
		last, at := fra.media("nyc"), start
		within(t, patience, "a second has passed", func() bool {
			if n := fra.media("nyc"); n != last {
				last, at = n, lived()
			}
			return lived()-start > time.Second
		})
		close(done)
		gaps, ends = append(gaps, <-gap), append(ends, at-start)
		m.agreed(epoch)
		epoch++
		if err := fra.applyBundle(m.sign(testBundle(epoch)), "fra"); err != nil {
			t.Fatal(err)
		}
		m.agreed(epoch)
	}
	slices.Sort(gaps)
	slices.Sort(ends)
	t.Logf("gap of what stays: %v; last byte of what does not: %v", gaps, ends)
	if worst := ends[len(ends)-1]; worst > time.Second {
		t.Errorf("media went on for %s", worst)
	}
}
