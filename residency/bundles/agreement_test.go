package bundles

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/domicile/domicile/residency"
)

func ref(e residency.Epoch) Ref { return Ref{Epoch: e, Digest: Digest{byte(e)}} }

// world is a mesh of agreements on a simulated clock: links take a while, a bundle
// takes a while to be verified.
type world struct {
	now    time.Time
	nodes  map[residency.NodeName]*Agreement
	events []event
	log    []string
	cut    map[residency.NodeName]bool // does not take bundles
}

type event struct {
	at time.Time
	do func()
}

const (
	trip  = 20 * time.Millisecond
	store = 30 * time.Millisecond
)

func newWorld(names ...residency.NodeName) *world {
	w := &world{now: time.Unix(1_800_000_000, 0), nodes: map[residency.NodeName]*Agreement{}, cut: map[residency.NodeName]bool{}}
	for _, n := range names {
		w.nodes[n] = NewAgreement(ref(1))
		for _, o := range names {
			if o != n {
				w.nodes[n].Join(o)
			}
		}
	}
	for _, n := range names {
		w.tell(n)
	}
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.events = append(w.events, event{w.now.Add(d), do})
}

func (w *world) note(format string, a ...any) { w.log = append(w.log, fmt.Sprintf(format, a...)) }

// tell sends a node's statement to all.
func (w *world) tell(n residency.NodeName) {
	s := w.nodes[n].Statement()
	for o := range w.nodes {
		if o != n {
			w.after(trip, func() { w.nodes[o].Hear(n, s); w.step(o) })
		}
	}
}

func (w *world) prepare(n residency.NodeName, r Ref, mine bool) {
	if w.nodes[n].Prepare(w.now, r, mine) == nil {
		w.tell(n)
		w.step(n)
	}
}

func (w *world) step(n residency.NodeName) {
	do := w.nodes[n].Next(w.now)
	if do.Switch {
		w.note("%s decides by %d", n, w.nodes[n].Statement().Force.Epoch)
		w.tell(n)
	}
	for _, o := range do.Offer {
		r := w.nodes[n].Statement().Has
		w.note("%s offers %d to %s", n, r.Epoch, o)
		if !w.cut[o] {
			w.after(trip+store, func() { w.prepare(o, r, false) })
		}
	}
	if !do.Wake.IsZero() && !do.Switch {
		w.events = append(w.events, event{do.Wake, func() { w.step(n) }})
	}
}

func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		i := -1
		for j, e := range w.events {
			if !e.at.After(end) && (i < 0 || e.at.Before(w.events[i].at)) {
				i = j
			}
		}
		if i < 0 {
			w.now = end
			return
		}
		e := w.events[i]
		w.events = slices.Delete(w.events, i, i+1)
		w.now = e.at
		e.do()
	}
}

func TestMeshFollows(t *testing.T) {
	w := newWorld("a", "b", "c")
	w.run(time.Second)
	w.prepare("a", ref(2), true)
	w.run(time.Second)
	for n, a := range w.nodes {
		if s := a.Statement(); s.Force != ref(2) || s.Has != ref(2) {
			t.Errorf("%s has %v", n, s)
		}
	}
	offers := 0
	for _, l := range w.log {
		if strings.Contains(l, "offers") {
			offers++
		}
	}
	if offers != 2 {
		t.Errorf("the bundle crossed %d times: %v", offers, w.log)
	}
}

// A node that does not take the bundle holds the others up for the fuse and no longer.
func TestWhoDoesNotFollowIsLeftBehind(t *testing.T) {
	w := newWorld("a", "b", "c")
	w.run(time.Second)
	w.cut["c"] = true
	w.prepare("a", ref(2), true)
	w.run(fuse)
	for n, want := range map[residency.NodeName]residency.Epoch{"a": 2, "c": 1} {
		if got := w.nodes[n].Statement().Force.Epoch; got != want {
			t.Errorf("%s decides by %d, want %d", n, got, want)
		}
	}
	w.run(trip)
	if w.nodes["b"].Statement().Force.Epoch != 2 {
		t.Error("b does not follow a")
	}
	if e := w.nodes["a"].View().Epoch("c", 7); e != 1 {
		t.Errorf("c counts as deciding by %d", e)
	}
	if e := w.nodes["c"].View().Epoch("a", 7); e != 2 {
		t.Errorf("a counts as deciding by %d", e)
	}
	before := len(w.log)
	w.run(time.Hour)
	if n := len(w.log) - before; n < 5 || n > 40 {
		t.Errorf("offered %d times more in an hour", n)
	}
	w.cut["c"] = false
	w.run(2 * lastAgain)
	if w.nodes["c"].Statement().Force != ref(2) {
		t.Error("c has not caught up")
	}
}

func TestFollows(t *testing.T) {
	other := Ref{Epoch: 2, Digest: Digest{9}}
	a := NewAgreement(ref(2))
	for r, want := range map[Ref]string{ref(2): "known", ref(1): "older", other: "raise the epoch"} {
		if err := a.Prepare(time.Time{}, r, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", r, err, want)
		}
	}
	if a.Statement().Has != ref(2) {
		t.Error("it took one over")
	}
	a.Join("b")
	if e := a.View().Epoch("b", 2); e != 0 {
		t.Errorf("a node that has said nothing counts as deciding by %d", e)
	}
	a.Hear("b", Statement{Force: other, Has: other})
	if e := a.View().Epoch("b", 2); e != 0 {
		t.Errorf("a node with other policies of the same epoch counts as deciding by %d", e)
	}
	if c := a.View().Conflicts(); len(c) != 1 || c[0] != "b" {
		t.Errorf("conflicts: %v", c)
	}
	if e := a.View().Epoch("x", 2); e != 2 {
		t.Errorf("without a link: %d", e)
	}
}

// Whatever happens to links and bundles: nobody goes back, two nodes that count each
// other as agreed hold the same bundle, and once all is quiet all that are linked
// decide by the newest.
func TestAgreementHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []residency.NodeName{"a", "b", "c", "d"}[:rapid.IntRange(1, 4).Draw(t, "nodes")]
		w := newWorld(names...)
		newest := residency.Epoch(1)
		last := map[residency.NodeName]residency.Epoch{}
		check := func() {
			for n, a := range w.nodes {
				s := a.Statement()
				if s.Force.Epoch < last[n] || s.Has.Epoch < s.Force.Epoch {
					t.Fatalf("%s went from %d to %v", n, last[n], s)
				}
				last[n] = s.Force.Epoch
				for _, o := range names {
					if o != n && a.View().Epoch(o, 0) == s.Force.Epoch && w.nodes[o].Statement().Has.Epoch < s.Force.Epoch {
						t.Fatalf("%s decides by %d and takes %s for agreed, which has %v", n, s.Force.Epoch, o, w.nodes[o].Statement())
					}
				}
			}
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			n := rapid.SampledFrom(names).Draw(t, "node")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				newest++
				w.prepare(n, ref(newest), true)
			case 1:
				w.prepare(n, ref(residency.Epoch(rapid.IntRange(1, int(newest)).Draw(t, "old"))), false)
			}
			check()
			for range rapid.IntRange(0, 30).Draw(t, "ticks") {
				w.run(10 * time.Millisecond)
				check()
			}
		}
		w.run(time.Minute)
		check()
		for _, n := range names {
			if got := w.nodes[n].Statement().Force; got != ref(newest) {
				t.Fatalf("%s decides by %v at last, not by %d: %v", n, got, newest, w.log)
			}
		}
	})
}
