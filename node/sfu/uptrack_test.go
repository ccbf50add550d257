package sfu

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// listener is a sink that keeps what it is given.
type listener struct {
	wants   LayerSet
	got     []uint16
	reports int
}

func (l *listener) Wants() LayerSet { return l.wants }
func (l *listener) Offer(burst []Packet, _ Out) {
	for i := range burst {
		l.got = append(l.got, burst[i].Seq)
	}
}
func (l *listener) Report(Layer, SenderReport) { l.reports++ }

func TestSinksGetTheLayersTheyWant(t *testing.T) {
	c := newCamera(3)
	low, high := &listener{wants: 0b001}, &listener{wants: 0b100}
	var told []LayerSet
	c.up.AddSink(low)
	c.up.OnWanted(func(s LayerSet) { told = append(told, s) })
	c.up.AddSink(high)
	c.frame()
	high.wants = 0
	c.up.WantsChanged()
	c.frame()
	c.up.RemoveSink(low)
	c.frame()
	if len(low.got) != 2 || len(high.got) != 1 {
		t.Errorf("got %d and %d packets, want 2 and 1", len(low.got), len(high.got))
	}
	want := []LayerSet{0b001, 0b101, 0b001, 0}
	if len(told) != len(want) {
		t.Fatalf("told %v, want %v", told, want)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Fatalf("told %v, want %v", told, want)
		}
	}
}

func TestRelayedTrackHasTheLayersItIsToldOf(t *testing.T) {
	cfg := vp8Cfg
	cfg.Relayed = true
	up := NewUpTrack(cfg)
	ingest(up, 2, newSource(2).packet(true), start)
	if up.Available() != 0 {
		t.Errorf("available %b before anything was said", up.Available())
	}
	var told LayerSet
	up.OnAvailable(func(s LayerSet) { told = s })
	up.SetAvailable(0b011)
	up.Tick(start.Add(time.Hour))
	if up.Available() != 0b011 || told != 0b011 {
		t.Errorf("available %b, told %b, want 11", up.Available(), told)
	}
	NewUpTrack(vp8Cfg).SetAvailable(0b111) // of no effect on a local one
}

func TestRestartOfTheNumbering(t *testing.T) {
	up := NewUpTrack(opusCfg)
	l := &listener{wants: 1}
	up.AddSink(l)
	for _, seq := range []uint16{65534, 65535, 0, 20000, 1, 40000, 40001, 40002} {
		ingest(up, 0, rawRTP(seq, 0, 1, []byte{1}), start)
	}
	ingest(up, 0, rawRTP(5, 0, 2, []byte{1}), start) // another SSRC is another stream
	// 20000 and 40000 stand alone; 40001 confirms its neighbour.
	want := []uint16{65534, 65535, 0, 1, 40001, 40002, 5}
	if len(l.got) != len(want) {
		t.Fatalf("got %v, want %v", l.got, want)
	}
	for i := range want {
		if l.got[i] != want[i] {
			t.Fatalf("got %v, want %v", l.got, want)
		}
	}
	if got := up.Stats().Layers[0].Restarts; got != 2 {
		t.Errorf("%d restarts, want 2", got)
	}
}

func TestCachedReturnsTheOriginal(t *testing.T) {
	c := newCamera(1)
	raw := c.layers[0].packet(true)
	ingest(c.up, 0, raw, start)
	buf := make([]byte, maxRTP)
	n, ok := c.up.Cached(0, seqOf(raw), buf)
	if !ok || string(buf[:n]) != string(raw) {
		t.Errorf("cached % x, %v", buf[:n], ok)
	}
	for name, miss := range map[string]func() (int, bool){
		"other number": func() (int, bool) { return c.up.Cached(0, seqOf(raw)+1, buf) },
		"other layer":  func() (int, bool) { return c.up.Cached(1, seqOf(raw), buf) },
		"no layer":     func() (int, bool) { return c.up.Cached(9, seqOf(raw), buf) },
		"small buffer": func() (int, bool) { return c.up.Cached(0, seqOf(raw), buf[:3]) },
	} {
		if _, ok := miss(); ok {
			t.Errorf("%s: found", name)
		}
	}
}

// TestRandomNetwork sends three layers through loss, duplication, reordering,
// padding, mutes and switches, and checks what no receiver may ever see: two
// packets of different content under one number, or a packet of a layer before
// its keyframe.
func TestRandomNetwork(t *testing.T) {
	for seed := range uint64(200) {
		r := &receiver{t: t}
		runRandomNetwork(rand.New(rand.NewPCG(seed, 1)), r)
		checkStream(t, seed, r.got)
		if t.Failed() {
			return
		}
	}
}

func runRandomNetwork(rnd *rand.Rand, r *receiver) {
	c := newCamera(3)
	d := r.follow(c.up)
	var late [MaxLayers][]byte
	for i := range 600 {
		for l, s := range c.layers {
			raw := s.packet(c.key[l] || rnd.IntN(40) == 0)
			c.key[l] = false
			if rnd.IntN(20) == 0 {
				ingest(c.up, Layer(l), s.padding(), c.now)
			}
			switch rnd.IntN(12) {
			case 0: // lost
			case 1:
				late[l] = raw
			case 2:
				ingest(c.up, Layer(l), raw, c.now)
				fallthrough
			default:
				ingest(c.up, Layer(l), raw, c.now)
			}
			if c.up.Muted() {
				late[l] = nil // nothing stays on its way throughout a mute
			}
			if late[l] != nil && rnd.IntN(3) == 0 {
				ingest(c.up, Layer(l), late[l], c.now)
				late[l] = nil
			}
		}
		c.now = c.now.Add(33 * time.Millisecond)
		if i%3 == 0 {
			c.up.Tick(c.now)
			d.Tick(c.now, &Scratch{})
		}
		disturb(rnd, c, d, r)
	}
}

