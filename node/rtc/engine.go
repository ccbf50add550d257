// Package rtc carries WebRTC sessions: it negotiates with a client (jsep), feeds
// the media that arrives over its connections (transport) into UpTracks, and
// sends DownTracks to it, each within what the way to the client carries (bwe,
// allocate).
//
// A session has two connections, as version 0 of LiveKit's protocol has it: the
// client offers the one that publishes, the node the one that subscribes; or a
// single one that the client offers (version 1, WHIP, WHEP).
//
// It knows no rooms, no participants and no policy, and speaks no signalling:
// descriptions come in and go out as strings.
package rtc

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/transport"
)

// Config says where an Engine takes media.
type Config struct {
	// Media are the UDP addresses to bind, at least one. Port 0 takes any.
	Media []netip.AddrPort
	// Sockets of the first of them that are bound already (transport.Config).
	Sockets []*net.UDPConn
	// PublicIPs replace the bound addresses in what clients are told, for nodes
	// behind one-to-one NAT. Empty: clients are told the bound addresses.
	PublicIPs []netip.Addr
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
}

// Engine owns the media sockets that all sessions of a node share.
type Engine struct {
	// Static after construction.
	now       func() time.Time
	log       *slog.Logger
	transport *transport.Engine
	loans     *loans

	mu       sync.Mutex // guards what follows
	sessions [tickGroups]map[*Session]struct{}
	joined   int // sessions so far

	// Owned by beat.
	turn int
	due  []*Session
}

// Every session has a tick each tickEvery: a tenth of them at a time, so that those
// of a large node do not hold up the media of others. One goroutine does it for
// all; one for each attendee would wake the process ten times a second for each.
const (
	tickEvery  = 100 * time.Millisecond
	tickGroups = int(tickEvery / transport.BeatEvery)
)

// NewEngine binds the media sockets and begins to read them.
func NewEngine(cfg Config) (*Engine, error) {
	e := &Engine{now: cfg.Now, log: cfg.Log, loans: newLoans()}
	if e.now == nil {
		e.now = time.Now
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Media) == 0 {
		return nil, errors.New("bind media: no address given")
	}
	var err error
	e.transport, err = transport.Listen(transport.Config{
		Media: cfg.Media, Sockets: cfg.Sockets, PublicIPs: cfg.PublicIPs, Workers: runtime.GOMAXPROCS(0), Beat: e.beat, Log: e.log, Now: e.now,
	})
	if err != nil {
		return nil, fmt.Errorf("bind media: %w", err)
	}
	for i := range e.sessions {
		e.sessions[i] = make(map[*Session]struct{})
	}
	return e, nil
}

// beat ticks those sessions whose turn it is.
func (e *Engine) beat() {
	e.turn = (e.turn + 1) % tickGroups
	e.due = e.group(e.due[:0], e.turn)
	if len(e.due) == 0 {
		return
	}
	out := e.lend()
	for _, s := range e.due {
		s.tick(e.now(), out)
	}
	e.back(out)
	clear(e.due)
}

func (e *Engine) group(list []*Session, turn int) []*Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.sessions[turn] {
		list = append(list, s)
	}
	return list
}

func (e *Engine) add(s *Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.turn = e.joined % tickGroups
	e.joined++
	e.sessions[s.turn][s] = struct{}{}
}

func (e *Engine) remove(s *Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions[s.turn], s)
}

// MediaAddrs returns the addresses that are bound.
func (e *Engine) MediaAddrs() []netip.AddrPort { return e.transport.MediaAddrs() }

// Transport is what carries the media: streams and tunnels are handed to it.
func (e *Engine) Transport() *transport.Engine { return e.transport }

// Out lends a goroutine that has media from elsewhere, another node for instance,
// a batch in which DownTracks put what they make of it. Return sends it.
func (e *Engine) Out() sfu.Out { return e.lend() }

// Return sends what is in a batch and takes it back.
func (e *Engine) Return(out sfu.Out) { e.back(out.(*transport.Batch)) }

func (e *Engine) lend() *transport.Batch {
	b := e.transport.Batch()
	e.loans.begin(b)
	return b
}

func (e *Engine) back(b *transport.Batch) {
	b.Flush()
	e.loans.end(b)
	e.transport.Release(b)
}

// Settle returns when nothing of a track that was muted before the call is on its
// way to a socket any more. It must not be called from an event of a session, nor
// between Out and Return.
func (e *Engine) Settle() {
	e.transport.Settle()
	e.loans.settle()
}

// Close gives the sockets up. Sessions must be closed before.
func (e *Engine) Close() error {
	return e.transport.Close()
}
