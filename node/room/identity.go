package room

import (
	"hash/crc32"
	"time"

	"github.com/livekit/protocol/livekit"
)

// Of two connections of one identity, on two nodes, the newer one stays. No two clocks
// agree on which that is: nodes may be ten minutes apart. So each connection has a
// number, which its own node gives it, above all that it knows; everybody goes by the
// numbers, and so decides alike.
//
// A node that does not know the older connection may give the newer one the lower
// number: it has just entered the room, or was cut off. It finds out when it hears of
// the other: records state how long ago somebody joined, which needs no common clock.
// Then it numbers its own anew; the other node, who sees the newer one from the same
// figures, does not. If they joined so close to each other that each takes the other's
// for the newer, for it was told late, nobody does, and the numbers stand.

// joined says which connection of an identity it is.
type joined struct {
	number uint64 // 0: of a node that gives none
	atMS   int64  // by its node's clock
	sid    string
}

// later reports whether a joined after b; all nodes decide alike.
func (a joined) later(b joined) bool {
	switch {
	case a.number != b.number && a.number != 0 && b.number != 0:
		return a.number > b.number
	case a.atMS != b.atMS && (a.number == 0 || b.number == 0):
		return a.atMS > b.atMS
	}
	return a.sid > b.sid
}

func joinedOf(info *livekit.ParticipantInfo, number uint64) joined {
	return joined{number: number, atMS: info.JoinedAtMs, sid: info.Sid}
}

// number gives a participant here the next number.
func (r *Room) number(p *Participant) {
	r.numbers++
	p.number = r.numbers
}

// heardNumber notes how far the numbers have come; one that lies does not bring them to
// their end.
func (r *Room) heardNumber(n uint64) {
	if n > r.numbers && n-r.numbers <= maxLeap && n < maxTerm {
		r.numbers = n
	}
}

// outnumbered reports whether somebody here has to give way to another connection of
// theirs. One that is younger than that, and had the lower number, gets a higher one.
func (r *Room) outnumbered(p *Participant, rec *ParticipantRecord, info *livekit.ParticipantInfo) bool {
	if !joinedOf(info, rec.Number).later(joinedOf(p.info, p.number)) {
		return false // its own node sends it away when it hears of ours
	}
	if rec.Number == 0 || r.age(p) >= time.Duration(rec.AgeMS)*time.Millisecond {
		return true
	}
	r.number(p)
	r.doUpdated(p)
	return false
}

// age is how long somebody here has been in the room; of somebody whom another node has
// handed over it is for ever.
func (r *Room) age(p *Participant) time.Duration {
	if p.joinedAt.IsZero() {
		return 1<<63 - 1
	}
	return r.deps.Now().Sub(p.joinedAt)
}

// digest of a sid; the sum over a node's participants says who they are, whatever their
// order.
func digest(sid string) uint32 { return crc32.ChecksumIEEE([]byte(sid)) }

// differs reports whether a node says that it serves others than are known of here.
func (m *remote) differs(p Presence) bool {
	if p.Who == 0 {
		return p.Participants == 0 && len(m.participants) > 0
	}
	who := uint32(0)
	for sid := range m.participants {
		who += digest(sid)
	}
	return who != p.Who
}

// compare asks a node for all its participants where the home's word on them, or its
// own to the home, is not what is known here: a message was lost while one of the two
// did not take the other for a member, and no link broke that would have them tell all.
func (r *Room) compare(p Presence) {
	m, now := r.remotes[p.Node], r.deps.Now()
	if m == nil || !m.differs(p) || now.Sub(m.comparedAt) < helloEvery/2 {
		return
	}
	if m.comparedAt = now; now.Sub(m.heardAt) > time.Second { // else what it has just said is newer
		r.inquire(p.Node)
	}
}
