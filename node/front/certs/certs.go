// Package certs keeps the one certificate that attendees see: for HTTPS, for
// TURN over TLS and for HTTP/3. It comes from two PEM files, which are read
// again when they change, or from an authority by ACME (RFC 8555), and then it
// is renewed in time. The package says when the certificate ends, what went
// wrong with it, and what an operator can do about it.
//
// It never makes a handshake wait: what handshakes get is in memory, and a
// certificate that cannot be had leaves the last one in use, or one of its own
// making when there is none. It listens nowhere; whoever does passes handshakes
// (Get) and the requests of port 80 (HTTP) on.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// At is where the node's TCP ports are bound. The authority comes to ports 80
// and 443 of the public address; what it reaches there is one of these.
type At struct {
	Plain netip.AddrPort // plain HTTP, whose handler Keeper.HTTP wraps; zero without one: no HTTP-01
	TLS   netip.AddrPort // TLS with Keeper.Get; zero without one: no TLS-ALPN-01
}

// source is where certificates come from.
type source interface {
	// authority is whom it asks; empty for files.
	authority() string

	// look does what is due, puts a better certificate into the keeper, and
	// returns how long nothing will be due.
	look(ctx context.Context, at At) time.Duration
}

// Keeper keeps the certificate. Get, HTTP and State may be called at any time,
// from anywhere.
type Keeper struct {
	// Static after construction.
	names  []string
	source source
	now    func() time.Time
	after  func(time.Duration) <-chan time.Time
	log    *slog.Logger

	current atomic.Pointer[held] // put by the source, read by handshakes

	warned warned // owned by Run

	mu       sync.Mutex // guards what follows
	problem  string
	next     time.Time
	renewals uint64
	failures map[Reason]uint64
}

// held is a certificate in use.
type held struct {
	pair     *tls.Certificate // with its leaf
	selfMade bool             // nobody believes it
}

func (h *held) leaf() *x509.Certificate { return h.pair.Leaf }

// State is what an operator wants to know of the certificate.
type State struct {
	Authority string            `json:"authority,omitempty"` // host of the directory of ACME; empty with files
	Names     []string          `json:"names"`
	NotBefore time.Time         `json:"not_before"`
	NotAfter  time.Time         `json:"not_after"`
	SelfMade  bool              `json:"self_made"`          // made by the node itself for want of one: browsers refuse it
	Problem   string            `json:"problem,omitempty"`  // why it could not be read or renewed last time, and what helps
	NextTry   time.Time         `json:"next_try,omitzero"`  // ACME: when the authority is asked next
	Renewals  uint64            `json:"renewals"`           // certificates taken over since the start
	Failures  map[Reason]uint64 `json:"failures,omitempty"` // attempts that failed since the start
}

// State returns the state at this moment.
func (k *Keeper) State() State {
	h := k.current.Load()
	k.mu.Lock()
	defer k.mu.Unlock()
	return State{Authority: k.source.authority(), Names: slices.Clone(k.names),
		NotBefore: h.leaf().NotBefore.UTC(), NotAfter: h.leaf().NotAfter.UTC(), SelfMade: h.selfMade,
		Problem: k.problem, NextTry: k.next, Renewals: k.renewals, Failures: maps.Clone(k.failures)}
}

// Get returns the certificate for a handshake; it is a tls.Config's
// GetCertificate, over TCP and QUIC. It reads memory alone.
func (k *Keeper) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if isChallenge(hello) {
		return answerTLSALPN(hello.ServerName)
	}
	return k.current.Load().pair, nil
}

// HTTP wraps the handler of port 80: it answers the authority's questions about
// challenges under way (HTTP-01, RFC 8555 section 8.3) and leaves everything
// else to next.
func (k *Keeper) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answerHTTP(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// Run keeps the certificate up to date until ctx ends. It may be called once,
// when the ports of at are bound.
func (k *Keeper) Run(ctx context.Context, at At) error {
	for ctx.Err() == nil {
		wait := k.source.look(ctx, at)
		k.warn()
		select {
		case <-ctx.Done():
		case <-k.after(min(wait, warnEvery)):
		}
	}
	return nil
}

// warnEvery is how often the end of the certificate is looked at, at least: the
// finest of the warnings is a day before it.
const warnEvery = time.Hour

// warn logs that the certificate ends soon, once for each of the thresholds.
func (k *Keeper) warn() {
	h := k.current.Load()
	level, due := k.warned.due(h, k.now())
	switch {
	case !due:
	case h.selfMade:
		k.log.Error("browsers refuse this node: it has no certificate that they believe and shows one of its own making",
			"names", k.names, "hint", "media over UDP and TCP goes on; see what is said about the certificate before this line")
	case level == expired:
		k.log.Error("the certificate has ended, browsers refuse it", "names", k.names, "not_after", h.leaf().NotAfter.UTC())
	default:
		k.log.Warn("the certificate ends soon", "names", k.names, "not_after", h.leaf().NotAfter.UTC(), "days", int(level))
	}
}

// use puts a certificate in use, for all handshakes from now on.
func (k *Keeper) use(pair *tls.Certificate, selfMade bool) {
	k.current.Store(&held{pair: pair, selfMade: selfMade})
}

// renewed puts a new certificate in use and forgets what was wrong before.
func (k *Keeper) renewed(pair *tls.Certificate) {
	k.use(pair, false)
	k.mu.Lock()
	k.renewals++
	k.problem = ""
	k.mu.Unlock()
	k.log.Info("new certificate in use", "names", k.names, "not_after", pair.Leaf.NotAfter.UTC())
}

// failed counts an attempt that failed and keeps why.
func (k *Keeper) failed(f failure) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failures[f.reason]++
	k.problem = f.String()
}

// settled says that nothing is wrong any more.
func (k *Keeper) settled() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problem = ""
}

func (k *Keeper) willTry(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = at.UTC()
}

// Clock is the time that a keeper lives in; the zero value is the real one.
type Clock struct {
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

func newKeeper(names []string, clock Clock, log *slog.Logger) *Keeper {
	if clock.Now == nil {
		clock.Now = time.Now
	}
	if clock.After == nil {
		clock.After = time.After
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{names: names, now: clock.Now, after: clock.After, log: log, failures: map[Reason]uint64{}}
}
