package reliable

import (
	"cmp"
	"slices"
	"time"
)

// Limits bound what a room keeps of messages that were delivered.
type Limits struct {
	// Age is how long a message is kept. A client that has heard nothing of a
	// publisher for 30 s forgets their last number; with a shorter Age a
	// publisher whom it does not name is one of whom it has had none of what is kept.
	Age time.Duration
	// Publisher and Total bound the bytes kept of one publisher and of all. Only
	// what was under way when a connection broke has to be in them: a second or
	// two, since a node learns of the break from missing answers.
	Publisher, Total int
}

// DefaultLimits are the usual ones.
var DefaultLimits = Limits{Age: 20 * time.Second, Publisher: 1 << 20, Total: 8 << 20}

// Log keeps the newest messages of a room on one node, for clients that come back
// and for nodes that missed some.
type Log struct {
	limits     Limits
	next       uint64 // the place of the next message; they are in order of delivery
	publishers map[string]*shelf
	receivers  map[string]*receiver
	bytes      int
	pruned     time.Time
}

// shelf holds the messages of one publisher.
type shelf struct {
	kept  []entry
	bytes int
	gone  entry // the newest that is not kept any more, without its packet
}

type entry struct {
	Message
	place uint64
	at    time.Time
}

// receiver is a client here.
type receiver struct {
	joined uint64 // the place from which on messages are for it
	came   bool   // from another node: those before are, too, of publishers whom it has heard
	held   bool
	since  uint64 // while held: the place of the first message that was not handed out
}

// NewLog returns an empty log.
func NewLog(limits Limits) *Log {
	return &Log{limits: limits, publishers: map[string]*shelf{}, receivers: map[string]*receiver{}}
}

// Join says that a client with this identity is there: what comes from now on
// is for it. One that was known begins anew.
func (l *Log) Join(identity string) { l.receivers[identity] = &receiver{joined: l.next} }

// Come says that a client with this identity goes on here, whom another node has served.
// What came here before and has not reached it there any more is for it, too; it says
// itself what it has had.
func (l *Log) Come(identity string) { l.receivers[identity] = &receiver{joined: l.next, came: true} }

// Leave forgets a client.
func (l *Log) Leave(identity string) { delete(l.receivers, identity) }

// Hold says that a client's connection is broken or in doubt. What comes is kept
// until Resume: sent now, it could arrive before what has to be sent again.
func (l *Log) Hold(identity string) {
	if r := l.receivers[identity]; r != nil && !r.held {
		r.held, r.since = true, l.next
	}
}

// Held reports whether a client's messages are kept for later.
func (l *Log) Held(identity string) bool {
	r := l.receivers[identity]
	return r != nil && r.held
}

// Add keeps a message. It is sent to those it is for and who are not held.
func (l *Log) Add(m Message, now time.Time) {
	l.prune(now)
	s := l.publishers[m.Publisher]
	if s == nil {
		s = &shelf{}
		l.publishers[m.Publisher] = s
	}
	s.kept = append(s.kept, entry{m, l.next, now})
	s.bytes += m.size()
	l.bytes += m.size()
	l.next++
	for s.bytes > l.limits.Publisher {
		l.drop(s)
	}
	for l.bytes > l.limits.Total {
		l.drop(l.largest()) // whoever sends most keeps least
	}
}

// Resume returns what a client has to be sent again, in order, and what it has
// missed for good, by publisher; from then on it is not held. have is the last
// number that it has had of each publisher (SyncState.datachannel_receive_states),
// nil for a client that does not keep account: it gets what came after Hold, and
// so do all of messages without a number. Nobody could tell that they have more.
func (l *Log) Resume(identity string, have map[string]uint32, now time.Time) (again []Message, lost map[string]Gap) {
	r := l.receivers[identity]
	if r == nil {
		return nil, nil
	}
	l.prune(now)
	var entries []entry
	for publisher, s := range l.publishers {
		for i := range s.kept {
			if e := &s.kept[i]; e.For(identity) && r.missed(e, have) {
				entries = append(entries, *e)
			}
		}
		if r.lost(s, identity, have) {
			if lost == nil {
				lost = map[string]Gap{}
			}
			lost[publisher] = Gap{have[publisher], s.gone.Seq}
		}
	}
	r.held = false
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.place, b.place) })
	for _, e := range entries {
		again = append(again, e.Message)
	}
	return again, lost
}

// missed reports whether a client has not had a message, by its own account or else
// because it was not handed out.
func (r *receiver) missed(e *entry, have map[string]uint32) bool {
	if e.Seq == 0 || have == nil {
		return r.held && e.place >= r.since
	}
	last, heard := have[e.Publisher]
	return (e.place >= r.joined || r.came && heard) && e.Seq > last
}

// lost reports whether a client has missed messages of a publisher that are not kept
// any more. Of a publisher whom it does not name it may have had none or
// have forgotten; there only what was not handed out is certain.
func (r *receiver) lost(s *shelf, identity string, have map[string]uint32) bool {
	if s.gone.Publisher == "" || !s.gone.For(identity) || !r.missed(&s.gone, have) {
		return false
	}
	_, named := have[s.gone.Publisher]
	return named || r.held && s.gone.place >= r.since
}

// Since returns the messages of a publisher after a number, as far as they are kept
// and wanted: another node has missed some. A nil wanted wants all.
func (l *Log) Since(publisher string, after uint32, wanted func(*Message) bool) (again []Message) {
	s := l.publishers[publisher]
	if s == nil {
		return nil
	}
	for i := range s.kept {
		if m := &s.kept[i].Message; m.Seq > after && (wanted == nil || wanted(m)) {
			again = append(again, *m)
		}
	}
	return again
}

// Bytes is the memory that the log uses, about.
func (l *Log) Bytes() int { return l.bytes }

// prune drops what is too old. What is known of messages that are gone is kept for
// as long again, for clients that were held that long.
func (l *Log) prune(now time.Time) {
	if now.Sub(l.pruned) < l.limits.Age/20 {
		return
	}
	l.pruned = now
	for publisher, s := range l.publishers {
		for len(s.kept) > 0 && now.Sub(s.kept[0].at) > l.limits.Age {
			l.drop(s)
		}
		if len(s.kept) == 0 && now.Sub(s.gone.at) > 2*l.limits.Age {
			delete(l.publishers, publisher)
		}
	}
}

// drop forgets the oldest message of a publisher.
func (l *Log) drop(s *shelf) {
	e := s.kept[0]
	s.kept[0] = entry{}
	s.kept = s.kept[1:]
	s.bytes -= e.size()
	l.bytes -= e.size()
	e.Packet, e.To = nil, nil
	e.Seq = max(e.Seq, s.gone.Seq)
	s.gone = e
}

func (l *Log) largest() *shelf {
	var most *shelf
	for _, s := range l.publishers {
		if most == nil || s.bytes > most.bytes {
			most = s
		}
	}
	return most
}
