package record

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4/pkg/media/ivfreader"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"

	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedEnv); dir != "" {
		if err := recordForever(dir); err != nil {
			panic(err)
		}
	}
	leaks.Main(m)
}

var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

var (
	codecOpus = sfu.Codec{MimeType: "audio/opus", ClockRate: 48000, Channels: 2}
	codecVP8  = sfu.Codec{MimeType: "video/VP8", ClockRate: 90000}
	codecVP9  = sfu.Codec{MimeType: "video/VP9", ClockRate: 90000}
	codecH264 = sfu.Codec{MimeType: "video/H264", ClockRate: 90000}
	codecAV1  = sfu.Codec{MimeType: "video/AV1", ClockRate: 90000}
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tool runs ffmpeg or ffprobe and returns what it prints.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: install the Debian package ffmpeg (make test does)", name)
	}
	var complaints bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, complaints.String())
	}
	return string(out)
}

// sample is one encoded frame at a time since its track's start.
type sample struct {
	at   time.Duration
	data []byte
}

// The test film is ten seconds of black and silence, with a white flash and a
// beep of 100 ms at 1, 3, 5, 7 and 9 s.
const (
	filmLength = 10 * time.Second
	flashes    = "color=black:s=320x240:r=30:d=10,noise=alls=8:allf=t,drawbox=w=iw:h=ih:color=white:t=fill:enable='between(mod(t,2),1,1.099)'"
	beeps      = "aevalsrc='sin(2*PI*1000*t)*between(mod(t,2),1,1.1)':s=48000:d=10"
)

var cue = []time.Duration{1 * time.Second, 3 * time.Second, 5 * time.Second, 7 * time.Second, 9 * time.Second}

var (
	films   = map[string][]sample{}
	filmsMu sync.Mutex
)

