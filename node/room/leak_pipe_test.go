package room

import (
	"errors"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

func marshal(p *livekit.DataPacket) ([]byte, error) { return proto.Marshal(p) }

// pipe is one direction of a link: it takes what relay.Link would take, and what
// is on its way when the link breaks is lost. Messages keep their order; what goes
// over other links overtakes them.
type pipe struct {
	from, to *station
	residencytest.Rand
	broken bool
	busy   time.Time // when the last message arrives
	alias  uint32
	tracks map[uint32]*lane
	bound  map[uint32]relay.MediaSink // by the aliases of the other end
}

// connect makes both directions of a link.
func (w *town) connect(a, b *station) {
	if a.pipes[b.self.Name] != nil || b.pipes[a.self.Name] != nil {
		return
	}
	for i, e := range [][2]*station{{a, b}, {b, a}} {
		w.serial++
		e[0].pipes[e[1].self.Name] = &pipe{from: e[0], to: e[1], Rand: residencytest.NewRand(w.seed, uint64(100+2*w.serial+i)),
			tracks: map[uint32]*lane{}, bound: map[uint32]relay.MediaSink{}}
		e[0].linked[e[1].self.Name] = w.now
	}
}

// breaks cuts a link for a while.
func (w *town) breaks(a, b *station) {
	ab, ba := a.pipes[b.self.Name], b.pipes[a.self.Name]
	if ab == nil || ba == nil {
		return
	}
	ab.broken, ba.broken = true, true
	delete(a.pipes, b.self.Name)
	delete(b.pipes, a.self.Name)
	w.tells("%s and %s lose their link", a.self.Name, b.self.Name)
	a.linkDown(b)
	b.linkDown(a)
	w.sends(w.Between(0, 5*time.Second), func() {
		w.tells("%s and %s link again", a.self.Name, b.self.Name)
		w.connect(a, b)
		a.linkUp(b)
		b.linkUp(a)
	})
}

// linkDown and linkUp do what Room.LinkDown and LinkUp post to its goroutine.
func (s *station) linkDown(o *station) {
	if s.room != nil {
		s.room.LinkDown(o.self.Name)
		s.posted()
	}
}

func (s *station) linkUp(o *station) {
	if s.room != nil {
		s.room.LinkUp(o.self.Name)
		s.posted()
	}
}

// posted handles what is in the room's inbox, as its goroutine does.
func (s *station) posted() {
	for s.room != nil && len(s.room.inbox) > 0 {
		(<-s.room.inbox)()
		s.ends()
	}
}

// classes of what travels, as the requirements see it: what people say to each
// other is chat, the rest of the messages is signalling.
func classOf(k relay.Kind) residency.Class {
	switch k {
	case KindData, KindDataAsk, KindDataHead:
		return "chat"
	}
	return "signalling"
}

var errRefusedByLink = errors.New("refused")

// admit is relay's last word (Link.admit).
func (p *pipe) admit(permit residency.Permit) bool {
	return permit.Allows(p.to.self.Name, p.from.bundle.Epoch, p.from.clock())
}

// Send implements Link.
func (p *pipe) Send(permit residency.Permit, kind relay.Kind, body []byte) error {
	if p.broken || !p.admit(permit) {
		return errRefusedByLink
	}
	if permit.Class() != classOf(kind) {
		p.from.fails("kind %#x goes to %s as %s", kind, p.to.self.Name, permit.Class())
	}
	p.leaves(permit, classOf(kind), kindNames[kind])
	p.from.tells("→ %s %s %.300s", p.to.self.Name, kindNames[kind], body)
	p.arrives(func() {
		p.to.tells("← %s %s", p.from.self.Name, kindNames[kind])
		p.to.takes(p.from, kind, body)
	})
	return nil
}

// leaves judges what leaves now.
func (p *pipe) leaves(permit residency.Permit, class residency.Class, what string) {
	s := p.from
	if permit.Room() != s.w.record.Name || permit.Peer() != p.to.self.Name || permit.Class() != class || permit.Stores() {
		s.fails("%s leaves for %s by a permit for something else: %+v", what, p.to.self.Name, permit)
	}
	if _, ok := s.view[p.to.self.Name]; !ok {
		s.fails("%s leaves for %s, which is no member", what, p.to.self.Name)
		return
	}
	s.w.seen[what]++
	f := s.about(s.facts(class), p.to.self.Name)
	if f.Outside {
		f.Outside = false
		if len(residencytest.Against(f)) > 0 {
			s.w.seen[what+" to an edge outside"]++
		}
		f.Outside = true
	}
	if class == "media" && s.follows(p.to) {
		f.PeerEpoch = s.bundle.Epoch
	}
	if broken := residencytest.Against(f); len(broken) > 0 {
		s.fails("%s (%s) leaves for %s: %q", what, class, p.to.self.Name, broken)
	}
}

// follows reports whether this node has known for so short a time that the other
// goes by other policies that what flows may go on: the mesh may be following.
func (s *station) follows(o *station) bool {
	return s.w.now.Sub(s.view[o.self.Name].learned) <= patienceOfEdges
}

// arrives has something land at the other end, unless the link breaks before.
func (p *pipe) arrives(lands func()) {
	w := p.from.w
	due := w.now.Add(p.Between(0, slowest))
	if due.Before(p.busy) {
		due = p.busy
	}
	p.busy = due
	w.sends(due.Sub(w.now), func() {
		if !p.broken {
			lands()
		}
	})
}

// takes hands a message to the room, as the node does.
func (s *station) takes(from *station, kind relay.Kind, body []byte) {
	if s.room == nil {
		if kind != KindHello || !s.revives(from, body) {
			return
		}
	}
	before, known := s.delivered(), s.peopleOf(from)
	s.room.doMessage(from.self.Name, kind, body)
	s.hears() // another message may say the opposite before anything else happens
	if s.peopleOf(from) > known {
		s.admitted(from, "signalling", "has people in the room")
	}
	s.believed(from, kind, before)
	s.posted()
	s.ends()
}

// revives starts the room on its home when a node of it says hello.
func (s *station) revives(from *station, body []byte) bool {
	rec, p, err := ReadHello(body)
	m, ok := s.view[from.self.Name]
	if err != nil || !ok || !p.Present() || s.home(rec) != s.self.Name {
		return false
	}
	v := s.gate.Decide(residency.Request{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Class: residency.ClassSignalling,
		Peer: m.node, PeerEpoch: m.epoch, OutsideParticipant: p.Outside && p.Participants > 0, Contradiction: m.contradiction, NoEvidence: s.unprovable, Now: s.clock()})
	if v.Allow {
		s.w.seen["room revived"]++
		s.opens(rec)
	}
	return s.room != nil
}

// delivered counts what the people here have been given.
func (s *station) delivered() (n int) {
	for _, v := range s.people {
		n += len(v.inbox)
	}
	return n
}

// peopleOf counts the people that a node has in the room as it is known here.
func (s *station) peopleOf(o *station) int {
	if m := s.room.remotes[o.self.Name]; m != nil {
		return len(m.participants)
	}
	return 0
}

// believed judges what the room has taken from a node: nothing that is said on a
// node that may not be in the room reaches anybody.
func (s *station) believed(from *station, kind relay.Kind, before int) {
	if s.room == nil || s.room.ended {
		return
	}
	if kind == KindData && s.delivered() > before {
		s.w.seen["chat heard"]++
		s.admitted(from, "chat", "is heard")
	}
}

func (s *station) admitted(from *station, class residency.Class, what string) {
	f := s.about(s.facts(class), from.self.Name)
	broken := residencytest.Against(f)
	if len(broken) == 0 {
		return
	}
	if class == "media" && s.follows(from) {
		f.PeerEpoch = s.bundle.Epoch
	}
	f.Now = f.Now.Add(-patienceOfEdges) // what has run out is noticed a little later
	if len(residencytest.Against(f)) > 0 {
		s.fails("%s %s: %q", from.self.Name, what, broken)
	}
}

// OpenTrack implements Link.
func (p *pipe) OpenTrack(permit residency.Permit, _ bool) (OutTrack, error) {
	if p.broken || !p.admit(permit) {
		return nil, errRefusedByLink
	}
	p.alias++
	l := &lane{pipe: p, permit: permit, alias: p.alias}
	p.tracks[p.alias] = l
	return l, nil
}

// Bind and Unbind implement Link.
func (p *pipe) Bind(permit residency.Permit, alias uint32, sink relay.MediaSink) error {
	if p.broken || !p.admit(permit) {
		return errRefusedByLink
	}
	p.from.admitted(p.to, "media", "is listened to")
	p.bound[alias] = sink
	return nil
}

// Rebind implements Link.
func (p *pipe) Rebind(permit residency.Permit, alias uint32) error {
	if !p.Bound(alias) {
		return errRefusedByLink
	}
	return p.Bind(permit, alias, p.bound[alias])
}

// Bound implements Link.
func (p *pipe) Bound(alias uint32) bool { return p.bound[alias] != nil }

// Unbind implements Link.
func (p *pipe) Unbind(alias uint32) { delete(p.bound, alias) }

// lane is a track on its way: it does what relay.Track does.
type lane struct {
	*pipe
	permit  residency.Permit
	alias   uint32
	revoked string
	closed  bool
	held    time.Time // since when it waits for a permit of another epoch
}

func (l *lane) Alias() uint32                   { return l.alias }
func (l *lane) Report(uint8, wire.SenderReport) {}
func (l *lane) Close()                          { l.closed = true }
func (l *lane) Revoked() string                 { return l.revoked }
func (l *lane) Held() uint8                     { return 0 }

// Renew implements OutTrack.
func (l *lane) Renew(p residency.Permit) error {
	if l.revoked != "" || l.broken || !l.admit(p) || p.Room() != l.permit.Room() || p.Class() != l.permit.Class() {
		return errRefusedByLink
	}
	l.permit, l.held = p, time.Time{}
	return nil
}

func (l *lane) Revoke(reason string) {
	if l.revoked == "" {
		l.revoked = reason
	}
}

// Offer implements OutTrack; what was queued when the track ends does not leave.
func (l *lane) Offer(uint8, bool, []byte) {
	switch {
	case l.revoked != "" || l.closed || l.broken:
		return
	case !l.admit(l.permit):
		if now := l.from.w.now; l.held.IsZero() {
			l.held = now
		} else if now.Sub(l.held) >= 300*time.Millisecond {
			l.Revoke("no other permit has come")
		}
		return
	}
	l.leaves(l.permit, "media", "media")
	l.arrives(func() {
		back := l.to.pipes[l.from.self.Name]
		if back != nil && back.bound[l.alias] != nil && l.to.room != nil {
			l.to.w.seen["media arrived"]++
			l.to.flowed[l.from.self.Name] = l.to.w.now
			l.to.admitted(l.from, "media", "is seen")
		}
	})
}

var kindNames = map[relay.Kind]string{KindHello: "hello", KindRoster: "roster", KindParticipants: "participants", KindSubscribe: "subscribe",
	KindTrackOpen: "track-open", KindTrackClosed: "track-closed", KindKeyframe: "keyframe", KindLayers: "layers", KindData: "data",
	KindSpeaking: "speaking", KindDataAsk: "data-ask", KindDataHead: "data-head", KindQuality: "quality", KindTrackVia: "track-via"}
