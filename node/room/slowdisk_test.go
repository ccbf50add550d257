package room

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// stuckDisk takes nothing until it is let go.
type stuckDisk struct {
	blank
	release chan struct{}
}

func (d stuckDisk) Write([]byte) error { <-d.release; return nil }

// stuckTape is a recording on it.
type stuckTape struct {
	reel
	disk stuckDisk
}

func (s stuckTape) Track(vault.TrackMeta) (record.ClusterWriter, error) { return s.disk, nil }

// TestSlowDiskIsTold has the disk take nothing any more in the middle of a recording:
// people are told within a second, while the recording and the packets go on, and again
// when it keeps up (G10).
func TestSlowDiskIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "open")
		disk := stuckDisk{release: make(chan struct{})}
		s.doStartRecording(&stuckTape{reel{id: "RE_1", started: time.Now()}, disk}, nil)
		codec := sfu.Codec{MimeType: "audio/opus", ClockRate: 48000, Channels: 2}
		sink, err := record.NewTrack(disk, codec, record.Options{Start: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		x := &recording{began: time.Now()}
		x.sink.Store(sink)
		s.recorder.tracks["TR_a"] = x
		ended := make(chan error, 1)
		go func() { ended <- sink.Run(s.recorder.ctx) }()
		problem := ""
		began := time.Now()
		for i := 0; time.Since(began) < 3*time.Second; i++ {
			sink.WriteRTP([]byte{0x80, 111, byte(i >> 8), byte(i), 0, 0, byte(i * 960 >> 8), byte(i * 960), 0, 0, 0, 1, 0xf8, 1, 2}, time.Now())
			time.Sleep(20 * time.Millisecond)
			s.doSlowDisk(time.Now())
			if s.record.RecordingProblem != problem {
				problem = s.record.RecordingProblem
				if d := time.Since(began); d > time.Second+250*time.Millisecond {
					t.Errorf("told after %v", d)
				}
			}
		}
		if !strings.Contains(problem, "does not keep up") || s.record.Recording == nil {
			t.Fatalf("told %q of %+v", problem, s.record.Recording)
		}
		close(disk.release)
		for range 60 {
			time.Sleep(100 * time.Millisecond)
			s.doSlowDisk(time.Now())
		}
		if s.record.RecordingProblem != "" || s.record.Recording == nil {
			t.Errorf("afterwards they are told %q", s.record.RecordingProblem)
		}
		s.recorder.stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// toHome is a link on which the last hello is heard.
type toHome struct {
	Link
	said *Hello
}

func (l toHome) Send(_ residency.Permit, kind relay.Kind, body []byte) error {
	if kind == KindHello {
		return json.Unmarshal(body, l.said)
	}
	return nil
}

// TestHomeHearsOfASlowDisk records at another node than the room's home: the home hears
// that the disk does not keep up with the next message, and its roster, which does not
// know of it yet, does not make the recorder forget it.
func TestHomeHearsOfASlowDisk(t *testing.T) {
	s := newStage(t, "edge")
	var said Hello
	s.deps.Link = func(residency.NodeName) Link { return toHome{said: &said} }
	s.at = "waw"
	s.doHome(s.deps.Now())
	s.has(t, "waw", false, person("PA_anna", "anna"))
	s.doStartRecording(&reel{id: "RE_1", started: s.deps.Now()}, nil)
	if said.Record.Recording == nil {
		t.Fatal("the home has not heard of the recording")
	}
	roster := func(seq uint64) {
		rec := s.record
		rec.RecordingProblem, rec.Term = "", 0
		s.says("waw", KindRoster, Roster{Home: "waw", Seq: seq, Record: rec, Nodes: []Presence{{Node: "waw", Participants: 1}}})
	}
	roster(1)
	s.recorder.tracks["TR_a"] = &recording{began: s.deps.Now()} // its file is not there yet
	s.later(slowAfter)
	s.doSlowDisk(s.deps.Now())
	if !strings.Contains(said.Record.RecordingProblem, "does not keep up") {
		t.Fatalf("the home was told %q", said.Record.RecordingProblem)
	}
	roster(2)
	if !strings.Contains(s.record.RecordingProblem, "does not keep up") {
		t.Errorf("after the home's roster it says %q", s.record.RecordingProblem)
	}
}
