package relay_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// post is a node: a fabric, and somebody who uses it as rooms do, or worse.
type post struct {
	w         *wires
	node      *relaytest.Node
	skew      time.Duration
	lazy      bool // asks nothing again when the policies change
	forgetful bool // does not even have the links look
	confused  bool // goes on by permits for something else
	flooding  bool // sends much when the policies change
	rules     atomic.Pointer[rules]

	// Guarded by w.mu.
	self    residency.Node
	reigns  []reign
	view    map[residency.NodeName]view
	tracks  []*line
	ears    []*ear
	drawer  []grant                // permits of before
	legal   time.Time              // when it last had no link with a node that is revoked
	refused map[*relay.Link]uint64 // owned by looks
}

// rules are the policies in force.
type rules struct {
	bundle *residency.Bundle
	gate   *residency.Gate
}

// view is what a node knows of another.
type view struct {
	epoch         residency.Epoch
	outside       bool
	contradiction string
	unprovable    string
}

// line is a track on its way out.
type line struct {
	*ticket
	*relay.Track
	link *relay.Link
	ts   uint32
}

func (p *post) clockAt(t time.Time) time.Time {
	return residencytest.Noon.Add(t.Sub(p.w.begun) + p.skew)
}
func (p *post) clock() time.Time { return p.clockAt(time.Now()) }

// certificate is the node as its present certificate states it.
func (p *post) certificate() residency.Node {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.self
}

func (p *post) configure(c *relay.Config) {
	c.Self, c.Handler, c.Now, c.Identity = p.self, p, p.clock, p
	c.Epoch = func() residency.Epoch { return p.rules.Load().bundle.Epoch }
	c.PeerNode = func(s tls.ConnectionState) (residency.Node, error) {
		n, err := relaytest.PeerNode(s)
		if err != nil {
			return n, err
		}
		return p.w.post(n.Name).certificate(), nil
	}
}

// Prove, Proven and Admit implement relay.Identity: a proof is the binding and the
// serial number of what is proven.
func (p *post) Prove(binding []byte) ([]byte, error) {
	return append(bytes.Clone(binding), p.certificate().Serial...), nil
}

func (p *post) Proven(known residency.Node, binding, proof []byte) (residency.Node, error) {
	n := p.w.post(known.Name).certificate()
	if !bytes.HasPrefix(proof, binding) {
		return residency.Node{}, errors.New("it was made for another link")
	}
	return n, nil
}

func (p *post) Admit(peer residency.Node) error {
	if p.revokes(peer) {
		return fmt.Errorf("the certificate of %s is revoked", peer.Name)
	}
	return nil
}

func (p *post) revokes(n residency.Node) bool {
	return slices.ContainsFunc(p.rules.Load().bundle.Revoked, func(s string) bool { return strings.EqualFold(s, n.Serial) })
}

// LinkUp, LinkDown, Message and Request implement relay.Handler.
func (p *post) LinkUp(*relay.Link) {}

func (p *post) LinkDown(_ *relay.Link, err error) {
	p.w.tells("%s: %v", p.self.Name, err)
	if strings.Contains(err.Error(), "is revoked") {
		p.w.counts("links ended by a revocation")
	}
	p.w.counts("links lost")
}

func (p *post) Message(l *relay.Link, _ relay.Kind, room string, class residency.Class, body []byte) {
	p.w.judges(p, l.Peer().Name, "messages", room, class, body, p.w.patience(len(body)))
}

// Request answers what the asker has planned, and it may take its time.
func (p *post) Request(ctx context.Context, l *relay.Link, kind relay.Kind, room string, class residency.Class, body []byte) ([]byte, residency.Permit, error) {
	p.w.judges(p, l.Peer().Name, "requests", room, class, body, patience)
	asker := p.w.post(l.Peer().Name)
	h := p.w.hall(room)
	if kind&planWrongRoom != 0 {
		h = p.w.halls[0]
	}
	g := p.grant(asker, l, h, class)
	select {
	case <-time.After(time.Duration(kind>>4) * time.Millisecond):
	case <-ctx.Done():
		return nil, residency.Permit{}, ctx.Err()
	}
	if kind&planAskLate != 0 {
		g = p.grant(asker, l, h, class)
	}
	tk := &ticket{by: p, peer: asker, hall: room, class: class, grants: []grant{g}}
	return p.w.body(tk, int(binary.BigEndian.Uint16(body[8:]))), g.Permit, nil
}

