// Package witness decides when a node writes receipts for a room, and what they
// say.
//
// A Ledger is shown what the node has counted of each stream of a room's bytes,
// again and again, and says which receipts are due. It counts nothing itself,
// signs nothing, sends nothing and reads no clock; what a receipt means is
// described in package residency/evidence.
package witness

import (
	"cmp"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

const (
	// firstAfter is the age at which a stream gets its first receipt: soon, so
	// that evidence that cannot be written is noticed before much has happened.
	firstAfter = 5 * time.Second
	// leastEvery is the least time between two receipts of a stream. From then
	// on the next one is due after a quarter of the stream's age, so that the
	// receipts of a long meeting stay few. mostEvery
	// bounds what a crash loses of this node's own figures; the other end states them.
	leastEvery = time.Minute
	mostEvery  = 5 * time.Minute
	// settleAfter is how long nothing may have moved before what did not arrive
	// counts as lost: a frame's deadline and its last repetition, with room.
	settleAfter = 2 * time.Second
	// leaveWait is how long a room that has ended here waits for its streams to
	// settle; the last tally of a lost link never comes.
	leaveWait = 20 * time.Second
	// maxStreams bounds what one room can cost: 250 nodes, three classes, two
	// directions, and changes of policy on top.
	maxStreams = 4096
)

// ID tells streams apart, for as long as they are counted.
type ID struct {
	Side   evidence.Side
	Peer   residency.NodeName
	Number uint64
}

// Count is what was counted of a stream since it began. Figures only rise.
type Count struct {
	Packets, Bytes uint64
	// Of a stream that is received: what the peer says it has sent.
	ToldPackets, ToldBytes uint64
	// Final: the sender counts no more.
	Final bool
}

// About is what a stream's receipts say beside their figures.
type About struct {
	PeerCertificate evidence.Hash
	Class           residency.Class
	Policy          string
	Tenant          string
	QA              bool // of chat that is stored: questions and answers
	Rule            string
	Epoch           residency.Epoch
}

// Ledger is the account book of one stay of a node in one room. It belongs to
// one goroutine.
type Ledger struct {
	streams map[ID]*stream
	lost    map[group]figures // as receipts have stated them
	left    time.Time         // when the room ended here
	wrote   bool
	done    bool
	over    int // streams that were turned away
}

// stream is one stream with what has been written of it.
type stream struct {
	id      ID
	about   About
	count   Count
	written figures
	opened  time.Time // when it moved first
	first   time.Time // of what is not written yet; zero: nothing
	last    time.Time
	moved   time.Time // when any figure changed last, the peer's word included
	stated  time.Time // when its last receipt was due
}

type figures struct{ packets, bytes uint64 }

// group is what losses are added up over: under a change of the policies, what
// is on its way may be counted under the old ones at one end and under the new
// ones at the other.
type group struct {
	peer  residency.NodeName
	class residency.Class
}

// NewLedger begins the book of a stay.
func NewLedger() *Ledger {
	return &Ledger{streams: map[ID]*stream{}, lost: map[group]figures{}}
}

// Take notes what was counted of a stream by now. It reports false if the book
// has no room for another stream.
func (l *Ledger) Take(now time.Time, id ID, about About, c Count) bool {
	s := l.streams[id]
	if s == nil {
		if c.Packets == 0 && c.ToldPackets == 0 {
			return true
		}
		if len(l.streams) >= maxStreams {
			l.over++
			return false
		}
		s = &stream{id: id, about: about, opened: now, stated: now, moved: now}
		l.streams[id] = s
	}
	// A refusal is told with the rule that was the first since the last receipt.
	if about.Rule != "" && (id.Side != evidence.Refused || s.first.IsZero()) {
		s.about = about
	}
	if c.Packets > s.count.Packets || c.Bytes > s.count.Bytes {
		if s.first.IsZero() {
			s.first = now
		}
		s.last = now
	}
	if c != s.count {
		s.moved = now
	}
	c.Packets, c.Bytes = max(c.Packets, s.count.Packets), max(c.Bytes, s.count.Bytes) // a track that ends is in no sum for a moment
	s.count = c
	return true
}

// Leave says that the room has ended here: what is left is due as soon as it has
// settled. Return takes it back.
func (l *Ledger) Leave(now time.Time) {
	if l.left.IsZero() {
		l.left = now
	}
}

// Return says that the room goes on here.
func (l *Ledger) Return() { l.left = time.Time{} }

// Done reports whether the last receipt of the stay has been handed out.
func (l *Ledger) Done() bool { return l.done }

// Due hands out the receipts that are due at now, in the order in which they are
// to be written. They are taken for written.
func (l *Ledger) Due(now time.Time) []evidence.Receipt {
	if l.done {
		return nil
	}
	leaving := !l.left.IsZero() && (l.settled(now) || now.Sub(l.left) >= leaveWait)
	var out []evidence.Receipt
	for _, s := range l.sorted() {
		lost := l.newlyLost(s, now, leaving)
		if lost == (figures{}) && s.count.Packets == s.written.packets && s.count.Bytes == s.written.bytes {
			continue
		}
		if leaving || s.count.Final && s.quiet(now) || now.Sub(s.stated) >= s.interval(now) {
			out = append(out, l.write(s, lost, now))
		}
	}
	if leaving {
		l.done = true
		out = l.finish(out, now)
	}
	return out
}

// finish marks the last receipt, or makes one that says nothing but that.
func (l *Ledger) finish(out []evidence.Receipt, now time.Time) []evidence.Receipt {
	if len(out) == 0 && l.wrote {
		s := l.sorted()[0]
		s.first, s.last = now, now
		out = append(out, l.write(s, figures{}, now))
	}
	if len(out) > 0 {
		out[len(out)-1].Final = true
	}
	return out
}

// sorted lists the streams in an order that does not depend on chance.
func (l *Ledger) sorted() []*stream {
	list := make([]*stream, 0, len(l.streams))
	for _, s := range l.streams {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *stream) int {
		return cmp.Or(cmp.Compare(a.id.Peer, b.id.Peer), cmp.Compare(a.id.Side, b.id.Side), cmp.Compare(a.id.Number, b.id.Number))
	})
	return list
}

