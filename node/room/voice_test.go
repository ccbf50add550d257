package room

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
)

var opus = sfu.Codec{MimeType: "audio/opus", ClockRate: 48000, Channels: 2}

const levelID = 1

// sound is an audio packet of 20 ms with a level in -dBov (RFC 6464).
func sound(seq int, level byte) []byte {
	b := make([]byte, 12+8+40)
	b[0], b[1] = 0x90, 111
	binary.BigEndian.PutUint16(b[2:], uint16(seq))
	binary.BigEndian.PutUint32(b[4:], uint32(seq)*960)
	binary.BigEndian.PutUint32(b[8:], 7)
	copy(b[12:], []byte{0xbe, 0xde, 0, 1, levelID<<4 | 0, 0x80 | level, 0, 0})
	return b
}

// ear is a receiver that notes the sequence numbers it gets.
type ear struct {
	mu   sync.Mutex
	seqs []uint16
	ts   []uint32
}

func (e *ear) Write(_ sfu.Out, rtp []byte, _ int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seqs = append(e.seqs, binary.BigEndian.Uint16(rtp[2:]))
	e.ts = append(e.ts, binary.BigEndian.Uint32(rtp[4:]))
	return nil
}

func (e *ear) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seqs)
}

// link is another node that is served.
type link struct{ got []uint16 }

func (l *link) Wants() sfu.LayerSet { return 1 }
func (l *link) Offer(burst []sfu.Packet, _ sfu.Out) {
	for _, p := range burst {
		l.got = append(l.got, binary.BigEndian.Uint16(p.Raw[2:]))
	}
}
func (l *link) Report(sfu.Layer, sfu.SenderReport) {}

// hall is a room of open microphones, with somebody who listens to all of them.
type hall struct {
	*stage
	t      *testing.T
	tracks []*track
	ears   []*ear
	links  []*link
	seq    int
	now    time.Time
	out    sfu.Scratch
}

func newHall(t *testing.T, mics, places int) *hall {
	s := newStage(t, "edge")
	s.selection = newSelection(places)
	h := &hall{stage: s, t: t, now: start}
	for i := range mics {
		id := sfu.TrackID(fmt.Sprintf("TR_%d", i))
		media := TrackRecord{Codec: opus, Extensions: sfu.Extensions{AudioLevel: levelID}}
		info := &livekit.TrackInfo{Sid: string(id), Type: livekit.TrackType_AUDIO}
		tr := &track{id: id, node: "fra", ownerSID: fmt.Sprintf("PA_%d", i), poke: s.poke, info: info, media: media,
			up: newUp(id, sfu.Audio, info, media, false)}
		s.giveVoice(tr)
		d := sfu.NewDownTrack(tr.heard(), sfu.DownConfig{})
		e, l := &ear{}, &link{}
		d.Bind(sfu.Binding{SSRC: 1, PayloadType: 111, Writer: e})
		tr.voice.feed(l)
		h.tracks, h.ears, h.links = append(h.tracks, tr), append(h.ears, e), append(h.links, l)
	}
	return h
}

// play lets every microphone send for a while, at the levels given.
func (h *hall) play(d time.Duration, levels ...byte) {
	for end := h.now.Add(d); h.now.Before(end); h.now = h.now.Add(20 * time.Millisecond) {
		h.seq++
		for i, l := range levels {
			h.tracks[i].up.Ingest(0, []sfu.Inbound{{Raw: sound(h.seq, l), Arrival: h.now}}, &h.out)
		}
		if h.seq%5 == 0 {
			h.selection.here.Tick(h.now)
			h.selection.away.Tick(h.now)
		}
	}
}

