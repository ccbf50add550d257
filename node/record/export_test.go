package record

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

const inSync = 80 * time.Millisecond

// A camera whose encoder takes 250 ms longer than the microphone's, a publisher
// whose clock is three hours off, jitter, reordering, repetition, and both
// counters wrap in the middle.
func syncMeeting(t *testing.T, video sfu.Codec, quiet bool) *meeting {
	m := newMeeting(t)
	net := network{jitter: 60 * time.Millisecond, dup: 0.02}
	cam := publisher{codec: video, film: film(t, video), joins: 500 * time.Millisecond, delay: 300 * time.Millisecond,
		seq: 65500, ts: 1<<32 - 4*90000, skew: -3 * time.Hour, quiet: quiet}
	mic := publisher{codec: codecOpus, film: film(t, codecOpus), joins: 500 * time.Millisecond, delay: 50 * time.Millisecond,
		seq: 65400, ts: 1<<32 - 5*48000, skew: -3 * time.Hour, quiet: quiet}
	w := m.track("TR_cam", "alice", "camera", video)
	m.record(w, video, net.carry(cam.events(), 1))
	must(t, w.Close())
	w = m.track("TR_mic", "alice", "microphone", codecOpus)
	m.record(w, codecOpus, net.carry(mic.events(), 2))
	must(t, w.Close())
	must(t, m.rec.Finish(t0.Add(11*time.Second)))
	return m
}

func TestExportInSync(t *testing.T) {
	for _, video := range []sfu.Codec{codecVP8, codecVP9, codecAV1, codecH264} {
		t.Run(video.MimeType, func(t *testing.T) {
			var last, total int64
			path, sum := syncMeeting(t, video, false).export(ExportOptions{Progress: func(d, n int64) { last, total = d, n }})
			decodes(t, path)
			lasts(t, path, filmLength+500*time.Millisecond)
			want := shifted(cue, 500*time.Millisecond)
			f, b := flashesIn(t, path, 0), beepsIn(t, path, 0)
			if !near(f, b, inSync) || !near(f, want, 150*time.Millisecond) {
				t.Errorf("flashes at %v, beeps at %v, want %v", f, b, want)
			}
			if sum.Tracks != 2 || len(sum.Notes) != 0 {
				t.Errorf("summary %+v", sum)
			}
			if last == 0 || last > total {
				t.Errorf("progress ended at %d of %d", last, total)
			}
			tracksAreNamed(t, path)
			seeks(t, path)
		})
	}
}

// The control: without reports nothing tells of the slow encoder, so the test
// above can fail.
func TestSyncNeedsReports(t *testing.T) {
	path, _ := syncMeeting(t, codecVP8, true).export(ExportOptions{})
	decodes(t, path)
	f, b := flashesIn(t, path, 0), beepsIn(t, path, 0)
	if len(f) != len(cue) || len(b) != len(cue) || near(f, b, inSync) {
		t.Errorf("flashes at %v, beeps at %v: want 250 ms between them", f, b)
	}
}

func tracksAreNamed(t *testing.T, path string) {
	t.Helper()
	var probe struct {
		Streams []struct {
			Type        string            `json:"codec_type"`
			Width       int               `json:"width"`
			Tags        map[string]string `json:"tags"`
			Disposition map[string]int    `json:"disposition"`
		} `json:"streams"`
	}
	out := tool(t, "ffprobe", "-v", "error", "-show_streams", "-of", "json", path)
	must(t, json.Unmarshal([]byte(out), &probe))
	if len(probe.Streams) != 2 {
		t.Fatalf("%d streams, want 2", len(probe.Streams))
	}
	v, a := probe.Streams[0], probe.Streams[1]
	if v.Type != "video" || v.Width != 320 || v.Tags["title"] != "ALICE camera" || v.Disposition["default"] != 1 {
		t.Errorf("first stream %+v", v)
	}
	if a.Type != "audio" || a.Tags["title"] != "ALICE microphone" || a.Disposition["default"] != 1 {
		t.Errorf("second stream %+v", a)
	}
}

