package record

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sink is a file in memory, with what was written over.
type sink struct{ b []byte }

func (s *sink) Write(b []byte) (int, error) { s.b = append(s.b, b...); return len(b), nil }

func (s *sink) WriteAt(b []byte, at int64) (int, error) { return copy(s.b[at:], b), nil }

// saved puts it where tools find it.
func (s *sink) saved(t *testing.T, name string) string {
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, s.b, 0o600))
	return path
}

// exportTo exports into a sink.
func (m *meeting) exportTo(o ExportOptions) (*sink, Summary) {
	m.t.Helper()
	s := &sink{}
	o.To = s
	r, err := m.vault.Read(m.rec.ID())
	must(m.t, err)
	sum, err := Export(m.t.Context(), r, o)
	must(m.t, err)
	return s, sum
}

func streams(t *testing.T, path string) []string {
	return strings.Fields(tool(t, "ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", path))
}

// TestFormatsIntoASink writes each format where nothing lies in clear, of a meeting
// whose second participant comes late and is silent for a while.
func TestFormatsIntoASink(t *testing.T) {
	m := lateMeeting(t, false)
	for format, codecs := range map[Format][]string{WebM: {"vp8", "vp8", "opus", "opus"}, MP4: {"h264", "h264", "aac", "aac"}} {
		s, _ := m.exportTo(ExportOptions{Format: format})
		path := s.saved(t, "x."+string(format))
		tool(t, "ffmpeg", "-v", "warning", "-xerror", "-i", path, "-map", "0", "-enc_time_base", "-1", "-f", "null", "-")
		lasts(t, path, 14*time.Second)
		if got := streams(t, path); !slices.Equal(got, codecs) {
			t.Errorf("%s: codecs %v", format, got)
		}
		if format != MP4 {
			seeks(t, path)
			continue
		}
		if f, b := flashesIn(t, path, 1), beepsIn(t, path, 1); !near(f, b, inSync) || !near(f, lateCues, 120*time.Millisecond) {
			t.Errorf("%s: bob's flashes at %v, beeps at %v, want %v", format, f, b, lateCues)
		}
	}
}

// TestWebMOfH264 encodes what browsers do not find in WebM, and one track alone.
func TestWebMOfH264(t *testing.T) {
	m := syncMeeting(t, codecH264, false)
	s, _ := m.exportTo(ExportOptions{Format: WebM})
	path := s.saved(t, "x.webm")
	decodes(t, path)
	if got := streams(t, path); !slices.Equal(got, []string{"vp8", "opus"}) {
		t.Errorf("codecs %v", got)
	}
	s, sum := m.exportTo(ExportOptions{Track: "TR_mic"})
	path = s.saved(t, "x.mkv")
	decodes(t, path)
	if got := streams(t, path); sum.Tracks != 1 || !slices.Equal(got, []string{"opus"}) {
		t.Errorf("%+v, codecs %v", sum, got)
	}
	// What the camera's reports say of the publisher's clock counts for the voice alone, too.
	if b := beepsIn(t, path, 0); !near(b, shifted(cue, 500*time.Millisecond), 150*time.Millisecond) {
		t.Errorf("beeps at %v", b)
	}
}

// brightest returns how bright the quarters of the picture are at a time.
func brightness(t *testing.T, path string, at time.Duration) (left, right float64) {
	t.Helper()
	raw := tool(t, "ffmpeg", "-v", "error", "-ss", seconds(at), "-i", path, "-frames:v", "1", "-vf", "scale=2:1:flags=area,format=gray", "-f", "rawvideo", "-")
	if len(raw) != 2 {
		t.Fatalf("%d pixels at %v", len(raw), at)
	}
	return float64(raw[0]), float64(raw[1])
}

// TestGrid composes alice, from the start, beside bob, who comes after 4 s and whose
// camera is off from 5.5 s to 10.5 s.
func TestGrid(t *testing.T) {
	m := lateMeeting(t, false)
	var last, total int64
	s, sum := m.exportTo(ExportOptions{View: Grid, Nice: true, Progress: func(d, n int64) { last, total = d, n }})
	path := s.saved(t, "grid.mp4")
	decodes(t, path)
	lasts(t, path, 14*time.Second)
	if got := streams(t, path); !slices.Equal(got, []string{"h264", "aac"}) || sum.Tracks != 4 {
		t.Errorf("codecs %v of %+v", got, sum)
	}
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	// Alice flashes at 1, 3, 5, 7, 9 s, on the left; bob at 5, 11 and 13 s, on the right.
	for _, c := range []struct {
		at          time.Duration
		left, right bool
	}{{1, true, false}, {5, true, true}, {7, true, false}, {11, false, true}, {13, false, true}, {2, false, false}, {12, false, false}} {
		l, r := brightness(t, path, c.at*time.Second+120*time.Millisecond)
		if l > 60 != c.left || r > 60 != c.right {
			t.Errorf("at %d s: left %.0f, right %.0f, want bright: %v, %v", c.at, l, r, c.left, c.right)
		}
	}
	want := []time.Duration{1, 3, 5, 7, 9, 11, 13}
	for i := range want {
		want[i] *= time.Second
	}
	if b := beepsIn(t, path, 0); !near(b, want, 150*time.Millisecond) {
		t.Errorf("beeps at %v, want %v", b, want)
	}
}

