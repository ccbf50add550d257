// Package probe looks at a node from outside, from the place of an attendee, and
// says which of its ways in work from there, how long each takes, and what to do
// about those that do not.
//
// It tests each way by itself, as far as a meeting would use it: names, TCP, TLS,
// HTTP and WebSocket, then a real WebRTC data channel over exactly one of direct
// UDP, TURN over UDP, ICE over TCP and TURN over TLS (POST /api/reach, package
// reach). It needs no token, joins no room, and changes nothing on the node.
package probe

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Config says what to look at, and how.
type Config struct {
	Host  string         // a name or an address
	Port  uint16         // of HTTPS, 443 in production
	Roots *x509.CertPool // nil: those that this machine trusts
	// Proxy is the HTTP proxy that this machine's browsers use, nil for none. With
	// one, only what goes through it counts; the rest is tested and shown.
	Proxy *url.URL
	// Timeout bounds each way. Default 5 s.
	Timeout time.Duration
	// RedirectPort is where plain HTTP should redirect. Default 80.
	RedirectPort uint16
	// Progress is told each result as it comes, one at a time; may be nil.
	Progress func(Result)
	// Resolve finds addresses. nil: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	Now     func() time.Time // nil: time.Now
}

const defaultTimeout = 5 * time.Second

func (c Config) withDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.RedirectPort == 0 {
		c.RedirectPort = 80
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return c
}

// prober is one run.
type prober struct {
	cfg Config // static

	mu      sync.Mutex // guards what follows; held while progress is told
	node    *About
	h3      bool   // the node says that it has HTTP/3
	noTests string // why the node gives no test sessions
	results []Result
}

// Run tests everything. It takes about twice Config.Timeout where something does
// not answer.
func Run(ctx context.Context, cfg Config) Report {
	p := &prober{cfg: cfg.withDefaults()}
	lanes := p.lanes(ctx)
	each(lanes, func(l *lane) { p.web(ctx, l) })
	each(lanes, func(l *lane) { p.media(ctx, l, p.door(l, lanes)) })
	r := Report{Host: p.cfg.Host, Port: p.cfg.Port, Node: p.node, Results: p.sorted()}
	r.judge()
	return r
}

func each[T any](list []T, f func(T)) {
	var wg sync.WaitGroup
	for _, x := range list {
		wg.Go(func() { f(x) })
	}
	wg.Wait()
}

// lanes finds out how the node can be reached at all.
func (p *prober) lanes(ctx context.Context) (lanes []*lane) {
	began := time.Now()
	list, err := p.resolve(ctx, p.cfg.Host)
	took := time.Since(began)
	_, literal := netip.ParseAddr(p.cfg.Host)
	for _, over := range []Over{IPv4, IPv6} {
		i := slices.IndexFunc(list, func(a netip.Addr) bool { return familyOf(a) == over })
		if i >= 0 {
			lanes = append(lanes, p.addressLane(over, list[i].Unmap()))
		}
		if literal == nil {
			continue // there is nothing to look up
		}
		r := Result{Way: DNS, Over: over, Outcome: NotOffered, Took: Millis(took)}
		switch {
		case i >= 0:
			r.Outcome, r.Detail = Works, joined(list, over)
		case err != nil:
			r.Outcome, r.Detail = outcomeOf(err)
		}
		p.tell(r)
	}
	if p.cfg.Proxy != nil {
		lanes = append(lanes, proxyLane(p.cfg.Proxy))
	}
	return lanes
}

func joined(list []netip.Addr, over Over) (s string) {
	for _, a := range list {
		if familyOf(a) != over {
			continue
		}
		if s != "" {
			s += ", "
		}
		s += a.Unmap().String()
	}
	return s
}

// resolve finds a host's addresses.
func (p *prober) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	return p.cfg.Resolve(ctx, host)
}

// test runs the test of one way and notes what came of it.
func (p *prober) test(ctx context.Context, l *lane, w Way, f func(ctx context.Context, r *Result) error) Result {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	r := Result{Way: w, Over: l.over, target: l.addr}
	began := time.Now()
	err := f(ctx, &r)
	if r.Took == 0 {
		r.Took = Millis(time.Since(began))
	}
	switch {
	case err == nil:
		r.Outcome = Works
	case r.Outcome == "":
		r.Outcome, r.Detail = outcomeOf(err)
	}
	return p.tell(r)
}

// without notes a way that could not be tested, or is not there.
func (p *prober) without(l *lane, w Way, o Outcome, why string) {
	p.tell(Result{Way: w, Over: l.over, Outcome: o, Detail: why})
}

// tell completes a result, keeps it and tells it.
func (p *prober) tell(r Result) Result {
	r.Required = p.required(r)
	if r.Cause == "" {
		r.Cause, r.Mend = explain(p.cfg.Host, p.cfg.Port, r)
	}
	r.Detail, r.Cause, r.Mend = printable(r.Detail), printable(r.Cause), printable(r.Mend)
	if r.Outcome == NotOffered || r.Outcome == Untested || r.Outcome == NoRoute {
		r.Took = 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results = append(p.results, r)
	if p.cfg.Progress != nil {
		p.cfg.Progress(r)
	}
	return r
}

// required says what counts: whatever the node offers, through the proxy alone
// where there is one, the redirect excepted.
func (p *prober) required(r Result) bool {
	if r.Way == Redirect || r.Outcome == NotOffered || r.Outcome == NoRoute {
		return false
	}
	return p.cfg.Proxy == nil || r.Over == Proxy
}

// outcome is what came of a way, "" if it was not tested.
func (p *prober) outcome(l *lane, w Way) Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.results {
		if r.Way == w && r.Over == l.over {
			return r.Outcome
		}
	}
	return ""
}

// door is a lane by which test sessions can be asked for: the lane itself if
// possible, so that a node behind a balancer is the same one.
func (p *prober) door(l *lane, lanes []*lane) *lane {
	for _, d := range append([]*lane{l}, lanes...) {
		if p.outcome(d, HTTP1) == Works {
			return d
		}
	}
	return nil
}

func (p *prober) sorted() []Result {
	slices.SortStableFunc(p.results, func(a, b Result) int {
		if a.Over != b.Over {
			return slices.Index([]Over{IPv4, IPv6, Proxy}, a.Over) - slices.Index([]Over{IPv4, IPv6, Proxy}, b.Over)
		}
		return slices.Index(order, a.Way) - slices.Index(order, b.Way)
	})
	return p.results
}