// seeks jumps to 8 s, which a player does through the index.
func seeks(t *testing.T, path string) {
	t.Helper()
	out := tool(t, "ffprobe", "-v", "error", "-select_streams", "v:0", "-read_intervals", "8%+#1", "-show_entries", "packet=pts_time", "-of", "csv=p=0", path)
	at, err := time.ParseDuration(strings.Trim(strings.TrimSpace(out), ",") + "s")
	must(t, err)
	if at < 6*time.Second || at > 8*time.Second {
		t.Errorf("seeking to 8 s begins at %v, want the keyframe before it", at)
	}
}

func TestLossFreezesUntilKeyframe(t *testing.T) {
	for _, c := range []sfu.Codec{codecVP8, codecVP9, codecAV1, codecH264, codecOpus} {
		t.Run(c.MimeType, func(t *testing.T) {
			m := newMeeting(t)
			w := m.track("TR_a", "alice", "camera", c)
			p := publisher{codec: c, film: film(t, c), seq: 1, ts: 1}
			asked := m.record(w, c, network{jitter: 40 * time.Millisecond, loss: 0.01, dup: 0.01}.carry(p.events(), 3))
			must(t, w.Close())
			must(t, m.rec.Finish(t0.Add(filmLength)))
			path, _ := m.export(ExportOptions{})
			decodes(t, path)
			lasts(t, path, filmLength)
			if isVideo(c.MimeType) && asked < 2 {
				t.Errorf("asked for %d keyframes", asked)
			}
		})
	}
}

// bob joins 4 s late, and falls silent for 5 s: once with a media clock that
// runs on, once with one that stands still.
func lateMeeting(t *testing.T, halt bool) *meeting {
	m := newMeeting(t)
	for i, p := range []publisher{
		{codec: codecVP8, film: film(t, codecVP8)},
		{codec: codecOpus, film: film(t, codecOpus)},
		{codec: codecVP8, film: film(t, codecVP8), joins: 4 * time.Second, mute: [2]time.Duration{1500 * time.Millisecond, 6500 * time.Millisecond}, halt: halt},
		{codec: codecOpus, film: film(t, codecOpus), joins: 4 * time.Second, mute: [2]time.Duration{1500 * time.Millisecond, 6500 * time.Millisecond}, halt: halt},
	} {
		p.seq, p.ts = uint16(1000*i), uint32(12345*i)
		p.delay, p.quiet = 40*time.Millisecond, halt
		who := []string{"alice", "bob"}[i/2]
		w := m.track("TR_"+who+[]string{"v", "a"}[i%2], who, []string{"camera", "microphone"}[i%2], p.codec)
		events := network{jitter: 30 * time.Millisecond}.carry(p.events(), uint64(i))
		m.record(w, p.codec, events)
		must(t, w.Close())
	}
	must(t, m.rec.Finish(t0.Add(14*time.Second)))
	return m
}

var lateCues = []time.Duration{5 * time.Second, 11 * time.Second, 13 * time.Second}

func TestLateAndMuted(t *testing.T) {
	for name, halt := range map[string]bool{"clock runs on": false, "clock stands still": true} {
		t.Run(name, func(t *testing.T) {
			path, sum := lateMeeting(t, halt).export(ExportOptions{})
			decodes(t, path)
			lasts(t, path, 14*time.Second)
			if sum.Tracks != 4 {
				t.Errorf("%d tracks", sum.Tracks)
			}
			if f := flashesIn(t, path, 0); !near(f, cue, 100*time.Millisecond) {
				t.Errorf("alice's flashes at %v", f)
			}
			f, b := flashesIn(t, path, 1), beepsIn(t, path, 1)
			if !near(f, b, inSync) || !near(f, lateCues, 120*time.Millisecond) {
				t.Errorf("bob's flashes at %v, beeps at %v, want %v", f, b, lateCues)
			}
		})
	}
}

