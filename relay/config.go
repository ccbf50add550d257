// Package relay carries a room's bytes between nodes over QUIC: ordered
// messages, requests with one answer, and media tracks.
//
// A Fabric holds one Link to each peer. Everything that leaves through a Link
// needs a residency.Permit for that peer, checked at every send and again when
// the bytes are taken from a queue; a refused send is an error that quotes the
// gate's verdict, and nothing leaves. Relay does not know what a room, a message
// kind or a track is, decides no route and keeps nothing: the room's name and
// the data class are opaque text taken from the permit.
//
// Media is dropped, oldest first, rather than delayed, and each drop is counted
// under a named reason. Control messages are never dropped: when a peer does not
// read them in time, the link to it is closed.
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Peer is a node to hold a link to.
type Peer struct {
	Name residency.NodeName
	Addr netip.AddrPort
}

// Kind says what a message or request is about. Its meaning belongs to the user
// of relay.
type Kind uint16

// Handler receives what peers send. A link calls LinkUp first and LinkDown last,
// once each; between them Message is called by one goroutine per link in the
// order of sending, and Request by one goroutine each. The body is valid only
// during the call.
type Handler interface {
	// LinkUp tells that l carries traffic from now on.
	LinkUp(l *Link)
	// LinkDown tells that l ended, and why.
	LinkDown(l *Link, err error)
	// Message hands over a message. While it runs, no further message of the
	// link is read, and in the end the peer is held up.
	Message(l *Link, kind Kind, room string, class residency.Class, body []byte)
	// Request answers a request. The reply leaves only with a permit for the
	// peer and the room of the request. An error goes back as its text, cut to
	// wire.MaxError bytes; it must not quote data of the room. ctx ends when
	// the peer gives the request up or the link ends.
	Request(ctx context.Context, l *Link, kind Kind, room string, class residency.Class, body []byte) ([]byte, residency.Permit, error)
}

// Config says who this node is and how its links behave.
type Config struct {
	Self   residency.Node
	Listen netip.AddrPort // address of the UDP socket; port 0 takes any

	// Conn replaces the socket, for simulated networks. The Fabric closes it.
	Conn net.PacketConn

	// Media is the address of a second UDP socket, for media that does not go over
	// QUIC where the path lets it pass; port 0 takes any. The zero value: media goes
	// over QUIC alone.
	Media netip.AddrPort
	// MediaConn replaces that socket, for simulated networks. The Fabric closes it.
	MediaConn net.PacketConn

	// Both sides of TLS must demand and verify the peer's certificate.
	ServerTLS, ClientTLS *tls.Config
	// PeerNode reads the node out of a verified connection.
	PeerNode func(tls.ConnectionState) (residency.Node, error)

	// Epoch returns the policy epoch in force on this node. It is called for
	// every media packet: make it an atomic load.
	Epoch func() residency.Epoch

	Handler  Handler
	Policies Policies // what peers say of their policies; nil: it is not listened to
	Identity Identity // of renewed and revoked certificates; nil: links end with the certificate they began with
	// Doubts takes what a peer measured of others that contradicts their
	// certificates, in order with its messages. It returns soon. Nil: it is not
	// listened to.
	Doubts func(l *Link, list []wire.Doubt)
	// Suspected is told when nothing has arrived from a peer for suspectAfter, and when
	// something does again; LinkDown ends a suspicion, too. It returns soon. Nil: nobody
	// is told.
	Suspected func(l *Link, suspect bool)

	// OnlyVersion makes the node speak one version of the wire and refuse all others, as
	// a release does that knows no other; 0: all that are spoken still. For tests; a
	// build may set it (see onlyVersion).
	OnlyVersion uint16

	Log *slog.Logger     // default: discard
	Now func() time.Time // the clock by which permits and certificates are judged; default time.Now

	// Heartbeat is the time between two pings of a link that carries no track;
	// default 200 ms. One with tracks is watched more closely: see vigil.
	Heartbeat time.Duration
	// DeadAfter is how long nothing at all may arrive before a link is given
	// up; default 1 s. With five heartbeats to it, a path that loses one
	// packet in twenty ends a live link about once in a million seconds.
	DeadAfter time.Duration
	// SendTimeout is how long the peer may leave its control stream unread before
	// the link is closed; default 2 s.
	SendTimeout time.Duration
	// RequestTimeout bounds a request whose context has no earlier deadline,
	// and the reading of a request at the other end; default 10 s.
	RequestTimeout time.Duration
	// FrameDeadline is the age at which a video frame or an audio packet that
	// has not left is given up; default 500 ms. Longer survives worse
	// congestion and shows older pictures.
	FrameDeadline time.Duration
}

