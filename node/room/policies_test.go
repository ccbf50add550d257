package room

import (
	"testing"

	"github.com/domicile/domicile/residency"
)

// New policies may come into force between any two looks at them. A node never finds
// itself behind them: its room goes on, and what it keeps stays kept.
func TestPoliciesChangeBetweenTwoLooks(t *testing.T) {
	s := newStage(t, "edge")
	s.locals["anna"] = &Participant{sid: "PA_anna", identity: "anna", country: "DE"}
	look := s.deps.Peer
	s.deps.Peer = func(n residency.NodeName) (residency.Node, residency.Epoch, bool) {
		node, epoch, ok := look(n)
		b := *s.bundle
		b.Epoch++
		s.bundle = &b
		return node, epoch, ok
	}
	if v := s.here(); !v.Allow {
		t.Errorf("the room ends here: %s (%s)", v.Reason, v.Rule)
	}
	if _, v := s.keep(residency.ClassRecording); !v.Allow {
		t.Errorf("nothing is recorded here any more: %s (%s)", v.Reason, v.Rule)
	}
}

// What a change of policies forbids has one reason, whenever it comes: that of the first
// class that is refused.
func TestOnePolicyDecidesWhoIsSentAway(t *testing.T) {
	s := newStage(t, "edge")
	s.deps.Self = s.members["nyc"]
	s.locals["ben"] = &Participant{sid: "PA_ben", identity: "ben", country: "US"}
	tighter := *s.bundle
	tighter.Epoch, tighter.Policies = 2, map[string]*residency.Policy{"edge": {Name: "edge", Zones: s.bundle.Policies["edge"].Zones}}
	looks := 0
	look := s.deps.Peer
	s.deps.Peer = func(n residency.NodeName) (residency.Node, residency.Epoch, bool) {
		if looks++; looks == 2 {
			s.bundle = &tighter
		}
		return look(n)
	}
	if v := s.here(); !v.Allow {
		t.Errorf("half of the question was asked of other policies: %s", v.Reason)
	}
	if v := s.here(); v.Allow || v.Class != residency.ClassMedia {
		t.Errorf("%v for %s: %s", v.Allow, v.Class, v.Reason)
	}
}