func TestMP4(t *testing.T) {
	path, _ := lateMeeting(t, false).export(ExportOptions{Format: MP4})
	decodes(t, path)
	lasts(t, path, 14*time.Second)
	codecsOf := tool(t, "ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", path)
	if got := strings.Fields(codecsOf); !slices.Equal(got, []string{"h264", "h264", "aac", "aac"}) {
		t.Errorf("codecs %v", got)
	}
	f, b := flashesIn(t, path, 1), beepsIn(t, path, 1)
	if !near(f, b, inSync) || !near(f, lateCues, 120*time.Millisecond) {
		t.Errorf("bob's flashes at %v, beeps at %v, want %v", f, b, lateCues)
	}
}

func TestMP4CopiesH264(t *testing.T) {
	path, _ := syncMeeting(t, codecH264, false).export(ExportOptions{Format: MP4})
	decodes(t, path)
	f, b := flashesIn(t, path, 0), beepsIn(t, path, 0)
	if len(f) != len(cue) || !near(f, b, inSync) {
		t.Errorf("flashes at %v, beeps at %v", f, b)
	}
}

// A simulcast track changes its size in the middle.
func TestSizeChanges(t *testing.T) {
	small := filepath.Join(t.TempDir(), "small.ivf")
	tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", strings.Replace(flashes, "320x240", "160x120", 1), "-c:v", "libvpx",
		"-force_key_frames", "expr:gte(t,n_forced*0.5)", "-deadline", "realtime", "-auto-alt-ref", "0", "-f", "ivf", small)
	mixed := append(slices.Clone(readIVF(t, small, 30)[:150]), film(t, codecVP8)[150:]...)
	m := newMeeting(t)
	w := m.track("TR_v", "alice", "camera", codecVP8)
	m.record(w, codecVP8, publisher{codec: codecVP8, film: mixed}.events())
	must(t, w.Close())
	for _, format := range []Format{MKV, MP4} {
		path, _ := m.export(ExportOptions{Format: format})
		decodes(t, path)
		if f := flashesIn(t, path, 0); !near(f, cue, inSync) {
			t.Errorf("%s: flashes at %v", format, f)
		}
	}
}

func TestMP4WithoutFFmpeg(t *testing.T) {
	m := lateMeeting(t, false)
	t.Setenv("PATH", t.TempDir())
	r, err := m.vault.Read(m.rec.ID())
	must(t, err)
	dir := t.TempDir()
	_, err = Export(t.Context(), r, ExportOptions{Path: filepath.Join(dir, "x.mp4"), Format: MP4})
	if err == nil || !strings.Contains(err.Error(), "install the package ffmpeg") {
		t.Errorf("error %v", err)
	}
	isEmpty(t, dir)
}

func isEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 0 {
		t.Errorf("%s was left behind", left[0].Name())
	}
}

// A process that dies leaves tracks without an end.
func TestCutTrackIsExported(t *testing.T) {
	m := newMeeting(t)
	p := publisher{codec: codecVP8, film: film(t, codecVP8)}
	m.record(m.track("TR_cut", "alice", "camera", codecVP8), codecVP8, p.events()[:400]) // never closed
	m.track("TR_none", "alice", "microphone", codecOpus)
	path, sum := m.export(ExportOptions{})
	decodes(t, path)
	notes := strings.Join(sum.Notes, "\n")
	if sum.Tracks != 1 || !strings.Contains(notes, "TR_cut was cut: it ends at") || !strings.Contains(notes, "TR_none was cut before") {
		t.Errorf("summary %+v", sum)
	}
	lasts(t, path, sum.Duration)
}