// TestLoudest hears whoever speaks, from the first syllable on and without
// joints, and lets no more leave for other nodes.
func TestLoudest(t *testing.T) {
	const quiet, loud = 100, 20
	h := newHall(t, 3, 1)
	h.play(time.Second, loud, quiet, quiet)
	if h.ears[0].count() < 45 || h.ears[1].count() > 0 || len(h.links[1].got) > 0 || len(h.links[0].got) < 45 {
		t.Fatalf("heard %d and %d, left %d and %d", h.ears[0].count(), h.ears[1].count(), len(h.links[0].got), len(h.links[1].got))
	}
	h.play(3*time.Second, quiet, quiet, quiet)
	first := h.seq + 1
	h.play(time.Second, quiet, loud, quiet)
	second := h.ears[1]
	if second.count() < 50 {
		t.Errorf("%d packets of the second speaker", second.count())
	}
	if got := int(h.links[1].got[0]); got > first {
		t.Errorf("another node hears it from packet %d, it spoke from %d", got, first)
	}
	h.play(3*time.Second, quiet, quiet, quiet)
	h.play(time.Second, quiet, loud, quiet)
	// One who has to outdo another needs a moment, of which nothing is lost.
	h.play(3*time.Second, 45, quiet, quiet)
	first, before := h.seq+1, len(h.links[1].got)
	h.play(time.Second, 45, 15, quiet)
	if got := h.links[1].got; len(got) == before || int(got[before]) > first || int(got[before]) < first-5 {
		t.Errorf("it begins with packet %d, and spoke from %d", got[min(before, len(got)-1)], first)
	}
	if got := h.links[0].got; int(got[len(got)-1]) < first {
		t.Error("the change was at once: the test shows nothing")
	}
	for i := 1; i < len(second.seqs); i++ {
		if second.seqs[i] != second.seqs[i-1]+1 || int32(second.ts[i]-second.ts[i-1]) <= 0 {
			t.Fatalf("a joint at %d: number %d after %d, time %d after %d", i, second.seqs[i], second.seqs[i-1], second.ts[i], second.ts[i-1])
		}
	}
	if h.ears[2].count() > 0 {
		t.Error("somebody who is silent is heard")
	}
}

// TestFewMicrophones selects nothing while there are places for all.
func TestFewMicrophones(t *testing.T) {
	h := newHall(t, 3, 3)
	h.play(time.Second, 20, 127, 127)
	for i, e := range h.ears {
		if e.count() != 50 || len(h.links[i].got) != 50 {
			t.Errorf("%d: %d and %d packets", i, e.count(), len(h.links[i].got))
		}
	}
}

// TestMutedVoice is silent at once, and begins anew where it may.
func TestMutedVoice(t *testing.T) {
	h := newHall(t, 2, 1)
	h.play(time.Second, 20, 100)
	h.setMuted(h.tracks[0], true)
	n, away := h.ears[0].count(), len(h.links[0].got)
	h.play(time.Second, 20, 100)
	if h.ears[0].count() != n || len(h.links[0].got) != away {
		t.Error("a muted microphone is heard")
	}
	if h.ears[1].count() == 0 {
		t.Error("the other one has not got its place") // there is one for each unmuted
	}
	h.setMuted(h.tracks[0], false)
	h.play(2*time.Second, 20, 100)
	if h.ears[0].count() <= n {
		t.Error("it is not heard again")
	}
	for i := 1; i < n+10; i++ {
		if h.ears[0].seqs[i] != h.ears[0].seqs[i-1]+1 {
			t.Fatalf("a joint at %d", i)
		}
	}
}