// film encodes the test film's pictures or sound once a codec.
func film(t *testing.T, c sfu.Codec) []sample {
	t.Helper()
	filmsMu.Lock()
	defer filmsMu.Unlock()
	if f := films[c.MimeType]; f != nil {
		return f
	}
	path := filepath.Join(t.TempDir(), "film")
	video := []string{"-v", "error", "-f", "lavfi", "-i", flashes, "-force_key_frames", "expr:gte(t,n_forced*0.5)", "-b:v", "400k"}
	switch c.MimeType {
	case codecOpus.MimeType:
		tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", beeps, "-c:a", "libopus", "-b:a", "32k", "-page_duration", "20000", "-f", "ogg", path)
		films[c.MimeType] = readOgg(t, path)
	case codecVP8.MimeType:
		tool(t, "ffmpeg", append(video, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0", "-f", "ivf", path)...)
		films[c.MimeType] = readIVF(t, path, 30)
	case codecVP9.MimeType:
		tool(t, "ffmpeg", append(video, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0", "-f", "ivf", path)...)
		films[c.MimeType] = readIVF(t, path, 30)
	case codecAV1.MimeType:
		tool(t, "ffmpeg", append(video, "-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-f", "ivf", path)...)
		films[c.MimeType] = readIVF(t, path, 30)
	case codecH264.MimeType:
		tool(t, "ffmpeg", append(video, "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p",
			"-x264-params", "sliced-threads=0:aud=1", "-f", "h264", path)...)
		films[c.MimeType] = readH264(t, path)
	}
	return films[c.MimeType]
}

func readOgg(t *testing.T, path string) (out []sample) {
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	r, _, err := oggreader.NewWith(f)
	must(t, err)
	for at := time.Duration(0); ; at += 20 * time.Millisecond {
		page, _, err := r.ParseNextPage()
		if errors.Is(err, io.EOF) {
			return out
		}
		must(t, err)
		if bytes.HasPrefix(page, []byte("OpusTags")) {
			at -= 20 * time.Millisecond
			continue
		}
		out = append(out, sample{at, page})
	}
}

func readIVF(t *testing.T, path string, rate int) (out []sample) {
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	r, _, err := ivfreader.NewWith(f)
	must(t, err)
	for {
		b, _, err := r.ParseNextFrame()
		if errors.Is(err, io.EOF) {
			return out
		}
		must(t, err)
		out = append(out, sample{time.Duration(len(out)) * time.Second / time.Duration(rate), b})
	}
}

func readH264(t *testing.T, path string) (out []sample) {
	b, err := os.ReadFile(path)
	must(t, err)
	for i, unit := range bytes.Split(b, []byte{0, 0, 0, 1, nalAUD})[1:] {
		// Behind the delimiter's payload byte the units of one picture follow.
		out = append(out, sample{time.Duration(i) * time.Second / 30, unit[1:]})
	}
	return out
}

func payloader(c sfu.Codec) rtp.Payloader {
	switch c.MimeType {
	case codecVP8.MimeType:
		return &codecs.VP8Payloader{EnablePictureID: true}
	case codecVP9.MimeType:
		return &codecs.VP9Payloader{InitialPictureIDFn: func() uint16 { return 5 }}
	case codecAV1.MimeType:
		return &codecs.AV1Payloader{}
	case codecH264.MimeType:
		return &codecs.H264Payloader{}
	}
	return &codecs.OpusPayloader{}
}

// event is a packet or a report on its way to the recorder.
type event struct {
	arrival time.Time
	raw     []byte
	report  sfu.SenderReport
}

// publisher sends samples the way a browser does.
type publisher struct {
	codec sfu.Codec
	film  []sample
	joins time.Duration // on the recording's timeline
	seq   uint16
	ts    uint32
	delay time.Duration    // of encoder and network
	skew  time.Duration    // publisher's wall clock minus ours
	mute  [2]time.Duration // nothing is sent between these times of the film
	halt  bool             // the media clock stands still while muted
	quiet bool             // sends no reports
	drift float64          // by which the media clock is faster than the wall clock
	hurry float64          // by which both are faster than ours
}

// events packetises the film and puts it on the way.
func (p publisher) events() (out []event) {
	pl := payloader(p.codec)
	seq, halted := p.seq, time.Duration(0)
	clock := func(at time.Duration) uint32 {
		return p.ts + uint32(int64((at-halted).Seconds()*(1+p.drift)*float64(p.codec.ClockRate)+0.5))
	}
	next := time.Duration(0)
	for _, s := range p.film {
		if s.at >= p.mute[0] && s.at < p.mute[1] {
			if p.halt {
				halted = p.mute[1] - p.mute[0]
			}
			continue
		}
		sent := t0.Add(p.joins + s.at - time.Duration(float64(s.at)*p.hurry) + p.delay)
		parts := pl.Payload(1100, s.data)
		for i, b := range parts {
			pkt := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 100, SequenceNumber: seq, Timestamp: clock(s.at), Marker: i == len(parts)-1}, Payload: b}
			raw, err := pkt.Marshal()
			if err != nil {
				panic(err)
			}
			out = append(out, event{arrival: sent, raw: raw})
			seq++
		}
		if s.at >= next && !p.quiet {
			next = s.at + time.Second
			wall := t0.Add(p.joins + s.at + p.skew)
			out = append(out, event{arrival: sent.Add(time.Millisecond), report: sfu.SenderReport{NTP: ntp(wall), RTP: clock(s.at), Arrival: sent.Add(time.Millisecond)}})
		}
	}
	return out
}

func ntp(t time.Time) uint64 {
	sec := uint64(t.Unix() + 2208988800)
	return sec<<32 | uint64(t.Nanosecond())<<32/1e9
}

// network delays, repeats and loses packets, but for the last two seconds of the
// film, so that every track shows its end. The same seed does the same.
type network struct {
	jitter    time.Duration
	loss, dup float64
}

func (n network) carry(events []event, seed uint64) (out []event) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	for _, e := range events {
		if e.raw != nil && rnd.Float64() < n.loss && e.arrival.Sub(t0) < filmLength-2*time.Second {
			continue
		}
		if n.jitter > 0 {
			e.arrival = e.arrival.Add(time.Duration(rnd.Int64N(int64(n.jitter))))
			e.report.Arrival = e.arrival
		}
		out = append(out, e)
		if rnd.Float64() < n.dup {
			e.arrival = e.arrival.Add(30 * time.Millisecond)
			e.report.Arrival = e.arrival
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b event) int { return a.arrival.Compare(b.arrival) })
	return out
}

// meeting is a recording being made by a test.
type meeting struct {
	t     *testing.T
	vault *vault.Vault
	rec   *vault.Recording
}

func newMeeting(t *testing.T) *meeting {
	t.Helper()
	keys, err := vault.OpenKeyStore(t.TempDir())
	must(t, err)
	v, err := vault.Open(t.TempDir(), keys, vault.Options{Disk: residencytest.Disk(residency.ClassRecording)})
	must(t, err)
	rec, err := v.Create(residencytest.Keep("room", "", residency.ClassRecording), vault.Meta{Room: "room", Policy: "eea-only", Node: "fra", Country: "DE"}, t0)
	must(t, err)
	return &meeting{t: t, vault: v, rec: rec}
}

// track opens a track in the vault.
func (m *meeting) track(id, participant, source string, c sfu.Codec) *vault.TrackWriter {
	m.t.Helper()
	kind := "audio"
	if isVideo(c.MimeType) {
		kind = "video"
	}
	w, err := m.rec.Track(vault.TrackMeta{
		TrackID: vault.TrackID(id), Participant: participant, Name: strings.ToUpper(participant), Source: source,
		Kind: kind, MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels,
	})
	must(m.t, err)
	return w
}

// record feeds events to a track and returns how often a keyframe was asked for.
func (m *meeting) record(w *vault.TrackWriter, c sfu.Codec, events []event) (asked int) {
	m.t.Helper()
	r, err := newRecorder(c, Options{Start: t0, NeedKeyframe: func() { asked++ }}, w.Write)
	must(m.t, err)
	for _, e := range events {
		must(m.t, feed(r, e))
	}
	must(m.t, r.close(ending{}))
	return asked
}

func feed(r *recorder, e event) error {
	if e.raw == nil {
		return r.report(e.report)
	}
	var h rtp.Packet
	if err := h.Unmarshal(e.raw); err != nil {
		return err
	}
	return r.packet(&packet{seq: h.SequenceNumber, ts: h.Timestamp, marker: h.Marker, payload: h.Payload, arrival: e.arrival})
}

// export ends the recording and exports it.
func (m *meeting) export(o ExportOptions) (string, Summary) {
	m.t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(m.t.TempDir(), "out."+string(cmp.Or(o.Format, MKV)))
	}
	r, err := m.vault.Read(m.rec.ID())
	must(m.t, err)
	if _, err := Verify(m.t.Context(), r); err != nil {
		m.t.Fatal(err)
	}
	sum, err := Export(m.t.Context(), r, o)
	must(m.t, err)
	return o.Path, sum
}

