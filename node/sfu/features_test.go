package sfu

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/pion/rtcp"
)

// collector keeps whole packets.
type collector struct {
	got    [][]byte
	stamps []int
}

func (c *collector) Write(_ Out, rtp []byte, stampAt int) error {
	c.got = append(c.got, slices.Clone(rtp))
	c.stamps = append(c.stamps, stampAt)
	return nil
}

// follow returns a DownTrack of up with the binding, writing to the collector.
func (c *collector) follow(up *UpTrack, b Binding) *DownTrack {
	d := NewDownTrack(up, DownConfig{})
	b.Writer = c
	d.Bind(b)
	return d
}

var rtxBinding = Binding{SSRC: 7, PayloadType: 96, RTXSSRC: 8, RTXPayloadType: 97, Extensions: Extensions{TransportCC: 3, MID: 4}, MID: "v1"}

func nack(seqs ...uint16) []rtcp.Packet {
	return []rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)}}
}

func TestExtensionsGetTheReceiversNumbers(t *testing.T) {
	cfg := opusCfg
	cfg.Extensions = Extensions{AudioLevel: 1, AbsCaptureTime: 5}
	up := NewUpTrack(cfg)
	c := &collector{}
	c.follow(up, Binding{SSRC: 7, PayloadType: 111, Extensions: Extensions{AudioLevel: 9, MID: 4, TransportCC: 3}, MID: "a"})
	raw := rawRTP(1, 1, 1, []byte{1, 2, 3})
	var b block
	b.add(1, []byte{0x8a})
	b.add(5, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	b.add(13, []byte{1})
	ext := make([]byte, b.len())
	b.put(ext)
	raw[0] |= 0x10
	raw = slices.Insert(raw, headerSize, ext...)
	ingest(up, 0, raw, start)
	got := c.got[0]
	if v := ExtensionValue(got, 9); !bytes.Equal(v, []byte{0x8a}) {
		t.Errorf("audio level is % x", v)
	}
	if v := ExtensionValue(got, 4); string(v) != "a" {
		t.Errorf("MID is %q", v)
	}
	for _, id := range []uint8{1, 3, 5, 13} {
		if v := ExtensionValue(got, id); v != nil {
			t.Errorf("extension %d has % x, which was not negotiated", id, v)
		}
	}
	if c.stamps[0] != 0 {
		t.Error("audio without RTX has a stamp: sent again it could not be the same")
	}
}

func TestLongExtensionsAreWrittenInTheWideForm(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 40)
	var b block
	b.add(3, []byte{1, 2})
	b.add(12, long)
	raw := rawRTP(1, 1, 1, []byte{9})
	ext := make([]byte, b.len())
	if first := b.put(ext); first != 6 {
		t.Errorf("first element at %d, want 6", first)
	}
	raw[0] |= 0x10
	raw = slices.Insert(raw, headerSize, ext...)
	if v := ExtensionValue(raw, 12); !bytes.Equal(v, long) {
		t.Errorf("read back % x", v)
	}
	if h, err := parseHeader(raw); err != nil || h.end-h.start != 1 {
		t.Errorf("payload %d to %d, %v", h.start, h.end, err)
	}
}

func TestMIDIsLeftOutLater(t *testing.T) {
	c, w := newCamera(1), &collector{}
	w.follow(c.up, rtxBinding)
	c.run(namedPackets + 20)
	last := w.got[len(w.got)-1]
	if ExtensionValue(w.got[0], 4) == nil || ExtensionValue(last, 4) != nil {
		t.Error("the MID is to be in the first packets only")
	}
	if at := w.stamps[len(w.stamps)-1]; at == 0 || len(ExtensionValue(last, 3)) != 2 || &last[at] != &ExtensionValue(last, 3)[0] {
		t.Errorf("the stamp's place is said to be %d", at)
	}
}

