package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

// TestQuarantine has a node whose certificate says that it stands in New York, and
// whose answers come faster than light could from there, since it stands here: without
// an override it is in quarantine, which every operator sees and is told why, and gets
// nothing of any room. An override in policies that are applied lifts that, and the
// meeting reaches it.
func TestQuarantine(t *testing.T) {
	f := startField(t)
	f.bundle.Policies["anywhere"] = zone{countries: []residency.Country{"DE", "PL", "CH", "US"}}.policy("anywhere")
	believed := f.bundle.Overrides
	f.bundle.Overrides = slices.DeleteFunc(slices.Clone(believed), func(o residency.Override) bool { return o.Node == "nyc" })
	f.changes()
	for _, name := range []string{"fra", "waw"} {
		eventually(t, "nyc is in quarantine at "+name, 20*time.Second, func() bool { return f.doubts(name, "nyc") })
		contains(t, "the log of "+name, f.log(name), "quarantine", "nyc")
	}
	out, _ := f.domicile("state", "--node", "fra")
	contains(t, "domicile state", out, "doubted", "nyc", "quarantine")
	out, _ = f.domicile("register", "--node", "fra")
	contains(t, "domicile register", out, "nyc")

	canary := newCanary()
	f.mustEnter("fra", guest{room: "lies", policy: "anywhere", name: "speaker", canary: canary})
	viewer := guest{room: "lies", policy: "anywhere", name: "viewer"}
	f.receives(f.mustEnter("waw", viewer), "the viewer in Warsaw")
	viewer.name = "new yorker"
	if c, err := f.enter("nyc", viewer); err == nil {
		c.Close()
		t.Error("somebody entered on a node in quarantine")
	} else {
		t.Logf("refused: %v", err)
	}
	f.untouched(canary, "fra", "waw")

	f.bundle.Overrides = believed
	f.changes()
	for _, name := range []string{"fra", "waw", "nyc"} {
		eventually(t, "nyc is believed at "+name, 20*time.Second, func() bool { return !f.doubts(name, "nyc") })
	}
	f.receives(f.mustEnter("nyc", viewer), "the viewer in New York")
	f.passed(canary, "nyc")
}

// changes applies the bundle at every node: one in quarantine hears of nothing.
func (f *field) changes() {
	f.t.Helper()
	f.bundle.Epoch++
	f.applyAlone()
}

// doubts says whether a node has another in quarantine.
func (f *field) doubts(name, of string) bool {
	s, err := f.peek(name)
	if err != nil {
		return false
	}
	for _, d := range s.Doubted {
		if string(d.Node) == of && d.Quarantined {
			return true
		}
	}
	return false
}
