package sfu

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

func TestSwitchUpLeavesNoJoint(t *testing.T) {
	c := newCamera(3)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(60, d)
	if got := d.Stats(); got.Layer != 2 || got.Switches != 1 {
		t.Fatalf("layer %d after %d switches, want 2 after 1", got.Layer, got.Switches)
	}
	d.SetMaxLayer(0)
	c.run(60, d)
	if got := d.Stats(); got.Layer != 0 || got.Switches != 2 {
		t.Fatalf("layer %d after %d switches, want 0 after 2", got.Layer, got.Switches)
	}
	if len(r.got) < 115 {
		t.Errorf("got %d packets of 120", len(r.got))
	}
	r.continuous()
}

func TestSwitchWaitsForTheKeyframe(t *testing.T) {
	c := newCamera(2)
	c.up.OnKeyframeRequest(func(l Layer) { c.asked = append(c.asked, l) }) // and sends none
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(45, d)
	if got := d.Stats(); got.Layer != 0 || got.Target != 1 || len(r.got) != 45 {
		t.Fatalf("layer %d, target %d, %d packets; want layer 0 to go on meanwhile", got.Layer, got.Target, len(r.got))
	}
	if n := len(c.asked); n < 2 || n > 4 {
		t.Errorf("asked for %d keyframes in 1.5 s, want one each half second", n)
	}
	if want := LayerSet(0b111); d.Wants() != want { // 2 is wished for, should it come
		t.Errorf("wants %b while waiting, want %b", d.Wants(), want)
	}
	c.key[1] = true
	c.run(1, d)
	if got := d.Stats(); got.Layer != 1 {
		t.Errorf("layer %d after the keyframe, want 1", got.Layer)
	}
	if want := LayerSet(0b110); d.Wants() != want {
		t.Errorf("wants %b after the switch, want %b", d.Wants(), want)
	}
}

func TestLostLayerFallsBack(t *testing.T) {
	c := newCamera(3)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(30, d)
	c.layers = c.layers[:2] // bandwidth is short: the browser drops its top layer
	c.run(90, d)
	if got := d.Stats().Layer; got != 1 {
		t.Errorf("layer %d, want 1", got)
	}
	if got := c.up.Available(); got != 0b11 {
		t.Errorf("available %b, want 11", got)
	}
	r.continuous()
}

func TestSilentTrackKeepsItsLayers(t *testing.T) {
	c := newCamera(3)
	c.run(10)
	c.now = c.now.Add(time.Minute)
	c.up.Tick(c.now)
	if got := c.up.Available(); got != 0b111 {
		t.Errorf("available %b, want 111", got)
	}
}

func TestPauseLeavesNoJoint(t *testing.T) {
	c := newCamera(1)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(10, d)
	d.SetPaused(true)
	before := len(r.got)
	c.run(30, d)
	if len(r.got) != before {
		t.Fatalf("%d packets written while paused", len(r.got)-before)
	}
	if d.Wants() != 0 || c.up.Wanted() != 0 {
		t.Errorf("wants %b, track %b while paused", d.Wants(), c.up.Wanted())
	}
	d.SetPaused(false)
	c.run(30, d)
	if len(r.got) < before+20 {
		t.Errorf("%d packets after the pause", len(r.got)-before)
	}
	if gap := r.got[before].ts - r.got[before-1].ts; gap < 90000 {
		t.Errorf("the pause of a second is %d ticks", gap)
	}
	r.continuous()
}

func TestMutedTrackIsNotForwarded(t *testing.T) {
	c := newCamera(2)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(30, d)
	before := len(r.got)
	c.up.SetMuted(true)
	c.run(30, d)
	lost := r.got[before-1].seq
	d.HandleRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: lost}}}}, c.now, &Scratch{})
	if len(r.got) != before {
		t.Fatalf("%d packets written while muted", len(r.got)-before)
	}
	if _, ok := c.up.Cached(1, c.layers[1].seq-31, make([]byte, maxRTP)); ok {
		t.Error("cache answers while muted")
	}
	c.up.SetMuted(false)
	c.run(30, d)
	if len(r.got) < before+20 {
		t.Errorf("%d packets after the mute", len(r.got)-before)
	}
	r.continuous()
}

func TestPaddingIsClosedOver(t *testing.T) {
	c := newCamera(1)
	r := &receiver{t: t}
	d := r.follow(c.up)
	for range 200 {
		c.frame()
		for range 3 {
			ingest(c.up, 0, c.layers[0].padding(), c.now)
		}
	}
	if len(r.got) != 200 {
		t.Errorf("got %d packets of 200", len(r.got))
	}
	r.continuous()
	d.Close()
}

