package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Policies receives what peers say of their policies. Neither message carries
// anything of a room, so neither has a permit; nothing else can be said in them.
type Policies interface {
	// Statement is what the peers are told of this node, at the start of a link and
	// after each call of State.
	Statement() wire.Stated
	// Stated takes what a peer says of itself, in order with its messages. It
	// returns soon.
	Stated(l *Link, s wire.Stated)
	// Offered takes a signed bundle, at most one at a time from a peer. An error
	// goes back as its text.
	Offered(ctx context.Context, l *Link, o wire.Offer) error
}

// State has the peers told anew which policies this node has. It never waits; what
// leaves is what is true when it leaves.
func (f *Fabric) State() {
	for _, l := range f.Links() {
		l.state()
	}
}

func (l *Link) state() {
	if l.cfg.Policies == nil {
		return
	}
	select {
	case l.stating <- struct{}{}:
	default:
	}
}

// Offer sends the peer a signed bundle and waits until it has judged it. An error
// of the peer is a *RemoteError.
func (l *Link) Offer(ctx context.Context, o wire.Offer) error {
	if err := o.Check(); err != nil {
		return fmt.Errorf("relay: offer policies to node %q: %w", l.peer.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.RequestTimeout)
	defer cancel()
	s, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return l.requestError(ctx, err)
	}
	defer s.CancelRead(wire.StreamDone)
	stop := context.AfterFunc(ctx, func() {
		s.CancelWrite(wire.StreamDone)
		s.CancelRead(wire.StreamDone)
	})
	defer stop()
	s.SetPriority(urgencyRequest, true)
	reply, err := l.exchange(s, wire.AppendOffer(nil, o), func() {})
	if err != nil {
		return l.requestError(ctx, err)
	}
	if reply.Failed {
		return &RemoteError{Peer: l.peer.Name, Text: string(reply.Body)}
	}
	return nil
}

var errOffers = errors.New("another offer of this node is being judged")

// serveOffer judges a peer's bundle, whose payload has n bytes; an error ends the
// link. A second one at the same time is not even read: they are large.
func (l *Link) serveOffer(s *quic.Stream, n int) error {
	if !l.offers.TryLock() {
		l.reply(s, wire.Response{Failed: true, Body: []byte(errOffers.Error())})
		return nil
	}
	defer l.offers.Unlock()
	payload, err := readPayload(s, wire.TypeOffer, n)
	var o wire.Offer
	if err == nil {
		if o, err = wire.ParseOffer(payload); err != nil {
			err = protocolError(err)
		}
	}
	var v *violation
	switch {
	case errors.As(err, &v):
		s.CancelWrite(wire.StreamRefused)
		return err
	case err != nil: // the peer gave up, or was too slow
		s.CancelWrite(wire.StreamDone)
		return nil
	}
	l.reply(s, l.judge(o))
	return nil
}

func (l *Link) judge(o wire.Offer) wire.Response {
	if l.cfg.Policies == nil {
		return wire.Response{Failed: true, Body: []byte("policies are not taken over links here")}
	}
	if err := l.cfg.Policies.Offered(l.ctx, l, o); err != nil {
		return wire.Response{Failed: true, Body: []byte(err.Error())}
	}
	return wire.Response{}
}

// reply answers and ends a stream.
func (l *Link) reply(s *quic.Stream, r wire.Response) {
	s.SetWriteDeadline(time.Now().Add(l.cfg.RequestTimeout))
	if _, err := s.Write(wire.AppendResponse(nil, r)); err != nil {
		s.CancelWrite(wire.StreamDone)
		return
	}
	s.Close()
}

// standing says whether a track may send.
type standing uint8

const (
	sends standing = iota
	waits          // the epoch is another: nothing leaves until Renew brings a permit of it
	over           // revoked
)

// renewWait is how long a track whose permit is of another epoch keeps its place,
// and its queue, for Renew. Within it the nodes of a mesh have followed each other
// to a new epoch (see residency/bundles), or they do not agree.
const renewWait = 300 * time.Millisecond

// standing judges at now. A permit that ended revokes the track, and so does an
// epoch of which no permit comes in time.
func (t *Track) standing(now time.Time) standing {
	if t.revoked.Load() != nil {
		return over
	}
	p := t.grant.Load()
	if !now.Before(p.Until()) {
		t.Revoke("the permit ended at " + p.Until().UTC().Format(time.RFC3339))
		return over
	}
	e, since := t.l.cfg.Epoch(), t.held.Load()
	switch {
	case e == p.Verdict().Epoch:
		if since != 0 {
			t.held.Store(0)
		}
		return sends
	case since == 0:
		t.held.CompareAndSwap(0, now.UnixNano())
		return waits
	case now.UnixNano()-since < int64(renewWait):
		return waits
	}
	t.Revoke(fmt.Sprintf("policy epoch is %d, the permit's %d", e, p.Verdict().Epoch))
	return over
}

// Renew has the track send by another permit for the same class of the same room:
// when the policies changed and still allow it, or a certificate was renewed. What
// was queued meanwhile leaves. An error leaves the track as it is.
func (t *Track) Renew(p residency.Permit) error {
	old := t.grant.Load()
	if err := t.l.admit(p); err != nil {
		return err
	}
	if p.Room() != old.Room() || p.Class() != old.Class() {
		return fmt.Errorf("relay: renew a track to node %q: the permit is for something else", t.l.peer.Name)
	}
	if why := t.Revoked(); why != "" {
		return fmt.Errorf("relay: renew a track to node %q: it is revoked: %s", t.l.peer.Name, why)
	}
	if err := t.recount(p); err != nil {
		return err
	}
	t.grant.Store(&p)
	t.held.Store(0)
	for i := range t.lanes {
		if ln := t.lanes[i].Load(); ln != nil {
			ln.wakeUp()
		}
	}
	t.wakeUp()
	return nil
}
