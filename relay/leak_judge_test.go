package relay_test

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// reign is the policies that a node went by from a moment on.
type reign struct {
	since  time.Time
	bundle *residency.Bundle
}

// grant is a permit, and what was asked for it.
type grant struct {
	residency.Permit
	ask   residency.Request
	since time.Time // when it was put to use
}

// ticket is by what something leaves, or is listened to: one permit after the other.
type ticket struct {
	by, peer *post // who asked its gate about whom
	hall     string
	class    residency.Class
	grants   []grant
	ended    time.Time // when it was revoked or unbound by hand
}

// piece is one payload. Its first bytes are its number.
type piece struct {
	*ticket
	offered time.Time
}

const (
	// follows is how long a track whose permit is no longer good keeps its place: the
	// 300 ms of relay's renewWait, and a heartbeat until somebody looks.
	follows = 500 * time.Millisecond
	// patience is how long what QUIC has taken may be under way where packets are lost
	// or the way is narrow: the time after which a media frame is given up or a silent
	// link is dead (FrameDeadline, DeadAfter), which is what G3 allows.
	patience = time.Second
)

// patience is less where nothing is late: what is small leaves with the round trip
// in which it is written.
func (w *wires) patience(size int) time.Duration {
	switch {
	case w.calm && size <= 1000:
		return 3*w.delay + 50*time.Millisecond
	case w.calm:
		return follows
	}
	return patience
}

// judges holds a payload that came from a node against what was asked for.
func (w *wires) judges(at *post, from residency.NodeName, what, hall string, class residency.Class, payload []byte, mayTake time.Duration) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(payload) < 8 {
		w.notes("%s: %s of %d bytes comes from %s", at.self.Name, what, len(payload), from)
		return
	}
	p := w.pieces[binary.BigEndian.Uint64(payload)]
	switch {
	case p == nil:
		w.notes("%s: %s that nobody offered comes from %s", at.self.Name, what, from)
	case p.by.self.Name != from || p.peer != at || p.hall != hall || p.class != class:
		w.notes("%s: %s of %s, %s for %s in %s comes from %s as %s in %s", at.self.Name, what, p.by.self.Name, p.class, p.peer.self.Name, p.hall, from, class, hall)
	case !p.good(latest(p.offered, now.Add(-w.delay-w.jitter-mayTake)), now.Add(-w.delay)):
		w.notes("%s: %s (%s in %s) comes from %s, offered %s before, and could not leave meanwhile\n%s", at.self.Name, what, class, hall, from, now.Sub(p.offered), p.story(now))
	default:
		w.seen[what]++
	}
}

// good reports whether there was a moment from the first to the last at which the
// ticket let something pass.
func (tk *ticket) good(first, last time.Time) bool {
	for _, g := range tk.grants {
		for i, r := range tk.by.reigns {
			at, end := latest(first, g.since, r.since), last
			if i+1 < len(tk.by.reigns) && tk.by.reigns[i+1].since.Before(end) {
				end = tk.by.reigns[i+1].since
			}
			if !tk.ended.IsZero() && tk.ended.Before(end) {
				end = tk.ended
			}
			if !at.After(end) && len(tk.breaks(g, r.bundle, at)) == 0 {
				return true
			}
		}
	}
	return false
}

// breaks lists what is against it that the ticket's data passes by a permit.
func (tk *ticket) breaks(g grant, b *residency.Bundle, at time.Time) []string {
	if !tk.fits(g) || g.Verdict().Epoch != b.Epoch {
		return []string{"it is a permit for something else"}
	}
	a := g.ask
	return residencytest.Against(residencytest.Facts{Bundle: b, Tenant: a.Tenant, Policy: a.Policy, Class: a.Class, Store: a.Store, Peer: a.Peer, PeerEpoch: a.PeerEpoch,
		Outside: a.OutsideParticipant, Contradicted: a.Contradiction != "", Unprovable: a.NoEvidence != "", Now: tk.by.clockAt(at)})
}

// fits reports whether a permit is for what the ticket is for.
func (tk *ticket) fits(g grant) bool {
	return g.Verdict().Allow && g.ask.Peer.Name == tk.peer.self.Name && g.ask.Room == tk.hall && g.ask.Class == tk.class
}

// story tells what the ticket's owner went by.
func (tk *ticket) story(now time.Time) (s string) {
	for _, r := range tk.by.reigns {
		s += fmt.Sprintf("      epoch %d since %s ago\n", r.bundle.Epoch, now.Sub(r.since))
	}
	for _, g := range tk.grants {
		s += fmt.Sprintf("      permit for %s in %q to %s of epoch %d since %s ago, ends in %s\n", g.Class(), g.Room(), g.Peer(), g.Verdict().Epoch, now.Sub(g.since), g.Until().Sub(tk.by.clockAt(now)))
	}
	if !tk.ended.IsZero() {
		s += fmt.Sprintf("      ended %s ago\n", now.Sub(tk.ended))
	}
	return s
}

func latest(t time.Time, more ...time.Time) time.Time {
	for _, m := range more {
		if m.After(t) {
			t = m
		}
	}
	return t
}

// offer makes a payload's number; the caller puts it in front.
func (w *wires) offer(tk *ticket) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	w.pieces[w.last] = &piece{tk, time.Now()}
	return w.last
}

// ear is a sink: somebody who listens to a track of another node.
type ear struct {
	*ticket // of who listens
	link    *relay.Link
	alias   uint32
	silent  bool // it has ended by itself
}

// Media implements relay.MediaSink.
func (e *ear) Media(_ uint8, rtp [][]byte, _ time.Time) {
	w := e.by.w
	for _, p := range rtp {
		w.judges(e.by, e.peer.self.Name, "packets heard", e.hall, e.class, p[12:], follows+w.patience(0))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); !e.good(now.Add(-follows), now) {
		w.notes("%s listens to %s (%s in %s) without being allowed to\n%s", e.by.self.Name, e.peer.self.Name, e.class, e.hall, e.story(now))
	}
}

// Report implements relay.MediaSink.
func (e *ear) Report(uint8, wire.SenderReport, time.Time) {}

// packet makes an RTP packet that carries a payload's number.
func packet(id uint64, ts uint32, marker bool, size int) []byte {
	b := relaytest.RTP(uint16(id), ts, marker, max(size, 20))
	binary.BigEndian.PutUint64(b[12:], id)
	return b
}
