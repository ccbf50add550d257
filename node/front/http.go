package front

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// server makes an HTTP server with the front's bounds.
func (f *Front) server() *http.Server {
	return &http.Server{
		Handler:           f.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10, // a LiveKit join request carries its token and its options in the URL
		ConnContext:       withTLSState,
		// The server's own lines carry participants' addresses; panics are
		// logged by handler below.
		ErrorLog: log.New(io.Discard, "", 0),
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

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
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
