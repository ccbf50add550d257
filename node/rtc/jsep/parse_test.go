package jsep

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pion/sdp/v3"
)

const head = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 aa:bb\r\n" +
	"a=ice-ufrag:them\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n"

// publish is an offer with one section that sends.
func publish(media, rtpmaps string, attributes ...string) string {
	var pts []string
	for line := range strings.Lines(rtpmaps) {
		if pt, ok := strings.CutPrefix(line, "a=rtpmap:"); ok {
			pt, _, _ = strings.Cut(pt, " ")
			pts = append(pts, pt)
		}
	}
	return head + "a=group:BUNDLE 0\r\nm=" + media + " 9 UDP/TLS/RTP/SAVPF " + strings.Join(pts, " ") + "\r\na=mid:0\r\na=sendonly\r\n" +
		rtpmaps + strings.Join(append(attributes, ""), "\r\n")
}

const vp8Lines = "a=rtpmap:96 VP8/90000\r\n"

// incomingOf takes an offer with one section.
func incomingOf(t *testing.T, offer string) (Incoming, string) {
	t.Helper()
	c, a := answer(t, New(Config{RED: true}), offer)
	if len(c.Incoming) != 1 {
		t.Fatalf("incoming %+v of\n%s", c.Incoming, offer)
	}
	return c.Incoming[0], a
}

func TestHostileDescriptionsAreRefused(t *testing.T) {
	good := recvonly(Audio, Video)
	for name, test := range map[string]struct{ sdp, want string }{
		"empty":               {"", "no media section"},
		"not SDP":             {"hello\r\nm=\r\n", "read SDP"},
		"too long":            {strings.Repeat("x", maxBytes+1), "524289 bytes"},
		"too many lines":      {good + strings.Repeat("a=x\r\n", maxLines), "lines"},
		"514 media sections":  {good + strings.Repeat("m=audio 9 x 0\r\n", maxSections), "514 media sections"},
		"257 candidates":      {good + strings.Repeat("a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n", 257), "257 candidates"},
		"no credentials":      {strings.ReplaceAll(good, "a=ice-ufrag:them\r\n", ""), "ice-ufrag"},
		"endless password":    {strings.ReplaceAll(good, "a=ice-pwd:", "a=ice-pwd:"+strings.Repeat("x", 250)), "ice-pwd of 272"},
		"not UTF-8":           {good + "a=x:\xff\r\n", "UTF-8"},
		"other ufrags":        {strings.ReplaceAll(good, "a=ice-ufrag:", "a=ice-ufrag:é"), "ice-ufrag"},
		"blank in the ufrag":  {strings.ReplaceAll(good, "a=ice-ufrag:", "a=ice-ufrag:a b"), "ice-ufrag"},
		"no fingerprint":      {strings.ReplaceAll(good, "a=fingerprint", "a=finger"), "no fingerprint"},
		"strange setup":       {strings.ReplaceAll(good, "actpass", "holdconn"), "holdconn"},
		"no mids":             {strings.ReplaceAll(good, "a=mid:", "a=m:"), "no section can be taken"},
		"one mid twice":       {strings.ReplaceAll(good, "a=mid:1", "a=mid:0"), "two sections"},
		"endless mid":         {strings.ReplaceAll(good, "a=mid:1", "a=mid:1"+strings.Repeat("x", 256)), "mid"},
		"nothing for us":      {strings.ReplaceAll(good, "TLS/RTP", "TLS/UDT"), "no section can be taken"},
		"everything rejected": {strings.ReplaceAll(good, " 9 UDP", " 0 UDP"), "no section can be taken"},
		"data without a port": {head + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n", "sctp-port"},
		"data on port 0":      {head + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=sctp-port:0\r\n", "sctp-port"},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(Config{Data: true})
			if _, err := p.TakeOffer(test.sdp); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("offer: got %v, want %q", err, test.want)
			}
			if c, _ := answer(t, p, good); c.Remote.Ufrag != "them" { // the peer is none the worse for it
				t.Errorf("got %+v", c.Remote)
			}
			q := New(Config{})
			add(t, q, sender("a", opusCodec), sender("b", vp8Codec))
			o := offer(t, q)
			if _, err := q.TakeAnswer(test.sdp); err == nil {
				t.Error("taken as an answer")
			}
			c, err := q.TakeAnswer(clientAnswer(o))
			must(t, err)
			if len(c.Bound) != 2 {
				t.Errorf("bound %+v", c.Bound)
			}
		})
	}
}