// What the kind of a request asks its answer to do; the rest of it is how many
// milliseconds to wait.
const (
	planAskLate   relay.Kind = 1 << iota // ask the gate right before answering
	planWrongRoom                        // by a permit for a room that may be another
)

func (w *wires) hall(name string) hall {
	if w.halls[0].name == name {
		return w.halls[0]
	}
	return w.halls[1]
}

// body makes a payload of a message: its number, how large an answer to it may be,
// and nothing.
func (w *wires) body(tk *ticket, size int) []byte {
	b := make([]byte, max(size, 10))
	binary.BigEndian.PutUint64(b, w.offer(tk))
	return b
}

// grant asks the gate, by what this node knows now.
func (p *post) grant(o *post, l *relay.Link, h hall, class residency.Class) grant {
	v := p.sees(o)
	ask := residency.Request{Room: h.name, Tenant: h.tenant, Policy: h.policy, Class: class, Peer: l.Peer(), PeerEpoch: v.epoch,
		OutsideParticipant: v.outside, Contradiction: v.contradiction, NoEvidence: v.unprovable, Now: p.clock()}
	permit, _ := p.rules.Load().gate.Permit(ask)
	return grant{permit, ask, time.Now()}
}

func (p *post) sees(o *post) view {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.view[o.self.Name]
}

// floods has messages wait at the moment at which the policies change.
func (p *post) floods() {
	for _, l := range p.node.Fabric.Links() {
		o := p.w.post(l.Peer().Name)
		g := p.grant(o, l, p.w.halls[0], residency.ClassChat)
		tk := &ticket{by: p, peer: o, hall: g.ask.Room, class: g.ask.Class, grants: []grant{g}}
		p.w.work.Go(func() {
			for i := range 16 {
				size := 60_000
				if i >= 8 {
					size = 200
				}
				if l.Send(g.Permit, 1, p.w.body(tk, size)) != nil {
					return
				}
			}
		})
	}
}

// adopts puts newer policies in force.
func (p *post) adopts(b *residency.Bundle, reviewed time.Duration) {
	if p.flooding {
		p.floods()
		time.Sleep(p.w.delay)
	}
	p.w.mu.Lock()
	if b.Epoch <= p.rules.Load().bundle.Epoch {
		p.w.mu.Unlock()
		return
	}
	p.reigns = append(p.reigns, reign{time.Now(), b})
	p.rules.Store(&rules{b, residency.NewGate(b)})
	p.view[p.self.Name] = view{epoch: b.Epoch}
	p.w.mu.Unlock()
	p.w.tells("%s adopts epoch %d", p.self.Name, b.Epoch)
	p.w.counts("policies changed")
	if !p.forgetful {
		p.node.Fabric.Recheck()
	}
	switch {
	case p.confused:
		p.w.later(reviewed, p.mixesUp)
	case !p.lazy:
		p.w.later(reviewed, p.reviews)
	}
}

// mixesUp has what flows go on by new permits for another node, then for another
// room, and offers more. None of it may pass.
func (p *post) mixesUp() {
	p.w.mu.Lock()
	tracks, ears := slices.Clone(p.tracks), slices.Clone(p.ears)
	p.w.mu.Unlock()
	for _, t := range tracks {
		p.w.work.Go(func() {
			for _, g := range p.others(t.ticket, t.link) {
				p.w.uses(t.ticket, g, "tracks renewed", "wrong permits refused", func() error { return t.Renew(g.Permit) })
				t.Offer(0, true, packet(p.w.offer(t.ticket), 1, true, 100))
			}
		})
	}
	for _, e := range ears {
		for _, g := range p.others(e.ticket, e.link) {
			p.w.uses(e.ticket, g, "bindings renewed", "wrong permits refused", func() error { return e.link.Rebind(g.Permit, e.alias) })
		}
	}
}

// others are permits for anything but what the ticket is for.
func (p *post) others(tk *ticket, l *relay.Link) (list []grant) {
	for _, o := range p.w.posts {
		if l := p.node.Fabric.Link(o.self.Name); l != nil && o != tk.peer {
			list = append(list, p.grant(o, l, p.w.hall(tk.hall), tk.class))
		}
	}
	for _, h := range p.w.halls {
		if h.name != tk.hall {
			list = append(list, p.grant(tk.peer, l, h, tk.class))
		}
	}
	return list
}

