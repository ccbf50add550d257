package allocate

import (
	"testing"
	"time"
)

// simulcast is a camera of 150, 500 and 1700 kbit/s with three temporal layers.
var simulcast = Rates{{70e3, 110e3, 150e3}, {230e3, 360e3, 500e3}, {800e3, 1200e3, 1700e3}}

var epoch = time.Unix(1700000000, 0)

func TestEverybodyGetsTheLowestFirst(t *testing.T) {
	var a Allocator
	got := a.Plan(nil, Input{Budget: 260e3, Now: epoch, Wants: []Want{
		{ID: "a", Max: 2, Rates: simulcast}, {ID: "b", Max: 2, Rates: simulcast}, {ID: "s", Screen: true, Max: 2, Rates: simulcast},
	}})
	for i, g := range got {
		if g.Pause || g.Spatial != 0 || g.Temporal != 0 {
			t.Errorf("picture %d: %+v", i, g)
		}
	}
}
