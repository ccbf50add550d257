package node

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/node/front/certs"
	"github.com/domicile/domicile/node/sockets"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Config is everything a node is started with. Its values have been read and
// checked; nothing here is a path to a secret.
type Config struct {
	Self     residency.Node    // as the certificate states it; after New ask Node.self, which follows renewals
	Bundle   *residency.Bundle // the policies, their signature verified
	Policies Policies          // how they change

	Certificate tls.Certificate // of the node, for links and gossip; empty when Standalone
	Roots       *x509.CertPool  // of the operator's CA

	// Authorities are the certificates in Roots, for those who look at evidence.
	Authorities []*x509.Certificate

	// IdentityFiles are where Certificate came from; a renewed one is taken over
	// from there while the node runs.
	IdentityFiles IdentityFiles

	// ServerCertificate is asked for HTTPS and TURN at each handshake, so that
	// it can change while the node runs. Nil: plain HTTP alone.
	ServerCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Certificates is where ServerCertificate comes from, to be kept up to date
	// and reported on while the node runs. It may be nil.
	Certificates *certs.Keeper

	Mesh        Mesh           // how the node finds the others
	Listen      Listen         //
	Sockets     *sockets.Set   // those of Listen that are open already, and are kept for the next process; may be nil
	Proxies     []netip.Prefix // balancers that name their clients by the PROXY protocol
	PublicURL   string         // what attendees are sent to, "https://…"
	Advertise   Advertise      // where other nodes reach this one, if not where it listens
	PublicIPs   []netip.Addr   // announced as media addresses behind 1:1 NAT
	City        string         // for people
	At          router.Point   // for distances
	Capacity    int            // attendees; 0 states no limit
	TURN        TURN           // what the relay grants
	DNS         DNS            // answers for the name of the mesh
	Keys        control.Keys   // API keys
	Geo         Geo            //
	Routing     Routing        // how attendees are placed among the permitted nodes
	Page        Page           //
	Rooms       Rooms          //
	Webhooks    []Webhook      // who is told what happens
	DataDir     string         // rooms.db, recordings/, keys/, admin.sock
	Store       Store          // how the records of rooms are kept
	Places      Places         // where classes lie that are not kept in DataDir
	MaxSpeakers int            // open microphones of a room that are forwarded at once; 0: the room's default
	FanOut      int            // nodes to which a track goes from here; 0: the room's default
	MinFree     int64          // bytes that recordings leave free on the disk
	Copies      Copies         // of recordings, on a second origin
	Bucket      Bucket         // where recordings go that are over
	Standalone  bool           // a node without a mesh (domicile dev)

	// EvidencePatience is how long receipts may wait for an origin that takes them
	// before rooms that need evidence stop. 0: 15 s.
	EvidencePatience time.Duration

	Log     *slog.Logger     //
	Now     func() time.Time // the time of day, by which certificates and policies are judged; nil: time.Now
	Version string           //
	Ready   func(Addresses)  // called once, when everything listens
}

// Copies bounds what a node does for copies of its recordings on another origin.
type Copies struct {
	Off   bool
	Mbits float64 // of its lines; 0: the default
}

// Store says how an origin keeps the records of rooms.
type Store struct {
	KeyFile      string          // what they are sealed with; "": keys/store.key, made by the node
	JournalBytes int64           // of what a database that is away is to be told; 0: the store's default
	Postgres     *store.Postgres // shared by the origins of a zone; nil: rooms.db alone
}

// Places are the databases and object stores to which a node brings classes that it
// does not keep on its own disk. The gate judges them like nodes.
type Places map[residency.Class]residency.Place

// Listen holds the addresses that the node binds. A zero address is not bound.
type Listen struct {
	HTTPS    netip.AddrPort // TCP: page, API, signalling, TURN over TLS
	HTTP     netip.AddrPort // TCP, loopback only: the same without TLS
	Media    netip.AddrPort // UDP: ICE
	Redirect netip.AddrPort // TCP: HTTP in clear, sent on to HTTPS
	Relay    netip.AddrPort // UDP: QUIC between nodes
	// RelayMedia is UDP: media between nodes beside QUIC, where it passes.
	RelayMedia netip.AddrPort
	Gossip     netip.AddrPort // TCP and UDP: membership
	Metrics    netip.AddrPort // TCP: Prometheus; never one that attendees can reach
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

// TURN bounds what attendees get of the relay. Zero values are turn's defaults.
type TURN struct {
	Allocations    int // on this node
	PerParticipant int // of them
	PerSource      int // of them, from an IPv4 address or IPv6 /64
	Bandwidth      int // of an allocation in each direction, bytes per second
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
	NoReachTest     bool // nobody may test the ways in
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
