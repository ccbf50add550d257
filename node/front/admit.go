package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// ALPN protocol identifiers.
const (
	alpnHTTP2 = "h2"
	alpnHTTP1 = "http/1.1"
	alpnTURN  = "stun.turn" // RFC 7443
)

// acceptLoop accepts until the listener is closed. Errors of a single accept
// (descriptors used up, a peer gone again) are waited out.
func (f *Front) acceptLoop(ctx context.Context) error {
	var admitting sync.WaitGroup
	defer admitting.Wait()
	for pause := time.Duration(0); ; {
		conn, err := f.listener.Accept()
		if err == nil {
			pause = 0
			f.admit(conn, admitting.Go)
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

// admit takes a connection in, or closes it when too many are half-open.
func (f *Front) admit(conn net.Conn, spawn func(func())) {
	f.counts.accepted.Add(1)
	release, ok := f.pending.enter(conn.RemoteAddr())
	if !ok {
		f.counts.refused.Add(1)
		conn.Close()
		return
	}
	tracked, ok := f.conns.add(conn)
	if !ok { // shutting down
		release()
		return
	}
	spawn(func() { f.serve(tracked, release) })
}

// serve classifies a connection inside its budget and hands it over. release
// ends its time as a half-open connection.
func (f *Front) serve(conn net.Conn, release func()) {
	deadline := time.Now().Add(f.cfg.Budget)
	conn.SetDeadline(deadline)
	to, err := f.route(conn, deadline)
	release()
	if err != nil {
		f.counts.failed.Add(1)
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	to()
}

// route decides who gets the connection. What it returns runs outside of the
// budget and owns the connection.
func (f *Front) route(conn net.Conn, deadline time.Time) (func(), error) {
	peeked, k, err := peek(conn)
	if err != nil {
		return nil, err
	}
	switch k {
	case kindTLS:
		return f.routeTLS(peeked, deadline)
	case kindHTTP:
		f.counts.plainHTTP.Add(1)
		refusePlainHTTP(peeked)
		return nil, errPlainHTTP
	}
	return f.routeMedia(peeked, k)
}

// routeTLS shakes hands and goes by ALPN. No ALPN means nothing by itself
// (Chromium sends none for turns:, nor do curl -0 and many crawlers), so there
// the decrypted bytes decide.
func (f *Front) routeTLS(conn net.Conn, deadline time.Time) (func(), error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	tc := tls.Server(conn, f.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	switch tc.ConnectionState().NegotiatedProtocol {
	case alpnHTTP2, alpnHTTP1:
		return f.toHTTP(tc), nil
	case alpnTURN:
		return f.routeMedia(tc, kindTURN)
	}
	peeked, k, err := peek(tc)
	if err != nil {
		return nil, err
	}
	if k == kindHTTP {
		return f.toHTTP(&decryptedConn{peekedConn: peeked, state: tc.ConnectionState()}), nil
	}
	return f.routeMedia(peeked, k)
}

func (f *Front) toHTTP(conn net.Conn) func() {
	f.counts.http.Add(1)
	return func() { f.admitted.offer(conn) }
}

func (f *Front) routeMedia(conn net.Conn, k kind) (func(), error) {
	handler, count := f.cfg.TURN, &f.counts.turn
	switch k {
	case kindTURN:
	case kindICE:
		handler, count = f.cfg.ICE, &f.counts.ice
	default:
		return nil, errUnknown
	}
	if handler == nil {
		return nil, fmt.Errorf("%s is not served here", k)
	}
	count.Add(1)
	return func() {
		defer conn.Close()
		handler(conn)
	}, nil
}

var (
	errUnknown   = errors.New("first bytes: none of our protocols")
	errPlainHTTP = errors.New("HTTP without TLS on the TLS port")
)

// peek reads until the protocol is known and returns a connection that still
// has the bytes.
func peek(conn net.Conn) (*peekedConn, kind, error) {
	p := &peekedConn{Conn: conn}
	for {
		k, more := classify(p.head)
		if !more {
			return p, k, nil
		}
		n, err := conn.Read(p.room[len(p.head):])
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

// refusePlainHTTP tells a client that forgot the s, then reads on a little: a
// close with unread bytes would reset the connection before the answer arrived.
func refusePlainHTTP(conn net.Conn) {
	const body = "This port speaks HTTPS. Write https:// instead of http://.\n"
	_, err := fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	if err != nil {
		return
	}
	conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	io.CopyN(io.Discard, conn, 16<<10)
}
