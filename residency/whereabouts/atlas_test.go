package whereabouts

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/golang/geo/s1"
	"github.com/golang/geo/s2"

	"github.com/domicile/domicile/residency"
)

// Every country has an outline but Antarctica, which has no shortest ways of
// interest and a pole in it.
func TestEveryCountryHasAnOutline(t *testing.T) {
	a := newAtlas()
	for _, c := range residency.Countries() {
		if a.shape(c) == nil && c != "AQ" {
			t.Errorf("%s has no outline", c)
		}
	}
	for c := range outlines() {
		if !c.Known() {
			t.Errorf("an outline of %q, which is no country", c)
		}
	}
}

// Distances that an atlas gives, in km: at most the true one, and not far below.
func TestDistancesAreLowerBounds(t *testing.T) {
	a := newAtlas()
	for _, c := range []struct {
		a, b residency.Country
		true float64 // between the nearest points
	}{
		{"DE", "PL", 0}, {"DE", "AT", 0}, {"FR", "ES", 0}, {"US", "CA", 0}, {"RU", "PL", 0}, // neighbours
		{"US", "RU", 4}, {"ES", "MA", 0}, {"GB", "FR", 33}, {"DK", "SE", 4}, // Ceuta and Melilla are Spain's
		{"DE", "US", 5245}, {"IE", "US", 4113}, {"PT", "US", 2977}, // from Maine; the Azores are Portugal's
		{"FR", "GF", 6520}, {"FR", "RE", 8450}, // codes of their own
		{"AU", "NZ", 640}, {"JP", "US", 2270}, {"IS", "NO", 950}, {"FJ", "WS", 700}, // Macquarie Island, the Aleutians
		{"DE", "SG", 9790}, {"DE", "BR", 6290}, {"DE", "JP", 7860}, {"PL", "US", 5635},
	} {
		got := a.km(c.a, c.b)
		if got != a.km(c.b, c.a) {
			t.Errorf("%s and %s: not the same both ways", c.a, c.b)
		}
		if got > c.true+1 || got < c.true-300 {
			t.Errorf("%s to %s: %.0f km, want at most %.0f and not much less", c.a, c.b, got, c.true)
		}
	}
	for _, c := range []residency.Country{"", "AQ", "XX"} {
		if km := a.km("DE", c); km != 0 {
			t.Errorf("DE is %.0f km from %q, of which nothing is known", km, c)
		}
	}
}

func TestPlacesInTheirCountries(t *testing.T) {
	a := newAtlas()
	for _, c := range []struct {
		what    string
		at      Place
		country residency.Country
	}{
		{"Frankfurt", Place{50.11, 8.68}, "DE"}, {"Warsaw", Place{52.23, 21.01}, "PL"}, {"New York", Place{40.71, -74.01}, "US"},
		{"Honolulu", Place{21.31, -157.86}, "US"}, {"Las Palmas", Place{28.12, -15.43}, "ES"}, {"Ponta Delgada", Place{37.74, -25.67}, "PT"},
		{"Singapore", Place{1.35, 103.82}, "SG"}, {"Vatican", Place{41.9, 12.45}, "VA"}, {"Vladivostok", Place{43.12, 131.89}, "RU"},
		{"Saint-Denis", Place{-20.88, 55.45}, "RE"}, {"Suva", Place{-18.14, 178.44}, "FJ"}, {"Longyearbyen", Place{78.22, 15.64}, "SJ"},
		{"Tromsø", Place{69.65, 18.96}, "NO"}, {"Copenhagen", Place{55.68, 12.57}, "DK"}, {"San Marino", Place{43.94, 12.45}, "SM"},
	} {
		if km := a.away(c.at, c.country); km != 0 {
			t.Errorf("%s is %.0f km from %s", c.what, km, c.country)
		}
	}
	if km := a.away(Place{40.71, -74.01}, "DE"); km < 5700 || km > 6200 {
		t.Errorf("New York is %.0f km from DE", km)
	}
	if km := a.away(Place{50.11, 8.68}, "AQ"); km != 0 {
		t.Errorf("Frankfurt is %.0f km from a country of which nothing is known", km)
	}
}

// The library's search agrees with asking every pair of edges.
func TestDistanceAgreesWithBruteForce(t *testing.T) {
	a, r := newAtlas(), rand.New(rand.NewPCG(1, 2))
	all := residency.Countries()
	for range 150 {
		c, d := all[r.IntN(len(all))], all[r.IntN(len(all))]
		s, u := a.shape(c), a.shape(d)
		if c == d || s == nil || u == nil || s.NumEdges()*u.NumEdges() > 300_000 {
			continue
		}
		want := s1.InfChordAngle()
		edges(s, func(e s2.Edge) {
			edges(u, func(f s2.Edge) {
				for _, p := range []struct{ at, from, to s2.Point }{
					{e.V0, f.V0, f.V1}, {e.V1, f.V0, f.V1}, {f.V0, e.V0, e.V1}, {f.V1, e.V0, e.V1},
				} {
					want, _ = s2.UpdateMinDistance(p.at, p.from, p.to, want)
				}
				if s2.CrossingSign(e.V0, e.V1, f.V0, f.V1) == s2.Cross {
					want = 0
				}
			})
		})
		km := certain(want.Angle().Radians()*earthKm, 2*doubtKm)
		if got := a.km(c, d); math.Abs(got-km) > 1 && got != 0 {
			t.Errorf("%s to %s: %.1f km, one by one %.1f", c, d, got, km)
		}
	}
}

func edges(s *s2.ShapeIndex, do func(s2.Edge)) {
	for id := range int32(s.Len()) {
		shape := s.Shape(id)
		for i := range shape.NumEdges() {
			do(shape.Edge(i))
		}
	}
}
