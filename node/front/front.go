// Package front is the node's one door: a TCP port, 443 in production, on which
// HTTPS, WebSocket and TURN arrive side by side. It decides from the first bytes
// and from ALPN who gets a connection, terminates TLS, and hands the connection
// over.
//
// It knows nothing of rooms, tokens or policies, and it never guesses: bytes
// that are none of its protocols are closed without an answer.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Config says where the front listens and who gets the connections.
type Config struct {
	// Listen is the TCP address of the TLS port. The zero value opens none, for
	// a node that only serves Plain.
	Listen netip.AddrPort

	// Certificate returns the certificate for a handshake; CertificateFiles.Get
	// is one. Required with Listen.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// HTTP answers HTTP/1.1 and HTTP/2 requests, WebSocket upgrades included.
	// The context of its requests ends when the front shuts down. Required.
	HTTP http.Handler

	// TURN takes over TURN connections, over TLS and in clear, and returns when
	// it is done with one; the front closes the connection then. Nil closes them
	// at once.
	TURN func(net.Conn)

	// ICE takes over ICE-TCP connections (RFC 6544) in the same way.
	ICE func(net.Conn)

	// Plain is a loopback address on which the HTTP handler is also served
	// without TLS. The zero value opens none.
	Plain netip.AddrPort

	// Budget is the time from accept until a connection is classified and its
	// TLS handshake is done. Default 7 s: a phone on a bad link needs two or
	// three round trips of a second, a half-open connection should not live
	// longer than that.
	Budget time.Duration

	// MaxPending bounds the connections inside their budget, default 4096 (about
	// 40 KiB each); MaxPendingPerAddr those of one IPv4 address or IPv6 /64,
	// default 256, so that an office behind one address can join at once.
	// Connections beyond are closed.
	MaxPending        int
	MaxPendingPerAddr int

	// Grace is how long Run waits for HTTP requests under way when it is told to
	// stop. Default 3 s.
	Grace time.Duration

	// Log gets state changes, never addresses of participants. Default discards.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Budget == 0 {
		c.Budget = 7 * time.Second
	}
	if c.MaxPending == 0 {
		c.MaxPending = 4096
	}
	if c.MaxPendingPerAddr == 0 {
		c.MaxPendingPerAddr = 256
	}
	if c.Grace == 0 {
		c.Grace = 3 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	fail := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !c.Listen.IsValid() && !c.Plain.IsValid() {
		fail("no address to listen on")
	}
	if c.Listen.IsValid() && c.Certificate == nil {
		fail("listen %q: no certificate", c.Listen)
	}
	if c.Plain.IsValid() && !c.Plain.Addr().Unmap().IsLoopback() {
		fail("plain %q: HTTP without TLS is served on a loopback address only, such as 127.0.0.1", c.Plain)
	}
	if c.HTTP == nil {
		fail("no HTTP handler")
	}
	if c.Budget < 0 || c.Grace < 0 || c.MaxPending < 0 || c.MaxPendingPerAddr < 0 {
		fail("budget %s, grace %s, max pending %d, per address %d: want none below zero",
			c.Budget, c.Grace, c.MaxPending, c.MaxPendingPerAddr)
	}
	return errors.Join(errs...)
}

// Front owns the listeners. New binds them, Run serves them.
type Front struct {
	// Static after construction.
	cfg      Config
	tls      *tls.Config
	listener net.Listener // nil without Listen
	plain    net.Listener // nil without Plain
	https    *http.Server
	http     *http.Server // serves plain
	admitted *handover    // connections on their way from the front to https
	pending  *limiter
	handlers *handlerGroup
	conns    *connSet
	counts   counters
}

// New checks the configuration and binds the addresses.
func New(cfg Config) (*Front, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("front: %w", err)
	}
	f := build(cfg)
	var err error
	if cfg.Listen.IsValid() {
		if f.listener, err = net.Listen("tcp", cfg.Listen.String()); err != nil {
			return nil, fmt.Errorf("front: listen: %w", err)
		}
	}
	if cfg.Plain.IsValid() {
		if f.plain, err = net.Listen("tcp", cfg.Plain.String()); err != nil {
			if f.listener != nil {
				f.listener.Close()
			}
			return nil, fmt.Errorf("front: listen plain: %w", err)
		}
	}
	return f, nil
}

// build makes a front without listeners.
func build(cfg Config) *Front {
	cfg = cfg.withDefaults()
	f := &Front{
		cfg:      cfg,
		admitted: newHandover(addrOf(cfg.Listen)),
		pending:  newLimiter(cfg.MaxPending, cfg.MaxPendingPerAddr),
		handlers: newHandlerGroup(),
		conns:    newConnSet(),
	}
	f.tls = &tls.Config{
		GetCertificate: cfg.Certificate,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{alpnHTTP2, alpnHTTP1, alpnTURN},
	}
	f.https = f.server()
	f.http = f.server()
	return f
}

// Addr is the bound address of the TLS port, zero without one.
func (f *Front) Addr() netip.AddrPort { return boundAddr(f.listener) }

// PlainAddr is the bound address of the plain port, zero without one.
func (f *Front) PlainAddr() netip.AddrPort { return boundAddr(f.plain) }

func boundAddr(l net.Listener) netip.AddrPort {
	if l == nil {
		return netip.AddrPort{}
	}
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func addrOf(a netip.AddrPort) net.Addr { return net.TCPAddrFromAddrPort(a) }

// Close releases the listeners of a front whose Run was never called.
func (f *Front) Close() error {
	var errs []error
	for _, l := range []net.Listener{f.listener, f.plain} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends or a listener fails. When it returns every
// connection is closed and every handler has returned. It may be called once.
func (f *Front) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	base := func(net.Listener) context.Context { return ctx }
	f.https.BaseContext, f.http.BaseContext = base, base

	var running sync.WaitGroup
	start := func(name string, serve func() error) {
		running.Go(func() {
			if err := serve(); err != nil && ctx.Err() == nil {
				stop(fmt.Errorf("front: %s: %w", name, err))
			}
		})
	}
	if f.listener != nil {
		start("accept", func() error { return f.acceptLoop(ctx) })
		start("https", func() error { return f.https.Serve(f.admitted) })
	}
	if f.plain != nil {
		start("plain http", func() error { return f.http.Serve(f.conns.listener(f.plain)) })
	}
	f.cfg.Log.Info("front open", "tls", f.Addr(), "plain", f.PlainAddr())
	<-ctx.Done()
	f.shutdown()
	running.Wait()
	f.cfg.Log.Info("front closed")
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// shutdown stops accepting, lets requests under way finish within the grace,
// and then closes what is left: hijacked connections (WebSocket), TURN, ICE.
func (f *Front) shutdown() {
	f.Close()
	grace, cancel := context.WithTimeout(context.Background(), f.cfg.Grace)
	defer cancel()
	var servers sync.WaitGroup
	for _, s := range []*http.Server{f.https, f.http} {
		servers.Go(func() {
			if s.Shutdown(grace) != nil {
				s.Close()
			}
		})
	}
	servers.Wait()
	f.conns.closeAll()
	f.handlers.wait()
}
