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
	"net/netip"
	"runtime"
	"time"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/transport"
)

// Config says where an Engine takes media.
type Config struct {
	// Media are the UDP addresses to bind, at least one. Port 0 takes any.
	Media []netip.AddrPort
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
}

// NewEngine binds the media sockets and begins to read them.
func NewEngine(cfg Config) (*Engine, error) {
	e := &Engine{now: cfg.Now, log: cfg.Log}
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
		Media: cfg.Media, PublicIPs: cfg.PublicIPs, Workers: runtime.GOMAXPROCS(0), Log: e.log, Now: e.now,
	})
	if err != nil {
		return nil, fmt.Errorf("bind media: %w", err)
	}
	return e, nil
}

// MediaAddrs returns the addresses that are bound.
func (e *Engine) MediaAddrs() []netip.AddrPort { return e.transport.MediaAddrs() }

// Out lends a goroutine that has media from elsewhere, another node for instance,
// a batch in which DownTracks put what they make of it. Return sends it.
func (e *Engine) Out() sfu.Out { return e.transport.Batch() }

// Return sends what is in a batch and takes it back.
func (e *Engine) Return(out sfu.Out) { e.transport.Release(out.(*transport.Batch)) }

// Close gives the sockets up. Sessions must be closed before.
func (e *Engine) Close() error { return e.transport.Close() }
