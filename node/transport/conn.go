package transport

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Handler is told what comes. RTP, RTCP and Drained are called by the Worker that
// read the packets: one at a time for a 5-tuple, but two at once are possible while
// a client moves between paths. They must not block.
type Handler interface {
	// RTP has an opened packet, which may be changed and kept until Drained.
	RTP(w *Worker, pkt []byte, at time.Time)
	// RTCP has an opened compound packet, valid during the call.
	RTCP(w *Worker, pkt []byte, at time.Time)
	// Drained comes after all that one read of the socket brought. What is sent
	// through w.Batch() leaves when all connections were told.
	Drained(w *Worker)
	// State comes in order, one at a time. There is none after Close.
	State(s State)
	// Opened says that a data channel is open, whoever opened it.
	Opened(label string)
	// Message has a message of a data channel. payload may be kept.
	Message(label string, binary bool, payload []byte)
}

// ConnConfig says what a connection has beside media.
type ConnConfig struct {
	// Owner names whose connection it is, for tunnels that belong to somebody.
	Owner string
	// Channels are opened from our side once SCTP stands.
	Channels []Channel
	// MaxMessage bounds data messages in both directions, in bytes. 0: 64 KiB,
	// which is what every SCTP stack can take.
	MaxMessage int
}

// Local is what our description says.
type Local struct {
	Ufrag, Pwd string
	Candidates []Candidate
}

// Remote is what the client's description says.
type Remote struct {
	Ufrag, Pwd   string
	Fingerprints []Fingerprint
	Setup        string // "active", "passive" or "actpass"
	SCTPPort     uint16 // 0: no data channels
	// Profile of SRTP is the only one that is offered to a passive client, which would
	// choose the one that costs it least; 0: any.
	Profile Profile
}

var (
	errClosed = errors.New("connection is closed")
	errEarly  = errors.New("connection does not stand yet")
)

// Conn is one client's connection. All methods may be called from any goroutine.
type Conn struct {
	// Static after construction.
	engine  *Engine
	handler Handler
	cfg     ConnConfig
	pipe    *pipe // takes DTLS to the handshake and what follows it
	ctx     context.Context
	cancel  context.CancelFunc

	// Written once, or by a single word: read on the way of each packet.
	selected atomic.Pointer[path] // where to send
	keys     atomic.Pointer[keys]
	in       atomic.Pointer[opener]
	out      atomic.Pointer[rtcpSealer]
	heard    atomic.Int64 // ns of Unix time
	traffic  traffic
	departed atomic.Bool // the client is to leave its paths here
	drops    counters

	gate sync.RWMutex // held for reading during an event
	shut bool         // guarded by gate

	channels channels
	running  sync.WaitGroup

	mu        sync.Mutex // guards what follows
	closed    bool
	local     credential   // for checks from now on
	outgoing  []credential // older ones, until the first check with the new
	remote    *Remote
	paths     []*path
	reachable chan struct{} // closed when the first path stands
	facts     facts
	state     State
	untold    []State // waits for Handler.State
	telling   bool    // somebody is telling
	ssrcs     map[uint32]*sealed
}