func (p *post) learns(o *post, e residency.Epoch) {
	p.w.mu.Lock()
	v := p.view[o.self.Name]
	v.epoch = max(v.epoch, e)
	p.view[o.self.Name] = v
	p.w.mu.Unlock()
	if !p.lazy {
		p.reviews()
	}
}

// learnsOf changes what this node believes of another.
func (p *post) learnsOf(o *post) {
	p.w.mu.Lock()
	v := p.view[o.self.Name]
	switch p.w.IntN(3) {
	case 0:
		v.outside = !v.outside
	case 1:
		v.contradiction = residencytest.Pick(p.w.Rand, "", "8 ms to a node 3,000 km away")
	default:
		v.unprovable = residencytest.Pick(p.w.Rand, "", "the disk is full")
	}
	p.view[o.self.Name] = v
	p.w.mu.Unlock()
	if !p.lazy {
		p.reviews()
	}
}

// reviews asks the gate again about all that flows: it goes on by a new permit, or ends.
func (p *post) reviews() {
	p.w.mu.Lock()
	tracks, ears := slices.Clone(p.tracks), slices.Clone(p.ears)
	p.w.mu.Unlock()
	for _, t := range tracks {
		p.w.work.Go(func() { p.renewsTrack(t, p.grant(t.peer, t.link, p.w.hall(t.hall), t.class)) })
	}
	for _, e := range ears {
		p.renewsEar(e, p.grant(e.peer, e.link, p.w.hall(e.hall), e.class))
	}
}

func (p *post) renewsTrack(t *line, g grant) {
	if !g.Verdict().Allow {
		p.w.ended(t.ticket)
		t.Revoke("the policies do not allow it")
		return
	}
	p.w.uses(t.ticket, g, "tracks renewed", "tracks refused a renewal", func() error { return t.Renew(g.Permit) })
}

func (p *post) renewsEar(e *ear, g grant) {
	if !g.Verdict().Allow {
		e.link.Unbind(e.alias)
		p.w.ended(e.ticket)
		return
	}
	p.w.uses(e.ticket, g, "bindings renewed", "bindings refused a renewal", func() error { return e.link.Rebind(g.Permit, e.alias) })
}

// uses lets a ticket count on a permit from now on, unless the link refuses it.
func (w *wires) uses(tk *ticket, g grant, done, refused string, do func() error) {
	g.since = time.Now()
	w.mu.Lock()
	tk.grants = append(tk.grants, g)
	w.mu.Unlock()
	err := do()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.seen[done]++
		if !tk.fits(g) {
			w.notes("%s: %s in %s for %s goes on by a permit for %s in %s for %s", tk.by.self.Name, tk.class, tk.hall, tk.peer.self.Name, g.Class(), g.Room(), g.Peer())
		}
		return
	}
	w.seen[refused]++
	if i := slices.IndexFunc(tk.grants, func(o grant) bool { return o.Permit == g.Permit && o.since.Equal(g.since) }); i >= 0 {
		tk.grants = slices.Delete(tk.grants, i, i+1)
	}
}

func (w *wires) ended(tk *ticket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if tk.ended.IsZero() {
		tk.ended = time.Now()
	}
}

// opens opens a track to another node, which listens if its own gate lets it.
func (p *post) opens(o *post) {
	l, back := p.node.Fabric.Link(o.self.Name), o.node.Fabric.Link(p.self.Name)
	if l == nil || back == nil {
		return
	}
	h, class := residencytest.Pick(p.w.Rand, p.w.halls...), residencytest.Pick(p.w.Rand, residency.ClassMedia, residency.ClassMedia, residency.ClassSignalling)
	g, heard := p.grant(o, l, h, class), o.grant(p, back, h, class)
	video, wait := p.w.In(2), p.w.Between(0, 300*time.Millisecond)
	p.w.work.Go(func() {
		t := p.opensBy(o, l, h, class, g, video)
		if t == nil {
			return
		}
		time.Sleep(wait)
		o.listens(p, back, t.Alias(), h, class, heard)
	})
}

