// Package front is the node's one door: a TCP port, 443 in production, on which
// HTTPS, WebSocket, TURN and ICE-TCP arrive side by side, and the HTTP/3 of the
// UDP port. It decides from the first bytes and from ALPN who gets a connection,
// terminates TLS, and hands the connection over, all within a budget of time and
// of connections, in all and for each source.
//
// It knows nothing of rooms, tokens or policies, and it never guesses: bytes
// that are none of its protocols are closed without an answer.
package front

import (
	"cmp"
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

	"github.com/domicile/domicile/node/front/admission"
	"github.com/domicile/domicile/node/stream"
)

// DefaultLimits fit a node of some thousand attendees. Everybody who sits behind
// TURN over TLS has up to four connections (page, signalling, two allocations), an
// office or a school has one address, and comes on the hour: 512 at once is a class
// of 128 in the same second. A half-open connection costs about 40 KiB.
var DefaultLimits = admission.Limits{
	Open: 16384, OpenPerSource: 2048,
	Pending: 4096, PendingPerSource: 256,
	Rate: 50, Burst: 512,
}

// Config says where the front listens and who gets the connections.
type Config struct {
	// Listen is the TCP address of the TLS port. The zero value opens none, for
	// a node that only serves Plain.
	Listen netip.AddrPort

	// Certificate returns the certificate for a handshake, and must not wait for
	// it; certs.Keeper.Get is one. Required with Listen.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// HTTP answers HTTP/1.1 and HTTP/2 requests, WebSocket upgrades included.
	// The context of its requests ends when the front shuts down. Required.
	HTTP http.Handler

	// TURN takes over TURN connections, over TLS and in clear, and returns when
	// it is done with one; the front closes the connection then. What was peeked
	// is read again first. Nil closes them at once.
	TURN func(*stream.Conn)

	// ICE takes over ICE-TCP connections (RFC 6544) in the same way.
	ICE func(*stream.Conn)

	// QUIC carries HTTP/3, with the same handler and certificate. It must not
	// block, and Run closes it. Nil: none.
	QUIC net.PacketConn

	// AltSvc tells browsers over TCP that HTTP/3 is served on this UDP port of the
	// same host. Zero: they are not told.
	AltSvc uint16

	// Plain is a loopback address on which the HTTP handler is also served
	// without TLS. The zero value opens none.
	Plain netip.AddrPort

	// Redirect is an address, port 80 in production, on which HTTP in clear is
	// told to use HTTPS, as it is on the TLS port. The zero value opens none.
	Redirect netip.AddrPort

	// Names are the hosts that Redirect sends people to: what attendees call this
	// node, and its public addresses. The address that a connection came to is
	// always one of them.
	Names []string

	// PublicPort is the port of https:// as attendees see it. Default 443.
	PublicPort uint16

	// Challenge stands in front of Redirect's handler and answers what an ACME
	// server asks (HTTP-01, RFC 8555 section 8.3). May be nil.
	Challenge func(http.Handler) http.Handler

	// Proxies are load balancers of ours. Each connection from them begins with a
	// PROXY protocol header of version 2 that names the client; from anybody else
	// such a header is garbage.
	Proxies []netip.Prefix

	// Bind opens a listener; name is one of "https", "http" and "http_redirect".
	// Default: net.Listen.
	Bind func(name string, addr netip.AddrPort) (net.Listener, error)

	// Budget is the time from accept until a connection is classified and its
	// TLS handshake is done. Default 7 s: a phone on a bad link needs two or
	// three round trips of a second, a half-open connection should not live
	// longer than that.
	Budget time.Duration

	// Limits bound the TCP connections; fields that are zero have the values of
	// DefaultLimits. Connections beyond are closed.
	Limits admission.Limits

	// Grace is how long Run waits for HTTP requests under way when it is told to
	// stop. Default 3 s.
	Grace time.Duration

	// Now is the clock of the limits on who comes in. Default time.Now.
	Now func() time.Time

	// Log gets state changes, never addresses of participants. Default discards.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Budget == 0 {
		c.Budget = 7 * time.Second
	}
	if c.PublicPort == 0 {
		c.PublicPort = 443
	}
	if c.Bind == nil {
		c.Bind = func(_ string, addr netip.AddrPort) (net.Listener, error) { return net.Listen("tcp", addr.String()) }
	}
	c.Limits = cmp.Or(c.Limits, DefaultLimits)
	if c.Grace == 0 {
		c.Grace = 3 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
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
	if c.QUIC != nil && c.Certificate == nil {
		fail("HTTP/3: no certificate")
	}
	if c.Budget < 0 || c.Grace < 0 {
		fail("budget %s, grace %s: want none below zero", c.Budget, c.Grace)
	}
	return errors.Join(errs...)
}

// Front owns the listeners. New binds them, Run serves them.
type Front struct {
	// Static after construction.
	cfg       Config
	tls       *tls.Config
	ports     []*port // those of TCP that are configured
	https     *http.Server
	http      *http.Server // serves Plain
	redirects *http.Server // serves Redirect, and HTTP in clear on the TLS port
	admitted  *handover    // connections on their way from the front to https
	strayed   *handover    // and to redirects
	quic      *quicDoor    // nil without QUIC
	ledger    *admission.Ledger
	turnstile turnstile
	handlers  *handlerGroup
	conns     *connSet
	counts    counters
}

