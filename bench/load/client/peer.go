package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"
)

// vp8 and opus are what the generator publishes and receives.
var (
	vp8 = webrtc.RTPCodecParameters{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeVP8, ClockRate: 90000,
		RTCPFeedback: []webrtc.RTCPFeedback{{Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}}}
	opus = webrtc.RTPCodecParameters{PayloadType: opusPT, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"}}
)

// newPeer makes a peer connection without interceptors. in, if any, counts what
// arrives at its sockets.
func newPeer(in *Inbound, loopback bool) (*webrtc.PeerConnection, error) {
	m := &webrtc.MediaEngine{}
	if err := m.RegisterCodec(vp8, webrtc.RTPCodecTypeVideo); err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	if err := m.RegisterCodec(opus, webrtc.RTPCodecTypeAudio); err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	s, err := settings(in, loopback)
	if err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
	return api.NewPeerConnection(webrtc.Configuration{})
}

func settings(in *Inbound, loopback bool) (webrtc.SettingEngine, error) {
	quiet := logging.NewDefaultLoggerFactory()
	quiet.DefaultLogLevel, quiet.Writer = logging.LogLevelDisabled, io.Discard
	s := webrtc.SettingEngine{LoggerFactory: quiet}
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(loopback)
	if loopback {
		s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	}
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	if in == nil {
		return s, nil
	}
	machine, err := stdnet.NewNet()
	if err != nil {
		return s, err
	}
	s.SetNet(network{machine, in})
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