// NewConn registers a connection: from now on the client can reach it with what
// Local says. Nothing is sent before that but answers to its checks.
func (e *Engine) NewConn(h Handler, cfg ConnConfig) (*Conn, error) {
	if h == nil {
		return nil, errors.New("make connection: nobody to tell events to")
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	c := &Conn{engine: e, handler: h, cfg: cfg, reachable: make(chan struct{}), ssrcs: make(map[uint32]*sealed)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.pipe = newPipe(c)
	c.local = newCredential(c, 0)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errors.New("make connection: engine is closed")
	}
	e.conns[c] = struct{}{}
	e.ufrags[c.local.ufrag] = c.local
	select {
	case e.inUse <- struct{}{}:
	default: // the beat knows
	}
	return c, nil
}

// newCredential draws 48 and 144 bits; RFC 8445 section 5.3 wants 24 and 128. Both
// consist of ice-chars, as base64 does.
func newCredential(c *Conn, era uint32) credential {
	var b [24]byte
	rand.Read(b[:])
	return credential{
		conn: c, era: era,
		ufrag: base64.RawStdEncoding.EncodeToString(b[:6]),
		pwd:   base64.RawStdEncoding.EncodeToString(b[6:]),
	}
}

// Local is what the client has to be told.
func (c *Conn) Local() Local {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Local{Ufrag: c.local.ufrag, Pwd: c.local.pwd, Candidates: *c.engine.candidates.Load()}
}

// Restart begins an ICE restart, ours or the client's: new credentials are valid,
// the old ones stay so until the first check with the new.
func (c *Conn) Restart() Local {
	c.mu.Lock()
	if !c.closed {
		c.outgoing = append(c.outgoing, c.local)
		if len(c.outgoing) > maxOutgoing {
			c.engine.revoke(c.outgoing[:1])
			c.outgoing = slices.Delete(c.outgoing, 0, 1)
		}
		c.local = newCredential(c, c.local.era+1)
		c.engine.grant(c.local)
	}
	c.mu.Unlock()
	return c.Local()
}

// maxOutgoing bounds the restarts of which the client has seen none.
const maxOutgoing = 4

func (e *Engine) grant(cred credential) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ufrags[cred.ufrag] = cred
}

func (e *Engine) revoke(creds []credential) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, cred := range creds {
		delete(e.ufrags, cred.ufrag)
	}
}

// SetRemote gives the client's description. The first one starts the handshake, as
// server unless the client is passive; later ones may change nothing but the ICE
// credentials.
func (c *Conn) SetRemote(r Remote) error {
	if err := checkRemote(r); err != nil {
		return err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed
	}
	if c.remote != nil {
		defer c.mu.Unlock()
		if !sameFingerprints(c.remote.Fingerprints, r.Fingerprints) {
			return errors.New("set remote: the certificate cannot change")
		}
		if c.remote.SCTPPort == 0 && r.SCTPPort != 0 {
			c.remote.SCTPPort = r.SCTPPort
			c.channels.want()
		}
		return nil
	}
	r.Fingerprints = slices.Clone(r.Fingerprints)
	c.remote = &r
	if r.SCTPPort != 0 {
		c.channels.want()
	}
	c.facts.started = c.engine.now()
	c.untold = append(c.untold, Connecting)
	c.running.Go(func() { c.run(r) })
	c.mu.Unlock()
	return nil
}

// proved is called for each check that was made with the password. It returns nil
// if another connection lives on that way.
func (c *Conn) proved(key tableKey, nominate bool, cred credential, now time.Time) *path {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	p := c.pathOf(key)
	if p == nil {
		if p = c.engine.claim(c, key, now); p == nil {
			return nil
		}
		c.addPath(p)
	}
	p.era, p.checked = cred.era, now.UnixNano()
	c.hear(p, now)
	if cred.era == c.local.era && len(c.outgoing) > 0 {
		c.engine.revoke(c.outgoing)
		c.outgoing = nil
	}
	c.choose(p, nominate)
	return p
}

func (c *Conn) pathOf(key tableKey) *path {
	for _, p := range c.paths {
		if p.key() == key && p.conn.Load() == c {
			return p
		}
	}
	return nil
}

// addPath makes room by giving up the path that was not checked for longest.
func (c *Conn) addPath(p *path) {
	c.paths = append(c.paths, p)
	if len(c.paths) <= maxPaths {
		return
	}
	selected := c.selected.Load()
	oldest := -1
	for i, q := range c.paths[:len(c.paths)-1] {
		if q != selected && (oldest < 0 || q.checked < c.paths[oldest].checked) {
			oldest = i
		}
	}
	c.engine.forget(c.paths[oldest])
	c.paths = slices.Delete(c.paths, oldest, oldest+1)
}

// choose sends on p from now on if the client nominates it, or if it is the first.
// The last nomination counts: the client controls (RFC 8445 section 8.1.1 leaves
// aggressive nomination behind). Paths from before a restart end with it.
func (c *Conn) choose(p *path, nominate bool) {
	old := c.selected.Load()
	if old == p || (old != nil && (!nominate || p.era < old.era)) {
		return
	}
	c.selected.Store(p)
	if old == nil {
		close(c.reachable)
		return
	}
	c.paths = slices.DeleteFunc(c.paths, func(q *path) bool {
		if q.era >= p.era {
			return false
		}
		c.engine.forget(q)
		return true
	})
}

