//go:build network

package e2e

import (
	"flag"
	"math"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency/vault"
)

var syncRecord = flag.Bool("sync.record", false, "write what TestSyncFigures measured into bench/results")

// flashing is JavaScript that publishes a picture that is white for 200 ms every two
// seconds, and a beep that begins at each of these moments. The clock of the sound is
// read in steps of some 10 ms, so it is compared with that of the page for a second: the
// most that it is ahead is what it is ahead.
const flashing = `
	const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 180 })
	const x = canvas.getContext('2d'), context = new AudioContext(), out = context.createMediaStreamDestination()
	const tone = new OscillatorNode(context, { frequency: 1000 }), gate = new GainNode(context, { gain: 0 })
	tone.connect(gate).connect(out)
	tone.start()
	let white = false, n = 0
	const paint = () => {
		x.fillStyle = white ? '#fff' : '#000'
		x.fillRect(0, 0, 320, 180)
		x.fillStyle = white ? '#eee' : '#222'
		x.fillRect(n++ % 300, 80, 20, 20)
	}
	setInterval(paint, 33)
	let ahead = -Infinity
	for (let i = 0; i < 100; i++) {
		await new Promise((r) => setTimeout(r, 10))
		ahead = Math.max(ahead, context.currentTime * 1000 - performance.now())
	}
	let at = performance.now() + 500
	const flash = () => {
		at += 2000
		const sounds = (at + ahead) / 1000
		gate.gain.setValueAtTime(0.8, sounds)
		gate.gain.setValueAtTime(0, sounds + 0.2)
		setTimeout(() => { white = true; paint() }, at - performance.now())
		setTimeout(() => { white = false; paint() }, at - performance.now() + 200)
	}
	setInterval(flash, 2000)
	await room.localParticipant.publishTrack(new LocalVideoTrack(canvas.captureStream().getVideoTracks()[0], undefined, true),
		{ source: Track.Source.Camera, simulcast: false, videoCodec: 'vp8' })
	await room.localParticipant.publishTrack(new LocalAudioTrack(out.stream.getAudioTracks()[0], undefined, true, context),
		{ source: Track.Source.Microphone, dtx: false })`

// TestSyncFigures records half a minute of flashes and beeps that a browser publishes, and
// measures in the exported film how far they are apart.
func TestSyncFigures(t *testing.T) {
	m := startMesh(t, product, t.TempDir())
	b := startBrowsers(t, "")
	p := m.joinMedia(b, "waw", "sync", "flashes", nil)
	p.must(flashing, nil)
	token := m.token("sync", "flashes", "")
	act := func(action string) {
		if a := m.do(http.MethodPost, m.origin("waw")+"/api/rooms/sync/recording", token, map[string]any{"action": action}); a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", action, a.status, a.body)
		}
	}
	act("start")
	eventually(t, "half a minute is recorded", 40*time.Second, func() bool {
		list := m.recordings()
		return len(list) == 1 && time.Since(list[0].Started) > 30*time.Second
	})
	act("stop")
	eventually(t, "the recording is complete", 5*time.Second, func() bool { return m.recordings()[0].State == vault.StateFinished })
	path := filepath.Join(t.TempDir(), "x.mkv")
	m.mustRun("recordings", "export", m.recordings()[0].ID, "-o", path, "-q")
	flashes := rises(t, 120, "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-vf", "signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-")
	beeps := rises(t, -30, "-i", path, "-map", "0:a:0", "-af", "asetnsamples=240,astats=metadata=1:reset=1,ametadata=print:key=lavfi.astats.Overall.RMS_level:file=-")
	if len(flashes) < 10 || len(flashes) != len(beeps) {
		t.Fatalf("%d flashes, %d beeps", len(flashes), len(beeps))
	}
	var late []float64 // by how much the beep is behind its flash
	for i := range flashes {
		late = append(late, float64((beeps[i]-flashes[i]).Microseconds())/1000)
	}
	slices.Sort(late)
	median, most := late[len(late)/2], max(late[len(late)-1], -late[0])
	t.Logf("%d beeps behind their flashes by %v ms, median %v", len(late), late, median)
	// What the browser itself adds differs by a picture, 33 ms: the limit is for what does not.
	if math.Abs(median) > 40 {
		t.Errorf("sound is %v ms behind the picture", median)
	}
	if *syncRecord {
		record(t, "meeting-sync", "make bench-meeting-sync RECORD=1", map[string]any{"flashes": len(flashes), "beep_behind_flash_median_ms": median, "apart_max_ms": most, "beep_behind_flash_ms": late})
	}
}

// rises are the times at which a value that ffmpeg prints rises above a level.
func rises(t *testing.T, level float64, args ...string) (at []time.Duration) {
	t.Helper()
	out, err := exec.Command("ffmpeg", append(append([]string{"-v", "error", "-copyts"}, args...), "-f", "null", "-")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var now time.Duration
	high := true
	for line := range strings.Lines(string(out)) {
		if _, s, ok := strings.Cut(line, "pts_time:"); ok {
			now = seconds(t, strings.TrimSpace(s))
		} else if _, s, ok := strings.Cut(line, "="); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
			if err == nil && v > level && !high {
				at = append(at, now)
			}
			high = err == nil && v > level
		}
	}
	return at
}
