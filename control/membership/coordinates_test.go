package membership

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/domicile/domicile/residency"
)

// Nodes that probe each other over lines of known length know, after a minute of
// probes, how far two others are from each other.
func TestCoordinatesTellWhatNoLinkMeasures(t *testing.T) {
	names := []string{"fra", "par", "waw", "nyc", "sin"}
	ms := [][]float64{
		{0, 10, 20, 85, 160},
		{10, 0, 28, 78, 152},
		{20, 28, 0, 100, 175},
		{85, 78, 100, 0, 230},
		{160, 152, 175, 230, 0},
	}
	atlases := make([]*atlas, len(names))
	for i := range atlases {
		atlases[i] = newAtlas()
	}
	m := &Mesh{cfg: Config{Self: residency.Node{Name: "fra"}}, in: &inbox{atlas: atlases[0]}}
	if _, _, ok := m.Between("waw", "nyc"); ok {
		t.Error("a distance is known before anybody has been probed")
	}
	for range 60 {
		for i := range names {
			for j := range names {
				if i != j {
					atlases[i].NotifyPingComplete(&memberlist.Node{Name: names[j]}, time.Duration(ms[i][j]*1e6), atlases[j].AckPayload())
				}
			}
		}
	}
	for i, a := range names {
		for j, b := range names {
			rtt, spread, ok := m.Between(residency.NodeName(a), residency.NodeName(b))
			if i == j {
				continue
			}
			if got := rtt.Seconds() * 1e3; !ok || math.Abs(got-ms[i][j]) > 0.25*ms[i][j]+5 || spread < 0 {
				t.Errorf("%s to %s: %.0f ms ± %s (%v), want about %.0f", a, b, got, spread, ok, ms[i][j])
			}
			if back, _, _ := m.Between(residency.NodeName(b), residency.NodeName(a)); back != rtt {
				t.Errorf("%s to %s takes %s, and %s back", a, b, rtt, back)
			}
		}
	}
	atlases[0].forget("nyc")
	if _, _, ok := m.Between("waw", "nyc"); ok {
		t.Error("who has left is still somewhere")
	}
}

// A coordinate comes from whoever has the gossip key.
func FuzzCoordinate(f *testing.F) {
	whole := newAtlas().AckPayload()
	f.Add(whole)
	f.Add(whole[:50])
	f.Add([]byte{})
	f.Add(slices.Concat([]byte{1}, slices.Repeat([]byte{0x7f, 0xf8, 0, 0, 0, 0, 0, 0}, 11)))
	f.Add(slices.Concat([]byte{1}, slices.Repeat([]byte{0x7f, 0xef, 255, 255, 255, 255, 255, 255}, 11)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := newAtlas()
		for range 3 {
			a.NotifyPingComplete(&memberlist.Node{Name: "evil"}, 10*time.Millisecond, b)
		}
		for _, x := range a.client.GetCoordinate().Vec {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				t.Fatalf("our coordinate is %v", x)
			}
		}
		if c := a.place("evil", "us"); c != nil {
			if d := a.client.GetCoordinate().DistanceTo(c); d < 0 {
				t.Fatalf("a distance of %s", d)
			}
		}
	})
}
