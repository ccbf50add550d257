package room

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// TestNoLeak plays meetings over several nodes, each with the room as it runs in
// production, and looks at every byte that one gives to another and at all that
// one keeps or serves: policies change in mid-call, news of that and of nodes
// takes its time, links break, clocks are wrong, certificates end, people from
// inside and outside come and go through every node that may take them.
//
// A byte is a leak if the policies that the sending node goes by at this moment,
// what the mesh has told it of the other, and who is connected there break a
// promise of the room's policy (residencytest.Against). Two things take time and
// are given it: a node goes by its old policies until it has the new ones; and
// somebody has left when the news of it has come, not before (see town.heard).
// What arrives is judged once more by the policies of the node that takes it.
func TestNoLeak(t *testing.T) {
	var seen residencytest.Tally
	residencytest.Run(t, 200, func(seed uint64) []string {
		w := newTown(seed)
		for range 60 {
			w.happens()
			for range 1 + w.IntN(3) {
				w.passes()
			}
		}
		w.closes()
		seen.Add(w.seen)
		return w.wrong
	})
	seen.Want(t, "media", "data", "hello", "roster", "participants", "media to an edge outside", "chat heard", "people from outside",
		"people refused", "media arrived", "records kept", "recordings allowed", "recordings refused", "policies changed in mid-call", "home moved", "room revived", "people recorded", "recordings refused by the disk", "tracks passed on",
		"chat kept", "chat that nobody may keep", "exports", "exports refused", "copies", "copies not sent", "programs told", "programs not told", "consents noted", "tracks refused for their encryption", "evidence fails", "trees made beside the room")
}

const (
	// slowest is the longest way of a message over a link that is up, and
	// slowestNews that of gossip.
	slowest     = 300 * time.Millisecond
	slowestNews = 1500 * time.Millisecond
	// slowestDraft is the longest that a tree takes which is made beside a room.
	slowestDraft = 2 * time.Second
	// patienceOfEdges is how long a node may need to act on what it knows (R3: 1 s).
	patienceOfEdges = time.Second
)

// town is a mesh in which one room meets. Its time is true; nodes have clocks of
// their own.
type town struct {
	residencytest.Rand
	seed     uint64
	now      time.Time
	stations []*station
	record   Record // as the room was made
	flights  []flight
	wall     atomic.Int64       // now, for any goroutine
	fanOut   int                // nodes to which a track goes from one: few, so that others pass it on
	past     []*Room            // that ended, and may have recordings to complete
	serial   int                // of flights, people and tracks
	drafts   residencytest.Rand // how long they take
	seen     map[string]int     // what the case came by
	wrong    []string
}

// flight is something on its way from one node to another, or news to one.
type flight struct {
	due    time.Time
	serial int
	lands  func()
}

// station is a node.
type station struct {
	w      *town
	self   residency.Node
	skew   time.Duration
	bundle *residency.Bundle
	gate   *residency.Gate
	view   map[residency.NodeName]member // what gossip has told it
	pipes  map[residency.NodeName]*pipe  // links that are up
	linked map[residency.NodeName]time.Time
	forgot map[residency.NodeName]bool // whom gossip had lost, or whom it did not believe, for a while
	told   time.Time                   // when its policies or what it knows of nodes changed last

	room       *Room
	kept       Record // what it saved last
	people     []*visitor
	outsider   time.Time // when somebody from outside was here last
	idle       time.Time // since when it has had nobody to serve
	refused    time.Time // since when it may not serve those who are here; zero while it may
	connecting residency.Country

	passing    time.Time                        // since when it passes tracks on that it may not
	outside    outside                          // what stands around it
	unprovable string                           // why it can write no evidence
	mute       time.Time                        // since when
	proved     time.Time                        // when it could again
	whispers   bool                             // what is said now is for somebody alone
	unkept     time.Time                        // since when it may not record what it does
	unlike     time.Time                        // since when tracks here are not encrypted as the policy has it
	flowed     map[residency.NodeName]time.Time // when media of the others came last
}

type member struct {
	node          residency.Node
	epoch         residency.Epoch
	contradiction string
	at            time.Time // of the news
	learned       time.Time // when its epoch became known here
}

