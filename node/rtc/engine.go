// Package rtc carries WebRTC sessions on pion: it answers a client's offers and
// feeds the media that arrives into UpTracks, and sends DownTracks to clients.
// A session has two peer connections, as LiveKit's protocol has it: the client
// offers the one that publishes, the node the one that subscribes.
//
// It knows no rooms, no participants and no policy, picks no layers, and speaks
// no signalling: descriptions come in and go out as strings.
package rtc

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"
)

// socketBuffer is asked for on each media socket, in bytes: 40 ms at 800 Mbit/s,
// so that a pause of the scheduler loses nothing. The kernel may grant less.
const socketBuffer = 4 << 20

// ICE timeouts: a client that changes networks gets 5 s before it is called
// disconnected, and 20 s more before the session is given up.
const (
	iceDisconnected = 5 * time.Second
	iceFailed       = 20 * time.Second
	iceKeepalive    = 2 * time.Second
)

// Config says where an Engine takes media.
type Config struct {
	// Media are the UDP addresses to bind, at least one. Port 0 takes any.
	Media []netip.AddrPort
	// PublicIPs replace the bound addresses in what clients are told, for nodes
	// behind one-to-one NAT. Empty: clients are told the bound addresses.
	PublicIPs []netip.Addr
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
}

// Engine owns the media sockets that all sessions of a node share.
type Engine struct {
	// Static after construction.
	now        func() time.Time
	log        *slog.Logger
	addrs      []netip.AddrPort
	muxes      []ice.UDPMux
	publishers *webrtc.API
	receivers  *webrtc.API
}

// NewEngine binds the media sockets.
func NewEngine(cfg Config) (*Engine, error) {
	e := &Engine{now: cfg.Now, log: cfg.Log}
	if e.now == nil {
		e.now = time.Now
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	mux, err := e.bind(cfg.Media)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	settings, err := newSettings(mux, cfg.PublicIPs)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if e.publishers, err = newPublisherAPI(settings); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if e.receivers, err = newReceiverAPI(settings); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// bind opens one socket and mux per address.
func (e *Engine) bind(addrs []netip.AddrPort) (ice.UDPMux, error) {
	if len(addrs) == 0 {
		return nil, errors.New("bind media: no address given")
	}
	for _, addr := range addrs {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			return nil, fmt.Errorf("bind media address %q: %w", addr, err)
		}
		// Best effort: the kernel's limit may be lower, and media flows all the same.
		_ = conn.SetReadBuffer(socketBuffer)
		_ = conn.SetWriteBuffer(socketBuffer)
		mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn, Logger: quiet().NewLogger("ice")})
		e.muxes = append(e.muxes, mux)
		e.addrs = append(e.addrs, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return ice.NewMultiUDPMuxDefault(e.muxes...), nil
}

// quiet keeps pion silent: what it logs holds addresses of participants.
func quiet() logging.LoggerFactory {
	f := logging.NewDefaultLoggerFactory()
	f.DefaultLogLevel = logging.LogLevelDisabled
	f.Writer = io.Discard
	return f
}

// newSettings makes what both kinds of peer connection share. The node is an ICE
// lite agent (RFC 8445 section 2.5): it has public addresses, answers checks and
// sends none, so that nobody can make it probe others.
func newSettings(mux ice.UDPMux, public []netip.Addr) (webrtc.SettingEngine, error) {
	s := webrtc.SettingEngine{LoggerFactory: quiet()}
	s.SetLite(true)
	s.SetICEUDPMux(mux)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.DisableActiveTCP(true)
	s.SetICETimeouts(iceDisconnected, iceFailed, iceKeepalive)
	s.SetReceiveMTU(maxPacket)
	s.SetSCTPMaxMessageSize(maxMessage)
	// GCM costs a seventh of the SHA-1 profile, which is there for old clients.
	s.SetSRTPProtectionProfiles(
		dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	if len(public) == 0 {
		return s, nil
	}
	rule := webrtc.ICEAddressRewriteRule{
		AsCandidateType: webrtc.ICECandidateTypeHost, Mode: webrtc.ICEAddressRewriteReplace,
	}
	for _, ip := range public {
		rule.External = append(rule.External, ip.String())
	}
	if err := s.SetICEAddressRewriteRules(rule); err != nil {
		return s, fmt.Errorf("set public addresses: %w", err)
	}
	return s, nil
}

// MediaAddrs returns the addresses that are bound.
func (e *Engine) MediaAddrs() []netip.AddrPort { return e.addrs }

// Close gives the sockets up. Sessions must be closed before.
func (e *Engine) Close() error {
	var errs []error
	for _, m := range e.muxes {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
