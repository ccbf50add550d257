package node

import (
	"testing"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// cities are where the nodes of test meshes stand.
var cities = map[residency.NodeName]router.Point{"fra": {Lat: 50.11, Lon: 8.68}, "waw": {Lat: 52.23, Lon: 21.01}, "nyc": {Lat: 40.71, Lon: -74.01}}

func inCities(_ *testMesh, c *Config) { c.At = cities[c.Self.Name] }

// A node that is not in the room places somebody by where the room is: its home
// tells. Round trips are those of links and, between others, of coordinates.
func TestPlacedByTheWholeRoom(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, testBundle(1), inCities, "fra DE origin", "waw PL edge", "osl NO edge")
	fra, osl := m.node("fra"), m.node("osl")
	enter(t, fra, "town", "anna", nil)
	enter(t, fra, "town", "ben", nil)
	var found resolveReply
	eventually(t, "the home tells osl where the room is", func() bool {
		var err error
		found, err = osl.lookup(t.Context(), resolveRequest{Spec: roomCalled("town"), Identity: "ben"})
		return err == nil && len(found.seat().carriers) == 1 && found.Before != ""
	})
	if got := found.seat(); got.carriers[0] != (router.Carrier{Node: "fra", Attendees: 2}) || got.before != "fra" {
		t.Errorf("osl is told %+v", got)
	}
	eventually(t, "round trips of the links, and of coordinates as soon as they have settled", func() bool {
		_, _, settled := osl.mesh.Between("waw", "fra") // on loopback that is a matter of chance: the times are all noise
		return osl.between("osl", "waw").How == router.Measured && settled == (osl.between("waw", "fra").How == router.Coordinates)
	})
	hamburg := router.Attendee{Country: "DE", At: router.Point{Lat: 53.55, Lon: 10}, Known: true}
	p := osl.place(found.Record, hamburg, found.seat())
	if p.Node() != "fra" {
		t.Errorf("placed:\n%s", p)
	}
	terms := map[string]bool{}
	for _, term := range p.Ranked[1].Terms {
		terms[term.Name] = term.MS > 0
	}
	if !terms[router.TermOpen] || !terms[router.TermMove] || !terms[router.TermRoom] {
		t.Errorf("another node would have to be opened, and %v is all that counts:\n%s", terms, p)
	}
}

func roomCalled(name string) room.Record { return room.Record{Name: name} }
