package sfu

import (
	"fmt"
	"strings"
	"testing"
)

// transcript shows which layers of each temporal unit reach a receiver, a
// letter for each spatial layer; the figure is the temporal layer.
func transcript(m *meeting, units int) string {
	var lines []string
	for i := range units {
		before := m.dec.highest
		m.step(i, true)
		var b strings.Builder
		seen := map[uint8]bool{}
		for n := before + 1; n <= m.dec.highest; n++ {
			p, err := m.dec.read(n, m.e.all)
			if err != nil || p.pic == nil || seen[p.pic.spatial] {
				continue
			}
			if len(seen) == 0 {
				fmt.Fprintf(&b, "%d", p.pic.temporal)
			}
			seen[p.pic.spatial] = true
			b.WriteByte("abc"[p.pic.spatial])
		}
		if b.Len() == 0 {
			b.WriteByte('-')
		}
		lines = append(lines, b.String())
	}
	return strings.Join(lines, " ")
}

// steadyMeeting is one whose publisher makes no keyframe of its own accord and
// whose pictures refer to lower temporal layers only.
func steadyMeeting(f format) *meeting {
	m := newMeeting(1, f, true)
	m.e.steady, m.e.keyMode = true, false
	transcript(m, 4)
	return m
}

func TestTemporalLayersGoFirstAndComeBackWhereTheyCan(t *testing.T) {
	for _, f := range []format{formatVP9, formatAV1} {
		m := steadyMeeting(f)
		if got := transcript(m, 4); got != "0abc 2abc 1abc 2abc" {
			t.Errorf("everything: %s", got)
		}
		m.down.SetLimit(Limit{Spatial: 2, Temporal: 0})
		if got := transcript(m, 4); got != "0abc - - -" {
			t.Errorf("without upper temporal layers: %s", got)
		}
		m.down.SetLimit(Limit{Spatial: 2, Temporal: 1})
		transcript(m, 4)
		if got := transcript(m, 4); got != "0abc - 1abc -" {
			t.Errorf("with one of them: %s", got)
		}
		m.down.SetLimit(Limit{Spatial: 0, Temporal: 2})
		transcript(m, 4)
		if got := transcript(m, 4); got != "0a 2a 1a 2a" {
			t.Errorf("the smallest picture: %s", got)
		}
		asked := 0
		m.up.OnKeyframeRequest(func(Layer) { asked++ })
		m.down.SetLimit(Unlimited)
		if got := transcript(m, 4); got != "0a 2a 1a 2a" || asked == 0 {
			t.Errorf("up again without a keyframe: %s, %d asked for", got, asked)
		}
		m.e.state[0].key = true
		if got := transcript(m, 4); got != "0abc 2abc 1abc 2abc" {
			t.Errorf("after the keyframe: %s", got)
		}
	}
}
