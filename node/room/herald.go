package room

import (
	"slices"
	"sort"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/signal"
)

// Everybody in a room is told of every change of everybody else: while n people
// join, that is n² messages, each with its own system call. In a large room the
// changes of a moment therefore leave together, and whoever changed twice is told
// of as they are now:
//
//	changes   anna 1   bob 1   anna 2   carl left   carl (again) 1
//	          ────────────────────────────────────────────────────► time
//	message   bob 1, anna 2, carl left, carl (again) 1
//
// A departure is never left out, and keeps its place: clients know people by their
// identity. Nobody is told what their greeting has said already.
const (
	// tellAtOnce is the number of attendees on this node up to which every change
	// leaves at once; of so few even a crowd is cheap.
	tellAtOnce = 20
	// tellEvery is how long a change may wait in a larger room: for the next tick.
	// The first after a pause of as much does not wait.
	tellEvery = tickEvery
	// maxHeld and maxHeldBytes end the wait early, so that a message stays small
	// beside what may wait for one client (signal.Options).
	maxHeld      = 512
	maxHeldBytes = 256 << 10
)

// herald holds changes of participant records until they are told. It tells
// nobody itself, and reads no clock.
type herald struct {
	atOnce int // attendees
	held   []notice
	latest map[string]int // by sid: where in held the record is that the next one replaces
	bytes  int            // of the records in held
	seq    uint64         // of the newest notice
	toldAt time.Time
}

// notice is one participant's changed record; nil if a newer one has replaced it.
type notice struct {
	seq  uint64
	info *livekit.ParticipantInfo
}

func newHerald() herald { return herald{atOnce: tellAtOnce, latest: map[string]int{}} }

// note takes a changed record. The end of a connection is not replaced by anything:
// the same participant comes back with the node that serves it.
func (h *herald) note(info *livekit.ParticipantInfo) {
	if i, ok := h.latest[info.Sid]; ok {
		h.bytes -= proto.Size(h.held[i].info)
		h.held[i].info = nil
	}
	h.seq++
	h.bytes += proto.Size(info)
	h.latest[info.Sid] = len(h.held)
	if info.State == livekit.ParticipantInfo_DISCONNECTED {
		delete(h.latest, info.Sid)
	}
	h.held = append(h.held, notice{seq: h.seq, info: info})
}

// due reports whether what is held is to be told now, before the next tick.
func (h *herald) due(now time.Time, attendees int) bool {
	return len(h.held) > 0 && (attendees <= h.atOnce || now.Sub(h.toldAt) >= tellEvery ||
		len(h.held) >= maxHeld || h.bytes >= maxHeldBytes)
}

// holds reports whether there is a record of somebody who is in the room that not
// everybody has been told of.
func (h *herald) holds(sid string) bool { _, ok := h.latest[sid]; return ok }

// take hands out what is held.
func (h *herald) take(now time.Time) news {
	held := slices.DeleteFunc(h.held, func(n notice) bool { return n.info == nil })
	h.held, h.bytes, h.toldAt = nil, 0, now
	clear(h.latest)
	return news{notices: held, messages: map[int]*signal.Prepared{}}
}

// news is what is told at one time, oldest first.
type news struct {
	notices  []notice
	messages map[int]*signal.Prepared // by the number of older notices that are left out
}

// since is the message for a client that was told everything up to the notice
// seq; nil if there is nothing else.
func (n news) since(seq uint64) *signal.Prepared {
	skip := sort.Search(len(n.notices), func(i int) bool { return n.notices[i].seq > seq })
	if skip == len(n.notices) {
		return nil
	}
	if m := n.messages[skip]; m != nil {
		return m
	}
	var infos []*livekit.ParticipantInfo
	for _, x := range n.notices[skip:] {
		infos = append(infos, x.info)
	}
	m := signal.Prepare(&livekit.SignalResponse{Message: &livekit.SignalResponse_Update{
		Update: &livekit.ParticipantUpdate{Participants: infos}}})
	n.messages[skip] = m
	return m
}

// tellParticipants tells everybody here of changed records, at once or, in a large
// room, in a moment. The caller publishes them.
func (r *Room) tellParticipants(infos []*livekit.ParticipantInfo) {
	infos = slices.DeleteFunc(infos, func(i *livekit.ParticipantInfo) bool {
		return i.GetPermission().GetHidden()
	})
	r.noteDeparted(infos) // now: who comes back before the others are told is told of it too
	for _, i := range infos {
		r.herald.note(i)
	}
	if now := r.deps.Now(); r.herald.due(now, len(r.locals)) {
		r.tellHeld(now)
	}
}

// tellHeld tells everybody here what has waited, with every tick of the room.
func (r *Room) tellHeld(now time.Time) {
	if len(r.herald.held) == 0 {
		return
	}
	news := r.herald.take(now)
	for _, p := range r.locals {
		if m := news.since(p.toldTo); m != nil {
			p.sendPrepared(m)
		}
	}
}

// introduced makes sure that everybody here has been told of somebody before they
// get something of theirs: clients drop the tracks of people they do not know.
func (r *Room) introduced(sid string) {
	if r.herald.holds(sid) {
		r.tellHeld(r.deps.Now())
	}
}

// knows notes that a participant is told now of everybody as they are.
func (r *Room) knows(p *Participant) { p.toldTo = r.herald.seq }

// tellAll sends everybody here the same message.
func (r *Room) tellAll(m *livekit.SignalResponse) {
	prepared := signal.Prepare(m)
	for _, p := range r.locals {
		p.sendPrepared(prepared)
	}
}

// sendPrepared is send for a message that others get too.
func (p *Participant) sendPrepared(m *signal.Prepared) {
	if l := p.line.Load(); l != nil {
		l.conn.SendPrepared(m) //nolint:errcheck // as in send
	}
}
