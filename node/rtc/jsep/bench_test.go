package jsep

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// BenchmarkJoin is what one attendee of a meeting costs: an offer of its own is
// answered, and it is offered the tracks of the others.
func BenchmarkJoin(b *testing.B) {
	raw, err := os.ReadFile("testdata/chromium/publish-vp8-simulcast.sdp")
	must(b, err)
	for _, others := range []int{1, 10, 100, 250} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				answer(b, New(Config{}), string(raw))
				p := New(Config{Data: true})
				for i := range others {
					add(b, p, sender(Key(fmt.Sprint("a", i)), opusCodec), sender(Key(fmt.Sprint("v", i)), vp8Codec))
				}
				exchange(b, p)
			}
		})
	}
}

// BenchmarkHostile is the dearest that a client can send.
func BenchmarkHostile(b *testing.B) {
	fill := func(line string) string {
		text := recvonly(Audio, Video)
		n := min((maxLines-strings.Count(text, "\n"))/strings.Count(line, "\n"), (maxBytes-len(text))/len(line))
		return text + strings.Repeat(line, n)
	}
	for name, text := range map[string]string{
		"ssrc":     strings.ReplaceAll(fill("a=ssrc:1 cname:x\r\n"), "recvonly", "sendonly"),
		"feedback": fill("a=rtcp-fb:* nack\r\n"),
		"extmap":   fill("a=extmap:1 urn:x\r\n"),
		"sections": recvonly(make([]Kind, maxSections)...),
		"bundle":   strings.Replace(recvonly(Audio), "BUNDLE 0", "BUNDLE"+strings.Repeat(" 0", 250_000), 1),
		"rids":     strings.ReplaceAll(fill("a=simulcast:send q;h;f;q;h;f\r\na=rid:q send\r\n"), "recvonly", "sendonly"),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p := New(Config{})
				if _, err := p.TakeOffer(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