func disturb(rnd *rand.Rand, c *camera, d *DownTrack, r *receiver) {
	switch rnd.IntN(50) {
	case 0:
		d.SetMaxLayer(Layer(rnd.IntN(MaxLayers)))
	case 1:
		c.up.SetMuted(!c.up.Muted())
	case 2:
		d.SetPaused(rnd.IntN(3) == 0)
	case 3, 4, 5, 6:
		if n := len(r.got); n > 0 {
			seq := r.got[n-1].seq - uint16(rnd.IntN(300))
			d.HandleRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{
				MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: seq, LostPackets: rtcp.PacketBitmap(rnd.Uint32())}},
			}}, c.now, &Scratch{})
		}
	}
}

// checkStream is the slow oracle: it keeps everything.
func checkStream(t *testing.T, seed uint64, got []outPacket) {
	t.Helper()
	seen := make(map[uint16][]byte)
	var highest outPacket
	for i, p := range got {
		if before, ok := seen[p.seq]; ok && string(before) != string(p.raw) {
			t.Fatalf("seed %d: number %d left with two contents:\n% x\n% x", seed, p.seq, before, p.raw)
		}
		seen[p.seq] = p.raw
		if i > 0 && int16(p.seq-highest.seq) > 0 {
			if p.seq-highest.seq > 40 {
				t.Fatalf("seed %d: number jumps from %d to %d", seed, highest.seq, p.seq)
			}
			if int32(p.ts-highest.ts) <= 0 || p.ts-highest.ts > 90000*30 {
				t.Fatalf("seed %d: timestamp jumps from %d to %d", seed, highest.ts, p.ts)
			}
			highest = p
		}
		if i == 0 {
			highest = p
			if !p.keyframe {
				t.Fatalf("seed %d: stream begins without a keyframe", seed)
			}
		}
	}
}

// TestMuteIsABarrier ingests from three goroutines, answers NACKs from a fourth,
// and fails if a packet is written after SetMuted(true) has returned.
func TestMuteIsABarrier(t *testing.T) {
	up := NewUpTrack(vp8Cfg)
	var muted atomic.Bool
	var written, leaked atomic.Int64
	d := NewDownTrack(up, DownConfig{})
	d.Bind(Binding{SSRC: 7, PayloadType: 96, Writer: writerFunc(func([]byte) error {
		written.Add(1)
		if muted.Load() {
			leaked.Add(1)
		}
		return nil
	})})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(f func()) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
					runtime.Gosched()
				}
			}
		})
	}
	for l := range Layer(MaxLayers) {
		s := newSource(l)
		loop(func() { ingest(up, l, s.packet(s.seq%8 == 0), start) })
	}
	loop(func() {
		d.HandleRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{
			MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: uint16(written.Load()), LostPackets: 0xffff}},
		}}, start, &Scratch{})
		d.Tick(start, &Scratch{})
	})
	for range 50 {
		up.SetMuted(true)
		muted.Store(true)
		for before := up.Stats().Layers[0].Muted; up.Stats().Layers[0].Muted == before; {
			runtime.Gosched()
		}
		muted.Store(false)
		up.SetMuted(false)
		for before := written.Load(); written.Load() == before; {
			runtime.Gosched()
		}
	}
	close(stop)
	wg.Wait()
	if leaked.Load() != 0 {
		t.Errorf("%d packets written after the mute", leaked.Load())
	}
}

// holdup is a writer, and a sink, that waits once it is armed.
type holdup struct {
	armed            bool
	entered, release chan struct{}
}

func (h *holdup) Wants() LayerSet            { return 1 }
func (h *holdup) Offer([]Packet, Out)        { _ = h.write(nil) }
func (h *holdup) Report(Layer, SenderReport) {}

func (h *holdup) follow(up *UpTrack) *DownTrack {
	d := NewDownTrack(up, DownConfig{})
	d.Bind(Binding{SSRC: 7, PayloadType: 96, Writer: writerFunc(h.write)})
	return d
}

func (h *holdup) write([]byte) error {
	if h.armed {
		close(h.entered)
		<-h.release
	}
	return nil
}

// TestMuteWaitsForTheWriter holds a writer up and mutes meanwhile: the mute may
// not be acknowledged before the packet has left.
func TestMuteWaitsForTheWriter(t *testing.T) {
	nack := []rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: newSource(0).seq & 0x7fff}}}}
	for name, test := range map[string]func(*camera, *holdup) (send func()){
		"packet to an attendee": func(c *camera, h *holdup) func() {
			h.follow(c.up)
			return c.frame
		},
		"retransmission": func(c *camera, h *holdup) func() {
			d := h.follow(c.up)
			return func() { d.HandleRTCP(nack, c.now, &Scratch{}) }
		},
		"packet to another node": func(c *camera, h *holdup) func() {
			c.up.AddSink(h)
			return c.frame
		},
	} {
		c, h := newCamera(1), &holdup{entered: make(chan struct{}), release: make(chan struct{})}
		send, muted := test(c, h), make(chan struct{})
		c.frame()
		h.armed = true
		go send()
		<-h.entered
		go func() {
			c.up.SetMuted(true)
			close(muted)
		}()
		select {
		case <-muted:
			t.Errorf("%s: muted while it was being written", name)
		case <-time.After(20 * time.Millisecond): // longer only makes a fault surer to show
		}
		close(h.release)
		<-muted
	}
}
