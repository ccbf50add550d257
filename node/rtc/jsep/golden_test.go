package jsep

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// TestAnswersToChromium takes what Chromium offered in each use case and compares
// what was understood, and our answer, with a transcript.
func TestAnswersToChromium(t *testing.T) {
	files, err := filepath.Glob("testdata/chromium/*.sdp")
	must(t, err)
	if len(files) < 12 {
		t.Fatalf("%d offers", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sdp")
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(file)
			must(t, err)
			p := New(Config{SessionID: 7, FirstSSRC: 1, RED: true})
			add(t, p, sender("mic", opusCodec), sender("cam", vp8Codec), sender("screen", av1Codec))
			c, a := answer(t, p, string(raw))
			said, err := json.MarshalIndent(c, "", " ")
			must(t, err)
			compare(t, "testdata/transcripts/"+name+".txt", string(said)+"\n\n"+strings.ReplaceAll(a, "\r\n", "\n"))
		})
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s: got\n%s", file, got)
	}
}
