package jsep

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pion/sdp/v3"
)

// moody is a client that takes what it likes of an offer, under numbers of its
// own.
type moody struct {
	rnd     *rand.Rand
	dead    map[string]bool   // sections that it rejected
	verdict map[string]string // of the last offer, by section: "rejected", "inactive" or "recvonly"
	numbers map[string]int    // payload types of the last answer, by section and codec
}

// answer writes an answer and notes what is in it.
func (m *moody) answer(t *testing.T, offer string) string {
	t.Helper()
	var d sdp.SessionDescription
	must(t, d.UnmarshalString(offer))
	m.verdict, m.numbers = make(map[string]string), make(map[string]int)
	var b, bundle strings.Builder
	for _, sec := range d.MediaDescriptions {
		mid, _ := sec.Attribute("mid")
		_, wanted := sec.Attribute("sendonly")
		verdict := m.decide(mid, sec.MediaName.Media, wanted)
		m.verdict[mid] = verdict
		if verdict == "rejected" {
			m.dead[mid] = true
			fmt.Fprintf(&b, "m=%s 0 %s 0\r\na=mid:%s\r\n", sec.MediaName.Media, strings.Join(sec.MediaName.Protos, "/"), mid)
			continue
		}
		fmt.Fprintf(&bundle, " %s", mid)
		if sec.MediaName.Media == "application" {
			fmt.Fprintf(&b, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:%s\r\na=sctp-port:5000\r\n", mid)
			continue
		}
		m.media(&b, mid, sec.MediaName.Media, verdict)
	}
	return strings.ReplaceAll(head, "actpass", "active") + "a=group:BUNDLE" + bundle.String() + "\r\n" + b.String()
}

func (m *moody) decide(mid, kind string, wanted bool) string {
	mood := m.rnd.IntN(12)
	switch {
	case kind == "application":
		return "recvonly"
	case m.dead[mid] || mood == 0:
		return "rejected"
	case !wanted || mood == 1:
		return "inactive"
	}
	return "recvonly"
}

// media takes some codecs of a kind, one of them at least.
func (m *moody) media(b *strings.Builder, mid, kind, verdict string) {
	names := []string{"opus/48000/2"}
	if kind == "video" {
		names = []string{"VP8/90000", "H264/90000", "VP9/90000", "AV1/90000"}
	}
	m.rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:1+m.rnd.IntN(len(names))]
	var pts, lines strings.Builder
	for i, name := range names {
		pt := 100 + 5*i + m.rnd.IntN(4)
		fmt.Fprintf(&pts, " %d", pt)
		fmt.Fprintf(&lines, "a=rtpmap:%d %s\r\n", pt, name)
		if strings.HasPrefix(name, "H264") {
			fmt.Fprintf(&lines, "a=fmtp:%d packetization-mode=1;profile-level-id=42e01f\r\n", pt)
		}
		codec, _, _ := strings.Cut(name, "/")
		m.numbers[mid+" "+kind+"/"+codec] = pt
	}
	fmt.Fprintf(b, "m=%s 9 UDP/TLS/RTP/SAVPF%s\r\na=mid:%s\r\na=%s\r\n%s", kind, &pts, mid, verdict, &lines)
}

// expect says how a client's mood leaves a sender that is offered in a section.
func (m *moody) expect(s Sender, mid string) (pt int, unsupported, refused bool) {
	mime := s.Codec.MimeType
	if mime == mimeRED {
		mime = mimeOpus // the client knows no RED
	}
	pt = m.numbers[mid+" "+mime]
	switch {
	case m.verdict[mid] == "rejected":
		return 0, true, false
	case m.verdict[mid] == "inactive":
		return 0, false, true
	}
	return pt, pt == 0, false
}

func TestRandomMoodsOfClients(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			p := New(Config{FirstSSRC: rnd.Uint32(), Data: true})
			client := moody{rnd: rnd, dead: make(map[string]bool)}
			w := wishes{rnd: rnd, keys: make(map[Key]Sender)}
			l := newLedger(t)
			refused, bound := make(map[Key]bool), make(map[Key]Binding)
			for range 25 {
				w.change(t, p)
				o := offer(t, p)
				l.check(o)
				offered := p.MIDs()
				c, err := p.TakeAnswer(client.answer(t, o))
				must(t, err)
				for _, b := range c.Bound {
					bound[b.Key] = b
				}
				for _, k := range c.Unbound {
					if bound[k].SSRC == 0 || refused[k] {
						t.Errorf("%q is unbound, it was never bound", k)
					}
				}
				for mid, track := range offered {
					k := Key(strings.TrimPrefix(track, "TR_"))
					if refused[k] {
						t.Errorf("%q is offered again, the client refused it", k)
					}
					pt, unsupported, no := client.expect(w.keys[k], mid)
					refused[k] = no || unsupported
					if b := bound[k]; !no && (int(b.PayloadType) != pt || b.Unsupported != unsupported || b.MID != mid) {
						t.Errorf("%q in %q is bound as %+v, want %d, unsupported %v", k, mid, b, pt, unsupported)
					}
				}
				if p.Pending() {
					t.Error("an offer is due right after an answer")
				}
				if c.Remote.SCTPPort != 5000 || c.ICERestarted {
					t.Errorf("got %+v", c)
				}
			}
		})
	}
}
