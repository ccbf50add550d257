//go:build network

package e2e

import (
	"flag"
	"fmt"
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

var (
	syncRecord = flag.Bool("sync.record", false, "write what TestSyncFigures measured into bench/results")
	syncFor    = flag.Duration("sync.for", 30*time.Second, "how long TestSyncFigures records")
	syncDrift  = flag.Float64("sync.drift", 0, "by how many ppm the clock of the sound is fast in TestSyncFigures")
)

// flashing is JavaScript that publishes a picture that is white for 200 ms every two
// seconds, and a beep that begins at each of these moments. The sound comes as from a
// sound card, whose clock runs faster than that of the picture by window.drift ppm, in
// blocks of 128 samples, as an AudioWorklet has them: Chromium takes a block's sound to be
// of the time at which it gets it, the later by the block's length. Both are made here: an AudioContext's clock stands still whenever the
// machine does not take its buffers soon enough, and a captured canvas is read back late.
const flashing = `
	const canvas = new OffscreenCanvas(320, 180), x = canvas.getContext('2d')
	const camera = new MediaStreamTrackGenerator({ kind: 'video' }), pictures = camera.writable.getWriter()
	let white = false, n = 0
	const paint = () => {
		x.fillStyle = white ? '#fff' : '#000'
		x.fillRect(0, 0, 320, 180)
		x.fillStyle = white ? '#eee' : '#222'
		x.fillRect(n++ % 300, 80, 20, 20)
		pictures.write(new VideoFrame(canvas, { timestamp: performance.now() * 1000 }))
	}
	setInterval(paint, 33)
	const began = performance.now(), first = began + 3000, every = 2000, lasts = 200
	const flash = (at) => {
		setTimeout(() => { white = true; paint() }, at - performance.now())
		setTimeout(() => { white = false; paint() }, at + lasts - performance.now())
		setTimeout(() => flash(at + every), at + every / 2 - performance.now())
	}
	flash(first)
	const perMS = 48 * (1 + window.drift * 1e-6), block = 128
	const card = new MediaStreamTrackGenerator({ kind: 'audio' }), writer = card.writable.getWriter()
	let sent = 0
	setInterval(() => {
		while (sent + block <= (performance.now() - began) * perMS) {
			const data = new Float32Array(block)
			for (let i = 0; i < block; i++) {
				const since = began + (sent + i) / perMS - first
				if (since >= 0 && since % every < lasts) data[i] = 0.8 * Math.sin(2 * Math.PI * (sent + i) / 48)
			}
			writer.write(new AudioData({ format: 'f32', sampleRate: 48000, numberOfFrames: block, numberOfChannels: 1, timestamp: (began + sent / perMS) * 1000, data }))
			sent += block
		}
	}, 4)
	await room.localParticipant.publishTrack(new LocalVideoTrack(camera, undefined, true),
		{ source: Track.Source.Camera, simulcast: false, videoCodec: 'vp8' })
	await room.localParticipant.publishTrack(new LocalAudioTrack(card, undefined, true),
		{ source: Track.Source.Microphone, dtx: false })`

// TestSyncFigures records flashes and beeps that a browser publishes, and measures in the
// exported film how far they are apart: in each minute, since clocks that drift apart
// show late.
func TestSyncFigures(t *testing.T) {
	m := startMesh(t, product, t.TempDir())
	b := startBrowsers(t, "")
	p := m.joinMedia(b, "waw", "sync", "flashes", nil)
	p.must(fmt.Sprintf("window.drift = %g", *syncDrift), nil)
	p.must(flashing, nil)
	token := m.token("sync", "flashes", "")
	act := func(action string) {
		if a := m.do(http.MethodPost, m.origin("waw")+"/api/rooms/sync/recording", token, map[string]any{"action": action}); a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", action, a.status, a.body)
		}
	}
	act("start")
	eventually(t, "enough is recorded", *syncFor+10*time.Second, func() bool {
		list := m.recordings()
		return len(list) == 1 && time.Since(list[0].Started) > *syncFor
	})
	act("stop")
	eventually(t, "the recording is complete", 20*time.Second, func() bool { return m.recordings()[0].State == vault.StateFinished })
	path := filepath.Join(t.TempDir(), "x.mkv")
	m.mustRun("recordings", "export", m.recordings()[0].ID, "-o", path, "-q")
	flashes := rises(t, 120, 1000, "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-vf", "signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-")
	beeps := rises(t, -30, 48000, "-i", path, "-map", "0:a:0", "-af", "asetnsamples=240,astats=metadata=1:reset=1,ametadata=print:key=lavfi.astats.Overall.RMS_level:file=-")
	// A recording may begin and end between a flash and its beep, and a browser that is kept
	// waiting for long paints no flash: each flash is taken with the beep that is nearest.
	var all []float64 // by how many ms each beep is behind its flash
	for _, at := range flashes {
		i, _ := slices.BinarySearch(beeps, at)
		nearest := time.Hour
		for _, beep := range beeps[max(i-1, 0):min(i+1, len(beeps))] {
			if off := beep - at; off.Abs() < nearest.Abs() {
				nearest = off
			}
		}
		if nearest.Abs() < time.Second {
			all = append(all, float64(nearest.Microseconds())/1000)
		}
	}
	if want := int(syncFor.Seconds() / 2.5); len(all) < want || len(all) < max(len(flashes), len(beeps))*9/10 {
		t.Fatalf("%d flashes, %d beeps, %d of them together, want %d and more", len(flashes), len(beeps), len(all), want)
	}
	var minutes []float64
	for of := range slices.Chunk(slices.Clone(all), 30) {
		minutes = append(minutes, median(of))
	}
	most := max(slices.Max(all), -slices.Min(all))
	slices.Sort(all)
	at := func(q float64) float64 { return all[int(q*float64(len(all)-1))] }
	t.Logf("%d beeps behind their flashes by %.0f to %.0f ms, the middle half by %.0f to %.0f, median %.1f; in each minute %.0f", len(all), all[0], all[len(all)-1], at(0.25), at(0.75), at(0.5), minutes)
	// What the browser itself adds differs by a picture, 33 ms: the limit is for what does not.
	for i, ms := range minutes {
		if math.Abs(ms) > 40 {
			t.Errorf("minute %d: sound is %v ms behind the picture", i, ms)
		}
	}
	if *syncRecord {
		record(t, "meeting-sync", fmt.Sprintf("make bench-meeting-sync FOR=%s DRIFT=%g RECORD=1", *syncFor, *syncDrift), map[string]any{
			"seconds": syncFor.Seconds(), "drift_ppm": *syncDrift, "flashes": len(all), "beep_behind_flash_median_ms": at(0.5), "beep_behind_flash_p5_ms": at(0.05),
			"beep_behind_flash_p95_ms": at(0.95), "apart_max_ms": most, "beep_behind_flash_each_minute_ms": minutes})
	}
}

// median sorts the list.
func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// rises are the times at which a value that ffmpeg prints rises above a level. It
// prints ticks; the seconds beside them have six digits, which is 10 ms in a long film.
func rises(t *testing.T, level float64, perSecond int64, args ...string) (at []time.Duration) {
	t.Helper()
	out, err := exec.Command("ffmpeg", append(append([]string{"-v", "error", "-copyts"}, args...), "-f", "null", "-")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var now time.Duration
	high := true
	for line := range strings.Lines(string(out)) {
		if _, s, ok := strings.Cut(line, " pts:"); ok {
			n, err := strconv.ParseInt(strings.Fields(s)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			now = time.Duration(n * int64(time.Second) / perSecond)
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
