package record

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/gob"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/machine"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

var (
	kills      = flag.Int("kills", 6, "how many recorders TestKilledRecorder kills")
	killRecord = flag.Bool("kills.record", false, "write what TestKilledRecorder found into bench/results")
	killKeep   = flag.String("kills.keep", "", "a folder for what is left of each recording, as WebM")
)

// killedEnv names the folder of a process that records until it is killed.
const killedEnv = "DOMICILE_RECORD_TEST_CHILD"

const (
	// mostLost is what kill -9 may cost (G9).
	mostLost = 250 * time.Millisecond
	// killWithin is how long a process lives at most: less than the film.
	killWithin = 3 * time.Second
	// killsAtOnce is how many record at a time.
	killsAtOnce = 3
	// beat is how often such a process says that it runs.
	beat = 5 * time.Millisecond
)

// gobSample is a sample as the processes hand it over.
type gobSample struct {
	At   time.Duration
	Data []byte
}

type killedTrack struct {
	ID    string
	Codec sfu.Codec
	Film  []gobSample
}

// recordForever is a process that records as a node does, with the clock of the
// machine. It says of each frame that the recorder has got it.
func recordForever(dir string) error {
	var tracks []killedTrack
	f, err := os.Open(filepath.Join(dir, "tracks"))
	if err != nil {
		return err
	}
	if err := gob.NewDecoder(f).Decode(&tracks); err != nil {
		return err
	}
	keys, err := vault.OpenKeyStore(filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	v, err := vault.Open(filepath.Join(dir, "recordings"), keys, vault.Options{Disk: residencytest.Disk(residency.ClassRecording)})
	if err != nil {
		return err
	}
	rec, err := v.Create(residencytest.Keep("room", "", residency.ClassRecording), vault.Meta{Room: "room", Policy: "eea-only", Node: "fra", Country: "DE"}, time.Now())
	if err != nil {
		return err
	}
	fmt.Println("recording", rec.ID(), 0)
	failed := make(chan error, 2*len(tracks))
	for _, t := range tracks {
		go func() { failed <- t.record(rec) }()
	}
	return <-failed
}

// tellBeats says again and again that this process runs, and for how long the disk has
// kept a track waiting.
func (t *Track) tellBeats(id string) {
	for now := range time.Tick(beat) {
		fmt.Println("beat", id, t.Behind(now).Microseconds())
	}
}

func (k killedTrack) record(rec *vault.Recording) error {
	w, err := rec.Track(vault.TrackMeta{TrackID: vault.TrackID(k.ID), Participant: "p", MimeType: k.Codec.MimeType, ClockRate: k.Codec.ClockRate, Channels: k.Codec.Channels})
	if err != nil {
		return err
	}
	t, err := NewTrack(w, k.Codec, Options{Start: rec.Started()})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- t.Run(context.Background()) }()
	go t.tellBeats(k.ID)
	film := make([]sample, len(k.Film))
	for i, s := range k.Film {
		film[i] = sample{s.At, s.Data}
	}
	began := time.Now()
	for _, e := range (publisher{codec: k.Codec, film: film}).events() {
		time.Sleep(time.Until(began.Add(e.arrival.Sub(t0))))
		if e.raw == nil {
			e.report.Arrival = time.Now()
			t.Report(e.report)
			continue
		}
		t.WriteRTP(e.raw, time.Now())
		if e.raw[1]&0x80 != 0 || k.Codec.MimeType == codecOpus.MimeType { // RTP's marker: the frame is whole
			fmt.Println("frame", k.ID, e.arrival.Sub(t0).Microseconds())
		}
	}
	return <-ended // the film is longer than this process lives
}

// killed is what became of one process.
type killed struct {
	after   time.Duration // since its start
	lost    time.Duration // of the track that lost most
	stalled time.Duration // at last nothing of the process ran for so long, or it waited for the disk
	frames  int           // in the file
}

// TestKilledRecorder kills processes that record sound and pictures, at random
// moments: at most 250 ms is lost, and what is left is exported and opens (G9).
func TestKilledRecorder(t *testing.T) {
	t.Parallel()
	videos := []sfu.Codec{codecVP8, codecH264, codecVP9, codecAV1}
	for _, c := range append(videos, codecOpus) {
		film(t, c)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	slots := make(chan struct{}, killsAtOnce)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []killed
	for i := range *kills {
		after := time.Duration(rnd.Int64N(int64(killWithin)))
		tracks := []killedTrack{asKilled("TR_voice", codecOpus)}
		if i%4 != 3 { // each fourth has sound alone
			tracks = append(tracks, asKilled("TR_camera", videos[i%len(videos)]))
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			k, err := killOne(t, after, tracks)
			if err != nil {
				t.Errorf("killed after %v: %v", after, err)
				return
			}
			if k.lost > mostLost+k.stalled {
				t.Errorf("killed after %v: %v lost, and it was held up for %v", after, k.lost, k.stalled)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, k)
		})
	}
	wg.Wait()
	sum := sumKills(all)
	t.Logf("%+v", sum)
	if *kills >= 6 && sum.Frames == 0 {
		t.Error("no process has recorded anything")
	}
	if *killRecord && !t.Failed() {
		recordKills(t, sum)
	}
}

func asKilled(id string, c sfu.Codec) killedTrack {
	k := killedTrack{ID: id, Codec: c}
	filmsMu.Lock()
	defer filmsMu.Unlock()
	for _, s := range films[c.MimeType] {
		k.Film = append(k.Film, gobSample{s.at, s.data})
	}
	return k
}

