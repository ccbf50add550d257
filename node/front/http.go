package front

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/domicile/domicile/node/front/admission"
)

// server makes an HTTP server with the front's bounds.
func (f *Front) server() *http.Server {
	return &http.Server{
		Handler:           f.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withTLSState,
		HTTP2: &http.HTTP2Config{
			// A page needs a dozen. Clients that reset streams faster than their
			// handlers end are held to four times this by net/http, then closed.
			MaxConcurrentStreams: maxStreams,
			// What a connection may make us keep: bodies are small.
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     64 << 10,
			MaxDecoderHeaderTableSize:     4 << 10,
			// Who neither reads nor answers is gone.
			SendPingTimeout:  time.Minute,
			PingTimeout:      15 * time.Second,
			WriteByteTimeout: 30 * time.Second,
		},
		// The server's own lines carry participants' addresses; panics are
		// logged by handler below.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

const (
	// readTimeout bounds a request with its body, at most some 100 KiB, on a line of
	// 32 kbit/s. It does not touch WebSockets, nor do the others.
	readTimeout = 30 * time.Second
	// writeTimeout bounds an answer: the whole page on a line of 100 kbit/s.
	writeTimeout = 5 * time.Minute
	// maxHeader bounds a request's header, in bytes: a LiveKit join request carries
	// its token and its options in the URL.
	maxHeader = 64 << 10
	// maxStreams bounds the requests that are under way on one connection.
	maxStreams = 64
)

// redirectServer answers HTTP in clear, one request on each connection.
func (f *Front) redirectServer() *http.Server {
	s := &http.Server{
		Handler: f.redirector(), ReadTimeout: f.cfg.Budget, WriteTimeout: f.cfg.Budget, MaxHeaderBytes: 8 << 10,
		Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
	}
	s.Protocols.SetHTTP1(true)
	s.SetKeepAlivesEnabled(false)
	return s
}

// routeRedirect is the router of the port that redirects.
func (f *Front) routeRedirect(c *conn, _ context.Context) (func(), outcome) { return f.routePlain(c) }

// plainListener counts the connections of the plain port. A proxy on this machine
// makes them, for everybody: no source has a share of its own.
type plainListener struct {
	net.Listener
	front *Front
}

// Accept waits for a connection that the node has room for.
func (l *plainListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.front.counts.accepted.Add(1)
		ticket, verdict := l.front.ledger.EnterUnnamed()
		if verdict != admission.Admitted {
			l.front.refuse(c, verdict)
			continue
		}
		ticket.Settle()
		t, ok := l.front.conns.add(c, ticket)
		if !ok {
			return nil, net.ErrClosed
		}
		return t, nil
	}
}

// handler wraps the configured one: it counts it, so that Run can wait, tells it
// of TLS where http.Server does not see it, and logs its panics.
func (f *Front) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.handlers.enter() {
			panic(http.ErrAbortHandler) // the front has closed; so has the connection
		}
		defer f.handlers.leave()
		defer f.logPanic()
		if state, ok := r.Context().Value(tlsStateKey{}).(*tls.ConnectionState); ok && r.TLS == nil {
			r.TLS = state
		}
		if f.cfg.AltSvc != 0 && r.TLS != nil && r.ProtoMajor < 3 {
			w.Header().Set("Alt-Svc", altSvc(f.cfg.AltSvc))
		}
		f.cfg.HTTP.ServeHTTP(w, r)
	})
}

func (f *Front) logPanic() {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		f.cfg.Log.Error("HTTP handler panicked", "panic", v, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// decryptedConn is a TLS connection without ALPN of which bytes were peeked:
// http.Server does not recognise it as TLS, so it carries the state itself.
type decryptedConn struct {
	*peekedConn
	state tls.ConnectionState
}

type tlsStateKey struct{}

func withTLSState(ctx context.Context, c net.Conn) context.Context {
	d, ok := c.(*decryptedConn)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, tlsStateKey{}, &d.state)
}

// handover is the listener of the HTTPS server: its connections come from the
// front, handshake done. It holds none; offer waits for the server's accept.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover(addr netip.AddrPort) *handover {
	return &handover{addr: net.TCPAddrFromAddrPort(addr), conns: make(chan net.Conn), done: make(chan struct{})}
}

// offer passes a connection on, or closes it when the server has stopped.
func (h *handover) offer(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handover) Addr() net.Addr { return h.addr }

// handlerGroup counts running handlers. Unlike a WaitGroup it may be entered
// while somebody waits, and refuses then.
type handlerGroup struct {
	mu      sync.Mutex
	running int
	closed  bool
	idle    chan struct{} // closed when closed and running == 0
}

func newHandlerGroup() *handlerGroup { return &handlerGroup{idle: make(chan struct{})} }

func (g *handlerGroup) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.running++
	return true
}

func (g *handlerGroup) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running--; g.closed && g.running == 0 {
		close(g.idle)
	}
}

// wait closes the group and returns when nobody runs. It is called once.
func (g *handlerGroup) wait() {
	g.mu.Lock()
	g.closed = true
	if g.running == 0 {
		close(g.idle)
	}
	g.mu.Unlock()
	<-g.idle
}
