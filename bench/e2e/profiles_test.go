package e2e

import (
	"testing"
	"time"

	"github.com/domicile/domicile/internal/steady"
)

// TestProfiles has the five platforms' arrangements on real nodes, each with what
// its own rules say (docs/residency.md). What passes between nodes is captured and
// opened: a canary in the payload of every media packet shows where it was.
func TestProfiles(t *testing.T) {
	whole := startField(t)
	for _, s := range []struct {
		name string
		run  func(*testing.T, *field)
	}{
		{"eu-origin-global-edge", globalEdge},
		{"eea-only", eeaOnly},
		{"dach-sovereign", dachSovereign},
		{"tenant-pinned-country", pinnedCountry},
		{"third-country-scc", thirdCountry},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(t, whole.in(t)) })
	}
	whole.tap.opened(t)
}

// globalEdge: the edge in New York is in the room only while somebody is connected
// there, and never between two in Europe (R1, R3).
func globalEdge(t *testing.T, f *field) {
	canary := newCanary()
	g := guest{room: "clickmeeting", policy: "eu-origin-global-edge"}
	g.name, g.canary = "speaker", canary
	f.mustEnter("fra", g)
	g.name, g.canary = "viewer", ""
	viewer := f.mustEnter("waw", g)
	f.receives(viewer, "the viewer in Warsaw")
	f.passed(canary, "fra", "waw")
	f.untouched(canary, "fra", "waw")
	g.name = "new yorker"
	yorker := f.mustEnter("nyc", g)
	f.receives(yorker, "the viewer in New York")
	f.passed(canary, "nyc")
	waited := steady.Watch()
	left := time.Now()
	yorker.Close()
	f.receives(viewer, "the viewer in Warsaw, after the one in New York has left,")
	eventually(t, "nyc has left the room", 2*time.Second, func() bool { return f.rooms("nyc") == 0 })
	// More than a second has passed; nothing may have come after the first.
	eventually(t, "two seconds have passed", 2*time.Second, func() bool { return time.Since(left) > 2*time.Second })
	if last, most := f.tap.sightings(canary)["nyc"].last, time.Second+2*waited(); last.Sub(left) > most {
		t.Errorf("media reached nyc until %s after its last attendee had left, want %s at most", last.Sub(left), most)
	} else {
		t.Logf("nyc had its last packet %s after its last attendee had left", last.Sub(left))
	}
	f.untouched(canary, "fra", "waw", "nyc")
	if n := f.filesWith(canary, "fra", "waw", "nyc"); n > 0 {
		t.Errorf("%d files hold the canary: a default room keeps no media (R7)", n)
	}
}

// eeaOnly: no node outside the EEA, whoever asks there (R6); Switzerland is outside.
func eeaOnly(t *testing.T, f *field) {
	canary := newCanary()
	g := guest{room: "3cx", policy: "eea-only"}
	g.name, g.canary = "speaker", canary
	f.mustEnter("fra", g)
	g.name, g.canary = "viewer", ""
	f.receives(f.mustEnter("waw", g), "the viewer in Warsaw")
	g.name = "outsider"
	f.refused("nyc", g, "nyc", "US", "eea-only")
	f.refused("zrh", g, "zrh", "CH", "eea-only")
	f.refused("mow", g, "mow")
	// An owner elsewhere is no matter here.
	g.name = "berliner"
	f.receives(f.mustEnter("ber", g), "the viewer in Berlin")
	f.passed(canary, "fra", "waw", "ber")
	f.untouched(canary, "fra", "waw", "ber")
}

// dachSovereign: own nodes in Germany, Austria and Switzerland, whose ultimate
// parent is not in the US (R4, R21).
func dachSovereign(t *testing.T, f *field) {
	canary := newCanary()
	g := guest{room: "connect4video", policy: "dach-sovereign"}
	g.name, g.canary = "speaker", canary
	f.mustEnter("fra", g)
	g.name, g.canary = "swiss", ""
	f.receives(f.mustEnter("zrh", g), "the viewer in Zurich")
	g.name = "berliner"
	f.refused("ber", g, "ber", "US", "dach-sovereign")
	f.refused("waw", g, "waw", "PL", "dach-sovereign")
	f.refused("nyc", g, "nyc", "US", "dach-sovereign")
	f.passed(canary, "fra", "zrh")
	f.untouched(canary, "fra", "zrh")
}

// pinnedCountry: the tenants of one country on a provider there, and nobody else
// (R2). The attendee's place plays no part in it.
func pinnedCountry(t *testing.T, f *field) {
	canary := newCanary()
	g := guest{room: "moscow", policy: "", key: ruKey}
	g.name, g.canary = "speaker", canary
	f.mustEnter("mow", g)
	g.name, g.canary = "viewer", ""
	f.receives(f.mustEnter("mow", g), "the viewer in Moscow")
	f.refused("fra", g, "fra")
	f.refused("nyc", g, "nyc")
	other := guest{room: "others", policy: "eu-origin-global-edge", name: "other", canary: newCanary()}
	f.refused("mow", other, "mow", ruTenant)
	f.untouched(canary, "mow")
	f.untouched(other.canary)
}

// thirdCountry: outside the EEA only on a transfer basis that is in force (R22).
func thirdCountry(t *testing.T, f *field) {
	canary := newCanary()
	g := guest{room: "serner", policy: "third-country-scc"}
	g.name, g.canary = "speaker", canary
	f.mustEnter("fra", g)
	g.name, g.canary = "new yorker", ""
	f.receives(f.mustEnter("nyc", g), "the viewer in New York")
	f.passed(canary, "fra", "nyc")
	f.untouched(canary, "fra", "nyc")

	late := guest{room: "privacy-shield", policy: ended, name: "speaker", canary: newCanary()}
	f.mustEnter("fra", late)
	viewer := guest{room: late.room, policy: ended, name: "viewer"}
	f.refused("nyc", viewer, "nyc", "US")
	f.refused("zrh", viewer, "zrh", "CH")
	f.untouched(late.canary, "fra")
}

// filesWith counts the files of nodes that hold a word.
func (f *field) filesWith(word string, nodes ...string) (n int) {
	f.t.Helper()
	for _, name := range nodes {
		for path := range files(f.t, f.node(name).dir()) {
			if holds(f.t, path, word) {
				f.t.Logf("%s holds %q", path, word)
				n++
			}
		}
	}
	return n
}
