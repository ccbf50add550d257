//go:build figures

package record

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/machine"
	"github.com/domicile/domicile/residency/vault"
)

var (
	hourLength = flag.Duration("hour.length", time.Hour, "how long the recording lasts")
	hourKbit   = flag.Int("hour.kbit", 1000, "bit rate of a camera")
	hourRecord = flag.Bool("hour.record", false, "write what was measured into bench/results")
)

// hourFigures are what is measured, for bench/results.
type hourFigures struct {
	Machine       machine.Machine `json:"machine"`
	RecordingS    float64         `json:"recording_s"`
	Tracks        int             `json:"tracks"`
	CameraKbit    int             `json:"camera_kbit"`
	Bytes         int64           `json:"bytes"`
	ExportS       float64         `json:"export_s"`
	TimesRealTime float64         `json:"times_real_time"`
	MBPerS        float64         `json:"mb_per_s"`
}

// measured prints figures, and keeps them if that is wanted.
func measured(t *testing.T, name string, v any) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	must(t, err)
	t.Logf("%s", b)
	if *hourRecord {
		must(t, os.WriteFile(filepath.Join("..", "..", "bench", "results", time.Now().UTC().Format(time.DateOnly)+"-"+name+".json"), append(b, '\n'), 0o644))
	}
}

// TestHourIsExported measures how fast a recording of ten tracks is exported as it was
// sent: five cameras and five microphones, made up, so that an hour takes a minute to make.
func TestHourIsExported(t *testing.T) {
	m := newMeeting(t)
	for i := range 5 {
		who := fmt.Sprint("person", i)
		v := m.track(fmt.Sprint("TR_v", i), who, "camera", codecVP8)
		fill(t, v, 40*time.Millisecond, *hourKbit*1000/8/25, vp8Key)
		a := m.track(fmt.Sprint("TR_a", i), who, "microphone", codecOpus)
		fill(t, a, 20*time.Millisecond, 80, nil)
	}
	must(t, m.rec.Finish(t0.Add(*hourLength)))
	r, err := m.vault.Read(m.rec.ID())
	must(t, err)
	path := filepath.Join(t.TempDir(), "hour.mkv")
	began := time.Now()
	sum, err := Export(t.Context(), r, ExportOptions{Path: path})
	took := time.Since(began)
	must(t, err)
	fi, err := os.Stat(path)
	must(t, err)
	if sum.Tracks != 10 || (sum.Duration-*hourLength).Abs() > time.Second {
		t.Errorf("%+v", sum)
	}
	times := hourLength.Seconds() / took.Seconds()
	measured(t, "export-hour", hourFigures{machine.Describe(time.Now(), "make bench-export RECORD=1"), hourLength.Seconds(), sum.Tracks, *hourKbit,
		fi.Size(), took.Seconds(), times, float64(fi.Size()) / 1e6 / took.Seconds()})
	if times < 100 {
		t.Errorf("%.0f times real time, want 100", times)
	}
}

// vp8Key is the head of a keyframe of 1280×720 (RFC 6386, section 9.1).
var vp8Key = []byte{0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02}

// fill writes frames of one size in clusters of the recorder's length, a keyframe every
// two seconds where there is a head for one, and the least delay of every second.
func fill(t *testing.T, w *vault.TrackWriter, every time.Duration, size int, key []byte) {
	t.Helper()
	var b clusterBuilder
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	data[0] |= 1 // no keyframe
	head := append(append([]byte{}, key...), data[len(key):]...)
	for at := time.Duration(0); at < *hourLength; at += every {
		if b.dueBefore(at.Microseconds()) {
			must(t, w.Write(b.take()))
		}
		if at%time.Second == 0 {
			b.addArrival(anchor{media: at.Microseconds()}, t0.Add(at))
		}
		f := frame{pts: at.Microseconds(), data: data, keyframe: key == nil}
		if key != nil && at%(2*time.Second) == 0 {
			f.keyframe, f.data = true, head
		}
		b.addFrame(f, t0.Add(at))
	}
	if last := b.take(); last != nil {
		must(t, w.Write(last))
	}
	must(t, w.Close())
}