func newTown(seed uint64) *town {
	r := residencytest.NewRand(seed, 2)
	r.Mild = residencytest.Pick(r, 1, 4, 12, 40)
	w := &town{Rand: r, seed: seed, now: residencytest.Noon, seen: map[string]int{}}
	w.wall.Store(w.now.UnixNano())
	w.fanOut, w.drafts = 1+int(seed%3), residencytest.NewRand(seed, 7)
	nodes := residencytest.Nodes(r, 2+r.IntN(4))
	bundle := residencytest.Bundle(r, 3, nodes)
	for _, n := range nodes {
		s := &station{w: w, self: n, skew: r.Between(-2*time.Second, 2*time.Second), view: map[residency.NodeName]member{},
			pipes: map[residency.NodeName]*pipe{}, linked: map[residency.NodeName]time.Time{}, forgot: map[residency.NodeName]bool{}, idle: w.now, flowed: map[residency.NodeName]time.Time{}}
		s.bundle, s.gate = bundle, residency.NewGate(bundle)
		s.outside = newOutside(seed, uint64(len(w.stations)))
		w.stations = append(w.stations, s)
	}
	for _, s := range w.stations {
		for _, o := range w.stations {
			if s != o {
				s.view[o.self.Name] = member{node: o.self, epoch: bundle.Epoch}
				w.connect(s, o)
			}
		}
	}
	w.record = Record{Name: "town", SID: "RM_town", Policy: residencytest.Pick(r, residencytest.Policies...)}.WithDefaults()
	if r.In(3) && len(bundle.Tenants) > 0 {
		t := residencytest.Pick(r, bundle.Tenants...)
		w.record.Tenant, w.record.Policy = t.Name, t.Policy
	}
	return w
}

// passes lets time go on by a tick: what is due arrives, rooms tick, people speak.
func (w *town) passes() {
	w.now = w.now.Add(tickEvery)
	w.wall.Store(w.now.UnixNano())
	w.land()
	for _, s := range w.stations {
		s.lives()
	}
	w.land()
	for _, s := range w.stations {
		s.checks()
	}
}

// land delivers what is due, in order.
func (w *town) land() {
	for {
		best := -1
		for i, f := range w.flights {
			if f.due.After(w.now) {
				continue
			}
			if best < 0 || f.due.Before(w.flights[best].due) || f.due.Equal(w.flights[best].due) && f.serial < w.flights[best].serial {
				best = i
			}
		}
		if best < 0 {
			return
		}
		f := w.flights[best]
		w.flights = append(w.flights[:best], w.flights[best+1:]...)
		f.lands()
	}
}

// closes completes what is being recorded.
func (w *town) closes() {
	for _, s := range w.stations {
		if s.room != nil {
			s.room.doStopRecording("")
			w.past = append(w.past, s.room)
		}
	}
	for _, r := range w.past {
		r.writing.Wait()
	}
}

func (w *town) sends(after time.Duration, lands func()) {
	w.serial++
	w.flights = append(w.flights, flight{due: w.now.Add(after), serial: w.serial, lands: lands})
}

func (w *town) station(name residency.NodeName) *station {
	for _, s := range w.stations {
		if s.self.Name == name {
			return s
		}
	}
	return nil
}

// happens changes something.
func (w *town) happens() {
	s := residencytest.Pick(w.Rand, w.stations...)
	o := residencytest.Pick(w.Rand, w.stations...)
	switch w.IntN(20) {
	case 0, 1, 2, 3:
		s.comes(residencytest.Country(w.Rand))
	case 4, 5:
		s.leaves()
	case 6:
		s.publishes()
	case 7:
		s.chats()
	case 8:
		if w.In(3) {
			w.legislates()
		}
	case 9:
		w.breaks(s, o)
	case 10:
		if w.In(2) {
			s.renews()
		}
	case 11:
		s.contradicts(o)
	case 12:
		s.loses(o)
	case 13:
		s.records()
	case 15:
		s.answers()
	case 16:
		s.types()
	case 17:
		if w.In(6) || s.unprovable != "" {
			s.proves()
		}
	case 18:
		s.records()
	case 14:
		if s.room != nil && w.In(4) {
			s.room.setMeta(s)
		}
	default:
		for range w.IntN(20) {
			w.passes()
		}
	}
}

// legislates makes new policies, which the nodes come by one after the other.
func (w *town) legislates() {
	var newest *residency.Bundle
	var nodes []residency.Node
	for _, s := range w.stations {
		if newest == nil || s.bundle.Epoch > newest.Epoch {
			newest = s.bundle
		}
		nodes = append(nodes, s.self)
	}
	next := residencytest.Next(w.Rand, newest, nodes)
	for _, s := range w.stations {
		w.sends(w.Between(0, slowestNews), func() { s.adopts(next) })
	}
}

// tells writes down what happens, if the case is played again.
func (w *town) tells(format string, a ...any) {
	if residencytest.Replaying() {
		w.wrong = append(w.wrong, fmt.Sprintf("%8s  ", w.now.Sub(residencytest.Noon).Round(time.Millisecond))+fmt.Sprintf(format, a...))
	}
}
