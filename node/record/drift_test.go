//go:build figures

package record

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/machine"
)

var driftFilm = flag.Duration("drift", time.Hour, "how long the film of TestDrift lasts; a whole number of ten seconds")

const (
	// driftPPM is by how much the microphone's clock is fast and the camera's slow,
	// and the publisher's wall clock fast.
	driftPPM = 200
	// mostApart is how far sound may be from its picture before people notice.
	mostApart = 40 * time.Millisecond
)

// driftPictures are the pictures of the test film, few and small, so that an hour of
// them is looked at in seconds.
const driftPictures = "color=black:s=64x48:r=10:d=10,drawbox=w=iw:h=ih:color=white:t=fill:enable='between(mod(t,2),1,1.099)'"

// TestDrift exports a film with flashes and beeps whose microphone's clock is 200 ppm
// fast and whose camera's is 200 ppm slow, from a machine whose own clock is fast too:
// what is seen and heard at once stays at once, up to the end. The same recording
// exported without regard to drift shows that it would not: over an hour the two
// clocks part by 1.44 s.
func TestDrift(t *testing.T) {
	m := driftedMeeting(t)
	path, _ := m.export(ExportOptions{})
	worst, control := apart(t, path), apart(t, m.exportUncorrected())
	t.Logf("%v of clocks %d ppm off: at most %v between a flash and its beep, %v if drift is not corrected", *driftFilm, driftPPM, worst, control)
	measured(t, "export-sync", map[string]any{"machine": machine.Describe(time.Now(), "make bench-export-sync RECORD=1"), "film_s": driftFilm.Seconds(),
		"ppm": driftPPM, "flashes": driftCues(), "apart_max_ms": milliseconds(worst), "apart_max_uncorrected_ms": milliseconds(control)})
	if worst > mostApart {
		t.Errorf("%v between a flash and its beep, want %v at most", worst, mostApart)
	}
	// Each of the two clocks is off by so much at the end; measuring costs a packet of sound.
	if want := 2*time.Duration(float64(*driftFilm)*driftPPM*1e-6) - mostApart; control < want {
		t.Errorf("without correction flashes and beeps are %v apart, want %v: this film would show no fault", control, want)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// driftCues is how often the film flashes and beeps.
func driftCues() int { return int(*driftFilm/filmLength) * len(cue) }

// driftedMeeting records the film.
func driftedMeeting(t *testing.T) *meeting {
	t.Helper()
	m := newMeeting(t)
	net := network{jitter: 30 * time.Millisecond}
	for i, p := range []publisher{
		{codec: codecVP8, film: fewPictures(t), delay: 120 * time.Millisecond, drift: -driftPPM * 1e-6},
		{codec: codecOpus, film: film(t, codecOpus), delay: 40 * time.Millisecond, drift: driftPPM * 1e-6},
	} {
		p.film, p.hurry, p.seq, p.ts = looped(p.film, *driftFilm), driftPPM*1e-6, 65000, 1<<32-90000
		w := m.track("TR_"+strconv.Itoa(i), "alice", []string{"camera", "microphone"}[i], p.codec)
		m.record(w, p.codec, net.carry(p.events(), uint64(i)))
		must(t, w.Close())
	}
	must(t, m.rec.Finish(t0.Add(*driftFilm)))
	return m
}

func fewPictures(t *testing.T) (out []sample) {
	path := filepath.Join(t.TempDir(), "film")
	tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", driftPictures, "-force_key_frames", "expr:gte(t,n_forced*0.5)", "-b:v", "100k",
		"-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0", "-f", "ivf", path)
	return readIVF(t, path, 10)
}

// looped repeats a film up to a length.
func looped(film []sample, length time.Duration) (out []sample) {
	for from := time.Duration(0); from < length; from += filmLength {
		for _, s := range film {
			if s.at < filmLength { // the encoder of the sound adds a packet
				out = append(out, sample{from + s.at, s.data})
			}
		}
	}
	return out
}

// exportUncorrected exports as if every clock ran as fast as the node's: tracks begin
// where they belong and go on by their own clocks.
func (m *meeting) exportUncorrected() string {
	m.t.Helper()
	r, err := m.vault.Read(m.rec.ID())
	must(m.t, err)
	plan, err := newPlan(m.t.Context(), r, ExportOptions{})
	must(m.t, err)
	for _, s := range plan.scans {
		for i := range s.timeline {
			s.timeline[i].slope = 0
		}
	}
	path := filepath.Join(m.t.TempDir(), "uncorrected.mkv")
	must(m.t, replace(path, func(f *os.File) error { return plan.write(m.t.Context(), f, f, MKV) }))
	return path
}

// apart measures how far flashes and beeps are from each other, at most.
func apart(t *testing.T, path string) (worst time.Duration) {
	t.Helper()
	flashes, beeps := flashesIn(t, path, 0), beepsIn(t, path, 0)
	if len(flashes) != driftCues() || len(beeps) != driftCues() {
		t.Fatalf("%d flashes, %d beeps, want %d", len(flashes), len(beeps), driftCues())
	}
	for i := range flashes {
		worst = max(worst, (flashes[i] - beeps[i]).Abs())
	}
	return worst
}