// interval is how long after its last receipt a stream that moves gets another. What
// is refused is told at once, and then once a minute.
func (s *stream) interval(now time.Time) time.Duration {
	refused := s.id.Side == evidence.Refused
	switch {
	case s.written == (figures{}) && refused:
		return 0
	case s.written == (figures{}):
		return firstAfter
	case refused:
		return leastEvery
	}
	return min(max(leastEvery, now.Sub(s.opened)/4), mostEvery)
}

func (s *stream) quiet(now time.Time) bool { return now.Sub(s.moved) >= settleAfter }

// settled reports whether nothing more is to be expected of any stream.
func (l *Ledger) settled(now time.Time) bool {
	if now.Sub(l.left) < settleAfter {
		return false
	}
	for _, s := range l.streams {
		own := s.id.Side != evidence.Sent && s.id.Side != evidence.Received
		if !s.quiet(now) || !own && !s.count.Final {
			return false
		}
	}
	return true
}

// newlyLost is what did not arrive of a received stream's group and was not
// stated yet. It is known only while nothing of the group moves.
func (l *Ledger) newlyLost(s *stream, now time.Time, leaving bool) figures {
	if s.id.Side != evidence.Received {
		return figures{}
	}
	g := group{s.id.Peer, s.about.Class}
	var told, got figures
	for _, o := range l.streams {
		if o.id.Side != evidence.Received || o.id.Peer != g.peer || o.about.Class != g.class {
			continue
		}
		if !o.quiet(now) && !leaving {
			return figures{}
		}
		told.packets, told.bytes = told.packets+o.count.ToldPackets, told.bytes+o.count.ToldBytes
		got.packets, got.bytes = got.packets+o.count.Packets, got.bytes+o.count.Bytes
	}
	stated := l.lost[g]
	return figures{over(told.packets, got.packets+stated.packets), over(told.bytes, got.bytes+stated.bytes)}
}

// over is a-b, and 0 rather than less.
func over(a, b uint64) uint64 { return a - min(a, b) }

// write makes the receipt of what is not written yet.
func (l *Ledger) write(s *stream, lost figures, now time.Time) evidence.Receipt {
	if s.first.IsZero() { // all of it was lost
		s.first, s.last = s.moved, s.moved
	}
	r := evidence.Receipt{
		Side: s.id.Side, Peer: s.id.Peer, PeerCertificate: s.about.PeerCertificate, Class: s.about.Class, QA: s.about.QA,
		Policy: s.about.Policy, Tenant: s.about.Tenant, Rule: s.about.Rule, Epoch: s.about.Epoch,
		Packets: s.count.Packets - s.written.packets, Bytes: s.count.Bytes - s.written.bytes,
		Lost: lost.packets, LostBytes: lost.bytes,
		First: evidence.Millis(s.first), Last: evidence.Millis(s.last),
	}
	s.written = figures{s.count.Packets, s.count.Bytes}
	s.first, s.stated = time.Time{}, now
	g := group{s.id.Peer, s.about.Class}
	l.lost[g] = figures{l.lost[g].packets + lost.packets, l.lost[g].bytes + lost.bytes}
	l.wrote = true
	return r
}

// Settled lists the streams that have ended and are written: they need not be
// shown any more.
func (l *Ledger) Settled(now time.Time) []ID {
	var ids []ID
	for id, s := range l.streams {
		if s.count.Final && s.quiet(now) && s.written == (figures{s.count.Packets, s.count.Bytes}) {
			ids = append(ids, id)
		}
	}
	return ids
}