// port is a TCP port with its listener.
type port struct {
	name string
	addr netip.AddrPort
	net.Listener
}

// New checks the configuration and binds the addresses.
func New(cfg Config) (*Front, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("front: %w", err)
	}
	f := build(cfg)
	if err := f.bind(); err != nil {
		f.Close()
		return nil, fmt.Errorf("front: %w", err)
	}
	return f, nil
}

// build makes a front without listeners.
func build(cfg Config) *Front {
	cfg = cfg.withDefaults()
	f := &Front{
		cfg:       cfg,
		admitted:  newHandover(cfg.Listen),
		strayed:   newHandover(cfg.Listen),
		ledger:    admission.NewLedger(cfg.Limits),
		turnstile: newTurnstile(),
		handlers:  newHandlerGroup(),
		conns:     newConnSet(),
	}
	f.tls = &tls.Config{
		GetCertificate: cfg.Certificate,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{alpnHTTP2, alpnHTTP1, alpnTURN, alpnACME},
		// Go cuts the first MB into records of one segment each, for pages. For media
		// a record is what is written at once.
		DynamicRecordSizingDisabled: true,
	}
	f.tls.GetConfigForClient = forMedia(f.tls)
	f.https = f.server()
	f.http = f.server()
	f.redirects = f.redirectServer()
	if cfg.QUIC != nil {
		f.quic = newQUICDoor(f)
	}
	return f
}

// The names of the ports, for Bind.
const (
	portTLS      = "https"
	portPlain    = "http"
	portRedirect = "http_redirect"
)

func (f *Front) bind() error {
	for _, p := range []port{{name: portTLS, addr: f.cfg.Listen}, {name: portPlain, addr: f.cfg.Plain}, {name: portRedirect, addr: f.cfg.Redirect}} {
		if !p.addr.IsValid() {
			continue
		}
		l, err := f.cfg.Bind(p.name, p.addr)
		if err != nil {
			return fmt.Errorf("listen %s: %w", p.name, err)
		}
		p.Listener = l
		f.ports = append(f.ports, &p)
	}
	return nil
}

// Addr is the bound address of the TLS port, zero without one.
func (f *Front) Addr() netip.AddrPort { return f.bound(portTLS) }

// PlainAddr is the bound address of the plain port, zero without one.
func (f *Front) PlainAddr() netip.AddrPort { return f.bound(portPlain) }

// RedirectAddr is the bound address of the port that redirects, zero without one.
func (f *Front) RedirectAddr() netip.AddrPort { return f.bound(portRedirect) }

func (f *Front) bound(name string) netip.AddrPort {
	for _, p := range f.ports {
		if p.name == name {
			return p.Addr().(*net.TCPAddr).AddrPort()
		}
	}
	return netip.AddrPort{}
}

// Close releases the listeners of a front whose Run was never called.
func (f *Front) Close() error {
	var errs []error
	for _, p := range f.ports {
		if err := p.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if f.quic != nil {
		errs = append(errs, f.cfg.QUIC.Close())
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends or a listener fails. When it returns every
// connection is closed and every handler has returned. It may be called once.
func (f *Front) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	base := func(net.Listener) context.Context { return ctx }
	var running sync.WaitGroup
	start := func(name string, serve func() error) {
		running.Go(func() {
			if err := serve(); err != nil && ctx.Err() == nil {
				stop(fmt.Errorf("front: %s: %w", name, err))
			}
		})
	}
	for _, s := range f.servers() {
		s.BaseContext = base
	}
	start("https", func() error { return f.https.Serve(f.admitted) })
	start("redirects", func() error { return f.redirects.Serve(f.strayed) })
	if f.quic != nil {
		start("HTTP/3", f.quic.run)
	}
	for _, p := range f.ports {
		start(p.name, func() error { return f.servePort(ctx, p) })
		f.cfg.Log.Info("front open", "port", p.name, "address", p.Addr().String())
	}
	<-ctx.Done()
	f.shutdown()
	running.Wait()
	f.cfg.Log.Info("front closed")
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

func (f *Front) servePort(ctx context.Context, p *port) error {
	switch p.name {
	case portTLS:
		return f.acceptLoop(ctx, p, f.route)
	case portRedirect:
		return f.acceptLoop(ctx, p, f.routeRedirect)
	default:
		return f.http.Serve(&plainListener{p, f})
	}
}

func (f *Front) servers() []*http.Server { return []*http.Server{f.https, f.http, f.redirects} }

// shutdown stops accepting, lets requests under way finish within the grace,
// and then closes what is left: hijacked connections (WebSocket), TURN, ICE.
func (f *Front) shutdown() {
	for _, p := range f.ports {
		p.Close() //nolint:errcheck // nothing is lost with a listener
	}
	grace, cancel := context.WithTimeout(context.Background(), f.cfg.Grace)
	defer cancel()
	var servers sync.WaitGroup
	for _, s := range f.servers() {
		servers.Go(func() {
			if s.Shutdown(grace) != nil {
				s.Close()
			}
		})
	}
	if f.quic != nil {
		servers.Go(func() { f.quic.shutdown(grace) })
	}
	servers.Wait()
	f.conns.closeAll()
	f.handlers.wait()
}
