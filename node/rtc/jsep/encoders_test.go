package jsep

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Encoders offer once, and what they are answered has to be all of it.
func TestAnswersToEncoders(t *testing.T) {
	files, err := filepath.Glob("../../whip/testdata/offers/whip-*.sdp")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d offers, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := New(Config{SessionID: 1, FirstSSRC: 1000})
		change, err := p.TakeOffer(string(b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		answer, err := p.Answer(Local{Ufrag: "ours", Pwd: "0123456789012345678901", Fingerprint: "sha-256 AA",
			Candidates: []string{"1 1 udp 2130706431 192.0.2.1 7882 typ host"}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sections := strings.Count(string(b), "\nm=")
		if got := strings.Count(answer, "a=recvonly\r\n"); got != sections || len(change.Incoming) != sections || strings.Contains(answer, " 0 UDP/TLS") {
			t.Errorf("%s: %d of %d sections are taken:\n%s", name, got, sections, answer)
		}
		want := "a=setup:passive"
		if strings.Contains(string(b), want) {
			want = "a=setup:active"
		}
		if !strings.Contains(answer, want+"\r\n") {
			t.Errorf("%s: the answer lacks %s", name, want)
		}
		// ffmpeg looks for the first candidate and wants it to be of UDP.
		if i := strings.Index(answer, "a=candidate:"); i < 0 || i > strings.LastIndex(answer, "m=") && sections > 1 {
			t.Errorf("%s: no candidate in the first section", name)
		}
		for _, in := range change.Incoming {
			if in.StreamID == "" || in.TrackID == "" {
				t.Errorf("%s: section %s has no msid: %+v", name, in.MID, in)
			}
		}
	}
}
