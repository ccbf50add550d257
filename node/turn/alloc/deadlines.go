package alloc

import (
	"container/heap"
	"slices"
	"time"
)

// deadlines has the allocation of which something runs out first on top, so that
// a tick costs what it ends and not what there is.
type deadlines []*Allocation

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push and Pop are heap.Interface's.
func (d *deadlines) Push(x any) {
	a := x.(*Allocation)
	a.place = len(*d)
	*d = append(*d, a)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	a := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return a
}

// earliest is when something of an allocation runs out.
func (a *Allocation) earliest() time.Time {
	at := a.ends
	for _, p := range a.permits {
		at = sooner(at, p.ends)
	}
	for _, c := range a.channels {
		at = sooner(at, c.ends)
	}
	return at
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// hasten moves an allocation up if something of it runs out sooner than anything
// did. What was put off is found out when its time comes.
func (t *Table) hasten(a *Allocation) {
	if at := a.earliest(); at.Before(a.due) {
		a.due = at
		heap.Fix(&t.due, a.place)
	}
}

// Tick ends what has run out. Once a second is enough: nobody is told to the
// second.
func (t *Table) Tick(now time.Time) []Event {
	t.events = t.events[:0]
	for len(t.due) > 0 && !now.Before(t.due[0].due) {
		a := t.due[0]
		if !now.Before(a.ends) {
			t.end(a)
			continue
		}
		t.expirePermits(a, now)
		t.expireChannels(a, now)
		a.due = a.earliest()
		heap.Fix(&t.due, 0)
	}
	t.forget(now)
	return t.events
}

func (t *Table) expirePermits(a *Allocation, now time.Time) {
	a.permits = slices.DeleteFunc(a.permits, func(p permit) bool {
		if now.Before(p.ends) {
			return false
		}
		t.events = append(t.events, Event{Kind: Lapsed, Allocation: a, Peer: addressOnly(p.addr)})
		return true
	})
}

func (t *Table) expireChannels(a *Allocation, now time.Time) {
	a.channels = slices.DeleteFunc(a.channels, func(c channel) bool {
		if now.Before(c.ends) {
			return false
		}
		t.events = append(t.events, Event{Kind: Unbound, Allocation: a, Peer: c.peer, Permitted: a.permitted(c.peer.Addr())})
		return true
	})
}
