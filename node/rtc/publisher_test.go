package rtc

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/transport"
)

// publisher is a session whose client's packets are given by hand, with the time
// that they come, and whose reports to the client are caught.
type publisher struct {
	t   *testing.T
	s   *Session
	p   *peer
	now time.Time
	out *transport.Batch

	published chan Incoming
	ended     chan *sfu.UpTrack
	answer    func(Incoming) *sfu.UpTrack // of Publish
	onEnd     func()                      // of Unpublish; set before the first packet

	mu   sync.Mutex // guards the rest
	sent []rtcp.Packet
	got  []sfu.Packet
}

func newPublisher(t *testing.T, cfg SessionConfig, offer string) *publisher {
	t.Helper()
	return newPublisherOn(t, newTestEngine(t), cfg, offer)
}

func newPublisherOn(t *testing.T, e *Engine, cfg SessionConfig, offer string) *publisher {
	t.Helper()
	b := &publisher{t: t, now: time.Unix(1e9, 0), published: make(chan Incoming, 600), ended: make(chan *sfu.UpTrack, 64)}
	b.answer = func(in Incoming) *sfu.UpTrack {
		up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: sfu.TrackID(in.CID), Kind: in.Kind, Codec: in.Codec})
		up.AddSink(catcher{b})
		return up
	}
	var err error
	if b.s, err = e.NewSession(b, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.s.Close)
	e.remove(b.s) // its ticks are those of the test
	if b.p, err = b.s.publisher(); err != nil {
		t.Fatal(err)
	}
	b.p.recv.write = func(_ *transport.Batch, pkts ...rtcp.Packet) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sent = append(b.sent, pkts...)
	}
	b.out = e.transport.Batch()
	t.Cleanup(func() { e.transport.Release(b.out) })
	b.offer(offer)
	return b
}

func (b *publisher) State(Target, string) {}
func (b *publisher) Unpublish(up *sfu.UpTrack) {
	b.ended <- up
	if b.onEnd != nil {
		b.onEnd()
	}
}

func (b *publisher) Data(string, []byte)                     {}
func (b *publisher) Offer(string, uint32, map[string]string) {}
func (b *publisher) Sections(int, int)                       {}
func (b *publisher) StreamState(*sfu.DownTrack, bool)        {}
func (b *publisher) Unsupported(*sfu.DownTrack)              {}

func (b *publisher) Publish(in Incoming) *sfu.UpTrack {
	up := b.answer(in)
	b.published <- in
	return up
}

// Wants and Report are half of a sink of all tracks; catcher has the other half.
func (b *publisher) Wants() sfu.LayerSet                { return 7 }
func (b *publisher) Report(sfu.Layer, sfu.SenderReport) {}

type catcher struct{ *publisher }

func (c catcher) Offer(burst []sfu.Packet, _ sfu.Out) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range burst {
		p.Raw = slices.Clone(p.Raw)
		c.got = append(c.got, p)
	}
}

func (b *publisher) offer(sdp string) {
	b.t.Helper()
	if _, err := b.s.Publish(sdp, 0); err != nil {
		b.t.Fatal(err)
	}
}

// take gives packets in one go, ms later.
func (b *publisher) take(ms int, pkts ...rtp.Packet) {
	b.t.Helper()
	b.now = b.now.Add(time.Duration(ms) * time.Millisecond)
	for _, p := range pkts {
		p.Version = 2
		raw, err := p.Marshal()
		if err != nil {
			b.t.Fatal(err)
		}
		b.p.RTP(nil, raw, b.now)
	}
	b.p.recv.drained(b.out)
}

// ready waits until the room has answered for n tracks.
func (b *publisher) ready(n int) {
	b.t.Helper()
	eventually(b.t, "the room's answer", func() bool {
		b.p.recv.mu.Lock()
		defer b.p.recv.mu.Unlock()
		got := 0
		for _, s := range b.p.recv.sections {
			if s.track != nil && s.track.ready {
				got++
			}
		}
		return got == n
	})
}

// reports takes what was sent to the client since the last time.
func (b *publisher) reports() []rtcp.Packet {
	b.mu.Lock()
	defer b.mu.Unlock()
	sent := b.sent
	b.sent = nil
	return sent
}

// came lists what came to the media plane since the last time, "track layer:number".
func (b *publisher) came() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, p := range b.got {
		list = append(list, fmt.Sprintf("%d:%d", p.Layer, p.Seq))
	}
	b.got = nil
	return strings.Join(list, " ")
}

func of[T rtcp.Packet](pkts []rtcp.Packet) (list []T) {
	for _, p := range pkts {
		if p, ok := p.(T); ok {
			list = append(list, p)
		}
	}
	return list
}

// nacked lists the numbers that are asked for, by SSRC.
func nacked(pkts []rtcp.Packet) map[uint32][]uint16 {
	all := map[uint32][]uint16{}
	for _, n := range of[*rtcp.TransportLayerNack](pkts) {
		for _, pair := range n.Nacks {
			all[n.MediaSSRC] = append(all[n.MediaSSRC], pair.PacketList()...)
		}
	}
	return all
}

// The ids of header extensions in these tests' offers.
const (
	idTransport = 3
	idMID       = 4
	idRID       = 10
	idRepaired  = 11
)

// offerOf writes an offer with the sections.
func offerOf(sections ...string) string {
	mids := ""
	for _, s := range sections {
		_, mid, _ := strings.Cut(s, "a=mid:")
		mid, _, _ = strings.Cut(mid, "\r\n")
		mids += " " + mid
	}
	return "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE" + mids + "\r\n" +
		"a=fingerprint:sha-256 AA:BB\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n" +
		strings.Join(sections, "")
}

// camera is a section of VP8 (96, RTX 97) and H.264 (98, RTX 99).
func camera(mid, track string, more ...string) string {
	return "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\nc=IN IP4 0.0.0.0\r\na=mid:" + mid + "\r\na=sendonly\r\na=rtcp-mux\r\n" +
		"a=msid:s " + track + "\r\n" +
		"a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 transport-cc\r\n" +
		"a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=1\r\n" +
		"a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n" + extmaps + lines(more)
}

func microphone(mid, track string, more ...string) string {
	return "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:" + mid + "\r\na=sendonly\r\na=rtcp-mux\r\n" +
		"a=msid:s " + track + "\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n" + extmaps + lines(more)
}

const extmaps = "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n" +
	"a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n" +
	"a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n"

func lines(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return strings.Join(list, "\r\n") + "\r\n"
}

const simulcast = "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f"

// media is a packet of a picture, a keyframe; x are pairs of extension id and value.
func media(ssrc uint32, pt uint8, seq uint16, x ...any) rtp.Packet {
	p := rtp.Packet{
		Header:  rtp.Header{SSRC: ssrc, PayloadType: pt, SequenceNumber: seq, Timestamp: 3000 * uint32(seq), Marker: true},
		Payload: []byte{0x10, 0, byte(seq)},
	}
	for i := 0; i < len(x); i += 2 {
		value, ok := x[i+1].([]byte)
		if !ok {
			value = []byte(x[i+1].(string))
		}
		if err := p.SetExtension(uint8(x[i].(int)), value); err != nil {
			panic(err)
		}
	}
	return p
}

// repeated is the packet as RTX under other numbers (RFC 4588 section 4).
func repeated(p rtp.Packet, ssrc uint32, pt uint8, seq uint16) rtp.Packet {
	p.Payload = append(binary.BigEndian.AppendUint16(nil, p.SequenceNumber), p.Payload...)
	p.SSRC, p.PayloadType, p.SequenceNumber = ssrc, pt, seq
	return p
}

func stampOf(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
