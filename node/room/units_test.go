package room

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

func TestLayerFor(t *testing.T) {
	for _, c := range []struct {
		s    *livekit.UpdateTrackSettings
		want sfu.Layer
	}{
		{&livekit.UpdateTrackSettings{Height: 90}, 0},
		{&livekit.UpdateTrackSettings{Height: 180}, 0},
		{&livekit.UpdateTrackSettings{Height: 181}, 1},
		{&livekit.UpdateTrackSettings{Height: 360}, 1},
		{&livekit.UpdateTrackSettings{Height: 361}, 2},
		{&livekit.UpdateTrackSettings{Height: 180, Quality: livekit.VideoQuality_HIGH}, 0}, // the height is the wish
		{&livekit.UpdateTrackSettings{Quality: livekit.VideoQuality_LOW}, 0},
		{&livekit.UpdateTrackSettings{Quality: livekit.VideoQuality_MEDIUM}, 1},
		{&livekit.UpdateTrackSettings{Quality: livekit.VideoQuality_HIGH}, 2},
		{&livekit.UpdateTrackSettings{Quality: livekit.VideoQuality_OFF}, 2},
		{nil, 0}, // the zero quality is LOW
	} {
		if got := layerFor(c.s, nil); got != c.want {
			t.Errorf("%v: layer %d, want %d", c.s, got, c.want)
		}
	}
}

// TestLayerForPublished goes by what the publisher says of its layers.
func TestLayerForPublished(t *testing.T) {
	layers := []*livekit.VideoLayer{
		{Quality: livekit.VideoQuality_LOW, Width: 320, Height: 180},
		{Quality: livekit.VideoQuality_MEDIUM, Width: 960, Height: 540},
		{Quality: livekit.VideoQuality_HIGH, Width: 1920, Height: 1080},
		{Quality: livekit.VideoQuality_OFF, Width: 1, Height: 1}, {Quality: -1, Height: 1}, nil,
	}
	for _, c := range []struct {
		width, height uint32
		want          sfu.Layer
	}{{320, 180, 0}, {180, 320, 0}, {640, 360, 1}, {960, 540, 1}, {961, 541, 2}, {4000, 3000, 2}, {0, 500, 1}, {200, 0, 1}} {
		if got := layerFor(&livekit.UpdateTrackSettings{Width: c.width, Height: c.height}, layers); got != c.want {
			t.Errorf("%d×%d: layer %d, want %d", c.width, c.height, got, c.want)
		}
	}
}

func TestSetAttribute(t *testing.T) {
	attrs := map[string]string{"domicile.node": "waw", "hand": "up"}
	for _, kv := range [][2]string{{"domicile.node", "mars"}, {"domicile.node", ""}, {"domicile.anything", "x"}, {"hand", ""}, {"gone", ""}, {"domicil", "x"}} {
		setAttribute(attrs, kv[0], kv[1])
	}
	if want := map[string]string{"domicile.node": "waw", "domicil": "x"}; !maps.Equal(attrs, want) {
		t.Errorf("got %v, want %v", attrs, want)
	}
}

func taken(p *pendingTracks, cid string, kind sfu.Kind, wait time.Duration) *livekit.TrackInfo {
	if found := p.take(cid, kind, wait); found != nil {
		return found.info
	}
	return nil
}

// TestPendingTracks brings announcements and media together in either order.
func TestPendingTracks(t *testing.T) {
	video, audio := &livekit.TrackInfo{Sid: "TR_v", Type: livekit.TrackType_VIDEO}, &livekit.TrackInfo{Sid: "TR_a", Type: livekit.TrackType_AUDIO}
	synctest.Test(t, func(t *testing.T) {
		p := newPendingTracks()
		p.add("v", video)
		p.add("a", audio)
		if got := taken(p, "a", sfu.Audio, time.Minute); got != audio {
			t.Errorf("by its id: %v", got)
		}
		if got := taken(p, "?", sfu.Video, time.Minute); got != video {
			t.Errorf("by its kind: %v", got)
		}
		begun := time.Now()
		if got := taken(p, "v", sfu.Video, time.Minute); got != nil || time.Since(begun) != time.Minute {
			t.Errorf("taken twice: %v after %s", got, time.Since(begun))
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if got := taken(p, "v", sfu.Video, time.Minute); got != video {
				t.Errorf("announced later: %v", got)
			}
		})
		synctest.Wait()
		p.add("a", audio) // of another kind, so that it goes on waiting
		synctest.Wait()
		p.add("v", video)
		wg.Wait()
		p.mute("TR_a", true)
		if !audio.Muted {
			t.Error("a track that waits is not muted")
		}
		p.take("a", sfu.Audio, 0)
		wg.Go(func() {
			if got := taken(p, "v", sfu.Video, time.Hour); got != nil {
				t.Errorf("after the end: %v", got)
			}
		})
		synctest.Wait()
		p.close()
		wg.Wait()
	})
	p := newPendingTracks()
	for i := range maxTracks {
		if !p.add(fmt.Sprint(i), video) {
			t.Fatalf("track %d is refused", i)
		}
	}
	if p.add("one more", video) {
		t.Error("there is no limit")
	}
}

// TestEnding keeps what is personal in an error out of the log.
func TestEnding(t *testing.T) {
	for err, want := range map[error]string{
		nil:     "left",
		errLeft: "left",
		kicked{reason: livekit.DisconnectReason_ROOM_DELETED}:              "sent away: ROOM_DELETED",
		fmt.Errorf("join: %w: 2 at most", ErrFull):                         ErrFull.Error(),
		fmt.Errorf("%w: c=IN IP4 192.0.2.7", errOffer):                     errOffer.Error(),
		fmt.Errorf("write tcp 10.0.0.1:7880->192.0.2.7:5000: broken pipe"): "connection lost",
		errLost: "connection lost",
	} {
		if got := Ending(err); got != want || strings.Contains(got, "192.0.2.7") {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestValidSID(t *testing.T) {
	for range 100 {
		if id := NewID("TR_"); !validSID(id) || len(id) != 15 {
			t.Fatalf("%q is not valid", id)
		}
	}
	for _, bad := range []string{"", "a b", "a|b", "a/b", "..", "a\n", "ä", strings.Repeat("a", maxSID+1)} {
		if validSID(bad) {
			t.Errorf("%q is valid", bad)
		}
	}
}
