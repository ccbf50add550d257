package router

import (
	"math"
	"math/rand"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/domicile/domicile/residency"
)

// The oracle says the same as Place in the slowest and plainest way: the rules
// are written out from the requirements, without the gate; distances come from
// the angle between two vectors; the best is whom no other beats.

// inEEA is the zone of the countries that the generator draws from.
var inEEA = map[residency.Country]bool{"DE": true, "PL": true, "NO": true, "US": false, "CH": false, "GB": false}

func oracleKm(a, b Point) float64 {
	if a == (Point{}) || b == (Point{}) {
		return -1
	}
	vec := func(p Point) [3]float64 {
		la, lo := p.Lat*math.Pi/180, p.Lon*math.Pi/180
		return [3]float64{math.Cos(la) * math.Cos(lo), math.Cos(la) * math.Sin(lo), math.Sin(la)}
	}
	u, v := vec(a), vec(b)
	return 6371 * math.Acos(max(-1, min(1, u[0]*v[0]+u[1]*v[1]+u[2]*v[2])))
}

func oracleMay(q Question, c Candidate, country residency.Country) bool {
	zone, known := inEEA[c.Node.Country]
	outside := country != "" && !inEEA[country]
	return known && c.Up && c.Epoch == 1 && c.Node.NotAfter.After(noon) &&
		(c.Capacity == 0 || c.Attendees < c.Capacity) &&
		(zone || q.Room.Policy == "eu-origin-global-edge" && outside && slices.Contains(c.Node.Roles, residency.RoleEdge))
}

// oracleKeys are compared from left to right, lower first.
func oracleKeys(q Question, c Candidate, country residency.Country, at Point) []float64 {
	yes := map[bool]float64{true: 0, false: 1}
	load := min(max(c.Load, 0), 1)
	cost := 30 * load * load
	if at == (Point{}) {
		return []float64{yes[load < 0.95], yes[country == c.Node.Country], yes[slices.Contains(c.Node.Roles, residency.RoleOrigin)], cost}
	}
	km := oracleKm(at, c.At)
	if km < 0 {
		km = math.Pi * 6371
	}
	return []float64{yes[load < 0.95], cost + km*0.02 + 10}
}

// oracleBest returns the keys of whom nobody beats, nil if nobody may serve.
func oracleBest(q Question) []float64 {
	country, at := q.Attendee.Country, q.Attendee.At
	if !q.Attendee.Known {
		country, at = "", Point{}
		for _, c := range q.Candidates {
			if c.Local && q.Unknown == FallbackLocal {
				country, at = c.Node.Country, c.At
			}
		}
	}
	var best []float64
	for _, c := range q.Candidates {
		if !oracleMay(q, c, country) {
			continue
		}
		if keys := oracleKeys(q, c, country, at); best == nil || slices.Compare(keys, best) < 0 {
			best = keys
		}
	}
	return best
}

func TestPlaceAgreesWithOracle(t *testing.T) {
	g := residency.NewGate(testBundle())
	rapid.Check(t, func(t *rapid.T) {
		q := drawQuestion(t)
		p := Place(g, q)
		want := oracleBest(q)
		if (want == nil) != (p.Chosen == nil) {
			t.Fatalf("oracle %v, placement:\n%s", want, p)
		}
		if want == nil {
			return
		}
		i := slices.IndexFunc(q.Candidates, func(c Candidate) bool { return c.Node.Name == p.Node() })
		alone := q
		alone.Candidates = []Candidate{q.Candidates[i]}
		for _, c := range q.Candidates { // whom the fallback needs may not serve itself
			if c.Local && c.Node.Name != p.Node() {
				c.Up = false
				alone.Candidates = append(alone.Candidates, c)
			}
		}
		got := oracleBest(alone)
		if len(got) != len(want) {
			t.Fatalf("the oracle would not serve by %s:\n%s", p.Node(), p)
		}
		for k := range got { // two ways of measuring differ by metres
			if math.Abs(got[k]-want[k]) > 0.01 {
				t.Fatalf("the oracle's best %v, of the chosen %v:\n%s", want, got, p)
			}
		}
	})
}