func TestWhatChangesMustNot(t *testing.T) {
	good := recvonly(Audio, Video)
	for name, bad := range map[string]string{
		"another certificate":        strings.ReplaceAll(good, "AA:BB", "AA:CC"),
		"fewer sections":             recvonly(Audio),
		"other kinds":                recvonly(Audio, Audio),
		"other order":                strings.NewReplacer("a=mid:0", "a=mid:1", "a=mid:1", "a=mid:0").Replace(good),
		"the DTLS roles turn around": strings.ReplaceAll(good, "actpass", "passive"),
	} {
		p := New(Config{})
		answer(t, p, good)
		if _, err := p.TakeOffer(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
		if c, _ := answer(t, p, good); c.ICERestarted {
			t.Errorf("%s: left something behind", name)
		}
	}
	p := New(Config{})
	answer(t, p, good)
	c, _ := answer(t, p, strings.NewReplacer("them", "they", "0123456789", "9876543210").Replace(good))
	if !c.ICERestarted || c.Remote.Ufrag != "they" {
		t.Errorf("ICE restart: %+v", c)
	}
	if c, _ = answer(t, p, strings.NewReplacer("them", "they", "0123456789", "9876543210").Replace(good)); c.ICERestarted {
		t.Error("ICE restarts twice with the same credentials")
	}
}

func TestDTLSRoles(t *testing.T) {
	for setup, want := range map[string]string{"actpass": "passive", "active": "passive", "passive": "active"} {
		p := New(Config{})
		_, a := answer(t, p, strings.ReplaceAll(recvonly(Audio), "actpass", setup))
		if !strings.Contains(a, "a=setup:"+want+"\r\n") {
			t.Errorf("answer to %q:\n%s", setup, a)
		}
		if _, a = answer(t, p, recvonly(Audio)); !strings.Contains(a, "a=setup:"+want+"\r\n") {
			t.Errorf("answer to \"actpass\" after %q:\n%s", setup, a)
		}
	}
	for setup, want := range map[string]string{"actpass": "active", "active": "passive", "passive": "active"} {
		p := New(Config{})
		p.Lead()
		c, a := answer(t, p, strings.ReplaceAll(recvonly(Audio), "actpass", setup))
		if !strings.Contains(a, "a=setup:"+want+"\r\n") || (c.Remote.Setup == "passive") != (want == "active") {
			t.Errorf("answer of one that leads to %q, which is taken for %q:\n%s", setup, c.Remote.Setup, a)
		}
		if c, a = answer(t, p, recvonly(Audio)); !strings.Contains(a, "a=setup:"+want+"\r\n") || (c.Remote.Setup == "passive") != (want == "active") {
			t.Errorf("answer of one that leads to \"actpass\" after %q, taken for %q:\n%s", setup, c.Remote.Setup, a)
		}
	}
	p := New(Config{Data: true})
	if _, err := p.TakeAnswer(strings.ReplaceAll(clientAnswer(offer(t, p)), "setup:active", "setup:actpass")); err == nil {
		t.Error("an answer that chooses no role was taken")
	}
}

// TestSectionsThatAreRefusedKeepTheirPlace offers among others what nobody here knows.
func TestSectionsThatAreRefusedKeepTheirPlace(t *testing.T) {
	lines := []struct{ m, want string }{
		{"m=text 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:0\r\na=rtpmap:98 t140/1000\r\n", "m=text 0 UDP/TLS/RTP/SAVPF 98\r\n"},
		{"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:1\r\n", "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n"},
		{"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\na=rtpmap:111 opus/48000/2\r\n", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"},
		{"m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:3\r\n" + vp8Lines, "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n"}, // not bundled
		{"m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:4\r\na=bundle-only\r\n" + vp8Lines, "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"},
		{"m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:5\r\n" + vp8Lines, "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n"},
		{"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:6\r\na=sctp-port:5001\r\na=max-message-size:0\r\n", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"},
		{"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:7\r\na=sctp-port:5002\r\n", "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"},
		{"m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" + vp8Lines, "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n"}, // without a name
		{"m=application 9 UDP/BFCP *\r\na=mid:9\r\n", "m=application 0 UDP/BFCP *\r\n"},
	}
	text := head + "a=group:BUNDLE 0 1 2 4 5 6 7 9 nobody\r\n"
	for _, l := range lines {
		text += l.m
	}
	c, a := answer(t, New(Config{}), text)
	got := sectionsOf(a)
	if !strings.Contains(got[0], "a=group:BUNDLE 2 4 6\r\n") || len(got) != len(lines)+1 {
		t.Fatalf("answer:\n%s", a)
	}
	for i, l := range lines {
		if !strings.HasPrefix(got[i+1], l.want) || strings.Contains(got[i+1], fmt.Sprintf("a=mid:%d\r\n", i)) != strings.Contains(l.m, "a=mid:") {
			t.Errorf("section %d: %q, want %q", i, got[i+1], l.want)
		}
		if has := strings.Contains(got[i+1], "a=candidate:"); has != (i == 2) {
			t.Errorf("section %d: candidates: %v", i, has)
		}
	}
	if c.Remote.SCTPPort != 5001 || c.Remote.MaxMessage != 1<<32-1 || len(c.Incoming) != 2 {
		t.Errorf("got %+v", c)
	}
}

func TestOneSectionNeedsNoName(t *testing.T) {
	text := strings.NewReplacer("a=mid:0\r\n", "", "a=group:BUNDLE 0\r\n", "").Replace(publish("video", vp8Lines))
	_, a := incomingOf(t, text)
	if strings.Contains(a, "a=mid") || strings.Contains(a, "a=group") || !strings.Contains(a, "m=video 9 ") {
		t.Errorf("answer:\n%s", a)
	}
	_, a = incomingOf(t, text+"m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"+vp8Lines)
	if !strings.Contains(a, "m=video 0 ") {
		t.Errorf("a second section without a transport of its own:\n%s", a)
	}
}

// TestFirefox has an offer as Firefox writes it: much stands above all sections,
// the numbers are its own, and extensions have directions.
func TestFirefox(t *testing.T) {
	text := "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 491401529563 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=sendrecv\r\n" +
		"a=fingerprint:sha-256 34:FF\r\na=group:BUNDLE 0 1 2\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n" +
		"m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101\r\nc=IN IP4 0.0.0.0\r\na=sendonly\r\n" +
		"a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\r\n" +
		"a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r\na=fmtp:101 0-15\r\n" +
		"a=ice-pwd:bf23a6064b33ac5be53b10b697aa8bca\r\na=ice-ufrag:e57484d3\r\na=mid:0\r\na=msid:{d0748647} {04aa55c1}\r\na=rtcp-mux\r\n" +
		"a=rtpmap:109 opus/48000/2\r\na=rtpmap:9 G722/8000/1\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000/1\r\n" +
		"a=setup:actpass\r\na=ssrc:4264703613 cname:{0199e663}\r\n" +
		"m=video 9 UDP/TLS/RTP/SAVPF 120 124 126 127 97 98\r\nc=IN IP4 0.0.0.0\r\na=sendonly\r\n" +
		"a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n" +
		"a=extmap:6/recvonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\na=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n" +
		"a=extmap:8/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na=extmap:9/sendonly urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n" +
		"a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\r\na=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1\r\n" +
		"a=fmtp:120 max-fs=12288;max-fr=60\r\na=fmtp:124 apt=120\r\na=fmtp:127 apt=126\r\na=fmtp:98 apt=97\r\n" +
		"a=ice-pwd:bf23a6064b33ac5be53b10b697aa8bca\r\na=ice-ufrag:e57484d3\r\na=mid:1\r\na=msid:{d0748647} {c29cd3b7}\r\n" +
		"a=rid:f send\r\na=rid:h send\r\na=rid:q send\r\na=rtcp-fb:120 nack\r\na=rtcp-fb:120 nack pli\r\na=rtcp-fb:120 ccm fir\r\na=rtcp-fb:120 goog-remb\r\na=rtcp-fb:120 transport-cc\r\n" +
		"a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:120 VP8/90000\r\na=rtpmap:124 rtx/90000\r\na=rtpmap:126 H264/90000\r\na=rtpmap:127 rtx/90000\r\na=rtpmap:97 H264/90000\r\na=rtpmap:98 rtx/90000\r\n" +
		"a=setup:actpass\r\na=simulcast:send f;h;q\r\na=ssrc:1 cname:{0199e663}\r\na=ssrc:2 cname:{0199e663}\r\na=ssrc-group:FID 1 2\r\n" +
		"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\na=ice-pwd:bf23a6064b33ac5be53b10b697aa8bca\r\na=ice-ufrag:e57484d3\r\na=mid:2\r\na=setup:actpass\r\na=sctp-port:5000\r\na=max-message-size:1073741823\r\n"
	c, a := answer(t, New(Config{RED: true}), text)
	compare(t, "testdata/transcripts/firefox.txt", describe(c)+"\n"+strings.ReplaceAll(a, "\r\n", "\n"))
	c, _ = answer(t, New(Config{}), strings.NewReplacer("a=sendrecv\r\na=finger", "a=inactive\r\na=finger", "a=sendonly\r\n", "").Replace(text))
	if len(c.Incoming) != 0 {
		t.Errorf("incoming %+v, inactive is what holds for all sections", c.Incoming)
	}
}

func TestLayers(t *testing.T) {
	rids := []string{"a=rid:f send", "a=rid:h send pt=96", "a=rid:q send", "a=rid:x recv"}
	for line, want := range map[string]string{
		"a=simulcast:send q;h;f":                         "q h f",
		"a=simulcast:send q;~h;~f":                       "q h f",
		"a=simulcast:recv x send f,h;q":                  "f q",
		"a=simulcast:send q;q;nothing;;~":                "q",
		"a=simulcast: send rid=h;f":                      "h f",
		"a=sendonly":                                     "f h q",
		"a=simulcast:send " + strings.Repeat("q;", 5000): "q",
	} {
		in, a := incomingOf(t, publish("video", vp8Lines, append(rids, line)...))
		if got := strings.Join(in.RIDs, " "); got != want {
			t.Errorf("%.40s: RIDs %q, want %q", line, got, want)
		}
		answered := "a=simulcast:recv " + strings.ReplaceAll(want, " ", ";") + "\r\n"
		if strings.Contains(a, answered) != strings.Contains(line, "simulcast") || strings.Count(a, "a=rid:") != len(in.RIDs) {
			t.Errorf("%.40s: answer\n%s", line, a)
		}
	}
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("a=rid:%d send", i)
	}
	if in, _ := incomingOf(t, publish("video", vp8Lines, many...)); len(in.RIDs) != maxRIDs {
		t.Errorf("%d RIDs", len(in.RIDs))
	}
}

func TestStreams(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  []Stream
	}{
		{[]string{"a=ssrc:1 cname:x"}, []Stream{{1, 0}}},
		{[]string{"a=ssrc:1 cname:x", "a=ssrc:2 cname:x", "a=ssrc-group:FID 1 2"}, []Stream{{1, 2}}},
		{[]string{"a=ssrc-group:SIM 3 2 1", "a=ssrc-group:FID 1 11", "a=ssrc-group:FID 2 12", "a=ssrc-group:FEC-FR 3 13",
			"a=ssrc:1 cname:x", "a=ssrc:11 cname:x", "a=ssrc:13 cname:x"}, []Stream{{3, 0}, {2, 12}, {1, 11}}},
		{[]string{"a=ssrc:0 cname:x", "a=ssrc:x", "a=ssrc:", "a=ssrc:4294967296 y", "a=ssrc-group:", "a=ssrc-group:FID 1", "a=ssrc-group:FID 1 x"}, nil},
	} {
		in, _ := incomingOf(t, publish("video", vp8Lines, test.lines...))
		if !slices.Equal(in.Streams, test.want) {
			t.Errorf("%q: %v, want %v", test.lines, in.Streams, test.want)
		}
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("a=ssrc:%d cname:x", i+1)
	}
	if in, _ := incomingOf(t, publish("video", vp8Lines, many...)); len(in.Streams) != maxSSRCs {
		t.Errorf("%d streams", len(in.Streams))
	}
	twice := publish("video", vp8Lines, "a=ssrc:7 cname:x")
	twice = strings.Replace(twice, "BUNDLE 0", "BUNDLE 0 1", 1) + strings.Replace(twice[strings.Index(twice, "m="):], "a=mid:0", "a=mid:1", 1)
	c, _ := answer(t, New(Config{}), twice)
	if len(c.Incoming) != 2 || len(c.Incoming[0].Streams) != 1 || len(c.Incoming[1].Streams) != 0 {
		t.Errorf("one SSRC in two sections: %+v", c.Incoming)
	}
}

func TestTrackNames(t *testing.T) {
	for line, want := range map[string]string{
		"a=msid:stream track": "stream track", "a=msid:- track": "- track", "a=msid:stream": "stream ", "a=x": " ",
		"a=ssrc:5 msid:stream track": "stream track", "a=ssrc:5 cname:x y": " ", "a=msid:é träck": " ",
		"a=msid:s " + strings.Repeat("x", 300): "s ",
	} {
		in, _ := incomingOf(t, publish("video", vp8Lines, line))
		if got := in.StreamID + " " + in.TrackID; got != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}

// TestAnotherTrackInASection has a client send one track after another.
func TestAnotherTrackInASection(t *testing.T) {
	p := New(Config{})
	answer(t, p, publish("video", vp8Lines, "a=msid:- one"))
	c, _ := answer(t, p, publish("video", vp8Lines, "a=msid:- two"))
	if len(c.Gone) != 1 || c.Gone[0].TrackID != "one" || len(c.Incoming) != 1 || !c.Incoming[0].New {
		t.Errorf("got %+v", c)
	}
	c, _ = answer(t, p, publish("video", vp8Lines, "a=msid:- two"))
	if len(c.Gone) != 0 || len(c.Incoming) != 1 || c.Incoming[0].New {
		t.Errorf("got %+v", c)
	}
	c, _ = answer(t, p, strings.Replace(publish("video", vp8Lines), "sendonly", "inactive", 1))
	if len(c.Gone) != 1 || c.Gone[0].TrackID != "two" || len(c.Incoming) != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestHeaderExtensions(t *testing.T) {
	const mid, twcc, level = "urn:ietf:params:rtp-hdrext:sdes:mid", "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01", "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	for _, test := range []struct {
		lines []string
		want  Extensions
	}{
		{[]string{"a=extmap:14 " + mid, "a=extmap:3/sendonly " + twcc}, Extensions{MID: 14, TransportCC: 3}},
		{[]string{"a=extmap:15 " + mid, "a=extmap:0 " + twcc, "a=extmap:256 " + twcc, "a=extmap:6/inactive " + twcc, "a=extmap:x " + twcc, "a=extmap:3", "a=extmap:"}, Extensions{}},
		{[]string{"a=extmap:16 " + mid}, Extensions{}},
		{[]string{"a=extmap:16 " + mid, "a=extmap-allow-mixed"}, Extensions{MID: 16}},
		{[]string{"a=extmap:4 " + mid, "a=extmap:4 " + twcc, "a=extmap:5 " + mid}, Extensions{MID: 4}},
		{[]string{"a=extmap:1 " + level}, Extensions{}}, // of audio
	} {
		in, a := incomingOf(t, publish("video", vp8Lines, test.lines...))
		if in.Extensions != test.want {
			t.Errorf("%q: %+v, want %+v", test.lines, in.Extensions, test.want)
		}
		if strings.Contains(a, "extmap-allow-mixed") != slices.Contains(test.lines, "a=extmap-allow-mixed") {
			t.Errorf("%q: answer\n%s", test.lines, a)
		}
	}
}

func TestFormats(t *testing.T) {
	h264 := func(pt int, fmtp string) string {
		return fmt.Sprintf("a=rtpmap:%d H264/90000\r\na=fmtp:%d %s\r\n", pt, pt, fmtp)
	}
	for _, test := range []struct{ media, lines, want string }{
		{"video", "a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n" + vp8Lines + "a=rtpmap:98 rtx/90000\r\na=fmtp:98 apt=1\r\n", "96+97 video/VP8"},
		{"video", "a=rtpmap:100 vp9/90000\r\na=fmtp:100 profile-id=2\r\na=rtpmap:101 vp9/90000\r\n", "101+0 video/VP9"},
		{"video", "a=rtpmap:45 av1/90000\r\na=fmtp:45 profile=1\r\na=rtpmap:46 AV1/90000\r\n", "46+0 video/AV1"},
		{"video", h264(102, "packetization-mode=0;profile-level-id=42e01f") + h264(103, "packetization-mode=1;profile-level-id=640c1f"), "103+0 video/H264"},
		{"video", h264(102, "profile-level-id=4de01f") + h264(103, "profile-level-id=f4001f") + h264(104, "profile-level-id=x"), "102+0 video/H264"},
		{"video", vp8Lines + "a=rtpmap:72 VP8/90000\r\na=rtpmap:96 VP9/90000\r\na=rtpmap:200 VP8/90000\r\na=rtpmap:98 VP8/8000\r\n", "96+0 video/VP8"},
		{"audio", "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:111 OPUS/48000/2\r\n", "63+0 audio/red, 111+0 audio/opus"},
		{"audio", "a=rtpmap:63 red/48000/2\r\na=fmtp:63 0/0\r\na=rtpmap:64 red/48000/2\r\na=rtpmap:111 opus/48000/2\r\n", "111+0 audio/opus"},
		{"audio", "a=rtpmap:109 opus/48000\r\na=rtpmap:111 opus/48000/2\r\n", "111+0 audio/opus"},
	} {
		in, _ := incomingOf(t, publish(test.media, test.lines))
		var got []string
		for _, f := range in.Formats {
			got = append(got, fmt.Sprintf("%d+%d %s", f.PayloadType, f.RTX, f.Codec.MimeType))
		}
		if s := strings.Join(got, ", "); s != test.want {
			t.Errorf("%q: %q, want %q", test.lines, s, test.want)
		}
	}
}

func TestFeedback(t *testing.T) {
	for lines, want := range map[string]Feedback{
		"a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:97 ccm fir\r\n": {NACK: true, PLI: true, REMB: true},
		"a=rtcp-fb:* transport-cc\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 ccm fir\r\n":                   {TransportCC: true, FIR: true},
	} {
		in, a := incomingOf(t, publish("video", vp8Lines+lines))
		if in.Formats[0].Feedback != want {
			t.Errorf("%q: %+v", lines, in.Formats[0].Feedback)
		}
		if strings.Contains(a, "goog-remb") != want.REMB {
			t.Errorf("answer:\n%s", a)
		}
	}
}

func TestStereoIsAnswered(t *testing.T) {
	for fmtp, want := range map[string]string{
		"minptime=10;useinbandfec=1;stereo=1": "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1;stereo=1;maxaveragebitrate=510000\r\n",
		"sprop-stereo=1;x=2":                  "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1;stereo=1;maxaveragebitrate=510000\r\n",
		"stereo=0":                            "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1\r\n",
	} {
		if _, a := incomingOf(t, publish("audio", "a=rtpmap:111 opus/48000/2\r\n", "a=fmtp:111 "+fmtp)); !strings.Contains(a, want) {
			t.Errorf("%q: answer\n%s", fmtp, a)
		}
	}
}

// corpus has real descriptions and cuts of them.
func corpus(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/chromium/*.sdp")
	must(t, err)
	out := []string{recvonly(Audio, Video), publish("video", vp8Lines, "a=rid:q send", "a=simulcast:send q"), head + "m=audio 9 x 0\r\n"}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		must(t, err)
		out = append(out, string(raw))
	}
	return out
}

// sound checks what was written in answer to anything.
func sound(t testing.TB, text string, sections int) {
	t.Helper()
	var d sdp.SessionDescription
	must(t, d.UnmarshalString(text))
	if len(d.MediaDescriptions) != sections {
		t.Errorf("%d sections, want %d:\n%s", len(d.MediaDescriptions), sections, text)
	}
}

func TestCutDescriptionsAreRefusedOrAnswered(t *testing.T) {
	whole := publish("video", vp8Lines, "a=msid:- one", "a=rid:q send", "a=rid:h send", "a=simulcast:send q;h", "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid")
	for i := range whole {
		p := New(Config{})
		if _, err := p.TakeOffer(whole[:i]); err == nil {
			a, err := p.Answer(local)
			must(t, err)
			sound(t, a, 1)
		}
	}
}

// FuzzTakeOffer gives arbitrary offers to a peer, twice: the second one changes
// nothing.
func FuzzTakeOffer(f *testing.F) {
	for _, text := range corpus(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { takeTwice(t, text) })
}

// takeTwice takes an offer, if it can be taken, and once more.
func takeTwice(t *testing.T, text string) bool {
	t.Helper()
	p := New(Config{RED: true})
	add(t, p, sender("mic", opusCodec), sender("cam", vp8Codec))
	first, err := p.TakeOffer(text)
	if err != nil {
		return false
	}
	a, err := p.Answer(local)
	must(t, err)
	sound(t, a, p.Sections())
	again, err := p.TakeOffer(text)
	must(t, err)
	if len(again.Gone)+len(again.Bound)+len(again.Unbound) != 0 || len(again.Incoming) != len(first.Incoming) || again.ICERestarted {
		t.Errorf("the same offer again: %+v after %+v", again, first)
	}
	_, err = p.Answer(local)
	must(t, err)
	return true
}

// TestScrambledOffersAreRefusedOrAnswered drops, doubles and swaps lines of real
// offers.
func TestScrambledOffersAreRefusedOrAnswered(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	taken := 0
	for _, text := range corpus(t) {
		lines := strings.SplitAfter(text, "\r\n")
		for range 60 {
			scrambled := slices.Clone(lines)
			for range 1 + rnd.IntN(6) {
				i, j := rnd.IntN(len(scrambled)), rnd.IntN(len(scrambled))
				switch rnd.IntN(3) {
				case 0:
					scrambled = slices.Delete(scrambled, i, i+1)
				case 1:
					scrambled = slices.Insert(scrambled, i, scrambled[j])
				default:
					scrambled[i], scrambled[j] = scrambled[j], scrambled[i]
				}
			}
			if takeTwice(t, strings.Join(scrambled, "")) {
				taken++
			}
		}
	}
	if taken < 100 {
		t.Errorf("%d were taken: too few to learn from", taken)
	}
}

// FuzzTakeAnswer gives arbitrary answers to an offer, and then a good one.
func FuzzTakeAnswer(f *testing.F) {
	peer := func(t testing.TB) (*Peer, string) {
		p := New(Config{Data: true, RED: true})
		add(t, p, sender("mic", redCodec), sender("cam", h264Codec))
		return p, offer(t, p)
	}
	_, o := peer(f)
	f.Add(o)
	f.Add(clientAnswer(o))
	f.Add(strings.ReplaceAll(clientAnswer(o), "m=video 9", "m=video 0"))
	f.Add(strings.ReplaceAll(clientAnswer(o), "recvonly", "inactive"))
	for _, text := range corpus(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, o := peer(t)
		c, err := p.TakeAnswer(text)
		if err != nil {
			_, err = p.TakeAnswer(clientAnswer(o))
			must(t, err)
		} else if len(c.Incoming) != 0 || len(c.Bound) > 2 {
			t.Errorf("got %+v", c)
		}
		sound(t, offer(t, p), 3)
	})
}
