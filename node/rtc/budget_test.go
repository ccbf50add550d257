package rtc

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/domicile/domicile/node/sfu"
)

// viewer is a session whose DownTracks write into the air, in a time of its own.
type viewer struct {
	publisher
	told    []string // StreamState
	cameras []*shown
	bits    float64   // a second that the way carries, 0: the client says nothing of it
	remb    float32   // what the client takes its way for, 0: nothing
	free    time.Time // when the way has carried all
	way     []arrival
}

// arrival is a packet on its way.
type arrival struct {
	stamp uint16
	at    time.Time
}

// shown is a picture with simulcast layers of 150, 500 and 1500 kbit/s.
type shown struct {
	up   *sfu.UpTrack
	s    *sender
	seq  [3]uint16
	left [3]int // packets since the keyframe
}

func newViewer(t *testing.T, cfg SessionConfig) *viewer {
	t.Helper()
	v := &viewer{publisher: publisher{t: t, now: time.Unix(1e9, 0)}}
	e := newTestEngine(t)
	e.now = func() time.Time { return v.now }
	var err error
	if v.s, err = e.NewSession(v, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.s.Close)
	e.remove(v.s)
	if err = v.s.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	v.p = v.s.sub
	v.out = e.transport.Batch()
	return v
}

func (v *viewer) StreamState(d *sfu.DownTrack, paused bool) {
	v.told = append(v.told, fmt.Sprintf("%s %v", d.Up().ID(), paused))
}

// show subscribes to a picture, as if it were negotiated.
func (v *viewer) show(id string, screen bool) *shown {
	v.t.Helper()
	up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: sfu.TrackID(id), Kind: sfu.Video, Screen: screen,
		Codec: sfu.Codec{MimeType: "video/VP8", ClockRate: 90000}})
	d, err := v.s.Subscribe(Subscription{Up: up, StreamID: "PA_a|" + id, TrackID: id, Screen: screen})
	if err != nil {
		v.t.Fatal(err)
	}
	v.p.send.mu.Lock()
	s := v.p.send.senders[d]
	v.p.send.mu.Unlock()
	s.started.Store(true)
	ssrc := uint32(1000 + 2*len(v.cameras))
	d.Bind(sfu.Binding{SSRC: ssrc, PayloadType: 96, RTXSSRC: ssrc + 1, RTXPayloadType: 97,
		Extensions: sfu.Extensions{TransportCC: 3}, Writer: v})
	c := &shown{up: up, s: s}
	v.cameras = append(v.cameras, c)
	return c
}

// Write implements sfu.Writer: what the sender does before it seals.
func (v *viewer) Write(_ sfu.Out, rtp []byte, stampAt int) error {
	if stampAt == 0 {
		v.t.Error("a packet of a picture without a number")
	}
	stamp := v.p.send.budget.stamp(len(rtp), v.now)
	if v.bits == 0 {
		return nil
	}
	if v.free.Before(v.now) {
		v.free = v.now
	}
	v.free = v.free.Add(time.Duration(float64(len(rtp)) * 8 / v.bits * 1e9))
	v.way = append(v.way, arrival{stamp, v.free.Add(10 * time.Millisecond)})
	return nil
}

// run lets time pass: media every 20 ms, feedback every 40, ticks every 100.
func (v *viewer) run(d time.Duration) {
	v.t.Helper()
	for end := v.now.Add(d); v.now.Before(end); {
		v.now = v.now.Add(5 * time.Millisecond)
		v.p.send.budget.probe(v.now, v.out)
		if v.now.UnixMilli()%20 != 0 {
			continue
		}
		for _, c := range v.cameras {
			c.send(v)
		}
		if v.now.UnixMilli()%40 == 0 {
			v.report()
		}
		if v.remb > 0 && v.now.UnixMilli()%500 == 0 {
			v.estimate(v.remb)
		}
		if v.now.UnixMilli()%100 == 0 {
			for _, c := range v.cameras {
				c.up.Tick(v.now)
			}
			v.p.recv.tick(v.now, v.out)
			v.p.send.tick(v.now, v.out)
		}
	}
}

func (v *viewer) padding() (bytes uint64) {
	for _, c := range v.cameras {
		bytes += c.s.down.Stats().Padding
	}
	return bytes
}

