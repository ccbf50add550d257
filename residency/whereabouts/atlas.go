package whereabouts

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/golang/geo/s2"

	"github.com/domicile/domicile/residency"
)

//go:generate node outlines/generate.mjs

// outlinesJSON says where the countries lie; see outlines/generate.mjs.
//
//go:embed outlines/outlines.json
var outlinesJSON []byte

const (
	earthKm = 6371.0 // mean radius (IUGG R1)

	// sphere is by how much a distance on the sphere may exceed the one on the
	// ellipsoid: 0.6 %.
	sphere = 0.994

	// doubtKm is how far a country may reach beyond its outline: 10 km that
	// simplifying moves a border, and 40 for islands that are left out near
	// others and for what map makers leave out themselves.
	doubtKm = 50.0

	// lightKmPerMS is the speed of light in vacuum. In common fibre it is a third
	// less, 204 km/ms, but radio links and hollow fibres come close to this: an
	// honest node must not be blamed for a good line.
	lightKmPerMS = 299.792458
)

// Place is a point on Earth in degrees. The zero Place is none.
type Place struct{ Lat, Lon float64 }

// stated reports whether the place is one.
func (p Place) stated() bool {
	return p != Place{} && p.Lat >= -90 && p.Lat <= 90 && p.Lon >= -180 && p.Lon <= 180
}

// String writes the place to a tenth of a degree, some 10 km.
func (p Place) String() string { return fmt.Sprintf("%.1f, %.1f", p.Lat, p.Lon) }

// atlas answers how far countries are from each other. It keeps what it found
// out and is for one goroutine.
type atlas struct {
	shapes map[residency.Country]*s2.ShapeIndex
	apart  map[[2]residency.Country]float64
}

func newAtlas() *atlas {
	return &atlas{shapes: map[residency.Country]*s2.ShapeIndex{}, apart: map[[2]residency.Country]float64{}}
}

// ring is a border, longitude and latitude in turn.
type ring []int

// outlines are the borders by country.
var outlines = sync.OnceValue(func() map[residency.Country][]ring {
	var file struct {
		Countries map[residency.Country][]ring `json:"countries"`
	}
	if err := json.Unmarshal(outlinesJSON, &file); err != nil {
		// The file is compiled in: only a broken build gets here.
		panic(fmt.Sprintf("whereabouts: read outlines: %v", err))
	}
	return file.Countries
})

// unit is what an outline's numbers count, in degrees.
const unit = 0.01

// loop makes a border a loop on the sphere; the smaller of its two sides is the
// country.
func (r ring) loop() *s2.Loop {
	var points []s2.Point
	for i := 0; i+1 < len(r); i += 2 {
		p := s2.PointFromLatLng(s2.LatLngFromDegrees(float64(r[i+1])*unit, float64(r[i])*unit))
		if len(points) == 0 || points[len(points)-1] != p && points[0] != p {
			points = append(points, p)
		}
	}
	l := s2.LoopFromPoints(points)
	if l.Area() > 2*math.Pi {
		l.Invert()
	}
	return l
}

// shape returns a country's outline, nil if none is known.
func (a *atlas) shape(c residency.Country) *s2.ShapeIndex {
	if s, known := a.shapes[c]; known {
		return s
	}
	var s *s2.ShapeIndex
	for _, r := range outlines()[c] {
		if l := r.loop(); l.NumEdges() >= 3 {
			if s == nil {
				s = s2.NewShapeIndex()
			}
			s.Add(l)
		}
	}
	a.shapes[c] = s
	return s
}

// km returns the least distance of two countries that is certain, 0 if they may
// touch or if nothing is known of one of them.
func (a *atlas) km(c, d residency.Country) float64 {
	if c > d {
		c, d = d, c
	}
	pair := [2]residency.Country{c, d}
	if km, known := a.apart[pair]; known {
		return km
	}
	km := 0.0
	if s, t := a.shape(c), a.shape(d); c != d && s != nil && t != nil {
		angle := s2.NewClosestEdgeQuery(s, withInside()).Distance(s2.NewMinDistanceToShapeIndexTarget(t))
		km = certain(angle.Angle().Radians()*earthKm, 2*doubtKm)
	}
	a.apart[pair] = km
	return km
}

// away returns how far a place is from a country at least, 0 if it may lie in it
// or if nothing is known of the country.
func (a *atlas) away(p Place, c residency.Country) float64 {
	s := a.shape(c)
	if s == nil {
		return 0
	}
	at := s2.PointFromLatLng(s2.LatLngFromDegrees(p.Lat, p.Lon))
	angle := s2.NewClosestEdgeQuery(s, withInside()).Distance(s2.NewMinDistanceToPointTarget(at))
	return certain(angle.Angle().Radians()*earthKm, doubtKm)
}

// withInside has a place inside a country at distance 0 from it.
func withInside() *s2.EdgeQueryOptions {
	return s2.NewClosestEdgeQueryOptions().IncludeInteriors(true)
}

// certain makes a distance a lower bound.
func certain(km, doubt float64) float64 { return max(0, km*sphere-doubt) }

// leastRTT is how long light is on its way between two countries and back, at
// least. 0 tells nothing.
func (a *atlas) leastRTT(c, d residency.Country) time.Duration {
	return time.Duration(2 * a.km(c, d) / lightKmPerMS * float64(time.Millisecond))
}
