// Package drainage decides whom a node that is to be emptied sends to other nodes, and
// when, and says how far it has come. It performs no I/O, reads no clock, and does not
// know how somebody is moved or where to: it is told who is here, and names who is next.
package drainage

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	// Rate is how many people are sent away in a second. Each costs the node that takes
	// them a handshake and a keyframe of every picture that they watch, some 5 ms of a
	// core: more at once, and those who are there already would notice.
	Rate = 20
	// AtOnce bounds those who have been sent and are still here.
	AtOnce = 40
	// again is when somebody who is still here is sent once more: a client gives its first
	// attempts a few seconds. retryLater doubles it each time.
	again    = 8 * time.Second
	maxAgain = time.Minute
	// stuckAfter is after how many attempts somebody counts as one whom nothing moves:
	// their client comes back to this node, whatever it is told.
	stuckAfter = 3
)

// Key names somebody on the node: a participant's sid in a room's.
type Key struct{ Room, SID string }

// Drainage is the emptying of one node.
type Drainage struct {
	began  time.Time
	people map[Key]*person
	sent   int // attempts so far
	gone   int
}

type person struct {
	tries int
	sent  time.Time // the last time; zero: not yet
	next  time.Time
	why   string // rule by which nobody could take them, the last time
}

// New begins.
func New(now time.Time) *Drainage { return &Drainage{began: now, people: map[Key]*person{}} }

// Next notes who is here now and names those who are to be sent away now, at most as
// many as Rate and AtOnce allow. Those of a room come one after the other.
func (d *Drainage) Next(now time.Time, here []Key) []Key {
	d.note(here)
	way := d.underWay(now)
	budget := min(int(now.Sub(d.began).Seconds()*Rate)+1-d.sent, AtOnce-way)
	var due []Key
	for k, p := range d.people {
		if !now.Before(p.next) {
			due = append(due, k)
		}
	}
	// First those who were never tried.
	slices.SortFunc(due, func(a, b Key) int {
		return cmp.Or(cmp.Compare(d.people[a].tries, d.people[b].tries), cmp.Compare(a.Room, b.Room), cmp.Compare(a.SID, b.SID))
	})
	due = due[:max(min(budget, len(due)), 0)]
	for _, k := range due {
		p := d.people[k]
		p.tries++
		p.sent, p.next, p.why = now, now.Add(min(again<<(p.tries-1), maxAgain)), ""
	}
	d.sent += len(due)
	if len(due) == 0 && way == 0 { // time that was not used is not saved up
		d.sent = max(d.sent, int(now.Sub(d.began).Seconds()*Rate))
	}
	return due
}

// note takes over who is here.
func (d *Drainage) note(here []Key) {
	still := make(map[Key]bool, len(here))
	for _, k := range here {
		still[k] = true
		if d.people[k] == nil {
			d.people[k] = &person{}
		}
	}
	before := len(d.people)
	maps.DeleteFunc(d.people, func(k Key, _ *person) bool { return !still[k] })
	d.gone += before - len(d.people)
}

// underWay counts those who were sent a moment ago and are still here.
func (d *Drainage) underWay(now time.Time) (n int) {
	for _, p := range d.people {
		if !p.sent.IsZero() && p.why == "" && now.Sub(p.sent) < again {
			n++
		}
	}
	return n
}

// Refused notes that no node could take somebody, by a rule of placement.
func (d *Drainage) Refused(k Key, rule string) {
	if p := d.people[k]; p != nil {
		p.why = rule
	}
}

// Progress is how far it has come.
type Progress struct {
	Left  int `json:"left"`
	Gone  int `json:"gone"`
	Stuck int `json:"stuck"` // of those left: sent several times, and still here
	// Rooms is how many are left of each room, by its sid.
	Rooms map[string]int `json:"rooms,omitempty"`
	// Refused is how many nobody else may or can take, by rule.
	Refused map[string]int `json:"refused,omitempty"`
	// Seconds is how long it will take at the pace so far, -1 if that cannot be said.
	Seconds int `json:"seconds"`
}

// Progress says how far it has come.
func (d *Drainage) Progress(now time.Time) Progress {
	out := Progress{Left: len(d.people), Gone: d.gone, Rooms: map[string]int{}, Refused: map[string]int{}}
	for k, p := range d.people {
		out.Rooms[k.Room]++
		switch {
		case p.why != "":
			out.Refused[p.why]++
		case p.tries >= stuckAfter:
			out.Stuck++
		}
	}
	moving := out.Left - out.Stuck
	for _, n := range out.Refused {
		moving -= n
	}
	out.Seconds = d.estimate(now, moving)
	if moving < out.Left {
		out.Seconds = -1
	}
	return out
}

// estimate goes by the pace so far, and by Rate before there is one.
func (d *Drainage) estimate(now time.Time, moving int) int {
	pace := float64(Rate)
	if elapsed := now.Sub(d.began).Seconds(); d.gone > 0 && elapsed > 1 {
		pace = float64(d.gone) / elapsed
	}
	return int(float64(moving)/pace + 0.999)
}
