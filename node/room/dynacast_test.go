package room

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

// TestDynacast is the transcript of a publisher whose viewers come and go: up at
// once, down after a while, and to the most that was wanted meanwhile.
func TestDynacast(t *testing.T) {
	d := dynacast{told: all}
	var log strings.Builder
	say := func(at time.Duration, want int8) {
		if d.update(want, start.Add(at)) {
			fmt.Fprintf(&log, "%s %d\n", at, d.told)
		}
	}
	for at := time.Duration(0); at < 60*time.Second; at += 100 * time.Millisecond {
		switch s := at.Seconds(); {
		case s < 1:
			say(at, 2)
		case s < 8:
			say(at, 0) // 1 s: only thumbnails
		case s < 9:
			say(at, 2) // one enlarges
		case s < 12:
			say(at, 0)
		case s < 13:
			say(at, 1)
		case s < 20:
			say(at, 0)
		case s < 30:
			say(at, none)
		default:
			say(at, 0)
		}
	}
	want := "6s 0\n8s 2\n14s 1\n19s 0\n25s -1\n30s 0\n"
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log.String(), want)
	}
}

// TestDynacastRandom holds it against what has to be true: never below what is
// wanted, and above it only what was wanted within the last two delays.
func TestDynacastRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	d, now := dynacast{told: none}, start
	type moment struct {
		at   time.Time
		want int8
	}
	past := []moment{{now, none}}
	for range 20_000 {
		now = now.Add(time.Duration(rnd.IntN(800)) * time.Millisecond)
		want := int8(rnd.IntN(4)) - 1
		past = append(past, moment{now, want})
		before := d.told
		if changed := d.update(want, now); changed != (d.told != before) {
			t.Fatalf("changed %v, from %d to %d", changed, before, d.told)
		}
		peak := none
		for i := len(past) - 1; i >= 0 && now.Sub(past[i].at) <= 2*dynacastDelay+time.Second; i-- {
			peak = max(peak, past[i].want)
		}
		if d.told < want || d.told > peak {
			t.Fatalf("told %d, wanted %d, lately %d", d.told, want, peak)
		}
	}
}

// publishes announces a track and lets its media arrive.
func (g *guest) publishes(req *livekit.AddTrackRequest, codec sfu.Codec) *sfu.UpTrack {
	g.t.Helper()
	before := number(g.wire, (*livekit.SignalResponse).GetTrackPublished)
	g.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: req}})
	awaits(g.t, "published", func() bool { return number(g.wire, (*livekit.SignalResponse).GetTrackPublished) > before })
	return g.arrives(req.Cid, codec)
}

// camera is a picture in three layers.
func camera(codecs ...*livekit.SimulcastCodec) *livekit.AddTrackRequest {
	return &livekit.AddTrackRequest{Cid: "cam", Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA,
		Layers: make3(), SimulcastCodecs: codecs}
}

func make3() []*livekit.VideoLayer {
	return []*livekit.VideoLayer{{Quality: livekit.VideoQuality_LOW}, {Quality: livekit.VideoQuality_MEDIUM}, {Quality: livekit.VideoQuality_HIGH}}
}

// nowhere takes packets and drops them.
type nowhere struct{}

func (nowhere) Write(sfu.Out, []byte, int) error { return nil }

// shows lets a guest receive a track up to a layer, or not at all.
func (g *guest) shows(id sfu.TrackID, l sfu.Layer, paused bool) {
	g.t.Helper()
	awaits(g.t, "subscribed", func() (ok bool) {
		g.inside(func() {
			d := g.subs[id]
			if ok = d != nil; ok {
				d.Bind(sfu.Binding{SSRC: 1, Writer: nowhere{}})
				d.SetMaxLayer(l)
				d.SetPaused(paused)
			}
		})
		return ok
	})
}

// inside runs something in the guest's goroutine.
func (g *guest) inside(f func()) {
	done := make(chan struct{})
	g.post(func() { f(); close(done) })
	<-done
}

// enabled are the qualities that a publisher was last told to send, by codec.
func (g *guest) enabled(id sfu.TrackID) string {
	var list []string
	m := last(g.wire, func(r *livekit.SignalResponse) *livekit.SubscribedQualityUpdate {
		if u := r.GetSubscribedQualityUpdate(); u.GetTrackSid() == string(id) {
			return u
		}
		return nil
	})
	for _, c := range m.GetSubscribedCodecs() {
		s := c.Codec + ":"
		for _, q := range c.Qualities {
			if q.Enabled {
				s += q.Quality.String()[:1]
			}
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

// TestPublisherIsTold follows what a publisher is asked for as others watch.
func TestPublisherIsTold(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	up := anna.publishes(camera(), vp8)
	id := up.ID()
	bob.shows(id, 0, false)
	awaits(t, "anna hears that she is watched", func() bool {
		return last(anna.wire, (*livekit.SignalResponse).GetTrackSubscribed).GetTrackSid() == string(id)
	})
	s.do(t, s.doReconcile)
	if got := anna.enabled(id); got != "" {
		t.Fatalf("told too soon: %s", got)
	}
	s.later(dynacastDelay)
	awaits(t, "the small picture", func() bool { return anna.enabled(id) == "vp8:L" })
	bob.shows(id, 1, false)
	awaits(t, "a larger one at once", func() bool { return anna.enabled(id) == "vp8:LM" })
	bob.shows(id, 1, true)
	s.do(t, s.doReconcile)
	s.later(dynacastDelay)
	awaits(t, "nothing", func() bool { return anna.enabled(id) == "vp8:" })
	if n := number(anna.wire, (*livekit.SignalResponse).GetTrackSubscribed); n != 1 {
		t.Errorf("told %d times that she is watched", n)
	}

	t.Run("another node watches", func(t *testing.T) {
		s.do(t, func() {
			s.has(t, "waw", false, person("PA_w", "w"))
			o := &outgoing{}
			o.layers.Store(4)
			s.tracks[id].up.AddSink(o)
		})
		awaits(t, "everything", func() bool { return anna.enabled(id) == "vp8:LMH" })
	})
	t.Run("she comes back", func(t *testing.T) {
		back, _ := anna.resumes()
		anna.wire = back
		awaits(t, "told again", func() bool { return anna.enabled(id) == "vp8:LMH" })
	})
}

// TestOneLayer is wanted whole or not at all.
func TestOneLayer(t *testing.T) {
	tr := &track{info: &livekit.TrackInfo{}}
	for told, want := range map[int8]bool{none: false, 0: true, all: true} {
		for _, q := range qualities(tr, told) {
			if q.Enabled != want {
				t.Errorf("told %d: %v", told, q)
			}
		}
	}
}