func TestLostPacketsComeAsRTX(t *testing.T) {
	c, w := newCamera(1), &collector{}
	d := w.follow(c.up, rtxBinding)
	c.run(30, d)
	sent := w.got
	w.got = nil
	d.HandleRTCP(nack(seqOf(sent[7]), seqOf(sent[9])), c.now, &Scratch{})
	if len(w.got) != 2 {
		t.Fatalf("%d packets came again, want 2", len(w.got))
	}
	for i, k := range []int{7, 9} {
		a, b := sent[k], w.got[i]
		ah, _ := parseHeader(a)
		bh, err := parseHeader(b)
		if err != nil || bh.ssrc != 8 || bh.pt != 97 || bh.seq != uint16(i) || bh.ts != ah.ts || bh.marker != ah.marker {
			t.Fatalf("header %+v, %v", bh, err)
		}
		if got := binary.BigEndian.Uint16(b[bh.start:]); got != ah.seq || !bytes.Equal(b[bh.start+2:bh.end], a[ah.start:ah.end]) {
			t.Errorf("packet %d holds % x, want % x", ah.seq, b[bh.start:], a[ah.start:])
		}
	}
	d.HandleRTCP(nack(seqOf(sent[7])), c.now.Add(5*time.Millisecond), &Scratch{})
	if len(w.got) != 2 {
		t.Error("a packet came twice within a round trip")
	}
	d.HandleRTCP(nack(seqOf(sent[7])), c.now.Add(time.Second), &Scratch{})
	if len(w.got) != 3 {
		t.Error("a packet that was lost again did not come")
	}
}

func TestPaddingIsRecentPackets(t *testing.T) {
	c, w := newCamera(1), &collector{}
	d := w.follow(c.up, rtxBinding)
	if d.Pad(1000, &Scratch{}) != 0 {
		t.Error("padding before the stream began")
	}
	c.run(3, d)
	w.got = nil
	if n := d.Pad(100, &Scratch{}); n < 100 || n > 200 {
		t.Errorf("%d bytes sent, want about 100", n)
	}
	for _, p := range w.got {
		if h, err := parseHeader(p); err != nil || h.ssrc != 8 {
			t.Errorf("padding on %+v, %v", h, err)
		}
	}
	if n := d.Pad(1<<20, &Scratch{}); n > padPackets*maxRTP {
		t.Errorf("%d bytes sent at once", n)
	}
	c.up.SetMuted(true)
	if d.Pad(1000, &Scratch{}) != 0 {
		t.Error("padding of a muted track")
	}
}

func TestJoinStartsFromTheCache(t *testing.T) {
	c := newCamera(1)
	c.run(25)
	c.asked = nil
	r := &receiver{t: t}
	d := r.follow(c.up)
	d.Tick(c.now, &Scratch{})
	if len(r.got) != 25 || !r.got[0].keyframe || len(c.asked) != 0 {
		t.Fatalf("%d packets at once, %d keyframes asked for; want 25 and none", len(r.got), len(c.asked))
	}
	c.run(5, d)
	if len(r.got) != 30 {
		t.Errorf("%d packets, want 30", len(r.got))
	}
	r.continuous()
}

func TestJoinDoesNotStartFromABrokenCache(t *testing.T) {
	for name, spoil := range map[string]func(*camera){
		"lost packet":   func(c *camera) { c.layers[0].packet(false); c.run(5) },
		"old keyframe":  func(c *camera) { c.now = c.now.Add(maxReplayAge) },
		"long since":    func(c *camera) { c.now = c.now.Add(-10 * time.Second); c.run(maxReplayPackets); c.now = start },
		"muted":         func(c *camera) { c.up.SetMuted(true) },
		"other numbers": func(c *camera) { c.layers[0].ssrc++; c.run(1) },
	} {
		c := newCamera(1)
		c.run(5)
		spoil(c)
		r := &receiver{t: t}
		r.follow(c.up).Tick(c.now, &Scratch{})
		if len(r.got) != 0 {
			t.Errorf("%s: %d packets from the cache", name, len(r.got))
		}
	}
}