// TestTakeTurns plays conversations.
func TestTakeTurns(t *testing.T) {
	say := func(s string) (l []float64) {
		for _, c := range s {
			l = append(l, map[rune]float64{'.': 0, '-': 0.1, '#': 0.4}[c])
		}
		return l
	}
	for _, c := range []struct{ name, a, b, want string }{
		{"nobody speaks", "..........", "..........", "a0-5"},
		{"one after the other", "####......", "....######", "a0-2 b2-5"},
		{"a cough", "##########", "..........", "a0-5"},
		{"a yes in between", "----------", "....##....", "a0-5"},
		{"louder for long", "----------", "....######", "a0-2 b2-5"},
		{"and back", "----......", "....###...", "a0-2 b2-5"},
		{"the second begins", "......####", "######....", "b0-3 a3-5"},
	} {
		var got []string
		for _, u := range takeTurns([]voice{{"a", say(c.a)}, {"b", say(c.b)}, {"unseen", say("##########")}}, []string{"a", "b"}, 5*time.Second) {
			if u.to > u.from {
				got = append(got, u.who+strconv.Itoa(int(u.from.Seconds()))+"-"+strconv.Itoa(int(min(u.to, 5*time.Second).Seconds())))
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
	if got := takeTurns(nil, nil, time.Minute); got != nil {
		t.Errorf("without cameras: %v", got)
	}
}

// TestSpeakerView shows who beeps: alice until bob alone does.
func TestSpeakerView(t *testing.T) {
	m := newMeeting(t)
	for _, p := range []publisher{
		{codec: codecVP8, film: film(t, codecVP8)},
		{codec: codecOpus, film: film(t, codecOpus)},
		{codec: codecVP8, film: film(t, codecVP8), joins: time.Second},
	} {
		who := "alice"
		if p.joins > 0 {
			who = "bob"
		}
		w := m.track("TR_"+who+strconv.FormatBool(isVideo(p.codec.MimeType)), who, "camera", p.codec)
		m.record(w, p.codec, p.events())
		must(t, w.Close())
	}
	must(t, m.rec.Finish(t0.Add(11*time.Second)))
	s, _ := m.exportTo(ExportOptions{View: Speaker})
	path := s.saved(t, "speaker.mp4")
	decodes(t, path)
	// Alice alone has a voice, so hers are the flashes, in the whole picture.
	for at, bright := range map[time.Duration]bool{time.Second: true, 2 * time.Second: false, 3 * time.Second: true, 4 * time.Second: false} {
		if l, r := brightness(t, path, at+60*time.Millisecond); l > 120 != bright || r > 120 != bright {
			t.Errorf("at %v: %.0f, %.0f, want bright: %v", at, l, r, bright)
		}
	}
}

// TestComposeIsCancelled stops a job in the middle; nothing is left of it.
func TestComposeIsCancelled(t *testing.T) {
	m := lateMeeting(t, false)
	r, err := m.vault.Read(m.rec.ID())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	_, err = Export(ctx, r, ExportOptions{Path: filepath.Join(dir, "x.mp4"), View: Grid, Progress: func(d, n int64) {
		if d > n/2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	isEmpty(t, dir)
	t.Setenv("PATH", dir)
	for _, v := range []View{Grid, Speaker} {
		if _, err := Export(t.Context(), r, ExportOptions{To: &sink{}, View: v}); err == nil || !strings.Contains(err.Error(), "install the package ffmpeg") {
			t.Errorf("without ffmpeg: %v", err)
		}
	}
}

// TestLengthened gives the head of a film in pieces of every size.
func TestLengthened(t *testing.T) {
	head := slices.Concat([]byte("\x00\x00\x00\x10ftypisom\x00\x00\x00\x00\x00\x00\x00\x6cmoov\x00\x00\x00\x6cmvhd"), make([]byte, 12),
		[]byte{0, 0, 3, 0xe8, 0, 0, 0, 0}, bytes.Repeat([]byte("x"), 40))
	want := slices.Clone(head)
	copy(want[16+8+8+16:], []byte{0, 0, 0x1f, 0x40})
	for size := 1; size <= len(head); size++ {
		var out bytes.Buffer
		l := &lengthened{to: &out, duration: 8 * time.Second}
		for part := range slices.Chunk(head, size) {
			if n, err := l.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		must(t, l.flush())
		if !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("pieces of %d: %x, want %x", size, out.Bytes(), want)
		}
	}
	var out bytes.Buffer
	l := &lengthened{to: &out}
	for range 100 {
		_, err := l.Write(make([]byte, 100))
		must(t, err)
	}
	if n, err := io.Copy(io.Discard, &out); n < maxHead || err != nil {
		t.Errorf("%d bytes of something else have passed", n)
	}
}
