package node

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// How far attendees of a network are from this node is remembered, from the
// signalling connections that were here: so that the next one from there is placed
// by what was measured, whatever client it uses. It is in memory alone, by networks
// of 256 addresses (IPv4) or a site's (IPv6, /48), for an hour, and in no log.
const (
	nearbyBits4, nearbyBits6 = 24, 48
	nearbyMemory             = time.Hour
	// maxNearby bounds the networks, at some 150 bytes each: the oldest goes.
	maxNearby = 4096
	// maxLines is how many connections of a network count, the latest. Their lower
	// median does: one that answers late, or before it was asked, moves it little.
	maxLines = 7

	// pings of a connection, of which the shortest counts, after the burst of the
	// join has passed.
	pings     = 3
	pingAfter = time.Second
	pingEvery = 200 * time.Millisecond
	pingWait  = 3 * time.Second
)

// nearby is that memory. It is guarded by mu.
type nearby struct {
	mu   sync.Mutex
	nets map[netip.Prefix]*lines
}

type lines struct {
	ms []router.Millis // oldest first
	at time.Time       // of the last
}

// networkOf is what an address is remembered by; ok is false of those that
// are alike everywhere.
func networkOf(addr netip.Addr) (p netip.Prefix, ok bool) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() {
		return p, false
	}
	bits := nearbyBits6
	if addr.Is4() {
		bits = nearbyBits4
	}
	p, err := addr.Prefix(bits)
	return p, err == nil
}

// note remembers a round trip. What is shorter than light needs for km is no round trip.
func (m *nearby) note(addr netip.Addr, ms router.Millis, km float64, now time.Time) {
	const perKm = 0.01 // in fibre, there and back
	p, ok := networkOf(addr)
	if !ok || ms <= 0 || float64(ms) < perKm*km/2 { // GeoIP may err: half of the way counts
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nets == nil {
		m.nets = map[netip.Prefix]*lines{}
	}
	l := m.nets[p]
	if l == nil || now.Sub(l.at) > nearbyMemory {
		m.makeRoom(now)
		l = &lines{}
		m.nets[p] = l
	}
	l.ms, l.at = append(l.ms, ms), now
	l.ms = l.ms[max(0, len(l.ms)-maxLines):]
}

// makeRoom forgets what is too old, and the oldest if that is not enough; mu is held.
func (m *nearby) makeRoom(now time.Time) {
	if len(m.nets) < maxNearby {
		return
	}
	var oldest netip.Prefix
	var at time.Time
	for p, l := range m.nets {
		if now.Sub(l.at) > nearbyMemory {
			delete(m.nets, p)
		} else if !oldest.IsValid() || l.at.Before(at) {
			oldest, at = p, l.at
		}
	}
	if len(m.nets) >= maxNearby {
		delete(m.nets, oldest)
	}
}

// trip is what is remembered of an address's network.
func (m *nearby) trip(addr netip.Addr, now time.Time) (t router.Trip, ok bool) {
	p, ok := networkOf(addr)
	if !ok {
		return t, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.nets[p]
	if l == nil || now.Sub(l.at) > nearbyMemory {
		return t, false
	}
	sorted := slices.Sorted(slices.Values(l.ms))
	return router.Trip{MS: sorted[(len(sorted)-1)/2], How: router.Measured}, true
}

// remembered adds what is remembered to what is known of an attendee.
func (n *Node) remembered(a router.Attendee) router.Attendee {
	if t, ok := n.nearby.trip(a.Addr, time.Now()); ok {
		a.Trips = map[residency.NodeName]router.Trip{n.self().Name: t}
	}
	return a
}

// pinger is a signalling connection that can be measured.
type pinger interface {
	RoundTrip(context.Context) (time.Duration, error)
}

var _ pinger = (*signal.Conn)(nil)

// measureLine measures a connection a moment after it stands, and remembers it.
func (n *Node) measureLine(ctx context.Context, conn pinger, addr netip.Addr) {
	least := time.Duration(0)
	wait := time.NewTimer(pingAfter)
	defer wait.Stop()
	for range pings {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
			wait.Reset(pingEvery)
		}
		within, cancel := context.WithTimeout(ctx, pingWait)
		d, err := conn.RoundTrip(within)
		cancel()
		if err != nil {
			return
		}
		if least == 0 || d < least {
			least = d
		}
	}
	n.nearby.note(addr, inMillis(least), n.geo.Attendee(addr).At.Km(n.cfg.At), time.Now())
}
