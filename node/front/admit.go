package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/domicile/domicile/node/front/admission"
	"github.com/domicile/domicile/node/stream"
)

// ALPN protocol identifiers.
const (
	alpnHTTP2 = "h2"
	alpnHTTP1 = "http/1.1"
	alpnTURN  = "stun.turn"  // RFC 7443
	alpnACME  = "acme-tls/1" // RFC 8737
)

// acceptLoop accepts until the listener is closed. Errors of a single accept
// (descriptors used up, a peer gone again) are waited out.
func (f *Front) acceptLoop(ctx context.Context, l net.Listener, route router) error {
	var admitting sync.WaitGroup
	defer admitting.Wait()
	for pause := time.Duration(0); ; {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			f.admit(c, route, admitting.Go)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if pause == 0 {
			f.cfg.Log.Warn("accept failed, waiting", "error", err)
		}
		pause = nextPause(pause)
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// nextPause doubles the wait after a failed accept from 5 ms up to 1 s.
func nextPause(last time.Duration) time.Duration {
	return min(max(2*last, 5*time.Millisecond), time.Second)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// admit takes a connection in, or closes it when a bound is reached.
func (f *Front) admit(c net.Conn, route router, spawn func(func())) {
	f.counts.accepted.Add(1)
	ticket, verdict := f.enter(c)
	if verdict != admission.Admitted {
		f.refuse(c, verdict)
		return
	}
	if tracked, ok := f.conns.add(c, ticket); ok { // else shutting down
		spawn(func() {
			// What serves the connection has a goroutine of its own: a handshake needs a
			// stack of 16 KB and more, which an idle attendee would keep for hours.
			if to := f.serve(tracked, route); to != nil {
				spawn(to)
			}
		})
	}
}

func (f *Front) enter(c net.Conn) (*admission.Ticket, admission.Verdict) {
	if f.trusted(c) {
		return f.ledger.EnterUnnamed()
	}
	return f.ledger.Enter(admission.Source(addrOf(c.RemoteAddr())), f.cfg.Now())
}

// refuse resets a connection: it costs no further packet and leaves no state.
func (f *Front) refuse(c net.Conn, v admission.Verdict) {
	f.counts.refused[v].Add(1)
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// router decides who gets a connection. What it returns runs outside of the
// budget and owns the connection; nil closes it.
type router func(c *conn, budget context.Context) (func(), outcome)

// serve lets a connection be routed inside its budget, and returns what serves it
// from then on, nil if nobody does.
func (f *Front) serve(c *conn, route router) func() {
	deadline := time.Now().Add(f.cfg.Budget)
	budget, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	c.SetDeadline(deadline)
	if f.trusted(c.Conn) {
		if !f.named(c) {
			c.Close()
			return nil
		}
	}
	to, what := route(c, budget)
	f.counts.outcomes[what].Add(1)
	if to == nil {
		c.Close()
		return nil
	}
	c.SetDeadline(time.Time{})
	return to
}

// route is the router of the TLS port.
func (f *Front) route(c *conn, budget context.Context) (func(), outcome) {
	peeked, k, err := peek(c)
	if err != nil {
		return nil, unheard(err)
	}
	switch k {
	case kindTLS:
		return f.routeTLS(c, peeked, budget)
	case kindHTTP:
		return f.routePlain(peeked)
	}
	return f.routeMedia(c, peeked, k)
}

// routeTLS shakes hands and goes by ALPN. No ALPN means nothing by itself
// (Chromium sends none for turns:, nor do curl -0 and many crawlers), so there
// the decrypted bytes decide.
func (f *Front) routeTLS(c *conn, peeked *peekedConn, budget context.Context) (func(), outcome) {
	below := &handshaking{peekedConn: peeked, ctx: budget, gate: f.turnstile}
	tc := tls.Server(below, f.tls)
	err := tc.HandshakeContext(budget)
	below.finish()
	if err != nil {
		if late(err) {
			return nil, failSilent
		}
		return nil, failShake
	}
	switch tc.ConnectionState().NegotiatedProtocol {
	case alpnHTTP2, alpnHTTP1:
		return f.toHTTP(c, tc), toHTTP
	case alpnACME:
		return func() { tc.Close() }, toChallenge
	case alpnTURN:
		return f.routeMedia(c, tc, kindTURN)
	}
	inner, k, err := peek(tc)
	if err != nil {
		return nil, unheard(err)
	}
	if k == kindHTTP {
		return f.toHTTP(c, &decryptedConn{peekedConn: inner, state: tc.ConnectionState()}), toHTTP
	}
	return f.routeMedia(c, inner, k)
}

// toHTTP passes a connection to the HTTP server.
func (f *Front) toHTTP(c *conn, layer net.Conn) func() {
	return func() {
		c.ticket.Settle()
		f.admitted.offer(layer)
	}
}

// routePlain passes HTTP in clear to those who redirect. It stays counted as
// half-open until it ends, which is soon.
func (f *Front) routePlain(c net.Conn) (func(), outcome) {
	return func() { f.strayed.offer(c) }, toRedirect
}

func (f *Front) routeMedia(c *conn, layer net.Conn, k kind) (func(), outcome) {
	handler, what := f.cfg.TURN, toTURN
	switch k {
	case kindTURN:
	case kindICE:
		handler, what = f.cfg.ICE, toICE
	default:
		return nil, failBytes
	}
	if handler == nil {
		return nil, failUnserved
	}
	return func() {
		defer layer.Close()
		c.ticket.Settle()
		handler(stream.Over(layer, c.base))
	}, what
}

// unheard is the outcome of a connection that did not say what it wants.
func unheard(err error) outcome {
	if late(err) {
		return failSilent
	}
	return failGone
}

func late(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// peek reads until the protocol is known and returns a connection that still
// has the bytes.
func peek(c net.Conn) (*peekedConn, kind, error) {
	p := &peekedConn{Conn: c}
	for {
		k, more := classify(p.head)
		if !more {
			return p, k, nil
		}
		n, err := c.Read(p.room[len(p.head):])
		p.head = p.room[:len(p.head)+n]
		if err != nil && n == 0 {
			return nil, kindUnknown, fmt.Errorf("peek: %w", err)
		}
	}
}

// peekedConn gives back the peeked bytes before it reads on.
type peekedConn struct {
	net.Conn
	room [peekMax]byte
	head []byte // the part of room that was not given back yet
}

func (p *peekedConn) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.head)
	p.head = p.head[n:]
	return n, nil
}