func (c *shown) send(v *viewer) {
	for l, size := range []int{365, 1240, 1240} {
		n := 1
		if l == 2 {
			n = 3
		}
		for range n {
			frame := byte(1)
			if c.left[l]%25 == 0 {
				frame = 0 // keyframes twice a second: nothing here asks for them
			}
			p := rtp.Packet{Header: rtp.Header{Version: 2, Marker: true, SequenceNumber: c.seq[l], SSRC: uint32(l + 1),
				Timestamp: 1800 * uint32(c.left[l])}, Payload: append([]byte{0x10, frame}, make([]byte, size)...)}
			raw, err := p.Marshal()
			if err != nil {
				panic(err)
			}
			c.seq[l]++
			c.left[l]++
			c.up.Ingest(sfu.Layer(l), []sfu.Inbound{{Raw: raw, Arrival: v.now}}, v.out)
		}
	}
}

// report tells of what has arrived by now.
func (v *viewer) report() {
	if v.bits == 0 {
		return
	}
	arrivals := twcc.NewRecorder(1)
	n := 0
	for ; n < len(v.way) && !v.way[n].at.After(v.now); n++ {
		arrivals.Record(1000, v.way[n].stamp, v.way[n].at.UnixMicro())
	}
	v.way = v.way[n:]
	for _, r := range arrivals.BuildFeedbackPacket() {
		v.feed(r)
	}
}

// feed gives a report of the client's.
func (v *viewer) feed(r rtcp.Packet) {
	v.t.Helper()
	raw, err := r.Marshal()
	if err != nil {
		v.t.Fatal(err)
	}
	v.p.feedback(raw, v.now, v.out)
}

// estimate makes the client say what its way carries, bit/s.
func (v *viewer) estimate(bits float32) {
	v.t.Helper()
	v.remb = bits
	v.feed(&rtcp.ReceiverEstimatedMaximumBitrate{SenderSSRC: 1, Bitrate: bits, SSRCs: []uint32{1000}})
}

// layers are what the pictures are sent in, -1: paused.
func (v *viewer) layers() (list []int) {
	for _, c := range v.cameras {
		l := -1
		if d := c.s.down.Demand(v.now); c.s.down.Wants() != 0 {
			l = int(d.Spatial)
		}
		list = append(list, l)
	}
	return list
}

func (v *viewer) wantLayers(what string, want ...int) {
	v.t.Helper()
	if got := v.layers(); !slices.Equal(got, want) {
		v.t.Errorf("%s: layers %d, want %d", what, got, want)
	}
}

func (v *viewer) tells() []string {
	told := v.told
	v.told = nil
	return told
}

func TestPicturesFitTheBandwidth(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	v.show("a", false)
	v.show("b", false)
	v.run(3 * time.Second)
	v.wantLayers("without any report", 2, 2)
	v.estimate(5e6)
	v.run(2 * time.Second)
	v.wantLayers("5 Mbit/s", 2, 2)
	v.estimate(1.3e6)
	v.run(time.Second)
	v.wantLayers("1.3 Mbit/s", 1, 1)
	v.estimate(450e3)
	v.run(time.Second)
	v.wantLayers("450 kbit/s", 0, 0)
	if told := v.tells(); len(told) > 0 {
		t.Errorf("the client was told %q, and nothing was paused", told)
	}
	v.estimate(220e3)
	v.run(time.Second)
	if got := v.layers(); !slices.Contains(got, 0) || !slices.Contains(got, -1) {
		t.Errorf("220 kbit/s: layers %d, want one alone", got)
	}
	if told := v.tells(); len(told) != 1 || told[0][1:] != " true" {
		t.Errorf("the client was told %q, want one pause", told)
	}
	v.estimate(5e6)
	v.run(10 * time.Second)
	v.wantLayers("5 Mbit/s again", 2, 2)
	if told := v.tells(); len(told) != 1 || told[0][1:] != " false" {
		t.Errorf("the client was told %q, want that it goes on", told)
	}
}

// A fall is not left until the next plan is due.
func TestFallIsDividedAtOnce(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	c := v.show("a", false)
	v.run(2 * time.Second)
	v.estimate(5e6)
	v.run(time.Second)
	v.p.send.tick(v.now, v.out) // has just planned
	v.estimate(600e3)
	if got := v.p.send.budget.last[c.s.down].grant.Spatial; got != 1 {
		t.Errorf("granted is layer %d when the report is through, want 1", got)
	}
}

