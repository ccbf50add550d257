package whip

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

// patchRate and patchBurst bound the PATCHes of one session, per second and at
// once. A client that does not gather its candidates first sends one for each.
const patchRate, patchBurst = 5, 50

// retryAfter is when a client is to come back that met too many others: most
// sessions that wait for their media have it within that time.
const retryAfter = 2 * time.Second

// owner is whose a session is.
type owner struct {
	apiKey, identity, room string
	// bearer is the hash of the token that made the session. It goes on
	// controlling the session when it has expired: an encoder runs for longer
	// than tokens live.
	bearer [sha256.Size]byte
}

func ownerOf(join Join, bearer string) owner {
	return owner{join.Token.APIKey, join.Token.Identity, join.Room, sha256.Sum256([]byte(bearer))}
}

// person is the owner whatever token they bring.
func (o owner) person() [3]string { return [3]string{o.apiKey, o.identity, o.room} }

// resource is a session's HTTP side.
type resource struct {
	// Static once the resource is in Server.sessions.
	id        string
	owner     owner
	session   Session
	transport transport
	patches   *rate.Limiter

	// Guarded by turn, which holds a value while a PATCH is handled.
	turn   chan struct{}
	tag    string      // of the current ICE session
	client Credentials // the client's part in it

	connected bool // guarded by Server.mu
}

// newResource makes a resource under a URL that nobody guesses: 260 bits.
func newResource(o owner, client Credentials) *resource {
	return &resource{
		id: rand.Text() + rand.Text(), owner: o, patches: rate.NewLimiter(patchRate, patchBurst),
		turn: make(chan struct{}, 1), tag: newTag(), client: client,
	}
}

// newTag makes a strong entity tag.
func newTag() string { return `"` + rand.Text() + `"` }

// reserve takes a place for a session before it costs anything. Either release
// or begin follows.
func (s *Server) reserve(res *resource) *Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.crowded(res.owner); p != nil {
		p.RetryAfter = retryAfter
		return p
	}
	s.arriving[res] = true
	s.watching.Add(1)
	return nil
}

// crowded says what stands against one more session. The caller holds mu.
func (s *Server) crowded(o owner) *Problem {
	pending, own := len(s.arriving), 0
	for r := range s.arriving {
		if r.owner.person() == o.person() {
			own++
		}
	}
	for _, r := range s.sessions {
		if r.connected {
			continue
		}
		if pending++; r.owner.person() == o.person() {
			own++
		}
	}
	switch {
	case s.closed:
		return Refuse(http.StatusServiceUnavailable, "this node is shutting down; another one takes over")
	case len(s.sessions)+len(s.arriving) >= s.cfg.MaxSessions:
		return Refuse(http.StatusServiceUnavailable, "this node has %d sessions, which is all it takes", s.cfg.MaxSessions)
	case own >= maxPendingOf:
		return Refuse(http.StatusTooManyRequests, "%d sessions of this token's bearer are waiting for their media", own)
	case pending >= maxPending:
		return Refuse(http.StatusServiceUnavailable, "too many clients are connecting at once")
	}
	return nil
}

// release gives the place back of a session that did not come about.
func (s *Server) release(res *resource) {
	s.mu.Lock()
	delete(s.arriving, res)
	s.mu.Unlock()
	s.watching.Done()
}

// begin makes a session known under its URL and watches over it.
func (s *Server) begin(res *resource) {
	s.mu.Lock()
	delete(s.arriving, res)
	s.sessions[res.id] = res
	closed := s.closed
	s.mu.Unlock()
	if closed {
		res.session.Close() // Close of the server came before it
	}
	go s.watch(res)
}

// watch ends a session that gets no media in time, and forgets it at its end.
func (s *Server) watch(res *resource) {
	defer s.watching.Done()
	defer s.forget(res)
	timeout := time.NewTimer(connectWait)
	defer timeout.Stop()
	select {
	case <-res.session.Connected():
		s.mu.Lock()
		res.connected = true
		s.mu.Unlock()
	case <-timeout.C:
		s.cfg.Log.Info("a WHIP or WHEP session got no media and is removed", "after", connectWait)
		res.session.Close()
	case <-res.session.Done():
	}
	<-res.session.Done()
}

// forget makes a session's URL unknown; it reports whether it was known.
func (s *Server) forget(res *resource) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.sessions[res.id]
	delete(s.sessions, res.id)
	return known
}

