package rtc

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

// lossy drops packets of the client's way in, and keeps what came by SSRC.
type lossy struct {
	interceptor.NoOp
	mu   sync.Mutex // guards the rest
	came map[uint32][][]byte
	drop func(rtp []byte) bool
}

func (l *lossy) NewInterceptor(string) (interceptor.Interceptor, error) { return l, nil }

func (l *lossy) BindRemoteStream(info *interceptor.StreamInfo, r interceptor.RTPReader) interceptor.RTPReader {
	return interceptor.RTPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		for {
			n, attr, err := r.Read(b, a)
			if err != nil {
				return n, attr, err
			}
			l.mu.Lock()
			l.came[info.SSRC] = append(l.came[info.SSRC], bytes.Clone(b[:n]))
			gone := l.drop(b[:n])
			l.mu.Unlock()
			if !gone {
				return n, attr, nil
			}
		}
	})
}

// lossyPeer is a client's end that asks for what it did not get; rtx says whether
// it takes retransmissions in a format of their own.
func lossyPeer(t *testing.T, l *lossy, rtx bool) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	fb := []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "transport-cc"}}
	codecs := []webrtc.RTPCodecParameters{{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: fb}}}
	if rtx {
		codecs = append(codecs, webrtc.RTPCodecParameters{PayloadType: 97, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: "apt=96"}})
	}
	for _, c := range codecs {
		if err := m.RegisterCodec(c, webrtc.RTPCodecTypeVideo); err != nil {
			t.Fatal(err)
		}
	}
	r := &interceptor.Registry{}
	if err := webrtc.ConfigureTWCCSender(m, r); err != nil {
		t.Fatal(err)
	}
	r.Add(l)
	asks, err := nack.NewGeneratorInterceptor(nack.GeneratorInterval(20 * time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	r.Add(asks)
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(r), webrtc.WithSettingEngine(s)).
		NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	return pc
}

// receiveWithLosses lets a client lose every seventh packet, and returns the numbers
// that its application got.
func receiveWithLosses(t *testing.T, rtx bool) (c *client, l *lossy, d *sfu.DownTrack, numbers []uint16) {
	t.Helper()
	l = &lossy{came: map[uint32][][]byte{}}
	seen := map[uint16]bool{}
	l.drop = func(b []byte) bool { // the first time
		first := b[1]&0x7f == 96 && !seen[sequence(b)]
		seen[sequence(b)] = true
		return first && sequence(b)%7 == 0
	}
	c = newClient(t, newTestEngine(t))
	if err := c.sub.GracefulClose(); err != nil {
		t.Fatal(err)
	}
	c.sub = lossyPeer(t, l, rtx)
	c.sub.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { c.tracks <- tr })
	if err := c.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	up := sfu.NewUpTrack(sfu.UpTrackConfig{Kind: sfu.Video, Codec: sfu.Codec{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}})
	d, err := c.session.Subscribe(Subscription{Up: up, StreamID: "PA_a|T", TrackID: "T"})
	if err != nil {
		t.Fatal(err)
	}
	var seq uint16
	var started atomic.Bool // from then on no keyframe makes what was lost worthless
	every(t, 5*time.Millisecond, func() {
		raw := rtpKeyframe(webrtc.MimeTypeVP8, seq)
		if started.Load() {
			raw[rtpHeader+1] = 1
		}
		up.Ingest(0, []sfu.Inbound{{Raw: raw, Arrival: time.Now()}}, &sfu.Scratch{})
		seq++
	})
	track := wait(t, c.tracks, "the track")
	started.Store(true)
	for _, p := range readRTP(t, track, 200) {
		numbers = append(numbers, p.SequenceNumber)
	}
	return c, l, d, numbers
}

func TestSubscribersLossesAreRepaired(t *testing.T) {
	_, l, d, numbers := receiveWithLosses(t, true)
	first := numbers[0]
	slices.SortFunc(numbers, func(a, b uint16) int { return int(int16(a - b)) })
	missing := 0
	for n := first; n != first+150; n++ {
		if !slices.Contains(numbers, n) {
			missing++
		}
	}
	if missing > 2 {
		t.Errorf("%d of 150 packets never came", missing)
	}
	if d.Stats().Resent == 0 {
		t.Error("nothing was sent again")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if stamped(t, l) == 0 {
		t.Error("no packet has a transport-wide number")
	}
}

// Without a format of their own what is sent again has the bytes that it had, and
// so no transport-wide number, which would have to be another (RFC 7714 section 5.3).
func TestWithoutRTXNothingIsNumbered(t *testing.T) {
	_, l, _, _ := receiveWithLosses(t, false)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := stamped(t, l); n > 0 {
		t.Errorf("%d packets have a transport-wide number", n)
	}
}

func stamped(t *testing.T, l *lossy) (n int) {
	t.Helper()
	for _, list := range l.came {
		for _, raw := range list {
			var p rtp.Packet
			if err := p.Unmarshal(raw); err != nil {
				t.Fatal(err)
			}
			if p.GetExtension(3) != nil {
				n++
			}
		}
	}
	return n
}
