package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/steady"
	"github.com/domicile/domicile/residency/vault"
)

// layered is a codec and how its layers are published.
type layered struct {
	codec         string
	width, height int // what costs more to encode is smaller
	publish       options
	svc           bool
}

var layerings = []layered{
	{"vp8", 960, 540, options{"videoCodec": "vp8", "simulcast": true}, false},
	{"h264", 960, 540, options{"videoCodec": "h264", "simulcast": true}, false},
	{"vp9", 640, 360, options{"videoCodec": "vp9", "scalabilityMode": "L3T3_KEY", "backupCodec": false}, true},
	{"av1", 640, 360, options{"videoCodec": "av1", "scalabilityMode": "L3T3_KEY", "backupCodec": false}, true},
}

// TestLayersFollowTheTile publishes each codec on one node and shows it on
// another in a tile that shrinks and grows: the picture that arrives follows,
// without a freeze, and a simulcast publisher stops the layer that nobody
// watches any more.
func TestLayersFollowTheTile(t *testing.T) {
	t.Parallel()
	whole := sharedMesh(t)
	for _, l := range layerings {
		t.Run(l.codec, func(t *testing.T) { followTheTile(t, whole.in(t), l) })
	}
}

// moves says whether two thirds of the frames come, but for one or two that are
// under way. What scalable codecs send is counted once for each of three spatial
// layers, of which one is shown; of simulcast the layer counts that is shown: an
// encoder that is short of time or bits leaves frames out in one and not in another.
func moves(g growth, s sending, svc bool) bool {
	g.Frames += 2
	if n, ok := s.Layers[g.Height]; ok && !svc {
		s.Frames = n
	}
	frames, _ := arrived(g, s)
	if svc {
		frames *= 3
	}
	return g.Frames > 2 && frames > 0.67
}

func followTheTile(t *testing.T, m *mesh, l layered) {
	b := startBrowsers(t, "")
	one := m.joinMedia(b, "waw", "layers-"+l.codec, "one", options{"dynacast": true})
	two := m.joinMedia(b, "nyc", "layers-"+l.codec, "two", options{"adaptiveStream": options{"pixelDensity": 1}})
	l.publish["width"], l.publish["height"] = l.width, l.height
	one.must(`await publishVideo(`+l.publish.String()+`)`, nil)
	height := func(what string, within time.Duration, h string) {
		t.Helper()
		began := time.Now()
		two.until(what, within, `const g = await grows(500); return g.frames > 0 && g.height `+h)
		t.Logf("%s after %s", what, time.Since(began).Round(100*time.Millisecond))
	}
	tile := func(width, height int) { two.must(fmt.Sprintf(`tile(%d, %d)`, width, height), nil) }
	watch(two, one, "sees the large picture", 30*time.Second, isLargest(l.height))
	film := func() {}
	if l.svc {
		film = m.films(t, two, "layers-"+l.codec, l)
	}
	var codec string
	two.must(`return (await incoming()).video.codec`, &codec)
	if want := "video/" + l.codec; !strings.EqualFold(codec, want) {
		t.Errorf("receives %s, want %s", codec, want)
	}
	tile(l.width/5, l.height/5)
	height("sees a small picture in the small tile", 15*time.Second, `<= 180`)
	// A busy machine encodes less than 30 frames, but what is encoded comes.
	steady.Measure(t, late, func() string {
		if g, s := together(2*time.Second, two, one); !moves(g, s, l.svc) {
			return fmt.Sprintf("in two seconds of the small tile: %+v of %+v", g, s)
		}
		return ""
	})
	if !l.svc {
		one.until("stops the layer that nobody watches", 20*time.Second, `const r = await rates(1500); return r.f === 0 && r.q > 2`)
	}
	tile(l.width, l.height)
	watch(two, one, "sees the large picture again", 20*time.Second, isLargest(l.height))
	film()
	subscribed := func(is bool) {
		two.must(fmt.Sprintf(`for (const p of room.remoteParticipants.values()) for (const pub of p.trackPublications.values()) pub.setSubscribed(%t)`, is), nil)
	}
	if l.codec != "vp8" {
		return
	}
	// Nobody watches anything, then somebody does again.
	subscribed(false)
	one.until("stops all layers", 20*time.Second, `const r = await rates(1500); return Object.keys(r).length > 1 && Object.values(r).every(n => n === 0)`)
	subscribed(true)
	height("sees the picture again", 15*time.Second, `> 0`)
}

// films records a room with one camera, until its result is called: that looks whether
// the film has the pictures that a viewer got meanwhile, in the largest size.
func (m *mesh) films(t *testing.T, viewer *tab, room string, l layered) (look func()) {
	t.Helper()
	record := func(action string) {
		a := m.do(http.MethodPost, m.origin("waw")+"/api/rooms/"+room+"/recording", m.token(room, "one", ""), map[string]any{"action": action})
		if a.status != http.StatusOK {
			t.Fatalf("recording: %s: %d %s", action, a.status, a.body)
		}
	}
	received := func() (n int) {
		viewer.must(`return (await incoming()).video.framesReceived`, &n)
		return n
	}
	var r recordingLine
	state := func(want vault.State) func() bool {
		return func() bool {
			i := slices.IndexFunc(m.recordings(), func(r recordingLine) bool { return r.Room == room })
			if i >= 0 {
				r = m.recordings()[i]
			}
			return i >= 0 && r.State == want && r.Tracks == 1
		}
	}
	record("start")
	eventually(t, "the camera is recorded", 20*time.Second, state(vault.StateRecording))
	before := received()
	return func() {
		t.Helper()
		var came int
		eventually(t, "the viewer has got a second of pictures", 30*time.Second, func() bool { came = received() - before; return came >= 30 })
		record("stop")
		eventually(t, "the recording is complete", 20*time.Second, state(vault.StateFinished))
		path := filepath.Join(t.TempDir(), "film.mkv")
		m.mustRun("recordings", "export", r.ID, "-o", path, "-q")
		// Every packet is to hold one picture that a player shows, and none that it cannot.
		out, err := exec.Command("ffprobe", "-v", "error", "-count_packets", "-count_frames", "-show_entries", "stream=height,nb_read_packets,nb_read_frames", "-of", "csv=p=0", path).CombinedOutput()
		var height, packets, frames int
		if n, _ := fmt.Sscanf(strings.TrimSpace(string(out)), "%d,%d,%d", &height, &frames, &packets); n != 3 || err != nil {
			t.Fatalf("ffprobe: %v: %s", err, out)
		}
		t.Logf("%d pictures of %d lines recorded while the viewer got %d", frames, height, came)
		if frames != packets || 3*frames < 2*came || height < l.height {
			t.Errorf("%d packets, %d pictures of %d lines recorded; the viewer got %d, want two thirds and %d lines", packets, frames, height, came, l.height)
		}
	}
}