// Before the way has shown an end, an estimate is no reason to pause anything.
func TestNothingPausesBeforeTheWayHasAnEnd(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	for i := range 24 {
		v.show(string(rune('a'+i)), false)
	}
	v.run(2 * time.Second)
	v.estimate(2.5e6)
	v.run(2 * time.Second)
	if got := v.layers(); slices.Contains(got, -1) {
		t.Errorf("layers %d", got)
	}
	v.estimate(1e6)
	v.run(2 * time.Second)
	if got := v.layers(); !slices.Contains(got, -1) {
		t.Errorf("1 Mbit/s for 24 pictures: layers %d, want some paused", got)
	}
}

func TestNoPauseSendsTheSmallest(t *testing.T) {
	v := newViewer(t, SessionConfig{NoPause: true})
	v.show("a", false)
	v.show("b", false)
	v.run(2 * time.Second)
	v.estimate(60e3)
	v.run(2 * time.Second)
	v.wantLayers("60 kbit/s", 0, 0)
	if told := v.tells(); len(told) > 0 {
		t.Errorf("told %q", told)
	}
}

func TestScreenComesBeforeCameras(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	v.show("a", false)
	v.show("s", true)
	v.show("z", false)
	v.run(2 * time.Second)
	v.estimate(2.3e6)
	v.run(3 * time.Second)
	if got := v.layers(); got[1] != 2 || got[0] == 2 || got[2] == 2 {
		t.Errorf("2.3 Mbit/s: layers %d, want the screen whole and the cameras small", got)
	}
	v.estimate(220e3)
	v.run(3 * time.Second)
	v.wantLayers("220 kbit/s", -1, 0, -1)
}

func TestPriorityComesFirst(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	v.show("a", false)
	b := v.show("b", false)
	v.s.SetPriority(b.s.down, 5)
	v.run(2 * time.Second)
	v.estimate(220e3)
	v.run(2 * time.Second)
	v.wantLayers("220 kbit/s", -1, 0)
}

// A pause that falls into a mute is told after it.
func TestPauseDuringAMuteIsTold(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	v.show("a", true)
	b := v.show("b", false)
	v.run(2 * time.Second)
	v.estimate(5e6)
	v.run(time.Second)
	b.s.down.SetPaused(true)
	v.run(time.Second)
	v.estimate(220e3)
	v.run(time.Second)
	if told := v.tells(); len(told) > 0 {
		t.Fatalf("told %q of what the client paused itself", told)
	}
	b.s.down.SetPaused(false)
	v.run(time.Second)
	if told := v.tells(); !slices.Equal(told, []string{"b true"}) {
		t.Errorf("told %q, want the pause", told)
	}
}

// What ends while it is planned for is not kept.
func TestEndedPicturesAreForgotten(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	a, b := v.show("a", false), v.show("b", false)
	v.run(time.Second)
	v.estimate(5e6)
	v.run(time.Second)
	pictures := v.p.send.budget.pictures(v.now)
	if err := v.s.Unsubscribe(a.s.down); err != nil {
		t.Fatal(err)
	}
	v.p.send.budget.plan(pictures, v.now) // was under way
	v.run(time.Second)
	v.p.send.budget.mu.Lock()
	defer v.p.send.budget.mu.Unlock()
	if _, ok := v.p.send.budget.last[b.s.down]; !ok || len(v.p.send.budget.last) != 1 {
		t.Errorf("%d pictures are remembered, want one", len(v.p.send.budget.last))
	}
}

// The client's transport-wide feedback raises and lowers what is sent; padding looks
// for more where the pictures could use it.
func TestFeedbackFindsWhatTheWayCarries(t *testing.T) {
	v := newViewer(t, SessionConfig{})
	v.bits = 900e3
	v.show("a", false)
	v.show("b", false)
	v.run(15 * time.Second)
	if e := v.s.Stats().Bandwidth.Estimate; e < 300e3 || e > 1.2e6 {
		t.Errorf("a way of 900 kbit/s is taken for %.0f", e)
	}
	if got := v.layers(); slices.Contains(got, 2) {
		t.Errorf("900 kbit/s: layers %d", got)
	}
	v.bits = 20e6
	before := v.padding()
	v.run(20 * time.Second)
	v.wantLayers("20 Mbit/s", 2, 2)
	if v.padding() == before {
		t.Error("more was found without padding")
	}
	full := v.padding()
	v.run(10 * time.Second)
	if more := v.padding() - full; more > 200_000 {
		t.Errorf("%d bytes of padding in 10 s, and nobody could use more", more)
	}
}
