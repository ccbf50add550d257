package rtc

import (
	"strings"
	"testing"

	"github.com/domicile/domicile/node/sfu"
)

const someOffer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n" +
	"a=fingerprint:sha-256 AA:BB\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=setup:actpass\r\na=sendonly\r\na=rtcp-mux\r\n" +
	"a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;stereo=1\r\n" +
	"m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=setup:actpass\r\na=sendonly\r\na=rtcp-mux\r\n" +
	"a=rtpmap:96 VP8/90000\r\na=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n"

func TestHostileSDPIsRefused(t *testing.T) {
	e := newTestEngine(t)
	c := newClient(t, e)
	for name, test := range map[string]struct{ sdp, want string }{
		"empty":              {"", "no media section"},
		"not SDP":            {"hello\r\nm=\r\n", "read SDP"},
		"too long":           {strings.Repeat("x", 512<<10+1), "524289 bytes"},
		"20,001 lines":       {someOffer + strings.Repeat("a=x\r\n", 20_000), "lines"},
		"513 media sections": {someOffer + strings.Repeat("m=audio 9 x 0\r\n", 511), "513 media sections"},
		"257 candidates":     {someOffer + strings.Repeat("a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n", 257), "257 candidates"},
		"no credentials":     {strings.ReplaceAll(someOffer, "a=ice-ufrag:abcd\r\n", ""), "take offer"},
	} {
		_, err := c.session.Publish(test.sdp, 1)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
		if err := c.session.Answer(test.sdp, 1); err == nil {
			t.Errorf("%s: taken as an answer", name)
		}
	}
	// The session is none the worse for it.
	if _, err := c.pub.CreateDataChannel("_reliable", nil); err != nil {
		t.Fatal(err)
	}
	c.offer()
}

func TestCutSDPIsRefusedOrAnswered(t *testing.T) {
	e := newTestEngine(t)
	for i := 0; i < len(someOffer); i += 13 {
		s, err := e.NewSession(newSilent(), SessionConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := s.Publish(someOffer[:i], 1); err == nil && !strings.HasPrefix(answer.SDP, "v=0") {
			t.Errorf("offer cut at %d is answered with %q", i, answer.SDP)
		}
		s.Close()
	}
}

// silent is a client that hears nothing.
type silent struct{}

func newSilent() silent                                { return silent{} }
func (silent) State(Target, string)                    {}
func (silent) Publish(Incoming) *sfu.UpTrack           { return nil }
func (silent) Unpublish(*sfu.UpTrack)                  {}
func (silent) Data(string, []byte)                     {}
func (silent) Offer(string, uint32, map[string]string) {}
func (silent) Sections(int, int)                       {}
func (silent) StreamState(*sfu.DownTrack, bool)        {}
func (silent) Unsupported(*sfu.DownTrack)              {}

func TestCandidatesAreChecked(t *testing.T) {
	e := newTestEngine(t)
	c := newClient(t, e)
	good := `{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0"}`
	if err := c.session.AddCandidate(TargetPublisher, good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "{", `{"candidate":1}`, `{"candidate":"` + strings.Repeat("x", maxCandidate) + `"}`} {
		if err := c.session.AddCandidate(TargetSubscriber, bad); err == nil {
			t.Errorf("%.40q was taken", bad)
		}
	}
	if err := c.session.AddCandidate(2, good); err == nil {
		t.Error("a third target was taken")
	}
}

func TestLayersOfRIDs(t *testing.T) {
	for _, tt := range []struct {
		offered string
		want    map[string]sfu.Layer // of all that have one
	}{
		{"q,h,f", map[string]sfu.Layer{"q": 0, "h": 1, "f": 2}},
		{"f,h,q", map[string]sfu.Layer{"q": 0, "h": 1, "f": 2}},
		{"f,q", map[string]sfu.Layer{"q": 0, "f": 2}},
		{"2,1,0", map[string]sfu.Layer{"2": 0, "1": 1, "0": 2}},
		{"lo,mid,hi,huge", map[string]sfu.Layer{"lo": 0, "mid": 1, "hi": 2}},
		{"a,q,h", map[string]sfu.Layer{"a": 0, "q": 1, "h": 2}}, // no two on one layer
		{"q,2", map[string]sfu.Layer{"q": 0, "2": 1}},
	} {
		offered := strings.Split(tt.offered, ",")
		for _, rid := range append(offered, "q", "f", "0", "1", "other", "") {
			got, ok := layerOf(rid, offered)
			if want, has := tt.want[rid]; ok != has || ok && got != want {
				t.Errorf("of %s RID %q is layer %d, %v; want %d, %v", tt.offered, rid, got, ok, want, has)
			}
		}
	}
}

// FuzzSDP gives arbitrary descriptions to a session.
func FuzzSDP(f *testing.F) {
	f.Add(someOffer)
	f.Add(someOffer[:300])
	f.Add(strings.ReplaceAll(someOffer, "sendonly", "inactive"))
	e, err := NewEngine(Config{Media: loopback})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := e.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(_ *testing.T, sdp string) {
		s, err := e.NewSession(silent{}, SessionConfig{})
		if err != nil {
			return
		}
		defer s.Close()
		_, _ = s.Publish(sdp, 1) // an error is as good as an answer; a panic is not
		_, _ = s.Publish(sdp, 2)
	})
}