func (p *post) opensBy(o *post, l *relay.Link, h hall, class residency.Class, g grant, video bool) *line {
	t := &line{ticket: &ticket{by: p, peer: o, hall: h.name, class: class, grants: []grant{g}}, link: l}
	var err error
	if t.Track, err = l.OpenTrack(g.Permit, video); err != nil {
		return nil
	}
	p.w.tells("%s opens track %d to %s", p.self.Name, t.Alias(), o.self.Name)
	p.w.mu.Lock()
	p.tracks, p.drawer = append(p.tracks, t), append(p.drawer, g)
	p.w.mu.Unlock()
	return t
}

func (p *post) listens(o *post, l *relay.Link, alias uint32, h hall, class residency.Class, g grant) {
	e := &ear{ticket: &ticket{by: p, peer: o, hall: h.name, class: class, grants: []grant{g}}, link: l, alias: alias}
	if l.Bind(g.Permit, alias, e) != nil {
		return
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.ears = append(p.ears, e)
}

// plays offers a burst of packets on one of the tracks.
func (p *post) plays() {
	p.w.mu.Lock()
	tracks := slices.Clone(p.tracks)
	p.w.mu.Unlock()
	if len(tracks) == 0 {
		return
	}
	t := residencytest.Pick(p.w.Rand, tracks...)
	for range 1 + p.w.IntN(3) {
		t.ts += 3000
		n := 1 + p.w.IntN(12)
		for i := range n {
			t.Offer(0, i == n-1, packet(p.w.offer(t.ticket), t.ts, i == n-1, 20+p.w.IntN(1100)))
		}
	}
}

var spoken = []residency.Class{residency.ClassChat, residency.ClassSignalling, residency.ClassMetadata}

func (w *wires) size() int { return residencytest.Pick(w.Rand, 10, 200, 5_000, 60_000) }

// sends sends a message; it may wait.
func (p *post) sends(o *post) {
	l := p.node.Fabric.Link(o.self.Name)
	if l == nil {
		return
	}
	h, class := residencytest.Pick(p.w.Rand, p.w.halls...), residencytest.Pick(p.w.Rand, spoken...)
	g := p.grant(o, l, h, class)
	tk := &ticket{by: p, peer: o, hall: h.name, class: class, grants: []grant{g}}
	for range 1 + p.w.IntN(4) {
		size := p.w.size()
		p.w.work.Go(func() { l.Send(g.Permit, 1, p.w.body(tk, size)) }) //nolint:errcheck // what does not leave is no leak
	}
	p.keeps(g)
}

// asks sends a request and judges the answer.
func (p *post) asks(o *post) {
	l := p.node.Fabric.Link(o.self.Name)
	if l == nil {
		return
	}
	h, class := residencytest.Pick(p.w.Rand, p.w.halls...), residencytest.Pick(p.w.Rand, spoken...)
	g := p.grant(o, l, h, class)
	tk := &ticket{by: p, peer: o, hall: h.name, class: class, grants: []grant{g}}
	plan := relay.Kind(p.w.IntN(800)<<4) | residencytest.Pick(p.w.Rand, 0, planAskLate, planWrongRoom)
	size, answer := p.w.size(), p.w.size()
	p.w.work.Go(func() {
		body := p.w.body(tk, size)
		binary.BigEndian.PutUint16(body[8:], uint16(min(answer, 60_000)))
		got, err := l.Request(context.Background(), g.Permit, plan, body)
		if err == nil {
			p.w.judges(p, l.Peer().Name, "answers", h.name, class, got, patience)
		}
	})
	p.keeps(g)
}

// keeps puts a permit into the drawer.
func (p *post) keeps(g grant) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.drawer = append(p.drawer, g)
}

