package relay

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/domicile/domicile/relay/seal"
	"github.com/domicile/domicile/relay/wire"
)

// addHop gives a hop its id, by which its datagrams are found. It is chance, so
// that datagrams of a link that has ended meet nobody.
func (f *Fabric) addHop(h *hop) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	hops := *f.hops.Load()
	id := rand.Uint32()
	for id == 0 || hops[id] != nil {
		id = rand.Uint32()
	}
	with := maps.Clone(hops)
	with[id] = h
	f.hops.Store(&with)
	return id
}

func (f *Fabric) removeHop(id uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	without := maps.Clone(*f.hops.Load())
	delete(without, id)
	f.hops.Store(&without)
}

// receiveMedia reads the UDP socket of all links until it is closed.
func (f *Fabric) receiveMedia() {
	for {
		if err := f.media.Receive(f.takeHop); err != nil {
			return
		}
		f.couriers.send()
	}
}

// takeHop finds the link of a datagram. Anybody may have sent it: nothing is
// remembered, logged or answered until it is opened.
func (f *Fabric) takeHop(b []byte, at time.Time) {
	head, err := wire.ParseHop(b)
	if err != nil {
		f.strangers.Add(1)
		return
	}
	h := (*f.hops.Load())[head.ID]
	if h == nil {
		f.strangers.Add(1)
		return
	}
	o := h.opened.Load()
	if o == nil {
		f.strangers.Add(1)
		return
	}
	if err := h.receive(o, head, b, at); err != nil {
		h.l.end(protocolError(fmt.Errorf("hop datagram: %w", err)))
	}
}

// receive opens a datagram and hands on what is in it. An error is the peer's: it
// alone has the key.
func (h *hop) receive(o *opening, head wire.HopHead, b []byte, at time.Time) error {
	now := time.Now()
	o.mu.Lock()
	b, err := o.opener.Open(head, b, now)
	if err != nil {
		o.mu.Unlock()
		h.refused(err)
		return nil
	}
	fresh, poke := h.arrived(o, head.Number, b[0], at, now)
	var number uint64
	if b[0] == wire.HopRepair {
		var records []byte
		if number, records, err = wire.ParseRepair(b); err == nil {
			fresh, b = o.arrivals.Repair(number, len(records) == 0), records
		}
	} else {
		switch b[0] {
		case wire.HopMedia:
			b = b[1:]
		case wire.HopFeedback:
			h.in.put(b)
			fresh, poke = false, true
		case wire.HopProbe:
			fresh = false
		default:
			err = fmt.Errorf("kind %d is unknown", b[0])
		}
	}
	o.mu.Unlock()
	h.count.received.Add(1)
	if poke {
		h.wakeUp()
	}
	if err != nil || !fresh {
		return err
	}
	return h.l.deliverRecords(b)
}

// arrived takes note of a datagram; poke says that run has to look.
func (h *hop) arrived(o *opening, n uint64, kind byte, at, now time.Time) (fresh, poke bool) {
	idle := o.arrivals.Next(now, h.rtt()).IsZero()
	fresh, gap := o.arrivals.Came(n, kind != wire.HopFeedback, at, now)
	return fresh, gap || idle
}

// refused counts a datagram that nobody sealed, or that came before.
func (h *hop) refused(err error) {
	why := DropForged
	if errors.Is(err, seal.ErrRepeated) {
		why = DropRepeated
	}
	h.l.count.drop(why, 1)
}

// deliverRecords hands each record on.
func (l *Link) deliverRecords(records []byte) error {
	for len(records) > 0 {
		r, rest, err := wire.NextMedia(records)
		if err != nil {
			return err
		}
		records = rest
		if b := l.receiver.binding(r.Alias); b != nil {
			l.f.couriers.take(l, b, r.Layer, r.Body)
		} else {
			l.count.drop(DropUnbound, 1)
		}
	}
	return nil
}
