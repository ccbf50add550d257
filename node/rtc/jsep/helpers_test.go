package jsep

import (
	"fmt"
	"strings"
	"testing"
)

var local = Local{
	Ufrag: "node", Pwd: "0123456789012345678901", Fingerprint: "sha-256 " + strings.TrimSuffix(strings.Repeat("AB:", 32), ":"),
	Candidates: []string{"1 1 udp 2130706431 192.0.2.10 7000 typ host"},
}

var (
	opusCodec = Codec{mimeOpus, 48000, 2, opusFmtp}
	redCodec  = Codec{mimeRED, 48000, 2, "111/111"}
	vp8Codec  = Codec{mimeVP8, 90000, 0, ""}
	h264Codec = Codec{mimeH264, 90000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}
	vp9Codec  = Codec{mimeVP9, 90000, 0, "profile-id=0"}
	av1Codec  = Codec{mimeAV1, 90000, 0, "level-idx=5;profile=0;tier=0"}
)

// sender makes a sender whose stream and track are called after its key.
func sender(key Key, c Codec) Sender {
	kind := Video
	if strings.HasPrefix(c.MimeType, "audio/") {
		kind = Audio
	}
	return Sender{Key: key, Kind: kind, StreamID: "PA_a|TR_" + string(key), TrackID: "TR_" + string(key), Codec: c}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t testing.TB, p *Peer, senders ...Sender) {
	t.Helper()
	for _, s := range senders {
		must(t, p.AddSender(s))
	}
}

func offer(t testing.TB, p *Peer) string {
	t.Helper()
	text, err := p.Offer(local)
	must(t, err)
	return text
}

// answer takes an offer and writes the answer.
func answer(t testing.TB, p *Peer, text string) (Change, string) {
	t.Helper()
	c, err := p.TakeOffer(text)
	must(t, err)
	a, err := p.Answer(local)
	must(t, err)
	return c, a
}

// sectionsOf splits a description into what stands above all sections, and these.
func sectionsOf(text string) []string {
	return strings.Split(strings.ReplaceAll(text, "\r\nm=", "\r\n\x00m="), "\x00")
}

// clientAnswer answers an offer of ours as a client does that takes everything:
// the same sections turned around.
func clientAnswer(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		switch key, _, _ := strings.Cut(strings.TrimSpace(line), ":"); key {
		case "a=sendonly":
			line = "a=recvonly\r\n"
		case "a=setup":
			line = "a=setup:active\r\n"
		case "a=ice-ufrag":
			line = "a=ice-ufrag:them\r\n"
		case "a=msid", "a=ssrc", "a=ssrc-group", "a=ice-lite":
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// recvonly is an offer of a client that receives in sections of the given kinds.
func recvonly(kinds ...Kind) string {
	var b strings.Builder
	b.WriteString("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE")
	for i := range kinds {
		fmt.Fprintf(&b, " %d", i)
	}
	b.WriteString("\r\na=fingerprint:sha-256 AA:BB\r\na=ice-ufrag:them\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n")
	for i, k := range kinds {
		m := "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
		if k == Video {
			m = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
		}
		fmt.Fprintf(&b, "%sa=mid:%d\r\na=recvonly\r\na=rtcp-mux\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n", m, i)
	}
	return b.String()
}