// misuses takes a permit out of the drawer for something: it may be for another
// node, room or class, of an epoch before, or have ended. What passes all the same
// is judged when it arrives.
func (p *post) misuses(o *post) {
	p.w.mu.Lock()
	drawer, tracks, ears := slices.Clone(p.drawer), slices.Clone(p.tracks), slices.Clone(p.ears)
	p.w.mu.Unlock()
	l := p.node.Fabric.Link(o.self.Name)
	if l == nil {
		return
	}
	g := grant{since: time.Now()}
	if len(drawer) > 0 {
		g = residencytest.Pick(p.w.Rand, drawer...)
	}
	h, class, size := p.w.hall(g.ask.Room), g.ask.Class, p.w.size()
	g.since = time.Now()
	switch n := p.w.IntN(5); {
	case n == 0 && len(tracks) > 0:
		t := residencytest.Pick(p.w.Rand, tracks...)
		p.w.work.Go(func() {
			p.w.uses(t.ticket, g, "tracks renewed", "wrong permits refused", func() error { return t.Renew(g.Permit) })
		})
		p.w.later(p.w.Between(0, 100*time.Millisecond), func() { t.Offer(0, true, packet(p.w.offer(t.ticket), 7, true, 100)) })
	case n == 1 && len(ears) > 0:
		e := residencytest.Pick(p.w.Rand, ears...)
		p.w.uses(e.ticket, g, "bindings renewed", "wrong permits refused", func() error { return e.link.Rebind(g.Permit, e.alias) })
	case n == 2:
		p.w.work.Go(func() {
			if t := p.opensBy(o, l, h, class, g, size > 200); t == nil {
				p.w.counts("wrong permits refused")
			}
		})
	case n == 3 && len(ears) > 0:
		e := residencytest.Pick(p.w.Rand, ears...)
		p.listens(e.peer, e.link, e.alias, p.w.hall(e.hall), e.class, g)
	default:
		tk := &ticket{by: p, peer: o, hall: h.name, class: class, grants: []grant{g}}
		p.w.work.Go(func() {
			if l.Send(g.Permit, 1, p.w.body(tk, size)) != nil {
				p.w.counts("wrong permits refused")
			}
		})
	}
}

// tires ends a track in one way or another.
func (p *post) tires() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if len(p.tracks) == 0 {
		return
	}
	i := p.w.IntN(len(p.tracks))
	t := p.tracks[i]
	p.tracks = slices.Delete(p.tracks, i, i+1)
	if p.w.In(2) {
		t.Close()
		return
	}
	t.ended = time.Now()
	t.Revoke("somebody wants it so")
}

// renews gives the node another certificate, which it proves on its links.
func (p *post) renews() {
	p.w.mu.Lock()
	now := p.clock()
	p.self.NotBefore, p.self.NotAfter = now.Add(-time.Hour), now.Add(p.w.Between(5*time.Second, time.Hour))
	p.w.last++
	p.self.Serial = fmt.Sprintf("fe%02x", p.w.last)
	p.w.mu.Unlock()
	p.node.Fabric.Renewed()
	p.w.counts("certificates renewed")
	for _, o := range p.w.posts {
		if o != p && !o.lazy {
			p.w.later(p.w.Between(0, time.Second), o.reviews)
		}
	}
}

// looks finds links that ought to have ended, and counts what ended by itself.
func (p *post) looks() {
	now, bundle := p.clock(), p.rules.Load().bundle
	links := p.node.Fabric.Links()
	outlawed := false
	for _, l := range links {
		peer := l.Peer()
		if now.After(peer.NotAfter.Add(time.Second)) {
			p.w.fails("%s has a link with %s, whose certificate ended %s ago", p.self.Name, peer.Name, now.Sub(peer.NotAfter))
		}
		outlawed = outlawed || p.revokes(peer)
		if s := l.Stats(); s.Carriage == "udp" && s.TxPackets > 0 {
			p.w.counts("looks at links that carry media over UDP")
		}
		if n := l.Stats().Drops["refused"]; n > p.refused[l] {
			p.refused[l] = n
			p.w.counts("messages refused in the queue, or taken back")
		}
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	since := p.reigns[len(p.reigns)-1].since
	if outlawed && time.Since(since) > time.Second && p.legal.Before(since) {
		p.w.notes("%s has a link with a node that epoch %d has revoked for %s", p.self.Name, bundle.Epoch, time.Since(since))
	}
	if !outlawed {
		p.legal = time.Now()
	}
	for i, t := range p.tracks {
		if why := t.Revoked(); why != "" && t.ended.IsZero() {
			p.tracks[i].ended = time.Now()
			p.w.seen["tracks that ended by themselves"]++
		}
	}
	for _, e := range p.ears {
		if e.ended.IsZero() && !e.silent && !e.link.Bound(e.alias) {
			e.silent = true
			p.w.seen["bindings that ended by themselves"]++
		}
	}
}
