package node

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Config is everything a node is started with. Its values have been read and
// checked; nothing here is a path to a secret.
type Config struct {
	Self   residency.Node    // as the certificate states it
	Bundle *residency.Bundle // the policies, their signature verified

	Certificate tls.Certificate // of the node, for links and gossip; empty when Standalone
	Roots       *x509.CertPool  // of the operator's CA

	// ServerCertificate is asked for HTTPS and TURN at each handshake, so that
	// it can change while the node runs. Nil: plain HTTP alone.
	ServerCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	Mesh        Mesh             // how the node finds the others
	Listen      Listen           //
	PublicURL   string           // what attendees are sent to, "https://…"
	Advertise   Advertise        // where other nodes reach this one, if not where it listens
	PublicIPs   []netip.Addr     // announced as media addresses behind 1:1 NAT
	City        string           // for people
	At          router.Point     // for distances
	Capacity    int              // attendees; 0 states no limit
	Keys        control.Keys     // API keys
	Geo         Geo              //
	Page        Page             //
	Rooms       Rooms            //
	DataDir     string           // rooms.db, recordings/, keys/, admin.sock
	MaxSpeakers int              // open microphones of a room that are forwarded at once; 0: the room's default
	MinFree     int64            // bytes that recordings leave free on the disk
	Standalone  bool             // a node without a mesh (domicile dev)
	Log         *slog.Logger     //
	Now         func() time.Time //
	Version     string           //
	Ready       func(Addresses)  // called once, when everything listens
}

// Listen holds the addresses that the node binds. A zero address is not bound.
type Listen struct {
	HTTPS   netip.AddrPort // TCP: page, API, signalling, TURN over TLS
	HTTP    netip.AddrPort // TCP, loopback only: the same without TLS
	Media   netip.AddrPort // UDP: ICE
	Relay   netip.AddrPort // UDP: QUIC between nodes
	Gossip  netip.AddrPort // TCP and UDP: membership
	Metrics netip.AddrPort // TCP: Prometheus; never one that attendees can reach
}

// Advertise holds the addresses that other nodes use. Zero ones are those of Listen.
type Advertise struct {
	Relay, Gossip netip.AddrPort
}

// Mesh says how the node meets the others.
type Mesh struct {
	Join []string // gossip addresses of some of them
	Keys [][]byte // gossip keys of 32 bytes; the first encrypts, all decrypt
}

// Geo says how attendees' addresses become places.
type Geo struct {
	Database       string          // an mmdb file; empty: no address is known
	Unknown        router.Fallback // what an address that is not known is taken for
	TrustedProxies []netip.Prefix  // whose X-Forwarded-For is believed
	// AcceptClaimed believes an address that the page sends ("from"): for
	// demonstrations and tests, where everybody comes from one machine.
	AcceptClaimed bool
}

// Page says whether people may join through the node's own page without a
// token from elsewhere.
type Page struct {
	Guests          bool
	GuestsMayRecord bool
}

// Rooms says what moderators may do.
type Rooms struct {
	// RemoteUnmute lets them unmute somebody else's track. Off, as with LiveKit:
	// a microphone is opened by its owner.
	RemoteUnmute bool
}

// Addresses are what the node really bound.
type Addresses struct {
	HTTPS, HTTP, Media, Relay, Gossip netip.AddrPort
}