func TestRedundancyIsTakenOff(t *testing.T) {
	cfg := UpTrackConfig{Kind: Audio, Codec: Codec{MimeType: "audio/red", ClockRate: 48000}, REDPayloadType: 63}
	up := NewUpTrack(cfg)
	plain, red := &collector{}, &collector{}
	plain.follow(up, Binding{SSRC: 7, PayloadType: 111, PlainOpus: true})
	red.follow(up, Binding{SSRC: 7, PayloadType: 63, OpusPayloadType: 109})
	packet := func(seq uint16, pt uint8, payload ...byte) {
		raw := rawRTP(seq, uint32(seq)*960, 1, payload)
		raw[1] = pt
		ingest(up, 0, raw, start)
	}
	packet(1, 63, 0x80|111, 960>>6, 960<<2&0xff, 2, 111, 'o', 'l', 'n', 'e', 'w')
	packet(2, 111, 'p', 'u', 'r', 'e')
	packet(3, 63, 0x80|111, 0, 0, 200, 111, 'c', 'u', 't')
	want := []string{"new", "pure"}
	for i, p := range plain.got {
		if string(p[len(p)-len(want[i]):]) != want[i] || len(p) != headerSize+len(want[i]) || p[1]&0x7f != 111 {
			t.Errorf("packet %d without redundancy is % x", i, p)
		}
	}
	if len(plain.got) != 2 || len(red.got) != 2 {
		t.Fatalf("%d and %d packets, want 2 of each", len(plain.got), len(red.got))
	}
	if p := red.got[0][headerSize:]; p[0] != 0x80|109 || p[4] != 109 || string(p[5:]) != "olnew" {
		t.Errorf("packet with redundancy is % x", p)
	}
	if p := red.got[1]; p[1]&0x7f != 109 {
		t.Errorf("packet without has type %d", p[1]&0x7f)
	}
}

func TestRatesOfLayers(t *testing.T) {
	c := newCamera(2)
	for range 60 { // two packets of 29 bytes a picture, 30 a second
		c.run(3)
	}
	r := c.up.Rates(c.now)
	got := r[0][0]
	if got < 29*8*28 || got > 29*8*32 || r[0][3] != got || r[1][0] != got {
		t.Errorf("rates %v", r)
	}
	if r[2] != [MaxTemporal]float64{} {
		t.Errorf("a layer that is not there has rate %v", r[2])
	}
	// A layer that nobody watches stops; what it took is what it will take.
	c.layers = c.layers[:1]
	for range 60 {
		c.run(3)
	}
	if r := c.up.Rates(c.now); r[1][0] < 29*8*20 {
		t.Errorf("a layer that stopped has rate %v, it had %v", r[1], got)
	}
}

func TestLimitPauses(t *testing.T) {
	c, r := newCamera(2), &receiver{t: t}
	d := r.follow(c.up)
	c.run(30, d)
	d.SetLimit(Limit{Pause: true})
	n := len(r.got)
	c.run(30, d)
	if len(r.got) != n || !d.Stats().Limited || d.Wants() != 0 {
		t.Errorf("%d packets while paused, wants %b", len(r.got)-n, d.Wants())
	}
	d.SetLimit(Limit{Spatial: 0, Temporal: 3})
	c.run(30, d)
	if got := d.Stats(); len(r.got) == n || got.Layer != 0 || got.Limited {
		t.Errorf("after the pause: %+v", got)
	}
	if m := d.Demand(c.now); m.Max != 2 || !m.Live || m.Paused {
		t.Errorf("demand %+v", m)
	}
	r.continuous()
}

