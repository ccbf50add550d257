package room

import (
	"encoding/json"
	"testing"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// narrow is a way to another node that does not carry all layers.
type narrow struct {
	*tap
	flow
	held uint8
	told []Layers
}

func (n *narrow) Held() uint8                                        { return n.held }
func (n *narrow) OpenTrack(residency.Permit, bool) (OutTrack, error) { return n, nil }
func (n *narrow) Send(p residency.Permit, k relay.Kind, body []byte) error {
	if k == KindLayers {
		var l Layers
		if err := json.Unmarshal(body, &l); err != nil {
			return err
		}
		n.told = append(n.told, l)
	}
	return n.tap.Send(p, k, body)
}

// A node is told what the path to it does not carry, once, and when that changes.
func TestANodeHearsWhatThePathCarries(t *testing.T) {
	s := newScene(t)
	n := &narrow{tap: s.tap}
	s.deps.Link = func(residency.NodeName) Link { return n }
	s.says("waw", KindSubscribe, Subscribe{Track: "TR_gus", Layers: 7})
	s.doReconcile()
	n.told = nil
	o := s.tracks["TR_gus"].serving["waw"]
	for _, c := range []struct {
		held  uint8
		left  sfu.LayerSet
		times int
	}{{4, 3, 1}, {4, 3, 1}, {6, 1, 2}, {0, 7, 3}} {
		n.held = c.held
		s.doReconcile()
		if got := o.carried(7); got != c.left || len(n.told) != c.times {
			t.Errorf("without %03b: layers %03b are left, and the node was told %d times; want %03b and %d", c.held, got, len(n.told), c.left, c.times)
		}
	}
}
