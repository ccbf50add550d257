package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/logging"
	"github.com/pion/sdp/v3"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/bench/load/ways"
)

// vp8, rtx and opus are what the generator publishes and receives, with the
// feedback that browsers offer.
var (
	vp8 = webrtc.RTPCodecParameters{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeVP8, ClockRate: 90000,
		RTCPFeedback: []webrtc.RTCPFeedback{{Type: "goog-remb"}, {Type: "transport-cc"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}}}
	rtx = webrtc.RTPCodecParameters{PayloadType: 97, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: "apt=96"}}
	opus = webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
		RTCPFeedback: []webrtc.RTCPFeedback{{Type: "transport-cc"}}}}
)

// extensions are the header extensions of both kinds of media that browsers
// offer. What a node puts into them is read only where congestion control needs
// it.
var extensions = []struct {
	kind webrtc.RTPCodecType
	uris []string
}{
	{webrtc.RTPCodecTypeVideo, []string{sdp.SDESMidURI, sdp.SDESRTPStreamIDURI, sdp.SDESRepairRTPStreamIDURI, sdp.ABSSendTimeURI, sdp.TransportCCURI}},
	{webrtc.RTPCodecTypeAudio, []string{sdp.SDESMidURI, sdp.AudioLevelURI, sdp.ABSSendTimeURI, sdp.TransportCCURI}},
}

// certificate is that of all clients: nothing is measured by making one for each.
var certificate = sync.OnceValues(func() (*webrtc.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return webrtc.GenerateCertificate(key)
})

// newPeer makes a peer connection. in, if any, counts what arrives at its
// sockets, or at the way that is open when it gathers candidates; own says which of
// the machine's addresses count, nil: all but loopback; feedback has it negotiate and
// number packets for congestion control.
func newPeer(in *Inbound, way func() *ways.Conn, own func(net.IP) bool, feedback bool, keys io.Writer) (*webrtc.PeerConnection, error) {
	m, err := mediaEngine(feedback)
	if err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	s, err := settings(in, way, own)
	if err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	if keys != nil {
		s.SetDTLSKeyLogWriter(keys)
	}
	registry := &interceptor.Registry{}
	if in == nil && feedback { // only publishers send
		number, err := twcc.NewHeaderExtensionInterceptor()
		if err != nil {
			return nil, fmt.Errorf("make peer: %w", err)
		}
		registry.Add(number)
	}
	cert, err := certificate()
	if err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(registry))
	return api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{*cert}})
}

func mediaEngine(feedback bool) (*webrtc.MediaEngine, error) {
	m := &webrtc.MediaEngine{}
	for _, c := range []struct {
		webrtc.RTPCodecParameters
		kind webrtc.RTPCodecType
	}{{vp8, webrtc.RTPCodecTypeVideo}, {rtx, webrtc.RTPCodecTypeVideo}, {opus, webrtc.RTPCodecTypeAudio}} {
		if err := m.RegisterCodec(c.RTPCodecParameters, c.kind); err != nil {
			return nil, err
		}
	}
	for _, e := range extensions {
		for _, uri := range e.uris {
			if uri == sdp.TransportCCURI && !feedback {
				continue
			}
			if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, e.kind); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func settings(in *Inbound, way func() *ways.Conn, own func(net.IP) bool) (webrtc.SettingEngine, error) {
	quiet := logging.NewDefaultLoggerFactory()
	quiet.DefaultLogLevel, quiet.Writer = logging.LogLevelDisabled, io.Discard
	s := webrtc.SettingEngine{LoggerFactory: quiet}
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	if own != nil {
		s.SetIncludeLoopbackCandidate(own(net.IPv4(127, 0, 0, 1)))
		s.SetIPFilter(own)
	}
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	if in == nil {
		return s, nil
	}
	machine, err := stdnet.NewNet()
	if err != nil {
		return s, err
	}
	s.SetNet(network{machine, in, way})
	return s, nil
}

func candidateInit(raw string) (init webrtc.ICECandidateInit, err error) {
	err = json.Unmarshal([]byte(raw), &init)
	return init, err
}

// nudge has pion look at its candidate pairs a few times in a row until the
// connection stands. By itself it looks every 200 ms, so that a path that was
// found in the first millisecond is used in the 200th; browsers look every 50 ms
// or less. What makes it look is a new candidate: one where nobody listens.
func nudge(ctx context.Context, pc *webrtc.PeerConnection) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := 4 * time.Millisecond
	for port := 1; port < 9; port++ {
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		switch pc.ICEConnectionState() {
		case webrtc.ICEConnectionStateNew, webrtc.ICEConnectionStateChecking:
		default:
			return
		}
		// An error says that there is no description yet, or no connection any more.
		_ = pc.AddICECandidate(webrtc.ICECandidateInit{
			Candidate: fmt.Sprintf("candidate:%d 1 udp 1 127.0.0.1 %d typ host", port, port)})
		wait += wait / 2
	}
}