func killOne(t *testing.T, after time.Duration, tracks []killedTrack) (killed, error) {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		return killed{}, err
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "tracks"))
	if err != nil {
		return killed{}, err
	}
	if err := cmp.Or(gob.NewEncoder(f).Encode(tracks), f.Close()); err != nil {
		return killed{}, err
	}
	exe, err := os.Executable()
	if err != nil {
		return killed{}, err
	}
	cmd := exec.Command(exe)
	cmd.Env, cmd.Stderr = append(os.Environ(), killedEnv+"="+dir), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return killed{}, err
	}
	if err := cmd.Start(); err != nil {
		return killed{}, err
	}
	end := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer end.Stop()
	k := killed{after: after}
	id, given := heard(out, &k)
	cmd.Wait()
	return k, k.look(t, dir, id, given)
}

// heard reads what a process said until it was killed: which recording it made, and
// up to where each track was handed to the recorder.
func heard(out io.Reader, k *killed) (id vault.ID, given map[string]int64) {
	given = map[string]int64{}
	ran, behind := map[string]*beats{}, map[string]time.Duration{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var what, name string
		var n int64
		if _, err := fmt.Sscan(lines.Text(), &what, &name, &n); err != nil {
			continue // the last line may be cut
		}
		switch what {
		case "recording":
			id = vault.ID(name)
		case "frame":
			given[name] = max(given[name], n)
		case "beat":
			if ran[name] == nil {
				ran[name] = &beats{last: time.Now()}
			}
			ran[name].next(time.Now())
			behind[name] = time.Duration(n) * time.Microsecond
		}
	}
	for name, b := range ran {
		b.next(time.Now())
		k.stalled = max(k.stalled, b.missed()+behind[name])
	}
	return id, given
}

// beats tell when something ran.
type beats struct {
	last time.Time
	late []lateBeat
}

type lateBeat struct {
	at time.Time
	by time.Duration
}

func (b *beats) next(now time.Time) {
	if by := now.Sub(b.last) - beat; by > beat {
		b.late = append(b.late, lateBeat{now, by})
	}
	b.last = now
}

// missed is for how long it did not run although it would have, of late: what is not on
// the disk at the end came then.
func (b *beats) missed() (sum time.Duration) {
	for _, l := range b.late {
		if b.last.Sub(l.at) < 2*mostLost {
			sum += l.by
		}
	}
	return sum
}

// look opens what is left with the vault, as an export and with ffprobe.
func (k *killed) look(t *testing.T, dir string, id vault.ID, given map[string]int64) error {
	if id == "" {
		return nil // it died before it had begun
	}
	keys, err := vault.OpenKeyStore(filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	v, err := vault.Open(filepath.Join(dir, "recordings"), keys, vault.Options{})
	if err != nil {
		return err
	}
	r, err := v.Read(id)
	if err != nil {
		return err
	}
	if r.Info.State != vault.StateInterrupted {
		return fmt.Errorf("the recording is %s", r.Info.State)
	}
	has := map[string]int64{}
	for _, tr := range r.Tracks {
		s, err := scanTrack(t.Context(), tr, func(int) {})
		if err != nil {
			return err
		}
		k.frames += s.frames
		if s.frames > 0 {
			has[string(tr.Info.ID)] = s.last - s.first
		}
	}
	for track, at := range given {
		k.lost = max(k.lost, time.Duration(at-has[track])*time.Microsecond)
	}
	if k.frames == 0 {
		return nil
	}
	path := filepath.Join(dir, "out.mkv")
	if _, err := Export(t.Context(), r, ExportOptions{Path: path, Format: MKV}); err != nil {
		return err
	}
	if *killKeep != "" {
		film := filepath.Join(*killKeep, filepath.Base(dir)+".webm")
		if _, err := Export(t.Context(), r, ExportOptions{Path: film, Format: WebM}); err != nil {
			return err
		}
	}
	b, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", path).CombinedOutput()
	if lines := len(bytes.Fields(b)); err != nil || lines != len(has) {
		return fmt.Errorf("ffprobe finds %d streams of %d: %v\n%s", lines, len(has), err, b)
	}
	return nil
}

// killSum is what is recorded.
type killSum struct {
	Killed        int     `json:"killed"`
	BeforeItBegan int     `json:"killed_before_anything_was_recorded"`
	Frames        int     `json:"frames_in_the_files"`
	LostP50       float64 `json:"lost_p50_ms"`
	LostP99       float64 `json:"lost_p99_ms"`
	LostMax       float64 `json:"lost_max_ms"`
	Over          int     `json:"over_250_ms"`
	StalledOver   float64 `json:"most_stalled_of_those_ms"`
	Opened        int     `json:"opened_with_ffprobe"`
}

func sumKills(all []killed) (s killSum) {
	slices.SortFunc(all, func(a, b killed) int { return cmp.Compare(a.lost, b.lost) })
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	s.Killed = len(all)
	for _, k := range all {
		s.Frames += k.frames
		if k.frames > 0 {
			s.Opened++
		} else {
			s.BeforeItBegan++
		}
		if k.lost > mostLost {
			s.Over++
			s.StalledOver = max(s.StalledOver, ms(k.stalled))
		}
	}
	if n := len(all); n > 0 {
		s.LostP50, s.LostP99, s.LostMax = ms(all[n/2].lost), ms(all[n*99/100].lost), ms(all[n-1].lost)
	}
	return s
}

func recordKills(t *testing.T, s killSum) {
	t.Helper()
	out := struct {
		Machine machine.Machine `json:"machine"`
		Outcome killSum         `json:"outcome"`
	}{machine.Describe(time.Now(), fmt.Sprintf("make recorder-kills N=%d RECORD=1", *kills)), s}
	b, err := json.MarshalIndent(out, "", "  ")
	must(t, err)
	must(t, os.WriteFile(filepath.Join("..", "..", "bench", "results", time.Now().UTC().Format("2006-01-02")+"-recorder-kills.json"), append(b, '\n'), 0o644))
}