// Whatever the order of the candidates, the answer is the same, every candidate
// is in it once with its grounds, and the allowed come first.
func TestPlacementIsStableAndComplete(t *testing.T) {
	g := residency.NewGate(testBundle())
	rapid.Check(t, func(t *rapid.T) {
		q := drawQuestion(t)
		p := Place(g, q)
		other := q
		other.Candidates = slices.Clone(q.Candidates)
		rand.New(rand.NewSource(rapid.Int64().Draw(t, "shuffle"))).Shuffle(len(other.Candidates), func(i, j int) {
			other.Candidates[i], other.Candidates[j] = other.Candidates[j], other.Candidates[i]
		})
		if a, b := p.String(), Place(g, other).String(); a != b {
			t.Fatalf("another order of candidates, another answer:\n%s\n%s", a, b)
		}
		if len(p.Ranked) != len(q.Candidates) || p.Rule == "" || p.Reason == "" || (p.Chosen == nil) != (p.Hint != "") {
			t.Fatalf("incomplete:\n%s", p)
		}
		for i, r := range p.Ranked {
			if r.Rule == "" || r.Reason == "" {
				t.Fatalf("no grounds for %s:\n%s", r.Node, p)
			}
			if i > 0 && r.Allowed && !p.Ranked[i-1].Allowed {
				t.Fatalf("allowed behind refused:\n%s", p)
			}
		}
	})
}

// Every node must name the same home, whoever asks, and a node that goes moves
// only the rooms it had.
func TestHomeIsSymmetricAndSticky(t *testing.T) {
	g := residency.NewGate(testBundle())
	rapid.Check(t, func(t *rapid.T) {
		q := drawQuestion(t)
		home := Home(g, q.Room, q.Candidates, noon).Node()
		for i := range q.Candidates {
			seen := slices.Clone(q.Candidates)
			for j := range seen {
				seen[j].Local = i == j
			}
			slices.Reverse(seen)
			if h := Home(g, q.Room, seen, noon).Node(); h != home {
				t.Fatalf("node %d says %q, others %q", i, h, home)
			}
			left := slices.Delete(slices.Clone(q.Candidates), i, i+1)
			if h := Home(g, q.Room, left, noon).Node(); q.Candidates[i].Node.Name != home && h != home {
				t.Fatalf("%s went and the home moved from %q to %q", q.Candidates[i].Node.Name, home, h)
			}
		}
		if i := slices.IndexFunc(q.Candidates, func(c Candidate) bool { return c.Node.Name == home }); i >= 0 {
			if c := q.Candidates[i]; !c.Node.Has(residency.RoleOrigin) || !inEEA[c.Node.Country] {
				t.Fatalf("home %s is %v in %s", home, c.Node.Roles, c.Node.Country)
			}
		} else if home != "" {
			t.Fatalf("home %q is no candidate", home)
		}
	})
}

func drawQuestion(t *rapid.T) Question {
	countries := []residency.Country{"DE", "PL", "NO", "US", "CH", "GB", ""}
	point := rapid.Custom(func(t *rapid.T) Point {
		if rapid.IntRange(0, 4).Draw(t, "stated") == 0 {
			return Point{}
		}
		return Point{Lat: rapid.Float64Range(-90, 90).Draw(t, "lat"), Lon: rapid.Float64Range(-180, 180).Draw(t, "lon")}
	})
	roles := [][]residency.Role{{residency.RoleEdge}, {residency.RoleOrigin}, {residency.RoleOrigin, residency.RoleEdge}}
	var candidates []Candidate
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		n := testNode(residency.NodeName('a'+rune(i)), rapid.SampledFrom(countries).Draw(t, "country"), rapid.SampledFrom(roles).Draw(t, "roles")...)
		if rapid.IntRange(0, 7).Draw(t, "expired") == 0 {
			n.NotAfter = noon.Add(-time.Second)
		}
		candidates = append(candidates, Candidate{Node: n, At: point.Draw(t, "at"),
			Load:  rapid.SampledFrom([]float64{0, 0, 0.3, 0.5, 0.94, 0.95, 1, 7, -1}).Draw(t, "load"),
			Epoch: residency.Epoch(rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(t, "epoch")), Up: rapid.IntRange(0, 5).Draw(t, "up") > 0,
			Attendees: rapid.IntRange(0, 3).Draw(t, "attendees"), Capacity: rapid.IntRange(0, 3).Draw(t, "capacity"), Local: i == 0})
	}
	a := Attendee{At: point.Draw(t, "from"), Country: rapid.SampledFrom(countries[:6]).Draw(t, "attendee country"), Known: rapid.Bool().Draw(t, "known")}
	return Question{Room: Room{Name: rapid.StringN(0, 8, -1).Draw(t, "room"), Policy: rapid.SampledFrom([]string{"eea-only", "eu-origin-global-edge"}).Draw(t, "policy")},
		Attendee: a, Candidates: candidates, Unknown: rapid.SampledFrom([]Fallback{"", FallbackOrigin, FallbackLocal}).Draw(t, "fallback"), Now: noon}
}
