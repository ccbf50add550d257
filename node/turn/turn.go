// Package turn is the node's closed TURN relay (RFC 8656) for attendees whose
// only way out is one TCP port. It authenticates, allocates, and passes packets
// between an attendee's connection and this node's own media endpoints.
//
// Closed means an allow-list: an allocation reaches exactly the configured
// endpoints, address and port, and nothing else in the world; packets from
// elsewhere are not passed back. It knows nothing of rooms or media, opens no
// listener (node/front hands it connections) and shows no pion type.
//
// Each connection has a pion server of its own. So a nonce is worth nothing on
// another connection, no table is shared between attendees, and whatever goes
// wrong with one connection ends with it.
package turn

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Peer is a media endpoint of this node.
type Peer struct {
	// Advertised is the address in the ICE candidates that attendees get.
	Advertised netip.AddrPort
	// Local is where the endpoint listens, if that differs (a node behind a
	// one-to-one NAT). The zero value means the same as Advertised.
	Local netip.AddrPort
}

// Config describes the relay.
type Config struct {
	// Peers are the only addresses an allocation reaches. At least one; IPv4
	// only, because pion allocates nothing else.
	Peers []Peer

	// Realm of the credentials. Default "domicile".
	Realm string

	// Secret keys the credentials, at least 16 bytes. Default: random, which
	// suits credentials that only this process makes and checks.
	Secret []byte

	// MaxAllocations bounds the node, default 4096 (three goroutines, a socket
	// and about 60 KiB each). MaxPerSession bounds one participant's session,
	// default 12: two peer connections of three allocations each, and the same
	// again while the network changes under them.
	MaxAllocations int
	MaxPerSession  int

	// Bandwidth caps an allocation in each direction, in bytes per second.
	// Default 8 MiB/s, about forty small pictures and one screen share.
	Bandwidth int

	// FirstAllocate is how long a connection may live without an allocation.
	// Default 10 s.
	FirstAllocate time.Duration

	// WriteTimeout ends a connection whose client does not read. Default 5 s.
	WriteTimeout time.Duration

	// Now is the clock by which credentials expire. Default time.Now.
	Now func() time.Time

	// Log gets state changes, never addresses or names. Default discards.
	Log *slog.Logger
}

// minSecret is the fewest bytes of a configured secret.
const minSecret = 16

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.MaxAllocations, 4096)
	def(&c.MaxPerSession, 12)
	def(&c.Bandwidth, 8<<20)
	if c.Realm == "" {
		c.Realm = "domicile"
	}
	if len(c.Secret) == 0 {
		c.Secret = []byte(rand.Text() + rand.Text())
	}
	if c.FirstAllocate == 0 {
		c.FirstAllocate = 10 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 5 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if len(c.Secret) > 0 && len(c.Secret) < minSecret {
		errs = append(errs, fmt.Errorf("secret of %d bytes: want at least %d", len(c.Secret), minSecret))
	}
	if c.MaxAllocations < 0 || c.MaxPerSession < 0 || c.Bandwidth < 0 || c.FirstAllocate < 0 || c.WriteTimeout < 0 {
		errs = append(errs, errors.New("a bound is below zero"))
	}
	return errors.Join(errs...)
}

// reach is what an allocation may touch. peerTable is the real one.
type reach interface {
	permits(netip.Addr) bool                                // may a permission for this address be installed?
	to(netip.AddrPort) (local netip.AddrPort, ok bool)      // where packets for a peer go
	from(netip.AddrPort) (advertised *net.UDPAddr, ok bool) // whose packets these are
}

// Server is the relay. It starts no goroutine of its own.
type Server struct {
	// Static after construction.
	cfg    Config
	creds  *credentials
	peers  reach
	bindIP netip.Addr // relay sockets are bound here
	counts counters

	serving sync.WaitGroup // ServeConn calls

	mu       sync.Mutex
	closed   bool
	clients  map[*client]struct{}
	sessions map[tag]map[*client]struct{} // clients with an allocation, or about to have one
	holding  int                          // clients in sessions
	revoked  map[tag]time.Time            // credentials issued until then are void
}

