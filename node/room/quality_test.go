package room

import (
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/quality"
)

// TestJudgePublished follows a publisher whose packets get lost, and one who pauses.
func TestJudgePublished(t *testing.T) {
	up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: "TR_a", Kind: sfu.Audio, Codec: opus})
	d := sfu.NewDownTrack(up, sfu.DownConfig{})
	d.Bind(sfu.Binding{SSRC: 1, Writer: nowhere{}})
	defer d.Close()
	j, seq, out := newJudge(), 0, sfu.Scratch{}
	counts := sfu.Counts{}
	window := func(lose int, alive bool) quality.Level {
		for i := range 250 {
			seq++
			if lose == all100 {
				continue
			}
			counts.Expected++
			if lose > 0 && i%lose == 0 {
				continue
			}
			counts.Received++
			up.Ingest(0, []sfu.Inbound{{Raw: sound(seq, 20), Arrival: start}}, &out)
		}
		return j.published(up, counts, quality.Interval, alive).Level
	}
	if got := window(0, true); got != quality.Excellent {
		t.Errorf("without loss: %v", got)
	}
	for range 4 {
		window(5, true)
	}
	if got := window(5, true); got != quality.Poor {
		t.Errorf("with 20 %% of loss: %v", got)
	}
	if got := window(all100, true); got != quality.Excellent {
		t.Errorf("in a pause: %v", got)
	}
	window(0, true)
	if got := window(all100, false); got != quality.Lost {
		t.Errorf("with nothing heard: %v", got)
	}
	counts = sfu.Counts{} // the stream began anew
	for range 10 {
		window(0, true)
	}
	if got := window(0, true); got != quality.Excellent {
		t.Errorf("after that: %v", got)
	}
}

const all100 = -1

// TestQuality tells everybody whose connection is bad, here and elsewhere.
func TestQuality(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	shown := func(g *guest, sid string) livekit.ConnectionQuality {
		q := livekit.ConnectionQuality(-1)
		for _, m := range g.wire.sent() {
			for _, x := range m.GetConnectionQuality().GetUpdates() {
				if x.ParticipantSid == sid {
					q = x.Quality
				}
			}
		}
		return q
	}
	is := func(g *guest, sid string, want livekit.ConnectionQuality) {
		t.Helper()
		awaits(t, "quality "+want.String(), func() bool { return shown(g, sid) == want })
	}
	s.later(quality.Interval)
	is(bob, anna.sid, livekit.ConnectionQuality_EXCELLENT)
	is(anna, anna.sid, livekit.ConnectionQuality_EXCELLENT)
	anna.media(rtc.TargetSubscriber, "disconnected")
	anna.inside(func() {})
	s.later(quality.Interval)
	is(bob, anna.sid, livekit.ConnectionQuality_LOST)
	anna.media(rtc.TargetSubscriber, "connected")
	anna.inside(func() {})
	s.later(quality.Interval)
	is(bob, anna.sid, livekit.ConnectionQuality_EXCELLENT)

	s.do(t, func() {
		s.has(t, "waw", false, person("PA_w", "w"))
		s.says("waw", KindQuality, Qualities{List: []Quality{{SID: "PA_w", Level: quality.Poor, Score: 2}, {SID: anna.sid, Level: quality.Lost, Score: 1}}})
		s.says("waw", KindQuality, Qualities{List: []Quality{{SID: "PA_w", Level: 9, Score: 2}}})
		s.says("waw", KindQuality, Qualities{List: []Quality{{SID: "PA_w", Level: quality.Good, Score: 1000}}})
	})
	is(bob, "PA_w", livekit.ConnectionQuality_POOR)
	carl := s.comes(t, "carl")
	is(carl, "PA_w", livekit.ConnectionQuality_POOR)
	is(carl, anna.sid, livekit.ConnectionQuality_EXCELLENT)
	n := number(bob.wire, (*livekit.SignalResponse).GetConnectionQuality)
	s.later(2 * quality.Interval)
	s.do(t, func() {})
	if got := number(bob.wire, (*livekit.SignalResponse).GetConnectionQuality); got > n+1 { // carl's
		t.Errorf("told %d times of nothing new", got-n)
	}
}