// TestVoiceAllocates nothing, be it heard or not.
func TestVoiceAllocates(t *testing.T) {
	h := newHall(t, 2, 1)
	h.play(time.Second, 20, 100)
	for _, e := range h.ears {
		e.seqs, e.ts = make([]uint16, 0, 10_000), make([]uint32, 0, 10_000)
	}
	for _, l := range h.links {
		l.got = make([]uint16, 0, 10_000)
	}
	in := [2][]sfu.Inbound{{{Raw: sound(0, 20)}}, {{Raw: sound(0, 100)}}}
	if n := testing.AllocsPerRun(1000, func() {
		h.seq++
		h.now = h.now.Add(20 * time.Millisecond)
		for i := range in {
			raw := in[i][0].Raw
			binary.BigEndian.PutUint16(raw[2:], uint16(h.seq))
			binary.BigEndian.PutUint32(raw[4:], uint32(h.seq)*960)
			in[i][0].Arrival = h.now
			h.tracks[i].up.Ingest(0, in[i], &h.out)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestSpeakers tells who speaks, here and elsewhere, and to those who come later.
func TestSpeakers(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{Cid: "mic", Type: livekit.TrackType_AUDIO}}})
	up := events{anna.Participant}.Publish(rtc.Incoming{CID: "mic", Kind: sfu.Audio, Codec: opus, Extensions: sfu.Extensions{AudioLevel: levelID}})
	seq, out := 0, sfu.Scratch{}
	speaks := func(level byte) {
		for range 50 {
			seq++
			s.later(20 * time.Millisecond)
			up.Ingest(0, []sfu.Inbound{{Raw: sound(seq, level), Arrival: s.deps.Now()}}, &out)
		}
	}
	heard := func(g *guest, sid string, active bool) func() bool {
		return func() bool {
			found := false
			for _, m := range g.wire.sent() {
				for _, x := range m.GetSpeakersChanged().GetSpeakers() {
					if x.Sid == sid {
						found = x.Active
					}
				}
			}
			return found == active
		}
	}
	awaits(t, "the track is there", func() (ok bool) {
		s.do(t, func() { ok = s.tracks[up.ID()] != nil })
		return ok
	})
	speaks(20)
	for _, g := range []*guest{anna, bob} {
		awaits(t, "she is heard", heard(g, anna.sid, true))
	}
	carl := s.comes(t, "carl")
	awaits(t, "carl learns it on joining", heard(carl, anna.sid, true))
	s.later(2 * time.Second)
	awaits(t, "she is silent", heard(bob, anna.sid, false))

	s.do(t, func() {
		s.has(t, "waw", false, person("PA_w", "w"))
		s.says("waw", KindSpeaking, Speaking{Speakers: []Speaker{{SID: "PA_w", Level: 0.5}, {SID: anna.sid, Level: 1}}})
	})
	awaits(t, "w is heard", heard(bob, "PA_w", true))
	if heard(bob, anna.sid, true)() {
		t.Error("waw speaks for anna")
	}
	s.do(t, func() {
		for _, level := range []float32{0, -1, 1.5} {
			s.says("waw", KindSpeaking, Speaking{Speakers: []Speaker{{SID: "PA_w", Level: level}}})
		}
		s.says("nyc", KindSpeaking, Speaking{})
	})
	if !heard(bob, "PA_w", true)() {
		t.Error("a bad message counts")
	}
	s.later(speakersStale + time.Second)
	awaits(t, "w is not said to speak any more", heard(bob, "PA_w", false))
}

// BenchmarkVoice is what the selection costs beside 50 receivers.
func BenchmarkVoice(b *testing.B) {
	for _, selected := range []bool{false, true} {
		b.Run(fmt.Sprintf("selected %t", selected), func(b *testing.B) {
			h := newHall(&testing.T{}, 1, 1)
			up := h.tracks[0].up
			receivers := up
			if selected {
				receivers = h.tracks[0].heard()
			} else {
				h.dropVoice(h.tracks[0].voice)
			}
			for range 50 {
				sfu.NewDownTrack(receivers, sfu.DownConfig{}).Bind(sfu.Binding{SSRC: 1, PayloadType: 111, Writer: nowhere{}})
			}
			in, now := []sfu.Inbound{{Raw: sound(0, 20)}}, start
			b.ReportAllocs()
			for i := range b.N {
				binary.BigEndian.PutUint16(in[0].Raw[2:], uint16(i))
				binary.BigEndian.PutUint32(in[0].Raw[4:], uint32(i)*960)
				now = now.Add(20 * time.Millisecond)
				in[0].Arrival = now
				up.Ingest(0, in, &h.out)
			}
		})
	}
}
