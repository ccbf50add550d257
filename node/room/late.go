package room

import (
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// What a client says reliably just before it goes to another node may come to the node
// before when that one has released it already, and what that one has sent on may come to
// others when they know the client elsewhere. None of it is lost:
//
//	client ──► node before (A) ══ data ══► this node (B) ──► the room
//	                 └═ data, sent before that ═► another node (C)
//
// A hands what it hears to B, B takes it as if the client had said it there, and C puts
// it where it belongs in the order of the publisher; numbers tell what is there already.
const (
	// lateLife is for how long data comes from the node before: its session with the client
	// lives for ghostLife at most, and the rest is for links that are dialled again.
	lateLife = ghostLife + 5*time.Second
	// answerWithin is how long after its offer came a client that is taken over gets its
	// answer. livekit-client takes its connection, which is that with the node before still,
	// for the new one two seconds after it has offered: it sends what it has kept back, and
	// Chromium closes a data channel that is in use when the keys change. So one that this
	// node would answer later resumes once more.
	answerWithin = 1500 * time.Millisecond
	// answerAnyway is from when on everybody is answered: the session at the node before
	// ends soon.
	answerAnyway = ghostLife / 2
)

// passOn hands what a released participant has said to the node that serves them.
func (r *Room) passOn(p *Participant, b []byte) {
	for _, g := range r.ghosts {
		if g.p == p {
			if err := r.sendTo(g.to, KindData, encode(Data{Reliable: true, Packet: b})); err != nil {
				r.log.Warn("reliable data of a participant who is served by another node now is lost", "participant", p.sid, "node", g.to, "error", err)
			}
			return
		}
	}
}

// doLate takes reliable data from the node that served its publisher before. It reports
// whether it is that.
func (r *Room) doLate(from residency.NodeName, d Data, pkt *livekit.DataPacket) bool {
	if !d.Reliable || pkt.Sequence == 0 || !ofOne(pkt) {
		return false
	}
	now := r.deps.Now()
	if p := r.locals[pkt.ParticipantIdentity]; p != nil && p.sid == pkt.ParticipantSid {
		if !p.origin.late(from, now) {
			return false
		}
		p.post(func() { p.doData(true, d.Packet) })
		return true
	}
	for _, g := range r.ghosts {
		if g.p.sid == pkt.ParticipantSid && g.p.identity == pkt.ParticipantIdentity && g.p.origin.late(from, now) {
			r.passOn(g.p, d.Packet)
			return true
		}
	}
	at, p := r.elsewhere(pkt.ParticipantSid)
	if p == nil || p.info.Identity != pkt.ParticipantIdentity || !p.origin.late(from, now) {
		return false
	}
	r.follow(at, pkt.ParticipantSid, p.order.Take(message(pkt, d.Packet), d.Prev, now))
	return true
}

// origin is where a participant comes from whom another node has taken over.
type origin struct {
	node residency.NodeName
	left time.Time
	// lives says that the node has prepared this one: its session with the client stands.
	lives bool
}

func (o origin) late(from residency.NodeName, now time.Time) bool {
	return o.node == from && now.Sub(o.left) < lateLife
}

// answersLate reports whether a client that is taken over would get its answer too late.
func (p *Participant) answersLate() bool {
	if !p.origin.lives || !p.moving || p.answered || p.attached == nil {
		return false
	}
	now, offered := p.room.deps.Now(), time.Unix(0, p.attached.offered.Load())
	return now.Sub(offered) > answerWithin && now.Sub(p.origin.left) < answerAnyway
}
