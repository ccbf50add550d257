// Package turn is the node's closed TURN server (RFC 8656), for attendees whose
// network lets nothing else out: over UDP, TCP and TLS, IPv4 and IPv6, all on the
// port that everything else is on.
//
// Closed means that an allocation leads to this node's own media endpoints and
// there to the connections of one participant, and nowhere else in the world.
// So no relay socket exists, and no goroutine: package alloc decides what may
// pass, and what passes goes through tunnels of node/transport, which takes
// ChannelData to a connection, and a connection's packets into ChannelData,
// without coming by here.
//
// It opens no listener (the media sockets and node/front hand it what is TURN),
// knows nothing of rooms or media, and remembers nothing of strangers.
package turn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn/alloc"
)

// MaxTTL is the longest time for which credentials open an allocation.
const MaxTTL = alloc.MaxTTL

// Config describes the server.
type Config struct {
	// Engine has the media endpoints. Its addresses are all that is reachable.
	Engine *transport.Engine

	// Secret keys the credentials, at least 16 bytes. Default: random, which
	// suits credentials that only this process makes and checks.
	Secret []byte

	// MaxAllocations bounds the node, default 8192 (under 1 KiB each over UDP,
	// under 40 KiB over TLS). MaxPerSession bounds one participant, default 12:
	// two peer connections of three allocations each, and the same again while the
	// network changes under them. MaxPerSource bounds an IPv4 address or IPv6 /64,
	// default 1024: an office of 170 people behind one address.
	MaxAllocations int
	MaxPerSession  int
	MaxPerSource   int

	// Bandwidth caps an allocation in each direction, in bytes per second.
	// Default 8 MiB/s, about forty small pictures and one screen share.
	Bandwidth int

	// FirstAllocate is how long a stream may live without an allocation.
	// Default 10 s.
	FirstAllocate time.Duration

	// Now is the clock by which credentials and allocations expire. Default time.Now.
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
	def(&c.MaxAllocations, 8192)
	def(&c.MaxPerSession, 12)
	def(&c.MaxPerSource, 1024)
	def(&c.Bandwidth, 8<<20)
	if len(c.Secret) == 0 {
		c.Secret = []byte(rand.Text() + rand.Text())
	}
	if c.FirstAllocate == 0 {
		c.FirstAllocate = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) limits() alloc.Limits {
	return alloc.Limits{PerNode: c.MaxAllocations, PerSession: c.MaxPerSession, PerSource: c.MaxPerSource}
}

func (c Config) validate() error {
	var errs []error
	if c.Engine == nil {
		errs = append(errs, errors.New("no engine: a relay that reaches nothing"))
	}
	if len(c.Secret) < minSecret {
		errs = append(errs, fmt.Errorf("secret of %d bytes: want at least %d", len(c.Secret), minSecret))
	}
	if c.Bandwidth < 0 || c.FirstAllocate < 0 {
		errs = append(errs, errors.New("a bound is below zero"))
	}
	return errors.Join(append(errs, c.limits().Validate())...)
}

// Server is the TURN server. What it does in goroutines of its own it does in Run.
type Server struct {
	// Static after construction.
	cfg       Config
	engine    *transport.Engine
	creds     *alloc.Credentials
	guard     *alloc.Guard
	exchanges sync.Pool

	// For the control of the tests: allocations lead to everybody.
	unowned bool

	counts  [alloc.NumReasons]atomic.Uint64
	streams atomic.Uint64  // numbers of streams
	serving sync.WaitGroup // ServeStream calls

	// mu guards what follows. Tunnels are opened under it, so that none is opened
	// for an allocation that has just ended; they are closed after it.
	mu        sync.RWMutex
	closed    bool
	table     *alloc.Table
	carriers  map[*alloc.Allocation]*carrier
	clients   map[*client]struct{}
	endpoints []netip.AddrPort
	past      traffic // of allocations that have ended
}

// New checks the configuration.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("turn: %w", err)
	}
	var nonceKey [32]byte
	rand.Read(nonceKey[:])
	creds := alloc.NewCredentials(cfg.Secret)
	none, _ := alloc.NewEndpoints(nil)
	s := &Server{
		cfg: cfg, engine: cfg.Engine, creds: creds,
		guard:     alloc.NewGuard(creds, nonceKey, maphash.MakeSeed()),
		exchanges: sync.Pool{New: func() any { return new(alloc.Exchange) }},
		table:     alloc.NewTable(cfg.limits(), none),
		carriers:  map[*alloc.Allocation]*carrier{},
		clients:   map[*client]struct{}{},
	}
	s.findEndpoints()
	return s, nil
}

// Owner names a participant's connections: with it as transport.ConnConfig.Owner
// they can be reached through that participant's allocations.
func (s *Server) Owner(participant, room string) string {
	return owner(s.creds.Session(participant, room))
}

func owner(of alloc.Session) string { return string(of[:]) }

// Credentials makes a user name and a password for one participant in a room.
// They open allocations until ttl (at most MaxTTL, which 0 stands for) has
// passed; one that exists by then lives on until it is given up or revoked, so
// that a meeting may be longer than its credentials. The user name says nothing
// about the participant.
func (s *Server) Credentials(participant, room string, ttl time.Duration) (username, password string) {
	return s.creds.Issue(s.creds.Session(participant, room), s.cfg.Now(), ttl)
}

// Revoke voids the credentials that a participant has for a room and ends its
// allocations: nothing is relayed for it after Revoke returns. Credentials made
// later are good again.
func (s *Server) Revoke(participant, room string) {
	session := s.creds.Session(participant, room)
	s.mu.Lock()
	ended := s.follow(s.table.Revoke(session, s.cfg.Now()), via{})
	s.mu.Unlock()
	s.cut(ended)
}

// tickEvery is how late an allocation, a permission or a channel may end.
const tickEvery = time.Second

// Run ends what runs out, until ctx does.
func (s *Server) Run(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.tick()
		}
	}
}

func (s *Server) tick() {
	s.findEndpoints()
	s.mu.Lock()
	ended := s.follow(s.table.Tick(s.cfg.Now()), via{})
	s.mu.Unlock()
	s.cut(ended)
}

// findEndpoints takes over what attendees are told to be this node's addresses.
func (s *Server) findEndpoints() {
	var found []netip.AddrPort
	for _, c := range s.engine.Candidates() {
		if !c.TCP { // whoever can reach those needs no relay
			found = append(found, c.Addr)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(found, s.endpoints) {
		return
	}
	e, err := alloc.NewEndpoints(found)
	if err != nil {
		s.cfg.Log.Error("TURN cannot lead to this node's addresses", "error", err)
		return
	}
	s.endpoints = found
	s.table.SetEndpoints(e)
}

// Close ends all allocations and streams, and returns when they are gone.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	var ended []*carrier
	for a := range s.carriers {
		ended = append(ended, s.follow(s.table.Close(a.Flow), via{})...)
	}
	streams := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		streams = append(streams, c)
	}
	s.mu.Unlock()
	s.cut(ended)
	for _, c := range streams {
		_ = c.conn.Cut()
	}
	s.serving.Wait()
	return nil
}