// decodes plays the whole file, as anybody would who tries whether it is good,
// and fails on the slightest complaint.
func decodes(t *testing.T, path string) {
	t.Helper()
	tool(t, "ffmpeg", "-v", "warning", "-xerror", "-i", path, "-map", "0", "-f", "null", "-")
}

func lasts(t *testing.T, path string, want time.Duration) {
	t.Helper()
	out := tool(t, "ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path)
	sec, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	must(t, err)
	if got := time.Duration(sec * float64(time.Second)); (got - want).Abs() > 500*time.Millisecond {
		t.Errorf("file lasts %v, want %v", got, want)
	}
}

// onsets returns when a measured value rises above a level.
func onsets(t *testing.T, out string, level float64) (at []time.Duration) {
	t.Helper()
	var now time.Duration
	high := false
	for line := range strings.Lines(out) {
		if _, s, ok := strings.Cut(line, "pts_time:"); ok {
			sec, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
			must(t, err)
			now = time.Duration(sec * float64(time.Second))
		}
		if _, s, ok := strings.Cut(line, "="); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
			if err == nil && v > level && !high {
				at = append(at, now)
			}
			high = err == nil && v > level
		}
	}
	return at
}

// flashesIn finds the flashes of the n-th video track.
func flashesIn(t *testing.T, path string, n int) []time.Duration {
	out := tool(t, "ffmpeg", "-v", "error", "-copyts", "-i", path, "-map", "0:v:"+strconv.Itoa(n), "-fps_mode", "passthrough", "-vf",
		"signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-", "-f", "null", "-")
	return onsets(t, out, 120)
}

// beepsIn finds the beeps of the n-th audio track.
func beepsIn(t *testing.T, path string, n int) []time.Duration {
	out := tool(t, "ffmpeg", "-v", "error", "-copyts", "-i", path, "-map", "0:a:"+strconv.Itoa(n), "-af",
		"astats=metadata=1:reset=1:measure_perchannel=none:measure_overall=RMS_level,ametadata=print:key=lavfi.astats.Overall.RMS_level:file=-", "-f", "null", "-")
	return onsets(t, out, -30)
}

// near reports whether the times are the wanted ones, each within the limit.
func near(got, want []time.Duration, limit time.Duration) bool {
	return slices.EqualFunc(got, want, func(a, b time.Duration) bool { return (a - b).Abs() <= limit })
}

func shifted(at []time.Duration, by time.Duration) (out []time.Duration) {
	for _, d := range at {
		out = append(out, d+by)
	}
	return out
}
