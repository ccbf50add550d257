package whereabouts

import (
	"slices"
	"testing"
	"time"

	"github.com/golang/geo/s2"
	"pgregory.net/rapid"

	"github.com/domicile/domicile/residency"
)

// countries of the random meshes: large and small, near and far, islands.
var somewhere = []residency.Country{"DE", "FR", "PL", "CH", "NO", "GB", "IE", "IS", "PT", "ES", "US", "CA", "BR", "ZA", "SG", "JP", "AU", "NZ", "IN", "RU", "FJ", "RE", "LU"}

// machine is a node of a random mesh: what its certificate says and where it is.
type machine struct {
	residency.Node
	at    s2.Point
	lies  bool
	watch *Watch
}

// drawMachine puts a machine onto a corner of a border, where it is nearest to
// other countries.
func drawMachine(t *rapid.T, i int) *machine {
	is := rapid.SampledFrom(somewhere).Draw(t, "country")
	border := rapid.SampledFrom(outlines()[is]).Draw(t, "border")
	corner := 2 * rapid.IntRange(0, len(border)/2-1).Draw(t, "corner")
	m := &machine{at: s2.PointFromLatLng(s2.LatLngFromDegrees(float64(border[corner+1])*unit, float64(border[corner])*unit))}
	m.Name, m.Country = residency.NodeName('a'+rune(i)), is
	if rapid.IntRange(0, 3).Draw(t, "lies") == 0 {
		m.Country = rapid.SampledFrom(somewhere).Draw(t, "lie")
		m.lies = m.Country != is
	}
	m.watch = New(m.Node)
	return m
}

// fastest is the round trip of light between two machines on the shortest way:
// nothing honest is faster.
func fastest(a, b *machine) time.Duration {
	return time.Duration(2 * a.at.Distance(b.at).Radians() * 6371 / 299.792458 * float64(time.Millisecond))
}

// In random meshes with random lines and any jitter: no honest node doubts an
// honest one by what it saw, nor by what others say while at most one lies; a
// liar is found by everybody who can prove it, and by all when two can.
func TestLiarsAreFoundAndHonestNodesAreNot(t *testing.T) {
	world := newAtlas()
	rapid.Check(t, func(t *rapid.T) {
		var mesh []*machine
		for i := range rapid.IntRange(2, 7).Draw(t, "nodes") {
			mesh = append(mesh, drawMachine(t, i))
			mesh[i].watch.atlas = world // it keeps what it found out
		}
		proof := measure(t, mesh, world)
		tell(t, mesh)
		liars := 0
		for _, m := range mesh {
			if m.lies {
				liars++
			}
		}
		var members []residency.Node
		for _, m := range mesh {
			members = append(members, m.Node)
		}
		for _, m := range mesh {
			if m.lies {
				continue // what a liar thinks is no matter
			}
			doubts := m.watch.Judge(members, nobody, noon.Add(time.Hour))
			for _, o := range mesh {
				i := slices.IndexFunc(doubts, func(d Doubt) bool { return d.Node == o.Name })
				own := slices.Contains(proof[o.Name], m.Name)
				switch {
				case i >= 0 && !o.lies && (liars <= 1 || doubts[i].Ground != GroundWitnesses):
					t.Fatalf("honest %s in %s doubts honest %s in %s: %+v", m.Name, m.Country, o.Name, o.Country, doubts[i])
				case i < 0 && o.lies && (own || liars == 1 && len(proof[o.Name]) >= witnesses):
					t.Fatalf("%s does not doubt %s, which says %s; %v can prove it", m.Name, o.Name, o.Country, proof[o.Name])
				}
			}
		}
	})
}

// measure has every machine see every other for a minute, and returns which
// honest ones can prove a lie.
func measure(t *rapid.T, mesh []*machine, world *atlas) map[residency.NodeName][]residency.NodeName {
	proof := map[residency.NodeName][]residency.NodeName{}
	for _, m := range mesh {
		for _, o := range mesh {
			if m == o {
				continue
			}
			// Lines are longer than the shortest way, or carried by radio.
			line := time.Duration(float64(fastest(m, o)) * rapid.Float64Range(1, 2.5).Draw(t, "detour"))
			quiet := 0
			for i := range 12 {
				jitter := time.Duration(rapid.IntRange(0, 200).Draw(t, "jitter")-100) * time.Millisecond
				if jitter <= 0 {
					jitter, quiet = 0, quiet+1
				}
				m.watch.See(Sighting{Peer: o.Node, RTT: max(line+jitter, 1)}, noon.Add(time.Hour-time.Duration(60-5*i)*time.Second))
			}
			if !m.lies && quiet >= strikes && max(line, 1) < world.leastRTT(m.Country, o.Country) {
				proof[o.Name] = append(proof[o.Name], m.Name)
			}
		}
	}
	return proof
}

// tell has every honest machine say what it found, and the liars what they like.
func tell(t *rapid.T, mesh []*machine) {
	for _, m := range mesh {
		said := m.watch.Words()
		if m.lies {
			said = nil
			for _, o := range mesh {
				if rapid.Bool().Draw(t, "accuses") {
					said = append(said, Word{Of: o.Name, Country: o.Country, RTT: 1, SeenIn: "AQ"})
				}
			}
		}
		for _, o := range mesh {
			o.watch.Hear(m.Name, said, noon.Add(time.Hour))
		}
	}
}

// However the words fall, convict comes to an end and keeps its promise: whoever
// is found guilty has two accusers who are neither guilty nor doubted.
func TestConvict(t *testing.T) {
	names := []residency.NodeName{"a", "b", "c", "d", "e", "f"}
	rapid.Check(t, func(t *rapid.T) {
		accusers := map[residency.NodeName][]residency.NodeName{}
		direct := map[residency.NodeName]bool{}
		for _, of := range names {
			for _, by := range names {
				if of != by && rapid.IntRange(0, 2).Draw(t, "accuses") == 0 {
					accusers[of] = append(accusers[of], by)
				}
			}
			direct[of] = rapid.IntRange(0, 5).Draw(t, "direct") == 0
		}
		guilty := convict(accusers, direct, nobody)
		for of, by := range guilty {
			if len(by) < witnesses {
				t.Fatalf("%s by %v", of, by)
			}
			for _, a := range by {
				if direct[a] || guilty[a] != nil || !slices.Contains(accusers[of], a) {
					t.Fatalf("%s by %s, who is no witness: %v", of, a, guilty)
				}
			}
		}
	})
}
