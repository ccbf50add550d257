package jsep

import (
	"flag"
	"fmt"
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
			compare(t, "testdata/transcripts/"+name+".txt", describe(c)+"\n"+strings.ReplaceAll(a, "\r\n", "\n"))
		})
	}
}

// describe says in a few lines what a description changed.
func describe(c Change) string {
	var b strings.Builder
	fmt.Fprintf(&b, "remote %s, setup %s, SCTP port %d, messages of %d\n", c.Remote.Ufrag, c.Remote.Setup, c.Remote.SCTPPort, c.Remote.MaxMessage)
	for _, in := range c.Incoming {
		fmt.Fprintf(&b, "incoming %s: %s %q of %q\n  extensions %s\n", in.MID, in.Kind, in.TrackID, in.StreamID, extensionNames(in.Extensions))
		for _, f := range in.Formats {
			fmt.Fprintf(&b, "  %d %s %q rtx %d, %s\n", f.PayloadType, f.Codec.MimeType, f.Codec.SDPFmtpLine, f.RTX, feedbackNames(f.Feedback))
		}
		fmt.Fprintf(&b, "  RIDs %q, streams %v\n", in.RIDs, in.Streams)
	}
	for _, s := range c.Bound {
		fmt.Fprintf(&b, "bound %s to %s: unsupported %v, %d %s %q rtx %d, SSRC %d rtx %d, %s\n  extensions %s\n", s.Key, s.MID, s.Unsupported,
			s.PayloadType, s.Codec.MimeType, s.Codec.SDPFmtpLine, s.RTXPayloadType, s.SSRC, s.RTXSSRC, feedbackNames(s.Feedback), extensionNames(s.Extensions))
	}
	for _, k := range c.Unbound {
		fmt.Fprintf(&b, "unbound %s\n", k)
	}
	return b.String()
}

func extensionNames(e Extensions) string {
	var names []string
	for _, x := range extensions {
		if id := *x.field(&e); id != 0 {
			names = append(names, fmt.Sprintf("%d %s", id, x.uri[strings.LastIndexAny(x.uri, ":/#")+1:]))
		}
	}
	return strings.Join(names, ", ")
}

func feedbackNames(f Feedback) string {
	return "feedback " + strings.ReplaceAll(strings.Join(f.lines(0), ","), "0 ", " ")
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
