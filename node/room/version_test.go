package room

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/domicile/domicile/residency"
)

// TestMergeKnowsNoOrder merges what nodes know in all orders and groupings.
func TestMergeKnowsNoOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	// A version is written once: the same one always has the same value.
	meta := func(v Version) string { return fmt.Sprint("m", v) }
	recs := map[Version]*Recording{}
	version := func() Version {
		return Version{Term: rng.Uint64N(4), Write: rng.Uint64N(4), Home: []residency.NodeName{"fra", "waw"}[rng.IntN(2)]}
	}
	random := func() Record {
		r := Record{Name: "town", SID: "RM_town", Policy: "eea-only", Term: rng.Uint64N(5), Versions: Versions{version(), version()}}
		r.Metadata = meta(r.Versions.Metadata)
		if recs[r.Versions.Recording] == nil && rng.IntN(3) > 0 {
			recs[r.Versions.Recording] = &Recording{ID: fmt.Sprint("RE_", r.Versions.Recording)}
		}
		r.Recording = recs[r.Versions.Recording]
		if _, known := recs[r.Versions.Recording]; !known {
			recs[r.Versions.Recording] = nil
		}
		return r
	}
	for range 20_000 {
		a, b, c := random(), random(), random()
		if a.Merge(a) != a || a.Lacks(a) {
			t.Fatalf("merged with itself: %+v", a)
		}
		if x, y := a.Merge(b), b.Merge(a); x != y && sameVersions(recs, a, b) {
			t.Fatalf("a+b %+v, b+a %+v", x, y)
		}
		if x, y := a.Merge(b).Merge(c), a.Merge(b.Merge(c)); x != y && sameVersions(recs, a, b, c) {
			t.Fatalf("(a+b)+c %+v, a+(b+c) %+v", x, y)
		}
		if m := a.Merge(b); m.Term < a.Term || m.Term < b.Term || m.Lacks(a) && sameVersions(recs, a, b) {
			t.Fatalf("%+v and %+v make %+v", a, b, m)
		}
	}
	one, other := Record{SID: "RM_a", Term: 2, Metadata: "a"}, Record{SID: "RM_b", Term: 3, Metadata: "b"}
	if one.Merge(other) != other || other.Merge(one) != other {
		t.Error("two rooms of one name are mixed")
	}
}

// sameVersions reports whether each version among the records has one value.
func sameVersions(_ map[Version]*Recording, records ...Record) bool {
	seen := map[Version]*Recording{}
	for _, r := range records {
		if old, ok := seen[r.Versions.Recording]; ok && old != r.Recording {
			return false
		}
		seen[r.Versions.Recording] = r.Recording
	}
	return true
}

// TestHomeThatWasCutOffYields plays a home that comes back after another has taken its
// place: what it wrote before does not undo what was written since.
func TestHomeThatWasCutOffYields(t *testing.T) {
	s := newScene(t) // fra, home of the room
	s.says("waw", KindHello, Hello{Presence: Presence{Node: "waw", Participants: 1}, Record: s.record})
	first := s.record.Term
	if first == 0 {
		t.Fatal("a home without a term")
	}
	s.setRecord(func(r *Record) { r.Metadata = "before" })
	stale := Roster{Home: "fra", Seq: 99, Record: s.record, Nodes: s.nodes()}

	// waw became home, in a term of its own, and wrote; fra hears of it when it is back.
	next := s.record
	next.succeed("waw")
	old := next
	next.Metadata = "since"
	next.wrote(old, "waw")
	s.setRecord(func(r *Record) { r.Metadata = "alone" }) // on the other side, in the old term
	s.says("waw", KindHello, Hello{Presence: Presence{Node: "waw", Participants: 1}, Record: next})
	if s.record.Metadata != "since" || s.record.Term <= next.Term {
		t.Fatalf("the home says %q in term %d", s.record.Metadata, s.record.Term)
	}
	if saved := s.saved[len(s.saved)-1]; saved != s.record {
		t.Errorf("saved is %+v", saved)
	}

	// The same from the other end: a node that followed waw takes nothing old of fra.
	o := newScene(t)
	o.at = "waw"
	o.doHome(o.now)
	o.says("waw", KindRoster, Roster{Home: "waw", Seq: 1, Record: next, Nodes: stale.Nodes})
	if o.record.Metadata != "since" {
		t.Fatalf("it has %q", o.record.Metadata)
	}
	o.says("waw", KindRoster, Roster{Home: "waw", Seq: 100, Record: stale.Record, Nodes: nil})
	if o.record.Metadata != "since" || len(o.home.nodes) == 0 {
		t.Errorf("a roster of an old term is believed: %q, %v", o.record.Metadata, o.home.nodes)
	}
	if due := o.now.Sub(o.home.toldAt); due < helloEvery-helloRetry {
		t.Errorf("whoever has an old term is told after %s", helloEvery-due)
	}
	o.says("waw", KindRoster, Roster{Home: "waw", Seq: 1, Record: s.record, Nodes: stale.Nodes})
	if o.record.Term != s.record.Term || o.home.seq != 1 {
		t.Errorf("a roster of a new term is not: term %d, seq %d", o.record.Term, o.home.seq)
	}
}

// TestEdgesRaiseTermsAlone lets a node that may not keep the record say how far the
// terms are, within bounds, and write nothing.
func TestEdgesRaiseTermsAlone(t *testing.T) {
	s := newScene(t)
	waw := s.members["waw"]
	waw.Roles = []residency.Role{residency.RoleEdge}
	s.members["waw"] = waw
	rec := s.record
	rec.Term += 5
	rec.Metadata, rec.Versions.Metadata = "mine", Version{Term: 1 << 40, Write: 1 << 40}
	s.says("waw", KindHello, Hello{Presence: Presence{Node: "waw", Participants: 1}, Record: rec})
	if s.record.Metadata == "mine" || s.record.Term != rec.Term+1 {
		t.Fatalf("term %d, metadata %q", s.record.Term, s.record.Metadata)
	}
	rec.Term = maxTerm
	term := s.record.Term
	s.says("waw", KindHello, Hello{Presence: Presence{Node: "waw", Participants: 1}, Record: rec})
	rec.Term = 1 << 63
	s.says("waw", KindHello, Hello{Presence: Presence{Node: "waw", Participants: 1}, Record: rec})
	if s.record.Term != term {
		t.Errorf("term %d", s.record.Term)
	}
}