// prune gives up paths that the client has left. mu is held.
func (c *Conn) prune(now time.Time) {
	selected, since := c.selected.Load(), now.Add(-pathLife).UnixNano()
	c.paths = slices.DeleteFunc(c.paths, func(p *path) bool {
		if p == selected || p.heard.Load() > since {
			return false
		}
		c.engine.forget(p)
		return true
	})
}

// hear notes that something authenticated came.
func (c *Conn) hear(p *path, now time.Time) {
	at := now.UnixNano()
	p.heard.Store(at)
	c.heard.Store(at)
}

// way is where to send, or nil.
func (c *Conn) way() *path {
	p := c.selected.Load()
	if p == nil || p.conn.Load() != c {
		return nil
	}
	return p
}

// run does the handshake and then serves what DTLS carries until it ends.
func (c *Conn) run(r Remote) {
	c.tell() // here, since SetRemote's caller may hold what State wants
	select {
	case <-c.reachable:
	case <-c.ctx.Done():
		return
	}
	conn, err := c.shake(r)
	if err != nil {
		c.learn(func(f *facts) { f.broken = true })
		return
	}
	c.learn(func(f *facts) { f.secured = true })
	c.carry(conn)
	c.learn(func(f *facts) { f.goodbye = true })
}

// learn changes the facts, and the state with them.
func (c *Conn) learn(change func(*facts)) {
	c.mu.Lock()
	change(&c.facts)
	c.mu.Unlock()
	c.tick(c.engine.now())
}

// tick looks what the passing of time has made of the connection.
func (c *Conn) tick(now time.Time) {
	c.mu.Lock()
	if c.remote == nil || c.closed {
		c.mu.Unlock()
		return
	}
	c.prune(now)
	c.facts.heard = time.Unix(0, c.heard.Load())
	if next := c.state.next(c.facts, now); next != c.state {
		c.state = next
		c.untold = append(c.untold, next)
	}
	c.mu.Unlock()
	c.tell()
}

// tell passes states on in order, one at a time; who comes second leaves it to the
// first. No lock but the gate is held.
func (c *Conn) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.telling {
		return
	}
	c.telling = true
	for len(c.untold) > 0 {
		s := c.untold[0]
		c.untold = c.untold[1:]
		c.mu.Unlock()
		c.pass(func() { c.handler.State(s) })
		c.mu.Lock()
	}
	c.telling = false
}

// pass lets an event through until Close.
func (c *Conn) pass(event func()) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	if !c.shut {
		event()
	}
}

func (c *Conn) deliverRTP(w *Worker, pkt []byte, at time.Time) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	if !c.shut {
		c.handler.RTP(w, pkt, at)
	}
}

func (c *Conn) deliverRTCP(w *Worker, pkt []byte, at time.Time) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	if !c.shut {
		c.handler.RTCP(w, pkt, at)
	}
}

func (c *Conn) drained(w *Worker) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	if !c.shut {
		c.handler.Drained(w)
	}
}

// Depart answers every check from now on with an error: the client's connection goes
// on at another node, and a browser otherwise prefers the paths that it has for as long
// as somebody answers on them.
func (c *Conn) Depart() { c.departed.Store(true) }

// Close ends the connection, and says so to the client. When it returns, no event
// comes any more. It must not be called from an event, nor under a lock that one
// of the Handler's methods takes.
func (c *Conn) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.running.Wait()
		return
	}
	c.closed = true
	c.mu.Unlock()
	c.gate.Lock() // waits for the events under way
	c.shut = true
	c.gate.Unlock()
	c.cancel()
	c.running.Wait()
	_ = c.pipe.Close()
	c.unregister()
}

// unregister takes the connection from the tables; packets for it are strangers'.
func (c *Conn) unregister() {
	c.engine.revoke(append(c.outgoing, c.local))
	for _, p := range c.paths {
		c.engine.forget(p)
	}
	c.selected.Store(nil)
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	delete(c.engine.conns, c)
}