// serveSession serves the URL of a session.
func (s *Server) serveSession(w http.ResponseWriter, r *http.Request) {
	headers(w)
	w.Header().Set("Accept-Patch", typeFragment)
	var err error
	switch r.Method {
	case http.MethodOptions:
		w.WriteHeader(http.StatusOK)
	case http.MethodGet, http.MethodHead:
		if _, err = s.mine(r); err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	case http.MethodPatch:
		err = s.patch(w, r)
	case http.MethodDelete:
		err = s.end(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS, PATCH, DELETE")
		err = Refuse(http.StatusMethodNotAllowed, "%.16q is not served here: PATCH or DELETE the session", r.Method)
	}
	if err != nil {
		s.refuse(w, err)
	}
}

// mine finds the session of a request, if its bearer owns it.
func (s *Server) mine(r *http.Request) (*resource, error) {
	grants, bearer, invalid := s.authenticate(r)
	if bearer == "" {
		return nil, invalid
	}
	s.mu.Lock()
	res := s.sessions[r.PathValue("id")]
	s.mu.Unlock()
	hash := sha256.Sum256([]byte(bearer))
	switch {
	case res != nil && subtle.ConstantTimeCompare(hash[:], res.owner.bearer[:]) == 1:
		return res, nil
	case invalid != nil:
		return nil, invalid
	case res == nil:
		return nil, Refuse(http.StatusNotFound, "there is no such session; it may have ended")
	case ownerOf(Join{Token: grants, Room: grants.Video.Room}, bearer).person() != res.owner.person():
		return nil, Refuse(http.StatusForbidden, "the session belongs to the bearer of another token")
	}
	return res, nil
}

// end is DELETE. It answers when the session is over.
func (s *Server) end(w http.ResponseWriter, r *http.Request) error {
	res, err := s.mine(r)
	if err != nil {
		return err
	}
	if !s.forget(res) {
		return Refuse(http.StatusNotFound, "the session has ended already")
	}
	res.session.Close()
	select {
	case <-res.session.Done():
	case <-r.Context().Done():
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// patch trickles candidates or restarts ICE. PATCHes of one session take turns:
// a client may send several at once (RFC 9725, section 4.3.1).
func (s *Server) patch(w http.ResponseWriter, r *http.Request) error {
	res, err := s.mine(r)
	if err != nil {
		return err
	}
	if !res.patches.AllowN(s.cfg.Now(), 1) {
		p := Refuse(http.StatusTooManyRequests, "too many requests for one session")
		p.RetryAfter = time.Second
		return p
	}
	body, err := read(w, r, typeFragment, maxFragment)
	if err != nil {
		return err
	}
	f, err := parseFragment(body)
	if err != nil {
		return Refuse(http.StatusBadRequest, "%v", err)
	}
	select {
	case res.turn <- struct{}{}:
		defer func() { <-res.turn }()
		return s.apply(w, res, f, r.Header.Values("If-Match"))
	case <-r.Context().Done():
		return Refuse(http.StatusServiceUnavailable, "another request for this session takes too long")
	}
}

// apply carries a fragment out. New credentials mean a restart, whichever way
// the precondition is met (RFC 9725, section 4.3.3); candidates have been
// checked, and we need no more of them: ICE-lite learns addresses from checks.
func (s *Server) apply(w http.ResponseWriter, res *resource, f fragment, match []string) error {
	switch ifMatch(match, res.tag) {
	case missing:
		return Refuse(http.StatusPreconditionRequired, `an If-Match header is needed: the ETag of the ICE session, or * to restart ICE`)
	case stale:
		return Refuse(http.StatusPreconditionFailed, "the ICE session that If-Match names is over: ICE was restarted")
	}
	if f.Ufrag == "" || f.Credentials == res.client {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	restarted, err := res.session.Restart(f.Credentials)
	if err != nil {
		return err
	}
	res.client, res.tag = f.Credentials, newTag()
	h := w.Header()
	h.Set("ETag", res.tag)
	h.Set("Content-Type", typeFragment)
	w.WriteHeader(http.StatusOK)
	_, err = w.Write([]byte(res.transport.format(restarted)))
	if err != nil {
		s.cfg.Log.Debug("the answer to an ICE restart did not reach its client")
	}
	return nil
}
