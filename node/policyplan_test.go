package node

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency/bundles"
)

// TestPlanThenApply asks a node for what a tighter bundle would do to a meeting that
// it is not home of, and then has it done: what the plan names is what stops.
func TestPlanThenApply(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "nyc US")
	fra, par := m.node("fra"), m.node("par")
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, m.node("nyc"), "town", "eve", nil)
	eve.hears(camera)
	ask := func(n *testNode, s bundles.Signed) (PolicyPlan, error) {
		body, err := json.Marshal(signedRequest{Policy: s.Policy, Signature: s.Signature})
		if err != nil {
			t.Fatal(err)
		}
		return n.planPolicy(httptest.NewRequest("POST", "/policy/plan", bytes.NewReader(body)))
	}
	tight := m.sign(tightened(2))
	for _, n := range []*testNode{fra, par} {
		var p PolicyPlan
		eventually(t, "the plan names the room", func() bool {
			var err error
			if p, err = ask(n, tight); err != nil {
				t.Fatal(err)
			}
			return p.Live
		})
		for _, e := range p.Rooms {
			if e.Node != "nyc" || e.Participants != 1 || e.Allowed {
				t.Errorf("%s plans %+v", n.cfg.Self.Name, e)
			}
		}
		if len(p.Rooms) != 3 || len(p.Unasked) > 0 {
			t.Errorf("%s: %s", n.cfg.Self.Name, p.Text)
		}
		for _, secret := range []string{"town", "bob", "eve"} {
			if strings.Contains(p.Text, secret) {
				t.Errorf("the plan names %q:\n%s", secret, p.Text)
			}
		}
	}
	if e := fra.gate().Epoch(); e != 1 {
		t.Fatalf("a plan has changed the epoch to %d", e)
	}
	for what, s := range map[string]bundles.Signed{
		"unsigned": {Policy: tight.Policy, Signature: []byte("x")}, "of the same epoch": m.sign(tightened(1)),
	} {
		if _, err := ask(fra, s); err == nil {
			t.Errorf("%s: planned", what)
		}
	}
	if err := par.applyBundle(tight, "par"); err != nil {
		t.Fatal(err)
	}
	eve.await("is sent away", func() bool { return eve.leave != nil })
	m.agreed(2)
	if bob.leave != nil {
		t.Error("bob was sent away too")
	}
}
