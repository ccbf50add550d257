package reliable

import (
	"cmp"
	"slices"
	"time"
)

// What a node does about messages that are missing.
const (
	// askAgain is how soon the publisher's node is asked again: a round trip
	// around the world, and some.
	askAgain = 500 * time.Millisecond
	// patience is for how long later messages wait for those that are missing. Longer
	// than a link needs to be dialled again, shorter than people take for broken.
	patience = 3 * time.Second
	// maxWaiting bounds the bytes that wait: a second of all that a client may send.
	maxWaiting = 1 << 20
)

// Order puts the messages of one publisher, who is served by another node, into
// order. Links lose and repeat nothing while they live; one that dies and comes
// back may do both.
//
// To a node that asks, the publisher's node sends what it still has of the
// messages that follow (Log.Since), each naming the one before it, and then its
// head, with which Skip closes what is still open.
type Order struct {
	last    uint32   // all up to here are delivered or given up
	head    uint32   // the publisher's node has sent up to here
	waiting []waiter // sorted; the first lacks what is before it
	bytes   int
	since   time.Time // of the last progress while something is missing
	asked   time.Time
}

// NewOrder continues after a number; 0 for a publisher of whom nothing came.
func NewOrder(last uint32) Order { return Order{last: last, head: last} }

// waiter is a message that waits for those before it.
type waiter struct {
	Message
	prev uint32 // the number that has to be delivered before it
}

// place sorts a message, one without a number behind the one that it followed.
func (w *waiter) place() uint32 { return max(w.Seq, w.prev) }

// Step is what is to be done after an event.
type Step struct {
	Deliver []Message // in this order
	Ask     bool      // the publisher's node is to send again what follows After
	After   uint32
	Lost    []Gap // given up
}

// Take accepts a message and the number of the one that was sent before it.
func (o *Order) Take(m Message, prev uint32, now time.Time) (step Step) {
	at := len(o.waiting)
	switch {
	case m.Seq == 0 && at == 0:
		return Step{Deliver: []Message{m}}
	case m.Seq == 0:
		prev = o.waiting[at-1].place()
	case m.Seq <= o.last:
		return Step{} // repeated
	default:
		var known bool
		at, known = slices.BinarySearchFunc(o.waiting, m.Seq, func(w waiter, seq uint32) int { return cmp.Compare(w.place(), seq) })
		if known {
			return Step{}
		}
		prev = min(prev, m.Seq-1)
	}
	o.head = max(o.head, m.Seq)
	o.waiting = slices.Insert(o.waiting, at, waiter{m, prev})
	o.bytes += m.size()
	o.advance(&step, now)
	return step
}

// Last is the number up to which all is delivered or given up: where another node
// that serves the publisher from now on goes on.
func (o *Order) Last() uint32 { return o.last }

// Head takes the publisher's node at its word that it has sent up to a number.
func (o *Order) Head(seq uint32, now time.Time) (step Step) {
	o.head = max(o.head, seq)
	o.advance(&step, now)
	return step
}

// Skip takes the publisher's node at its word that nothing more up to a number
// will come.
func (o *Order) Skip(upto uint32, now time.Time) (step Step) {
	o.head = max(o.head, upto)
	for len(o.waiting) > 0 && o.waiting[0].place() <= upto {
		o.giveUp(&step, o.waiting[0].prev)
		o.pop(&step)
	}
	o.giveUp(&step, upto)
	o.advance(&step, now)
	return step
}

// Tick asks again, or gives up. The owner calls it about every 100 ms.
func (o *Order) Tick(now time.Time) (step Step) {
	o.advance(&step, now)
	return step
}

// Idle reports whether nothing is missing.
func (o *Order) Idle() bool { return len(o.waiting) == 0 && o.head <= o.last }

// advance delivers what follows the last message, and decides about what is missing.
func (o *Order) advance(step *Step, now time.Time) {
	for {
		progress := o.since.IsZero()
		for len(o.waiting) > 0 && o.waiting[0].prev <= o.last {
			o.pop(step)
			progress = true
		}
		if o.Idle() {
			o.since, o.asked = time.Time{}, time.Time{}
			return
		}
		if progress {
			o.since = now
		}
		if now.Sub(o.since) < patience && o.bytes <= maxWaiting {
			break
		}
		upto := o.head
		if len(o.waiting) > 0 {
			upto = o.waiting[0].prev
		}
		o.giveUp(step, upto)
		o.since = time.Time{}
	}
	if o.asked.IsZero() || now.Sub(o.asked) >= askAgain {
		o.asked = now
		step.Ask, step.After = true, o.last
	}
}

// giveUp does not wait any more for messages up to a number.
func (o *Order) giveUp(step *Step, upto uint32) {
	if upto > o.last {
		step.Lost = append(step.Lost, Gap{o.last, upto})
		o.last = upto
	}
}

func (o *Order) pop(step *Step) {
	w := o.waiting[0]
	o.waiting[0] = waiter{}
	o.waiting = o.waiting[1:]
	o.bytes -= w.size()
	o.last = max(o.last, w.Seq)
	step.Deliver = append(step.Deliver, w.Message)
}