// Sizes of queues and the limits of QUIC. They bound what one peer can cost.
const (
	maxRequests   = 64        // requests of one peer at work at once
	maxFrames     = 1024      // unidirectional streams of one peer open at once
	receiveWindow = 512 << 10 // bytes of a stream, at first
	linkWindow    = 8 << 20   // bytes of a connection that were received and not read yet

	// firstPacket is the length of QUIC's packets until it has found out what passes: the
	// 1280 bytes that IPv6 asks of every path (RFC 8200 section 5), less its head and
	// UDP's. quic-go's own 1280 do not fit that.
	firstPacket = 1280 - 40 - 8

	handshakeTimeout = 3 * time.Second // eight round trips of 300 ms
	idleTimeout      = 5 * time.Second // QUIC's own, behind the heartbeat
)

// onlyVersion is Config.OnlyVersion of a whole build: the linker's -X sets it, to have
// a binary that stands for the release before.
var onlyVersion string

func (c *Config) setDefaults() error {
	if n, err := strconv.ParseUint(onlyVersion, 10, 16); err == nil && c.OnlyVersion == 0 {
		c.OnlyVersion = uint16(n)
	}
	switch {
	case c.Self.Name == "":
		return errors.New("relay: config: Self has no name")
	case c.ServerTLS == nil || c.ClientTLS == nil || c.PeerNode == nil:
		return errors.New("relay: config: ServerTLS, ClientTLS and PeerNode are needed")
	case !verifiesClient(c.ServerTLS):
		return errors.New("relay: config: ServerTLS must require and verify a client certificate")
	case c.ClientTLS.InsecureSkipVerify && !verifiesItself(c.ClientTLS):
		return errors.New("relay: config: ClientTLS does not verify the server's certificate")
	case c.Epoch == nil || c.Handler == nil:
		return errors.New("relay: config: Epoch and Handler are needed")
	}
	setDefault(&c.Heartbeat, 200*time.Millisecond)
	setDefault(&c.DeadAfter, time.Second)
	setDefault(&c.SendTimeout, 2*time.Second)
	setDefault(&c.RequestTimeout, 10*time.Second)
	setDefault(&c.FrameDeadline, 500*time.Millisecond)
	if c.DeadAfter < 2*c.Heartbeat {
		return fmt.Errorf("relay: config: DeadAfter %s must be at least twice Heartbeat %s", c.DeadAfter, c.Heartbeat)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// verifiesClient reports whether no caller gets past the handshake without a
// verified certificate.
func verifiesClient(c *tls.Config) bool {
	return c.ClientAuth == tls.RequireAndVerifyClientCert ||
		c.ClientAuth == tls.RequireAnyClientCert && verifiesItself(c)
}

func verifiesItself(c *tls.Config) bool {
	return c.VerifyConnection != nil || c.VerifyPeerCertificate != nil
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// RefusedError says that a permit does not let bytes go to a peer.
type RefusedError struct {
	Peer    residency.NodeName
	Epoch   residency.Epoch // in force when it was refused
	Until   time.Time       // end of the permit
	Verdict residency.Verdict
}

// Error quotes the verdict behind the permit.
func (e *RefusedError) Error() string {
	if !e.Verdict.Allow {
		return fmt.Sprintf("relay: send to node %q refused: no permit", e.Peer)
	}
	return fmt.Sprintf("relay: send to node %q refused at epoch %d: the permit is for node %q at epoch %d until %s (rule %q: %s)",
		e.Peer, e.Epoch, e.Verdict.Peer, e.Verdict.Epoch, e.Until.UTC().Format(time.RFC3339), e.Verdict.Rule, e.Verdict.Reason)
}

// RemoteError is an error that a peer's handler returned for a request.
type RemoteError struct {
	Peer residency.NodeName
	Text string
}

// Error names the peer and quotes its text.
func (e *RemoteError) Error() string { return fmt.Sprintf("relay: node %q: %s", e.Peer, e.Text) }

// LinkError is why a link ended.
type LinkError struct {
	Peer   residency.NodeName
	Code   wire.Code
	Remote bool // the peer closed it
	Text   string
}

// Error names the peer, who closed the link and why.
func (e *LinkError) Error() string {
	who := "closed"
	if e.Remote {
		who = "closed by the peer"
	}
	return fmt.Sprintf("relay: link to node %q %s: %s (%s)", e.Peer, who, e.Text, e.Code)
}
