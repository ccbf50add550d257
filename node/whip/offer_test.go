package whip

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

var codecs = map[string][]string{"audio": {"opus"}, "video": {"VP8", "H264", "VP9", "AV1"}}

func TestOffersOfKnownClientsAreTaken(t *testing.T) {
	files, err := os.ReadDir("testdata/offers")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		way := map[string]direction{"whip": ingest, "whep": egress}
		kind, _, ok := strings.Cut(f.Name(), "-")
		if !ok {
			continue
		}
		seen++
		offer := offerFile(t, f.Name())
		c, p := rules{way[kind], codecs}.checkOffer(offer)
		if p != nil {
			t.Errorf("%s: %d %s", f.Name(), p.Status, p.Detail)
		}
		if c.SDP != offer || !c.Video || c.Audio != strings.Contains(offer, "m=audio") {
			t.Errorf("%s: taken as audio %t, video %t", f.Name(), c.Audio, c.Video)
		}
		if !strings.Contains(offer, "a=ice-ufrag:"+c.Ufrag+"\r\n") || !strings.Contains(offer, "a=ice-pwd:"+c.Pwd+"\r\n") {
			t.Errorf("%s: credentials %+v are not the offer's", f.Name(), c.Credentials)
		}
		if _, p := (rules{1 - way[kind], codecs}).checkOffer(offer); p == nil || p.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s is taken for the other protocol, too", f.Name())
		}
	}
	if seen < 8 {
		t.Errorf("only %d offers", seen)
	}
}

// Each case changes a good offer in one place.
func TestUnusableOffersAreExplained(t *testing.T) {
	for _, c := range []struct {
		name     string
		file     string
		old, new string // replaced everywhere; "$" stands for the whole offer
		status   int
		detail   string
	}{
		{"no SDP", "whip-obs-h264.sdp", "$", "{}", 400, "no SDP"},
		{"an SDP cut in its first line", "whip-obs-h264.sdp", "$", "v=", 400, "no SDP"},
		{"no sections", "whip-obs-h264.sdp", "$", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", 422, "no section with audio or video to send"},
		{"a receiver at WHIP", "whip-obs-h264.sdp", "a=sendonly", "a=recvonly", 422, "the audio section is recvonly; a WHIP client's is sendonly"},
		{"inactive", "whip-obs-h264.sdp", "a=sendonly", "a=inactive", 422, "inactive"},
		{"a sender at WHEP", "whep-browser.sdp", "a=recvonly", "a=sendonly", 422, "the video section is sendonly; a WHEP client's is recvonly"},
		{"H.265", "whip-obs-h264.sdp", "H264/90000", "H265/90000", 422, "the video section has no codec that is taken here, which are VP8, H264, VP9, AV1"},
		{"AAC", "whip-obs-h264.sdp", "opus/48000/2", "MPEG4-GENERIC/48000/2", 422, "the audio section has no codec that is taken here, which are opus"},
		{"AAC in a section with port 0 that is bundled", "whip-gstreamer-vp8.sdp", "OPUS/48000/2", "AAC/48000/2", 422, "the audio section has no codec"},
		{"no codec at all", "whip-obs-h264.sdp", "a=rtpmap:", "a=x:", 422, "no codec"},
		{"unencrypted", "whip-obs-h264.sdp", "UDP/TLS/RTP/SAVPF", "RTP/AVP", 422, `protocol is "RTP/AVP"`},
		{"no fingerprint", "whip-obs-h264.sdp", "a=fingerprint", "a=x", 422, "no fingerprint"},
		{"text", "whip-obs-h264.sdp", "m=audio", "m=text", 422, `a section with "text"`},
		{"two cameras", "whip-obs-h264.sdp", "m=audio 50211 UDP/TLS/RTP/SAVPF 111", "m=video 50211 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:112 VP8/90000", 422, "0 audio and 2 video sections"},
		{"no rtcp-mux", "whip-obs-h264.sdp", "a=rtcp-mux\r\n", "", 422, "lacks rtcp-mux"},
		{"no bundle", "whip-obs-h264.sdp", "a=group:BUNDLE 0 1", "a=group:BUNDLE 0", 422, "the video section is not in the offer's BUNDLE group"},
		{"holdconn", "whip-obs-h264.sdp", "a=setup:actpass", "a=setup:holdconn", 422, `setup is "holdconn"`},
		{"no ufrag", "whip-obs-h264.sdp", "a=ice-ufrag", "a=x", 400, "ice-ufrag"},
		{"a short password", "whip-obs-h264.sdp", "a=ice-pwd:h0vS8mZyLw3KcRj5NbE2Ta", "a=ice-pwd:short", 400, "ice-pwd"},
		{"a ufrag with a space", "whip-obs-h264.sdp", "a=ice-ufrag:Xq1t", "a=ice-ufrag:Xq 1t", 400, "ice-ufrag"},
		{"everything refused by the client itself", "whip-ffmpeg-video-only.sdp", "m=video 9", "m=video 0", 422, "no section"},
	} {
		t.Run(c.name, func(t *testing.T) {
			offer := offerFile(t, c.file)
			if c.old == "$" {
				offer = c.new
			} else if next := strings.ReplaceAll(offer, c.old, c.new); next == offer {
				t.Fatalf("the offer has no %q", c.old)
			} else {
				offer = next
			}
			d := ingest
			if strings.HasPrefix(c.file, "whep") {
				d = egress
			}
			_, p := rules{d, codecs}.checkOffer(offer)
			if p == nil || p.Status != c.status || !strings.Contains(p.Detail, c.detail) {
				t.Fatalf("got %+v, want %d …%s…", p, c.status, c.detail)
			}
		})
	}
}

func TestOffersMayVary(t *testing.T) {
	for _, c := range []struct{ name, file, old, new string }{
		{"sendrecv", "whip-obs-h264.sdp", "a=sendonly", "a=sendrecv"},
		{"no direction, which means sendrecv", "whip-obs-h264.sdp", "a=sendonly\r\n", ""},
		{"a direction for the session", "whip-obs-h264.sdp", "a=sendonly\r\n", ""},
		{"line feeds alone", "whip-obs-h264.sdp", "\r\n", "\n"},
		{"no setup", "whip-obs-h264.sdp", "a=setup:actpass\r\n", ""},
		{"a data channel besides", "whip-obs-h264.sdp", "a=group:BUNDLE 0 1", "a=group:BUNDLE 0 1 2"},
	} {
		offer := strings.ReplaceAll(offerFile(t, c.file), c.old, c.new)
		switch c.name {
		case "a direction for the session":
			offer = strings.Replace(offer, "m=audio", "a=sendonly\r\nm=audio", 1)
		case "a data channel besides":
			offer += "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n"
		}
		if _, p := (rules{ingest, codecs}).checkOffer(offer); p != nil {
			t.Errorf("%s: %d %s", c.name, p.Status, p.Detail)
		}
	}
}

func FuzzOffer(f *testing.F) {
	f.Add(offerFile(f, "whip-obs-simulcast.sdp"))
	f.Add(offerFile(f, "whip-gstreamer-vp8.sdp"))
	f.Fuzz(func(t *testing.T, body string) {
		for _, d := range []direction{ingest, egress} {
			c, p := rules{d, codecs}.checkOffer(body)
			switch {
			case p != nil && (p.Status < 400 || p.Status > 499 || p.Detail == "" || len(p.Detail) > 400):
				t.Errorf("problem %+v", p)
			case p == nil && (len(c.Ufrag) < minUfrag || len(c.Pwd) < minPwd):
				t.Errorf("taken without credentials: %+v", c)
			}
		}
	})
}