func TestNackAllocatesNothing(t *testing.T) {
	c := newCamera(1)
	d := NewDownTrack(c.up, DownConfig{})
	b := rtxBinding
	b.Writer = nowhere{}
	d.Bind(b)
	c.run(200, d)
	now, out := c.now, &ring{buf: make([]byte, 1<<16)}
	pkts := nack(uint16(d.m.next-1), uint16(d.m.next-3))
	if n := testing.AllocsPerRun(100, func() {
		now = now.Add(time.Second)
		d.Tick(now, out)
		d.HandleRTCP(pkts, now, out)
		d.Pad(1000, out)
	}); n != 0 {
		t.Errorf("%v allocations for two packets again, want 0", n)
	}
	if got := d.Stats().Resent; got < 200 {
		t.Errorf("only %d packets came again", got)
	}
}

func TestDownTracksAreSmall(t *testing.T) {
	const most = 16 << 10 // with fifty of them a participant stays far below 1 MB
	if n := int(unsafe.Sizeof(DownTrack{})) + videoSegments*int(unsafe.Sizeof(segment{})); n > most {
		t.Errorf("a DownTrack has %d bytes, want at most %d", n, most)
	}
}

// TestPlainPacketsAreAsAllOthers sends a packet by the short way, and again by
// the long one.
func TestPlainPacketsAreAsAllOthers(t *testing.T) {
	for name, b := range map[string]Binding{
		"bare": {SSRC: 7, PayloadType: 96}, "stamped": {SSRC: 7, PayloadType: 96, RTXSSRC: 8, Extensions: Extensions{TransportCC: 3}},
	} {
		c, w := newCamera(1), &collector{}
		d := w.follow(c.up, b)
		c.run(3, d)
		if !d.plain {
			t.Fatal("no short way")
		}
		p, _ := c.up.cached(0, 1, d.m.current().src, make([]byte, maxRTP))
		n, v := d.m.judge(0, d.m.current().out, &p)
		o := d.shape(&p, &n, v)
		w.got = w.got[:1]
		d.put(&o, &Scratch{})
		if !bytes.Equal(w.got[0], w.got[1]) || w.stamps[0] != w.stamps[len(w.stamps)-1] {
			t.Errorf("%s: % x, stamp at %d; then % x, stamp at %d", name, w.got[0], w.stamps[0], w.got[1], w.stamps[len(w.stamps)-1])
		}
	}
}

// A path that is full gets no more repairs than it has room for, and none of
// pictures that nobody will see.
func TestRepairsFitThePath(t *testing.T) {
	c := newCamera(1)
	d := NewDownTrack(c.up, DownConfig{})
	b := rtxBinding
	b.Writer = nowhere{}
	d.Bind(b)
	c.run(45, d)
	ask := func(seq ...uint16) int {
		before := d.Stats().Resent
		d.HandleRTCP(nack(seq...), c.now, &Scratch{})
		return int(d.Stats().Resent - before)
	}
	newest := uint16(d.m.next - 1)
	d.SetRepair(8000, 100*time.Millisecond) // 1000 bytes a second
	if n := ask(newest); n != 1 {
		t.Fatalf("%d packets came again, want 1", n)
	}
	c.now = c.now.Add(90 * time.Millisecond)
	if n := ask(newest); n != 0 {
		t.Error("a packet was sent again within a round trip")
	}
	for range 4 {
		c.now = c.now.Add(130 * time.Millisecond)
		ask(newest)
	}
	if n := d.Stats().Resent; n != resendTries {
		t.Errorf("a packet was sent again %d times, want %d", n, resendTries)
	}
	if n := ask(uint16(d.keyOut - 1)); n != 0 {
		t.Error("a packet from before the last keyframe was sent again")
	}
	// What was saved up is repairLeast; then comes one packet of 29 bytes each 29 ms.
	sent := 0
	for range 400 {
		for i := range uint16(20) {
			sent += ask(newest - 1 - i)
		}
		c.now = c.now.Add(10 * time.Millisecond)
		d.again.budget = resendBudget
	}
	if most := (repairLeast + 4*1000) / 29; sent > most || sent < 50 {
		t.Errorf("%d packets came again in four seconds, want at most %d", sent, most)
	}
}
