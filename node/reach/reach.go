// Package reach lets anybody find out which of a node's ways in work for them,
// before and without a meeting: it keeps short test sessions, each one data
// channel that echoes what it gets, so that round trips can be measured over
// exactly the way that a meeting would take.
//
//	tester                                       node
//	  | POST /api/reach   offer, no token          |
//	  |------------------------------------------->|  Desk admits: few at once, few from one source
//	  | answer, TURN credentials of this session   |  Engine.Connect, Engine.Ways
//	  |<-------------------------------------------|
//	  |=== STUN, DTLS, SCTP, by any way in =======>|
//	  | "ping"                                     |
//	  |------------------------------------------->|  echoed, up to a bound
//	  | GET /api/reach   Upgrade: websocket        |
//	  |------------------------------------------->|  echoes likewise
//
// A test session has no room, no participant, no media and no name; nothing of
// it is forwarded to anybody, kept, or logged. It ends with its tester, else
// after Life.
package reach

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

const (
	// Life is how long a test session lives: the slowest way in, TURN over TLS
	// after a lost packet or two, stands after some five seconds.
	Life = 20 * time.Second

	// MaxMessage and maxEchoes bound what a session echoes, in bytes and in number.
	// A measurement takes ten messages of ten bytes.
	MaxMessage = 256
	maxEchoes  = 100
)

// Conn is a test session's connection.
type Conn interface {
	// Echo sends a message back on the channel that it came from.
	Echo(label string, payload []byte)
	// Close ends the connection. It is not called from Peer's methods.
	Close()
}

// Peer is told what happens on a connection, from any goroutine.
type Peer interface {
	// Message has a message of the tester.
	Message(label string, payload []byte)
	// Gone says that the connection has ended or failed.
	Gone()
}

// ICEServer is a TURN server and what opens it.
type ICEServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// Engine makes the connections of test sessions.
type Engine interface {
	// Connect answers an offer. owner names the session to TURN.
	Connect(owner, offer string, peer Peer) (conn Conn, answer string, err error)
	// Ways are the ways in besides the answer's candidates, for this owner alone.
	Ways(owner string) []ICEServer
	// Void ends what Ways gave.
	Void(owner string)
}

// Answer is what a tester gets.
type Answer struct {
	SDP        string      `json:"answer"`
	ICEServers []ICEServer `json:"ice_servers"`
	Seconds    int         `json:"seconds"` // for which the session lives
}

// Config says what a Server works with.
type Config struct {
	Engine Engine
	Limits Limits           // zero values: the defaults
	Full   func() bool      // whether the node takes no more attendees; nil: never
	Now    func() time.Time // nil: time.Now
}

// Server keeps the test sessions of a node.
type Server struct {
	// Static after construction.
	cfg    Config
	wake   chan struct{}   // holds a value when over is not empty
	ending context.Context // ends with Run
	stop   context.CancelFunc

	mu       sync.Mutex // guards what follows
	desk     *desk
	sessions map[string]*session // by id
	over     []string            // sessions to be closed
	closed   bool
	opening  sync.WaitGroup // calls of Open between admission and sessions
}

// New returns a server without sessions. Run has to be called for them to end.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Full == nil {
		cfg.Full = func() bool { return false }
	}
	s := &Server{cfg: cfg, wake: make(chan struct{}, 1), desk: newDesk(cfg.Limits), sessions: map[string]*session{}}
	s.ending, s.stop = context.WithCancel(context.Background())
	return s
}

// sweepEvery is how often sessions are looked through for those that are due.
const sweepEvery = time.Second

// Run ends sessions that are due or have been left, and all of them with ctx.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.close()
			return nil
		case <-tick.C:
		case <-s.wake:
		}
		s.sweep(s.cfg.Now())
	}
}

// Open makes a test session for a tester. Its errors are Denials.
func (s *Server) Open(from netip.Addr, offer string) (Answer, error) {
	if err := checkOffer(offer); err != nil {
		return Answer{}, err
	}
	id, err := s.admit(from)
	if err != nil {
		return Answer{}, err
	}
	defer s.opening.Done()
	t := &session{server: s, id: id}
	conn, answer, err := s.cfg.Engine.Connect(id, offer, t)
	if err != nil {
		s.leave(id)
		return Answer{}, deny(Unusable, "the offer cannot be answered: %v", err)
	}
	s.begin(t, conn)
	return Answer{SDP: answer, ICEServers: s.cfg.Engine.Ways(id), Seconds: int(s.desk.limits.Life.Seconds())}, nil
}

// admit takes a place. opening is counted if it succeeds.
func (s *Server) admit(from netip.Addr) (id string, err error) {
	full := s.cfg.Full()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return "", deny(NodeBusy, "this node is shutting down")
	case full:
		return "", deny(NodeBusy, "this node is full: it takes no more attendees, and no tests")
	}
	if id, err = s.desk.admit(from, s.cfg.Now()); err != nil {
		return "", err
	}
	s.opening.Add(1)
	return id, nil
}

// begin gives a session its connection. One that has ended meanwhile is closed
// by the next sweep.
func (s *Server) begin(t *session, conn Conn) {
	over := t.begin(conn)
	s.mu.Lock()
	s.sessions[t.id] = t
	s.mu.Unlock()
	if over {
		s.finish(t.id)
	}
}

func (s *Server) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.desk.leave(id)
}

// finish has a session closed by Run: events must not do it themselves.
func (s *Server) finish(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = append(s.over, id)
	select {
	case s.wake <- struct{}{}:
	default: // awake already
	}
}

// sweep closes the sessions that are over at the time.
func (s *Server) sweep(now time.Time) {
	s.mu.Lock()
	var done []*session
	for _, id := range append(s.desk.due(now), s.over...) {
		if t := s.sessions[id]; t != nil {
			done = append(done, t)
			delete(s.sessions, id)
		}
	}
	s.over = nil
	s.mu.Unlock()
	for _, t := range done {
		s.end(t)
	}
}

// end closes a session that is not in sessions any more. Its place is free
// when nothing of it is left.
func (s *Server) end(t *session) {
	s.cfg.Engine.Void(t.id)
	t.conn.Close()
	s.leave(t.id)
}

// close ends everything and takes no more.
func (s *Server) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.opening.Wait()
	s.mu.Lock()
	all := s.sessions
	s.sessions = map[string]*session{}
	s.mu.Unlock()
	for _, t := range all {
		s.end(t)
	}
}

// Sessions counts the places that are taken, those of WebSockets too.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.desk.places)
}

// session is a test session: the Peer of its connection.
type session struct {
	server *Server // static, like id
	id     string

	mu     sync.Mutex // guards the rest
	conn   Conn       // nil until the offer is answered
	echoes int
	over   bool
}

// begin gives the session its connection; it reports whether it is over already.
func (t *session) begin(conn Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn = conn
	return t.over
}

// Message implements Peer: it echoes, and ends a session that wants too much.
func (t *session) Message(label string, payload []byte) {
	t.mu.Lock()
	t.echoes++
	conn, ok := t.conn, !t.over && t.echoes <= maxEchoes && len(payload) <= MaxMessage
	t.mu.Unlock()
	if conn == nil || !ok {
		t.Gone()
		return
	}
	conn.Echo(label, payload)
}

// Gone implements Peer.
func (t *session) Gone() {
	t.mu.Lock()
	first := !t.over
	t.over = true
	t.mu.Unlock()
	if first {
		t.server.finish(t.id)
	}
}