// New checks the configuration. There is nothing to start: connections come
// through ServeConn.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("turn: %w", err)
	}
	peers, err := newPeerTable(cfg.Peers)
	if err != nil {
		return nil, fmt.Errorf("turn: %w", err)
	}
	cfg = cfg.withDefaults()
	return &Server{
		cfg:      cfg,
		creds:    newCredentials(cfg.Secret),
		peers:    peers,
		bindIP:   peers.bindIP(),
		clients:  map[*client]struct{}{},
		sessions: map[tag]map[*client]struct{}{},
		revoked:  map[tag]time.Time{},
	}, nil
}

// Credentials makes a user name and a password for one participant's session in
// a room. They open an allocation until ttl (at most MaxTTL, which 0 stands for)
// has passed; one that exists by then lives on until it is given up or revoked,
// so that a meeting may be longer than its credentials. The user name says
// nothing about the participant.
func (s *Server) Credentials(participant, room string, ttl time.Duration) (username, password string) {
	return s.creds.issue(tagOf(s.creds, participant, room), s.cfg.Now(), ttl)
}

// Revoke voids the credentials that a participant has for a room and ends its
// allocations: nothing is relayed for it after Revoke returns. Credentials made
// later are good again.
func (s *Server) Revoke(participant, room string) {
	now := s.cfg.Now()
	t := tagOf(s.creds, participant, room)
	s.mu.Lock()
	for old, at := range s.revoked {
		if now.Sub(at) > MaxTTL { // whatever was issued before has expired
			delete(s.revoked, old)
		}
	}
	s.revoked[t] = now
	ending := make([]*client, 0, len(s.sessions[t]))
	for c := range s.sessions[t] {
		ending = append(ending, c)
	}
	s.mu.Unlock()
	for _, c := range ending {
		c.end()
	}
}

// Close ends every connection and returns when they are gone. ServeConn closes
// what it gets afterwards.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	ending := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		ending = append(ending, c)
	}
	s.mu.Unlock()
	for _, c := range ending {
		c.end()
	}
	s.serving.Wait()
	return nil
}

// ServeConn serves one TURN connection (TCP, or TLS already shaken hands) until
// it ends, and closes it.
func (s *Server) ServeConn(conn net.Conn) {
	c := newClient(s, conn)
	if !s.join(c) {
		conn.Close()
		return
	}
	defer s.leave(c)
	c.serve()
}

func (s *Server) join(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.clients[c] = struct{}{}
	s.serving.Add(1)
	return true
}

func (s *Server) leave(c *client) {
	s.release(c)
	s.mu.Lock()
	delete(s.clients, c)
	s.mu.Unlock()
	s.serving.Done()
}

// reserve counts an allocation of the client for a session, unless the session
// is revoked or a quota is reached. A client has one allocation at most, so
// reserving twice is once.
func (s *Server) reserve(c *client, who claims) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.void(who) {
		return false
	}
	if c.session == who.tag && c.reserved {
		return true
	}
	if c.reserved || s.holding >= s.cfg.MaxAllocations || len(s.sessions[who.tag]) >= s.cfg.MaxPerSession {
		s.counts.overQuota.Add(1)
		return false
	}
	if s.sessions[who.tag] == nil {
		s.sessions[who.tag] = map[*client]struct{}{}
	}
	s.sessions[who.tag][c] = struct{}{}
	s.holding++
	c.session, c.reserved = who.tag, true
	return true
}

// release gives a reservation back; without one it does nothing.
func (s *Server) release(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.reserved {
		return
	}
	c.reserved = false
	s.holding--
	delete(s.sessions[c.session], c)
	if len(s.sessions[c.session]) == 0 {
		delete(s.sessions, c.session)
	}
}

// admits decides whether credentials are good for a request on a connection: an
// allocation belongs to the session that made it and outlives the credentials.
func (s *Server) admits(c *client, who claims) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.void(who) {
		return false
	}
	if c.reserved && c.session != who.tag {
		return false
	}
	return c.allocated.Load() || s.cfg.Now().Before(who.expires)
}

// void reports whether the credentials were revoked. The lock is held.
func (s *Server) void(who claims) bool {
	at, ok := s.revoked[who.tag]
	return ok && !who.issued.After(at)
}

// limiter makes the bandwidth cap of one direction: half a second of burst
// passes a keyframe, and at least a few datagrams always do.
func (s *Server) limiter() *rate.Limiter {
	return rate.NewLimiter(rate.Limit(s.cfg.Bandwidth), max(s.cfg.Bandwidth/2, 4*maxFrame))
}
