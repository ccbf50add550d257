package relay

import (
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// What QUIC has taken is under way until it has arrived, over a narrow path for
// seconds. Media has its deadlines. Requests and answers are taken back when their
// permit is no longer good: their streams are reset, and what was lost of them is
// not sent again. A message cannot be taken back, as the control stream skips
// nothing: where one is stuck in it, or may have to be sent again, the link ends.

const (
	// passWait is for how long after its last byte was written something can be taken
	// back: what is later than that has arrived, or the link is dead.
	passWait = 2 * time.Second
	// maxPassing bounds what is remembered for that. Of more the oldest that are
	// written are forgotten; a request waits for no other.
	maxPassing = 4096
)

// passing is something under way.
type passing struct {
	permit residency.Permit
	stream *quic.Stream // nil: the control stream
	lost   uint64       // packets that the connection had lost when it began
	hold   hold
	at     time.Time // when all of it was written; zero: it is being written
	over   bool      // taken back
}

// hold is how long a permit may be of another epoch than the one in force, for
// what began when it was good. It reads no clock.
type hold struct{ since time.Time }

// over reports whether what goes by the permit has to end.
func (h *hold) over(p residency.Permit, epoch residency.Epoch, now time.Time) bool {
	switch {
	case !now.Before(p.Until()):
		return true
	case p.Verdict().Epoch == epoch:
		h.since = time.Time{}
	case h.since.IsZero():
		h.since = now
	default:
		return now.Sub(h.since) >= renewWait
	}
	return false
}

// passes notes that something is being written.
func (l *Link) passes(p residency.Permit, s *quic.Stream) *passing {
	x := &passing{permit: p, stream: s, lost: l.conn.ConnectionStats().PacketsLost}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.passing) >= maxPassing {
		if i := slices.IndexFunc(l.passing, func(x *passing) bool { return !x.at.IsZero() }); i >= 0 {
			l.passing = slices.Delete(l.passing, i, i+1)
		}
	}
	l.passing = append(l.passing, x)
	return x
}

// written notes that QUIC has all of it.
func (l *Link) written(x *passing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x.at = l.cfg.Now()
}

// passed forgets it: it has arrived, or never will. It reports whether it was
// taken back.
func (l *Link) passed(x *passing) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.passing, x); i >= 0 {
		l.passing = slices.Delete(l.passing, i, i+1)
	}
	return x.over
}

// takenBack is the error of a request that was.
func (l *Link) takenBack(p residency.Permit) error {
	return &RefusedError{Peer: l.peer.Name, Epoch: l.cfg.Epoch(), Until: p.Until(), Verdict: p.Verdict()}
}

// sweepPassing takes back what may no longer be under way.
func (l *Link) sweepPassing() {
	for _, x := range l.overdue() {
		if x.stream == nil {
			l.fail(wire.CodeOverload, "the permit of a message ended before it has arrived for certain")
			return
		}
		x.stream.CancelWrite(wire.StreamRefused)
		l.count.drop(DropRefused, 1)
	}
}

// overdue removes and returns what is to be taken back. A stream can always be. For
// a message the whole link would have to go, so it has to be stuck, or packets were
// lost since, any of which may have been its own; and nothing says that the policies
// in force let it pass as well.
func (l *Link) overdue() (list []*passing) {
	now, epoch, lost := l.cfg.Now(), l.cfg.Epoch(), l.conn.ConnectionStats().PacketsLost
	goesOn := sync.OnceValue(func() map[topic]bool { return l.book.under(epoch) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passing = slices.DeleteFunc(l.passing, func(x *passing) bool {
		written := !x.at.IsZero()
		switch {
		case written && now.Sub(x.at) >= passWait:
			return true
		case !x.hold.over(x.permit, epoch, now):
			return false
		case written && x.stream == nil && x.lost == lost:
			return false
		case written && x.stream == nil && x.permit.Verdict().Epoch != epoch && goesOn()[topic{x.permit.Room(), x.permit.Class()}]:
			return false
		}
		x.over = true
		list = append(list, x)
		return true
	})
	return list
}

// topic is what a permit of any epoch is about.
type topic struct {
	room  string
	class residency.Class
}

// under lists what goes to the peer by permits of an epoch.
func (b *book) under(epoch residency.Epoch) map[topic]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	topics := map[topic]bool{}
	for k := range b.open {
		if k.epoch == epoch {
			topics[topic{k.room, k.class}] = true
		}
	}
	return topics
}
