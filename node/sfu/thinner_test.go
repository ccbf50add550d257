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
		raw, _ := s.t.Take(&burst[i], s.wants)
		if len(raw) > headerSize {
			s.sent[burst[i].Spatial]++
		}
		s.there.Ingest(0, []Inbound{{raw, burst[i].Arrival}}, out)
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
			s := &thinned{t: new(Thinner), there: NewUpTrack(cfg), wants: 0b111}
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
	s := &thinned{t: new(Thinner), there: NewUpTrack(m.e.config()), wants: 0b011}
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

// TestWaysOfAStreamFitTogether has a node get a stream by one way and then another, both at
// once for a while, each thinned in its own manner: nobody there has to begin anew.
func TestWaysOfAStreamFitTogether(t *testing.T) {
	for _, f := range []format{formatVP9, formatAV1} {
		for seed := range uint64(20) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			m := newMeeting(seed, f, true)
			m.down.Close()
			cfg := m.e.config()
			cfg.Relayed = true
			there := NewUpTrack(cfg)
			there.SetAvailable(0b111)
			m.down = NewDownTrack(there, DownConfig{})
			m.down.Bind(Binding{SSRC: 7, PayloadType: 96, Extensions: Extensions{DependencyDescriptor: 9}, Writer: m.dec})
			top := Layer(rnd.IntN(MaxLayers))
			m.down.SetMaxLayer(top)
			asked := 0
			there.OnKeyframeRequest(func(l Layer) { asked++; m.up.RequestKeyframe(l, m.now) })
			way := func() *thinned { // who passes it on may watch more
				return &thinned{t: new(Thinner), there: there, wants: LayerSet(1)<<(int(top)+1+rnd.IntN(MaxLayers-int(top))) - 1}
			}
			now := way()
			m.up.AddSink(now)
			for i := range 600 {
				m.step(i, true)
				if i%60 == 50 {
					next := way()
					m.up.AddSink(next)
					for k := range 9 {
						m.step(k, true)
					}
					m.up.RemoveSink(now)
					now = next
				}
				if i == 40 {
					asked = 0
				}
			}
			if err := m.dec.check(m.e); err != nil {
				t.Fatalf("%v, seed %d: %v", f, seed, err)
			}
			if n := there.Stats().Layers[0]; len(m.dec.holes()) > 0 || n.Restarts > 0 || asked > 0 {
				t.Fatalf("%v, seed %d, layer %d: numbers %v are missing, %d restarts, %d keyframes asked for", f, seed, top, m.dec.holes(), n.Restarts, asked)
			}
		}
	}
}
