package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/turn/v5"
)

var mediaWays = []Way{DirectUDP, TURNUDP, ICETCP, TURNTLS}

// media tests the ways on which sound and picture travel. Test sessions are
// asked for at a door, which may be another lane: where TCP is shut UDP may be
// open.
func (p *prober) media(ctx context.Context, l, door *lane) {
	p.mu.Lock()
	off := p.noTests
	p.mu.Unlock()
	ways := mediaWays
	if l.over == Proxy {
		ways = []Way{TURNTLS} // a browser takes nothing else through a proxy
	}
	switch {
	case door == nil:
		p.skip(l, "the node gives test sessions over HTTPS, which does not work", ways...)
	case off != "":
		p.skip(l, off, ways...)
	default:
		p.carryAll(ctx, l, door, ways)
	}
}

// carryAll asks for the first session by itself: it says what the node offers,
// so that none is asked for in vain.
func (p *prober) carryAll(ctx context.Context, l, door *lane, ways []Way) {
	ctx, cancel := context.WithTimeout(ctx, 2*p.cfg.Timeout)
	defer cancel()
	first, err := p.open(ctx, door)
	if err != nil {
		for _, w := range ways {
			p.test(ctx, l, w, func(context.Context, *Result) error { return err })
		}
		return
	}
	defer first.close()
	is := func(w Way) bool { return first.offered.has(w, l.over) }
	uses := slices.IndexFunc(ways, is)
	each(ways, func(w Way) {
		switch {
		case !is(w):
			p.without(l, w, NotOffered, "")
		case w == ways[uses]:
			p.carry(ctx, l, w, first)
		default:
			p.carryAnother(ctx, l, door, w)
		}
	})
}

// carryAnother tests one way in by a session of its own.
func (p *prober) carryAnother(ctx context.Context, l, door *lane, w Way) {
	d, err := p.open(ctx, door)
	if err != nil {
		p.test(ctx, l, w, func(context.Context, *Result) error { return err })
		return
	}
	defer d.close()
	p.carry(ctx, l, w, d)
}

// carry tests one way in by a data channel.
func (p *prober) carry(ctx context.Context, l *lane, w Way, d *talk) {
	p.test(ctx, l, w, func(ctx context.Context, r *Result) error {
		began := time.Now()
		c, err := p.build(ctx, l, w, d.offered)
		if err == nil {
			r.RTT, err = d.over(ctx, c)
		}
		r.Took = Millis(time.Since(began))
		p.judgeAddress(l, w, d.offered, r, err)
		return err
	})
}

// open asks for a test session.
func (p *prober) open(ctx context.Context, door *lane) (*talk, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	d, err := dialogue()
	if err != nil {
		return nil, err
	}
	if err := p.offer(ctx, door, d); err != nil {
		d.close()
		return nil, asked(err)
	}
	return d, nil
}

// asked marks an error of the request for a test session: it says nothing about
// the way.
func asked(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	return fail(Untested, "the node gave no test session: %v", err)
}

// offer asks for a test session and gives the dialogue its answer.
func (p *prober) offer(ctx context.Context, door *lane, d *talk) error {
	body, err := json.Marshal(map[string]string{"offer": d.offer})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url("https", "/api/reach"), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client(door, "http/1.1").Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return sessionRefused(resp, b)
	}
	return d.answered(b)
}

func sessionRefused(resp *http.Response, body []byte) error {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	words := resp.Status
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		words = e.Error.Message
	}
	return fail(upgradeRefused(resp.StatusCode), "%.300s", words)
}

// answered reads the answer to an offer.
func (d *talk) answered(body []byte) error {
	var a struct {
		SDP     string `json:"answer"`
		Servers []struct {
			URLs       []string `json:"urls"`
			Username   string   `json:"username"`
			Credential string   `json:"credential"`
		} `json:"ice_servers"`
	}
	if err := json.Unmarshal(body, &a); err != nil || a.SDP == "" {
		return fail(NotDomicile, "POST /api/reach: the answer cannot be read")
	}
	o := &d.offered
	d.answer = a.SDP
	o.candidates = candidatesOf(a.SDP)
	for _, s := range a.Servers {
		for _, u := range s.URLs {
			if t, ok := turnOf(u, s.Username, s.Credential); ok && len(o.turn) < maxOffered {
				o.turn = append(o.turn, t)
			}
		}
	}
	return nil
}

// build opens a way in.
func (p *prober) build(ctx context.Context, l *lane, w Way, o offered) (*carrier, error) {
	switch w {
	case DirectUDP:
		if at, ok := o.firstUDP(l.over); ok {
			return direct(at)
		}
	case TURNUDP:
		if t, ok := o.server(false); ok {
			return p.turnUDP(ctx, l, t, o)
		}
	case ICETCP:
		if at, ok := o.tcp(l.over); ok {
			return iceTCP(ctx, at)
		}
	case TURNTLS:
		if t, ok := o.server(true); ok {
			return p.turnTLS(ctx, l, t, o)
		}
	}
	return nil, fail(NotOffered, "the node does not announce it")
}

func (p *prober) turnUDP(ctx context.Context, l *lane, t turnURL, o offered) (*carrier, error) {
	node, err := o.behindTURN()
	if err != nil {
		return nil, err
	}
	at, err := p.addressOf(ctx, l, t.host)
	if err != nil {
		return nil, err
	}
	server := netip.AddrPortFrom(at, t.port)
	c, err := dialUDP(server)
	if err != nil {
		return nil, err
	}
	return relayed(ctx, newCarrier(c, server), t, node)
}

func (p *prober) turnTLS(ctx context.Context, l *lane, t turnURL, o offered) (*carrier, error) {
	node, err := o.behindTURN()
	if err != nil {
		return nil, err
	}
	raw, err := l.dial(ctx, t.host, t.port)
	if err != nil {
		return nil, err
	}
	c, err := p.secured(ctx, raw, t.host)
	if err != nil {
		raw.Close()
		return nil, err
	}
	// The address has no meaning on a stream; the client wants one all the same.
	return relayed(ctx, newCarrier(turn.NewSTUNConn(c), netip.AddrPortFrom(netip.IPv4Unspecified(), t.port)), t, node)
}

// behindTURN is what is asked for at a TURN server. Browsers ask for an IPv4
// relay unless they are told otherwise, so an IPv4 address comes first.
func (o offered) behindTURN() (netip.AddrPort, error) {
	for _, over := range []Over{IPv4, IPv6} {
		if at, ok := o.firstUDP(over); ok {
			return at, nil
		}
	}
	return netip.AddrPort{}, fail(NotOffered, "the node announces no address for media")
}

func iceTCP(ctx context.Context, at netip.AddrPort) (*carrier, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	stream := newCarrier(framed{c}, at)
	stream.mute = fail(Stuck, "TCP stands, but nothing that is not TLS gets through")
	return stream, nil
}

// judgeAddress notes where media was sent to, and whether a failure is that of
// the announced address.
func (p *prober) judgeAddress(l *lane, w Way, o offered, r *Result, err error) {
	at, ok := o.tcp(l.over)
	if w == DirectUDP {
		at, ok = o.firstUDP(l.over)
	}
	if !ok || w != DirectUDP && w != ICETCP {
		return
	}
	r.announced, r.Detail = at, "to "+at.String()
	if err == nil {
		return
	}
	r.Outcome, _ = outcomeOf(err)
	if inside(at.Addr()) && !inside(l.addr) {
		r.Outcome = Private
	}
}
