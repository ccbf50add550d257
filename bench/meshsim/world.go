package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// city is a place where nodes and people are; weight is how many of them.
type city struct {
	name     string
	country  residency.Country
	at       router.Point
	weight   float64
	inRegion bool // inside the zone of the rooms that have one
}

var cities = []city{
	{"fra", "DE", router.Point{Lat: 50.11, Lon: 8.68}, 8, true}, {"ber", "DE", router.Point{Lat: 52.52, Lon: 13.40}, 4, true},
	{"par", "FR", router.Point{Lat: 48.86, Lon: 2.35}, 7, true}, {"mrs", "FR", router.Point{Lat: 43.30, Lon: 5.37}, 2, true},
	{"ams", "NL", router.Point{Lat: 52.37, Lon: 4.90}, 5, true}, {"waw", "PL", router.Point{Lat: 52.23, Lon: 21.01}, 4, true},
	{"mad", "ES", router.Point{Lat: 40.42, Lon: -3.70}, 4, true}, {"mil", "IT", router.Point{Lat: 45.46, Lon: 9.19}, 4, true},
	{"sto", "SE", router.Point{Lat: 59.33, Lon: 18.07}, 3, true}, {"vie", "AT", router.Point{Lat: 48.21, Lon: 16.37}, 3, true},
	{"osl", "NO", router.Point{Lat: 59.91, Lon: 10.75}, 2, true}, {"dub", "IE", router.Point{Lat: 53.35, Lon: -6.26}, 2, true},
	{"lon", "GB", router.Point{Lat: 51.51, Lon: -0.13}, 8, false}, {"zrh", "CH", router.Point{Lat: 47.37, Lon: 8.54}, 3, false},
	{"ist", "TR", router.Point{Lat: 41.01, Lon: 28.98}, 4, false}, {"nyc", "US", router.Point{Lat: 40.71, Lon: -74.01}, 9, false},
	{"iad", "US", router.Point{Lat: 38.95, Lon: -77.45}, 7, false}, {"chi", "US", router.Point{Lat: 41.88, Lon: -87.63}, 5, false},
	{"dal", "US", router.Point{Lat: 32.78, Lon: -96.80}, 4, false}, {"lax", "US", router.Point{Lat: 34.05, Lon: -118.24}, 6, false},
	{"sea", "US", router.Point{Lat: 47.61, Lon: -122.33}, 3, false}, {"yyz", "CA", router.Point{Lat: 43.65, Lon: -79.38}, 3, false},
	{"mex", "MX", router.Point{Lat: 19.43, Lon: -99.13}, 4, false}, {"gru", "BR", router.Point{Lat: -23.55, Lon: -46.63}, 6, false},
	{"bog", "CO", router.Point{Lat: 4.71, Lon: -74.07}, 2, false}, {"eze", "AR", router.Point{Lat: -34.60, Lon: -58.38}, 3, false},
	{"jnb", "ZA", router.Point{Lat: -26.20, Lon: 28.05}, 3, false}, {"los", "NG", router.Point{Lat: 6.52, Lon: 3.38}, 3, false},
	{"nbo", "KE", router.Point{Lat: -1.29, Lon: 36.82}, 2, false}, {"cai", "EG", router.Point{Lat: 30.04, Lon: 31.24}, 3, false},
	{"dxb", "AE", router.Point{Lat: 25.20, Lon: 55.27}, 3, false}, {"bom", "IN", router.Point{Lat: 19.08, Lon: 72.88}, 8, false},
	{"del", "IN", router.Point{Lat: 28.61, Lon: 77.21}, 6, false}, {"sin", "SG", router.Point{Lat: 1.35, Lon: 103.82}, 5, false},
	{"hkg", "HK", router.Point{Lat: 22.32, Lon: 114.17}, 5, false}, {"tyo", "JP", router.Point{Lat: 35.68, Lon: 139.69}, 8, false},
	{"sel", "KR", router.Point{Lat: 37.57, Lon: 126.98}, 5, false}, {"jkt", "ID", router.Point{Lat: -6.21, Lon: 106.85}, 4, false},
	{"syd", "AU", router.Point{Lat: -33.87, Lon: 151.21}, 4, false}, {"akl", "NZ", router.Point{Lat: -36.85, Lon: 174.76}, 1, false},
}

// world is a mesh: where nodes are and how far from each other, in truth and as
// they measure it.
type world struct {
	*rand.Rand
	seed  uint64
	nodes []residency.Node
	at    []router.Point
	city  []int
	seen  [][]float32 // round trips as they are measured, ms; negative: not measured
	truth [][]float32 // ms
	total float64     // weight of all cities
}

// seats is how many attendees a node takes.
const seats = 500

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newWorld spreads nodes over the cities.
func newWorld(seed uint64, n int) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), seed: seed}
	for _, c := range cities {
		w.total += c.weight
	}
	for i := range n {
		at := w.somewhere()
		c := cities[at]
		w.city = append(w.city, at)
		w.at = append(w.at, router.Point{Lat: c.at.Lat + w.NormFloat64()/4, Lon: c.at.Lon + w.NormFloat64()/4})
		w.nodes = append(w.nodes, residency.Node{Name: residency.NodeName(fmt.Sprintf("%s-%d", c.name, i)), Country: c.country,
			Operator: "Example GmbH", OperatorCountry: "DE", Parent: "Example GmbH", ParentCountry: "DE",
			Roles: []residency.Role{residency.RoleOrigin, residency.RoleEdge}, Serial: fmt.Sprintf("%04x", i+1),
			NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)})
	}
	w.measure()
	return w
}

// somewhere is a city, the larger the likelier.
func (w *world) somewhere() int {
	at := w.Float64() * w.total
	for i, c := range cities {
		if at -= c.weight; at < 0 {
			return i
		}
	}
	return 0
}

// measure makes the round trips. Light in fibre takes 0.01 ms/km both ways; paths are
// longer than straight lines, some far longer, so that a detour may be the faster way.
// What is measured errs by a few percent, and some pairs have never met.
func (w *world) measure() {
	n := len(w.nodes)
	w.truth, w.seen = make([][]float32, n), make([][]float32, n)
	for i := range n {
		w.truth[i], w.seen[i] = make([]float32, n), make([]float32, n)
	}
	for i := range n {
		for j := range i {
			crooked := 1.2 + 0.25*math.Abs(w.NormFloat64())
			if w.IntN(50) == 0 {
				crooked *= 1.5
			}
			rtt := float32(0.4 + 0.01*crooked*w.at[i].Km(w.at[j]))
			seen := rtt * float32(1+0.05*w.NormFloat64())
			if w.IntN(20) == 0 {
				seen = -1
			}
			w.truth[i][j], w.truth[j][i] = rtt, rtt
			w.seen[i][j], w.seen[j][i] = seen, seen
		}
	}
}

// bundle has the two policies of the rooms: anywhere, and in the European Economic Area.
func bundle() *residency.Bundle {
	members, _ := residency.NamedZone("EEA")
	policy := func(name string, z residency.Zone) *residency.Policy {
		p := &residency.Policy{Name: name, Zones: map[residency.Class]residency.Zone{}, Evidence: "off"}
		for _, c := range residency.Classes() {
			p.Zones[c] = z
		}
		return p
	}
	return &residency.Bundle{Epoch: 1, Default: "anywhere", Policies: map[string]*residency.Policy{
		"anywhere": policy("anywhere", residency.Zone{Name: "anywhere", Anywhere: true}),
		"eea":      policy("eea", residency.Zone{Name: "EEA", Countries: members}),
	}}
}