func TestReorderingAndDuplicates(t *testing.T) {
	c := newCamera(1)
	r := &receiver{t: t}
	r.follow(c.up)
	c.frame()
	s := c.layers[0]
	a, b, pad, e := s.packet(false), s.packet(false), s.padding(), s.packet(false)
	for _, raw := range [][]byte{b, e, b, a, a, pad, e} {
		ingest(c.up, 0, raw, c.now)
	}
	first := r.got[0].seq
	var order []uint16
	for _, p := range r.got {
		order = append(order, p.seq-first)
	}
	// b, e, a, and the padding empty in the place that was kept for it
	want := []uint16{0, 2, 4, 1, 3}
	if len(order) != len(want) {
		t.Fatalf("got %v, want %v", order, want)
	}
	for i := range want {
		if order[i] != want[i] {
			t.Fatalf("got %v, want %v", order, want)
		}
	}
	if got := c.up.Stats().Layers[0].Stale; got != 3 {
		t.Errorf("%d duplicates counted, want 3", got)
	}
}

func TestNackIsAnsweredWithTheSameBytes(t *testing.T) {
	c := newCamera(3)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(90, d)
	sent := r.got
	r.got = nil
	var pairs []rtcp.NackPair
	for i := 0; i+17 <= len(sent); i += 17 {
		pairs = append(pairs, rtcp.NackPair{PacketID: sent[i].seq, LostPackets: 0xffff})
	}
	d.HandleRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: pairs}}, c.now, &Scratch{})
	if len(r.got) != 17*len(pairs) {
		t.Fatalf("%d packets sent again, want %d", len(r.got), 17*len(pairs))
	}
	for i, p := range r.got {
		if !bytes.Equal(p.raw, sent[i].raw) {
			t.Fatalf("packet %d is % x the second time, % x the first", p.seq, p.raw, sent[i].raw)
		}
	}
}

func TestNackIsBounded(t *testing.T) {
	c := newCamera(1)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(300, d)
	r.got = nil
	flood := &rtcp.TransportLayerNack{MediaSSRC: 7}
	for i := range 4096 {
		flood.Nacks = append(flood.Nacks, rtcp.NackPair{PacketID: uint16(i * 16), LostPackets: 0xffff})
	}
	for range 20 {
		d.HandleRTCP([]rtcp.Packet{flood}, c.now, &Scratch{})
	}
	if len(r.got) != resendBudget {
		t.Errorf("%d packets sent again in a tick, want %d", len(r.got), resendBudget)
	}
}

func TestNackForAnotherStreamIsPassedOver(t *testing.T) {
	c := newCamera(1)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.run(30, d)
	n := len(r.got)
	d.HandleRTCP([]rtcp.Packet{
		&rtcp.TransportLayerNack{MediaSSRC: 8, Nacks: []rtcp.NackPair{{PacketID: r.got[n-1].seq}}},
		&rtcp.PictureLossIndication{MediaSSRC: 8},
	}, c.now, &Scratch{})
	if len(r.got) != n || d.Stats().KeyframeRequests != 0 {
		t.Error("feedback about another stream was acted on")
	}
}

func TestLayersShareTheClockOfTheirReports(t *testing.T) {
	c := newCamera(2)
	r := &receiver{t: t}
	// The packets of layer 1 take 400 ms longer: only reports tell the true time.
	const late = 400 * time.Millisecond
	for l := range c.layers {
		c.up.Report(Layer(l), SenderReport{NTP: ntp(start), RTP: c.layers[l].ts, Arrival: start})
	}
	d := r.follow(c.up)
	ingest(c.up, 0, c.layers[0].packet(true), start)
	ingest(c.up, 1, rawRTP(1, 1, c.layers[1].ssrc, []byte{0x10, 0x01}), start) // there is a layer 1
	c.layers[1].seq = 2
	d.Tick(start, &Scratch{})
	c.layers[1].ts += 90000 // what it shows was taken a second after the first report
	ingest(c.up, 1, c.layers[1].packet(true), start.Add(time.Second+late))
	if len(r.got) != 2 {
		t.Fatalf("got %d packets, want 2", len(r.got))
	}
	if got := r.got[1].ts - r.got[0].ts; got != 90000 {
		t.Errorf("the layers are %d ticks apart, want 90000", got)
	}
	d.Tick(start.Add(3*time.Second), &Scratch{})
	sr := r.reports[len(r.reports)-1]
	if got := sr.RTP - r.got[0].ts; got < 269998 || got > 270002 {
		t.Errorf("report is %d ticks after the first packet, want 3 s", got)
	}
	if got := sr.NTP - ntp(start); got>>32 != 3 && got>>32 != 2 {
		t.Errorf("report moved the wall clock by %d s, want 3", got>>32)
	}
}

