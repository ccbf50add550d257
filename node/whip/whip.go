// Package whip serves WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-04): one
// POST with an SDP offer publishes into a room or plays from it, PATCH trickles
// candidates and restarts ICE, DELETE ends the session. It decides who may ask
// for what, whether an offer is usable at all, and how long a session lives.
//
// It carries no media, knows no room but by name, makes no SDP but the fragment
// that answers an ICE restart, and never offers itself: a WHEP player that wants
// a counter-offer is told that there is none.
//
//	client                                         node
//	  | POST /whip          offer, Bearer token     |
//	  |-------------------------------------------->|  Rooms.Publish
//	  | 201  Location: /wish/<id>, ETag, Link, answer
//	  |<--------------------------------------------|
//	  |=== STUN, DTLS, SRTP =======================>|  Session.Connected, within 30 s
//	  | PATCH /wish/<id>    If-Match: "tag", candidates
//	  |-------------------------------------------->|  204; they are checked, no more: we are ICE lite
//	  | PATCH /wish/<id>    If-Match: *, new ufrag and password
//	  |-------------------------------------------->|  Session.Restart
//	  | 200  ETag: new, fragment with our new ones  |
//	  |<--------------------------------------------|
//	  | DELETE /wish/<id>                           |
//	  |-------------------------------------------->|  Session.Close
package whip

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/domicile/domicile/control"
)

const (
	// connectWait is how long the media connection of a new session may take. A
	// client that trickles over a TURN relay needs a few seconds, one that has
	// lost interest must not hold a place for long.
	connectWait = 30 * time.Second

	// DefaultMaxSessions bounds the sessions of a node where its config does not.
	DefaultMaxSessions = 4096
	// maxPending bounds the sessions without media, of everybody: what a flood of
	// POSTs can make a node hold for connectWait. 256 players that come back at
	// once after an outage find room, for each connects within a second or two.
	maxPending = 256
	// maxPendingOf bounds those of one token's bearer.
	maxPendingOf = 16
)

// Rooms is where sessions lead. Its errors are Problems, or internal ones.
type Rooms interface {
	// Publish takes what a client sends into the room.
	Publish(ctx context.Context, join Join, offer Offer) (Session, Answer, error)
	// Watch sends the client what source publishes: the identity of a participant
	// or the id of a track. Empty, it follows the room's active speaker.
	Watch(ctx context.Context, join Join, source string, offer Offer) (Session, Answer, error)
}

// Session is a media session under way. Its methods may be called from any goroutine.
type Session interface {
	// Restart takes the client's new ICE credentials and returns ours. The old
	// ones go on working if it fails.
	Restart(client Credentials) (Restarted, error)
	// Connected is closed once media can flow.
	Connected() <-chan struct{}
	// Done is closed when the session has ended, for whatever reason.
	Done() <-chan struct{}
	// Close ends the session. It may be called more than once.
	Close()
}

// Join is a client that the token lets in, as far as the token goes. It holds
// personal data and belongs in no log.
type Join struct {
	Token *control.Grants
	Room  string
	// Request is the HTTP request, for where the client is. Its body has been read.
	Request *http.Request
}

// Offer is what a client offers: SDP with at most one section of each kind.
type Offer struct {
	SDP          string
	Audio, Video bool
	Credentials
}

// Answer is what a client gets for its offer.
type Answer struct {
	SDP        string
	ICEServers []ICEServer // ways in besides the answer's candidates
}

// ICEServer is a TURN server with the credentials for it.
type ICEServer struct{ URL, Username, Credential string }

// Credentials are a side's ICE username fragment and password (RFC 8839).
type Credentials struct{ Ufrag, Pwd string }

// Restarted is our side of a restarted ICE session.
type Restarted struct {
	Credentials
	Candidates []string // values of a=candidate, "candidate:" left out
}

// Config says what a Server works with.
type Config struct {
	Rooms Rooms
	Keys  control.Keys
	// Base is this node's URL, "https://HOST:PORT". A session's URL begins with it
	// where the client was redirected here: some resolve a relative Location
	// against the URL that they were given first. Else it is relative, and so
	// holds behind any proxy.
	Base string
	// Audio and Video name the codecs that rooms take, as in a=rtpmap.
	Audio, Video []string
	// MaxSessions bounds the sessions at a time. 0: DefaultMaxSessions.
	MaxSessions int
	Now         func() time.Time // nil: time.Now
	Log         *slog.Logger     // nil: none
}

// Server serves the endpoints and owns the sessions.
type Server struct {
	cfg Config // static

	mu       sync.Mutex           // guards what follows
	arriving map[*resource]bool   // reserved, not begun
	sessions map[string]*resource // by id
	closed   bool

	watching sync.WaitGroup // one for each in arriving or sessions
}

// New returns a server without sessions.
func New(cfg Config) (*Server, error) {
	if cfg.Rooms == nil || len(cfg.Audio) == 0 || len(cfg.Video) == 0 {
		return nil, errors.New("make WHIP server: it needs rooms and the codecs they take")
	}
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = DefaultMaxSessions
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, arriving: map[*resource]bool{}, sessions: map[string]*resource{}}, nil
}

// Paths of the endpoints and of the sessions that they make. Sessions have one
// of their own, since /whep/{room}/{source} takes every name.
const (
	pathWHIP     = "/whip"
	pathWHEP     = "/whep"
	pathSessions = "/wish/" // the protocols' working group
)

// Mount adds the endpoints to a node's handler.
func (s *Server) Mount(mux *http.ServeMux) {
	whip, whep := s.endpoint(ingest), s.endpoint(egress)
	mux.Handle(pathWHIP, whip)
	mux.Handle(pathWHIP+"/{room}", whip)
	mux.Handle(pathWHEP, whep)
	mux.Handle(pathWHEP+"/{room}", whep)
	mux.Handle(pathWHEP+"/{room}/{source}", whep)
	mux.Handle(pathSessions+"{id}", http.HandlerFunc(s.serveSession))
}

// Sessions counts the sessions under way.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Part ends all sessions; new ones may come.
func (s *Server) Part() {
	s.mu.Lock()
	var open []*resource
	for _, r := range s.sessions {
		open = append(open, r)
	}
	s.mu.Unlock()
	for _, r := range open {
		r.session.Close()
	}
}

// Close ends all sessions, takes no more, and returns when they are over.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	var open []*resource
	for _, r := range s.sessions {
		open = append(open, r)
	}
	s.mu.Unlock()
	for _, r := range open {
		r.session.Close()
	}
	s.watching.Wait()
}