func TestExportRefuses(t *testing.T) {
	m := lateMeeting(t, false)
	r, err := m.vault.Read(m.rec.ID())
	must(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "x.mkv")
	for want, o := range map[string]ExportOptions{
		`format "avi"`:              {Path: path, Format: "avi"},
		"no path":                   {},
		`participant "nobody"`:      {Path: path, Participant: "nobody"},
		"no such file or directory": {Path: filepath.Join(dir, "none", "x.mkv")},
	} {
		if _, err := Export(t.Context(), r, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	isEmpty(t, dir)
}

// What was tampered with is not exported, not even in part.
func TestTamperedIsNotExported(t *testing.T) {
	keys, err := vault.OpenKeyStore(t.TempDir())
	must(t, err)
	root := t.TempDir()
	v, err := vault.Open(root, keys, vault.Options{Disk: residencytest.Disk(residency.ClassRecording)})
	must(t, err)
	rec, err := v.Create(residencytest.Keep("", "", residency.ClassRecording), vault.Meta{}, t0)
	must(t, err)
	m := &meeting{t: t, vault: v, rec: rec}
	w := m.track("TR_a", "alice", "camera", codecVP8)
	m.record(w, codecVP8, publisher{codec: codecVP8, film: film(t, codecVP8)}.events())
	must(t, w.Close())
	file := filepath.Join(root, string(rec.ID()), "TR_a.dtr")
	b, err := os.ReadFile(file)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(file, b, 0o600))
	r, err := v.Read(rec.ID())
	must(t, err)
	dir := t.TempDir()
	for _, f := range []Format{MKV, MP4} {
		if _, err := Export(t.Context(), r, ExportOptions{Path: filepath.Join(dir, "x"), Format: f}); !errors.Is(err, vault.ErrTampered) {
			t.Errorf("%s: %v", f, err)
		}
	}
	if _, err := Verify(t.Context(), r); !errors.Is(err, vault.ErrTampered) {
		t.Errorf("verify: %v", err)
	}
	isEmpty(t, dir)
}

func TestOneParticipant(t *testing.T) {
	path, sum := lateMeeting(t, false).export(ExportOptions{Participant: "bob"})
	decodes(t, path)
	if sum.Tracks != 2 {
		t.Errorf("%d tracks", sum.Tracks)
	}
	if f := flashesIn(t, path, 0); !near(f, lateCues, 120*time.Millisecond) {
		t.Errorf("flashes at %v", f)
	}
}

// Where a better layer of simulcast takes over, its first picture is the one of
// the moment that the lower layer has just shown. Players get it once.
// TestIrregularCamera records pictures that come as those of a busy browser do:
// late, early, and several at once after a stall.
func TestIrregularCamera(t *testing.T) {
	m := newMeeting(t)
	pictures := slices.Clone(film(t, codecVP8))
	for i := range pictures[60:] { // regular at first, which is when ffmpeg guesses the rate
		i += 60
		pictures[i].at += []time.Duration{0, 21, 3, 25, 11}[i%5] * time.Millisecond
		if i > 100 && i < 104 {
			pictures[i].at = pictures[100].at + time.Duration(i-100)*time.Millisecond
		}
	}
	w := m.track("TR_cam", "alice", "camera", codecVP8)
	m.record(w, codecVP8, publisher{codec: codecVP8, film: pictures}.events())
	must(t, w.Close())
	must(t, m.rec.Finish(t0.Add(11*time.Second)))
	path, _ := m.export(ExportOptions{})
	decodes(t, path)
	lasts(t, path, filmLength)
}

func TestPictureOfTwoLayersIsExportedOnce(t *testing.T) {
	m := newMeeting(t)
	pictures := film(t, codecVP8)
	p := publisher{codec: codecVP8, film: append([]sample{pictures[0]}, pictures...)} // a keyframe, twice
	w := m.track("TR_cam", "alice", "camera", codecVP8)
	m.record(w, codecVP8, p.events())
	must(t, w.Close())
	must(t, m.rec.Finish(t0.Add(11*time.Second)))
	path, _ := m.export(ExportOptions{})
	decodes(t, path)
	times := strings.Fields(tool(t, "ffprobe", "-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0", path))
	if n := len(times); n != len(pictures) {
		t.Errorf("%d pictures, want %d", n, len(pictures))
	}
	if len(slices.Compact(times)) != len(times) {
		t.Errorf("pictures at one time: %v", times[:4])
	}
}
