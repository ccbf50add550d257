package sfu

import (
	"math/rand/v2"
	"testing"
)

// thinned is a sink that passes what it gets through a Thinner into the UpTrack
// of another node.
type thinned struct {
	t     *Thinner
	there *UpTrack
	wants LayerSet
	sent  [MaxLayers]int
}

func (s *thinned) Wants() LayerSet            { return s.wants }
func (s *thinned) Report(Layer, SenderReport) {}
func (s *thinned) Offer(burst []Packet, out Out) {
	for i := range burst {
		if raw, _, ok := s.t.Take(&burst[i], s.wants); ok {
			s.sent[burst[i].Spatial]++
			s.there.Ingest(0, []Inbound{{raw, burst[i].Arrival}}, out)
		}
	}
}

// TestOtherNodesGetOnlyWhatTheyWatch puts a Thinner between two nodes, and a
// decoder behind the second.
func TestOtherNodesGetOnlyWhatTheyWatch(t *testing.T) {
	for _, f := range []format{formatVP9, formatAV1} {
		for seed := range uint64(20) {
			rnd := rand.New(rand.NewPCG(seed, 9))
			m := newMeeting(seed, f, true)
			m.down.Close()
			cfg := m.e.config()
			cfg.Relayed = true
			s := &thinned{t: NewThinner(), there: NewUpTrack(cfg), wants: 0b111}
			s.there.SetAvailable(0b111)
			m.down = NewDownTrack(s.there, DownConfig{})
			m.down.Bind(Binding{SSRC: 7, PayloadType: 96, Extensions: Extensions{DependencyDescriptor: 9}, Writer: m.dec})
			s.there.OnKeyframeRequest(func(l Layer) { m.up.RequestKeyframe(l, m.now) })
			m.up.AddSink(s)
			for i := range 600 {
				m.step(i, true)
				if rnd.IntN(60) == 0 {
					m.down.SetMaxLayer(Layer(rnd.IntN(MaxLayers)))
					s.wants = s.there.Wanted()
					m.up.WantsChanged()
				}
			}
			if err := m.dec.check(m.e); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if len(m.dec.holes()) > 0 || s.there.Stats().Layers[0].Stale > 0 {
				t.Fatalf("seed %d: numbers %v are missing", seed, m.dec.holes())
			}
		}
	}
}

func TestThinnerHoldsUpperLayersBack(t *testing.T) {
	m := newMeeting(1, formatVP9, true)
	s := &thinned{t: NewThinner(), there: NewUpTrack(m.e.config()), wants: 0b011}
	m.up.AddSink(s)
	for i := range 100 {
		m.step(i, true)
	}
	if s.sent[2] != 0 || s.sent[1] == 0 || s.sent[0] == 0 {
		t.Errorf("packets sent of each layer: %v", s.sent)
	}
	if got := s.there.Available(); got != 0b011 {
		t.Errorf("there, layers %b are available", got)
	}
}