func TestRoundTripTime(t *testing.T) {
	c := newCamera(1)
	r := &receiver{t: t}
	d := r.follow(c.up)
	c.frame()
	c.up.Report(0, SenderReport{NTP: ntp(c.now), RTP: c.layers[0].ts, Arrival: c.now})
	d.Tick(c.now, &Scratch{})
	d.HandleRTCP([]rtcp.Packet{&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{
		{SSRC: 7, FractionLost: 64, LastSenderReport: uint32(r.reports[0].NTP >> 16), Delay: 1 << 16 / 2},
	}}}, c.now.Add(600*time.Millisecond), &Scratch{})
	if got := d.Stats(); got.RTT != 100*time.Millisecond || got.FractionLost != 0.25 {
		t.Errorf("round trip %v, loss %v; want 100ms, 0.25", got.RTT, got.FractionLost)
	}
}

func TestReceiversKeyframeRequestsAreMerged(t *testing.T) {
	c := newCamera(1)
	var downs []*DownTrack
	for range 50 {
		downs = append(downs, (&receiver{t: t}).follow(c.up))
	}
	c.frame()
	c.asked = nil
	for _, d := range downs {
		d.HandleRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: 7}}, c.now, &Scratch{})
	}
	if len(c.asked) != 1 {
		t.Fatalf("50 requests became %d, want 1", len(c.asked))
	}
	c.up.Tick(c.now.Add(keyframeInterval / 2))
	if len(c.asked) != 1 {
		t.Fatal("asked again too early")
	}
	c.up.Tick(c.now.Add(keyframeInterval))
	if len(c.asked) != 2 {
		t.Fatal("requests that came too early were forgotten")
	}
	c.frame()
	c.up.Tick(c.now.Add(2 * keyframeInterval))
	if len(c.asked) != 2 {
		t.Error("asked again though the keyframe came")
	}
}

func TestFailingWriterHarmsNobodyElse(t *testing.T) {
	c := newCamera(1)
	bad, good := &receiver{t: t, fail: errors.New("closed")}, &receiver{t: t}
	d := bad.follow(c.up)
	good.follow(c.up)
	c.run(5)
	if len(good.got) != 5 || d.Stats().WriteErrors != 5 {
		t.Errorf("%d packets, %d errors; want 5 and 5", len(good.got), d.Stats().WriteErrors)
	}
}

func TestUnboundDownTrackWantsNothing(t *testing.T) {
	c := newCamera(1)
	r := &receiver{t: t}
	d := NewDownTrack(c.up, DownConfig{})
	c.run(5, d)
	if c.up.Wanted() != 0 || len(c.asked) != 0 {
		t.Errorf("wants %b, asked %v", c.up.Wanted(), c.asked)
	}
	d.Bind(Binding{SSRC: 7, PayloadType: 96, Writer: r})
	d.Tick(c.now, &Scratch{})
	c.run(5, d)
	if len(r.got) != 10 || !r.got[0].keyframe {
		t.Errorf("%d packets after binding, want 5 that begin with a keyframe, from the cache, and 5", len(r.got))
	}
	d.Close()
	c.run(5, d)
	if len(r.got) != 10 || c.up.Stats().Sinks != 0 {
		t.Error("closed DownTrack still gets packets")
	}
}

func TestAudioBeginsAtOnce(t *testing.T) {
	up := NewUpTrack(opusCfg)
	r := &receiver{t: t}
	d := r.follow(up)
	ingest(up, 0, rawRTP(9, 960, 1, []byte{1}), start)
	ingest(up, 1, rawRTP(10, 1920, 1, []byte{1}), start) // audio has no layers
	d.HandleRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: 7}}, start, &Scratch{})
	if len(r.got) != 1 || up.Stats().Malformed != 1 {
		t.Errorf("got %d packets, %d malformed; want 1 and 1", len(r.got), up.Stats().Malformed)
	}
}

func TestIngestToWriteAllocatesNothing(t *testing.T) {
	c := newCamera(1)
	for range 10 {
		d := NewDownTrack(c.up, DownConfig{})
		d.Bind(Binding{SSRC: 7, PayloadType: 96, Writer: writerFunc(func([]byte) error { return nil })})
		d.Tick(start, &Scratch{})
	}
	s := c.layers[0]
	raw := withExtension(append(s.packet(true), make([]byte, 1100)...))
	burst, out := []Inbound{{raw, start}}, &Scratch{}
	send := func() {
		raw[2], raw[3] = byte(s.seq>>8), byte(s.seq)
		s.seq++
		c.up.Ingest(0, burst, out)
	}
	for range 2 * videoCache {
		send() // the cache grows to the packets' size once
	}
	before := c.up.Stats().Layers[0].Packets
	if n := testing.AllocsPerRun(1000, send); n != 0 {
		t.Errorf("%v allocations for a packet to ten receivers, want 0", n)
	}
	if got := c.up.Stats().Layers[0].Packets - before; got != 1001 {
		t.Errorf("only %d packets went through", got)
	}
}
