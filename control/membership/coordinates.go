package membership

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"

	"github.com/domicile/domicile/residency"
)

// Network coordinates (Vivaldi, as serf has them) tell how far two other nodes are
// from each other, which no link of this node measures. A node's coordinate comes
// with the answer to each of memberlist's probes, whose round trip moves ours:
//
//	0        1                                                 65
//	┌────────┬──── … 8 × float64, seconds … ───┬────────────────┐
//	│ form 1 │ vector                          │ error,         │ 89 bytes,
//	│        │                                 │ adjustment,    │ big endian
//	│        │                                 │ height         │
//	└────────┴─────────────────────────────────┴────────────────┘
//
// A node that says nothing there, or something else, has no coordinate. Whoever has
// the gossip key can lie about them: they order nodes that are permitted anyway,
// and contradict nobody's place.
const (
	coordinateForm = 1
	coordinateSize = 1 + 8*(dimensions+3)
	// dimensions are serf's: with height and adjustment more give no better estimate.
	dimensions = 8
	// settled is the share by which a coordinate may err to be used. New ones begin
	// at 1.5 and are below this after some ten probes.
	settled = 0.5
	// farthest is the most that a number of a coordinate may be, in seconds: three
	// times around the Earth by satellite. More would overflow when distances are made.
	farthest = 10
)

// atlas is where the nodes are in the network.
type atlas struct {
	client *coordinate.Client // ours; safe for concurrent use

	mu sync.Mutex
	of map[string]*coordinate.Coordinate // guarded by mu; the last of each peer, never changed
}

var _ memberlist.PingDelegate = (*atlas)(nil)

func newAtlas() *atlas {
	c := coordinate.DefaultConfig()
	c.Dimensionality = dimensions
	client, err := coordinate.NewClient(c)
	if err != nil {
		panic(err) // it knows one error: no dimensions
	}
	return &atlas{client: client, of: map[string]*coordinate.Coordinate{}}
}

// AckPayload is our coordinate, for who probes us.
func (a *atlas) AckPayload() []byte {
	c := a.client.GetCoordinate()
	b := []byte{coordinateForm}
	for _, f := range append(c.Vec, c.Error, c.Adjustment, c.Height) {
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(f))
	}
	return b
}

// NotifyPingComplete takes the round trip to a peer and what it answered.
func (a *atlas) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	c, ok := readCoordinate(payload)
	if !ok {
		return
	}
	if _, err := a.client.Update(other.Name, c, rtt); err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.of[other.Name]; known || len(a.of) < maxPeers {
		a.of[other.Name] = c
	}
}

// readCoordinate reads a peer's coordinate; ok is false of anything else.
func readCoordinate(b []byte) (c *coordinate.Coordinate, ok bool) {
	if len(b) != coordinateSize || b[0] != coordinateForm {
		return nil, false
	}
	f := make([]float64, dimensions+3)
	for i := range f {
		f[i] = math.Float64frombits(binary.BigEndian.Uint64(b[1+8*i:]))
		if !(math.Abs(f[i]) <= farthest) { // nor what is no number
			return nil, false
		}
	}
	c = &coordinate.Coordinate{Vec: f[:dimensions:dimensions], Error: f[dimensions], Adjustment: f[dimensions+1], Height: f[dimensions+2]}
	return c, c.Error >= 0 && c.Height >= 0
}

// forget drops a peer that has left.
func (a *atlas) forget(name string) {
	a.client.ForgetNode(name)
	a.mu.Lock()
	delete(a.of, name)
	a.mu.Unlock()
}

// place is a node's coordinate if it has settled, nil if not.
func (a *atlas) place(name, self string) *coordinate.Coordinate {
	if name == self {
		if c := a.client.GetCoordinate(); c.Error < settled {
			return c
		}
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.of[name]; c != nil && c.Error < settled {
		return c
	}
	return nil
}

// Between is the round trip between two nodes by their network coordinates, and by
// how much it may be longer. ok is false while they are not known well enough.
func (m *Mesh) Between(a, b residency.NodeName) (rtt, spread time.Duration, ok bool) {
	self := string(m.cfg.Self.Name)
	x, y := m.in.atlas.place(string(a), self), m.in.atlas.place(string(b), self)
	if x == nil || y == nil {
		return 0, 0, false
	}
	rtt = x.DistanceTo(y)
	return rtt, time.Duration(float64(rtt) * max(x.Error, y.Error)), true
}
