package relay

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

// heart measures the round trip of heartbeats. A PING's token is random, so that
// a peer cannot answer it before it has it: an answer can only come late.
type heart struct {
	rtt   atomic.Int64 // smoothed, nanoseconds; written by receiveDatagrams
	least atomic.Int64 // the least since it was last asked for, nanoseconds; 0: none
	deaf  atomic.Bool  // the peer has said that it hears nothing

	// Guarded by mu.
	mu    sync.Mutex
	pings [outstanding]ping
	next  int
}

// ping is a PING that was not answered yet; token 0 is none.
type ping struct {
	token uint64
	at    time.Time
}

// outstanding is how many PINGs wait for their answers: at the fastest beat those of
// 1.3 s, after which the link is dead.
const outstanding = 256

// token makes a new PING's.
func (h *heart) token(now time.Time) uint64 {
	var b [8]byte
	rand.Read(b[:]) // does not fail (crypto/rand)
	token := binary.BigEndian.Uint64(b[:]) | 1<<63
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pings[h.next] = ping{token: token, at: now}
	h.next = (h.next + 1) % outstanding
	return token
}

// pong takes a round trip into the average, an eighth of it (RFC 9002 section
// 5.3), and into the least. Each token counts once; others are ignored.
func (h *heart) pong(token uint64, now time.Time) {
	if token == wire.Deaf {
		h.deaf.Store(true)
		return
	}
	at, ok := h.answer(token)
	if !ok {
		return
	}
	sample := max(int64(now.Sub(at)), 1)
	if least := h.least.Load(); least == 0 || sample < least {
		h.least.CompareAndSwap(least, sample)
	}
	if old := h.rtt.Load(); old > 0 {
		sample = old + (sample-old)/8
	}
	h.rtt.Store(max(sample, 1))
}

// answer finds when the PING of a token was sent, and forgets it.
func (h *heart) answer(token uint64) (at time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.pings {
		if p := &h.pings[i]; p.token == token && token != 0 {
			at, ok = p.at, true
			*p = ping{}
		}
	}
	return at, ok
}

func (h *heart) smoothed() time.Duration { return time.Duration(h.rtt.Load()) }

// LeastRTT returns the least round trip since it was last called, 0 if there was
// none. It is for one caller. The peer cannot make it smaller than the way there
// and back takes.
func (l *Link) LeastRTT() time.Duration { return time.Duration(l.heart.least.Swap(0)) }

// SeenAt returns the address at which the peer is seen now.
func (l *Link) SeenAt() netip.Addr {
	a, err := netip.ParseAddrPort(l.conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// watch gives signs of life, and finds out whether the peer lives. Whatever arrives
// counts as one, so that lost heartbeats alone end nothing.
func (l *Link) watch() error {
	v := newVigil(l.cfg.Heartbeat, l.cfg.DeadAfter, time.Now())
	timer := time.NewTimer(v.beat)
	defer timer.Stop()
	var pinged time.Time
	for {
		if now := time.Now(); v.hearsNothing() || now.Sub(pinged) >= l.cfg.Heartbeat-v.beat/2 {
			pinged = now
			l.ping(v.hearsNothing())
		} else {
			l.live(v.beat)
		}
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			return nil
		}
		if v.look(time.Now(), glance{packets: l.received(), deaf: l.heart.deaf.Swap(false), close: l.shares()}) {
			return &LinkError{Peer: l.peer.Name, Code: wire.CodeSilent, Text: fmt.Sprintf("nothing arrived for %s", v.silent.Round(time.Millisecond))}
		}
		l.suspectPeer(v.suspect)
		timer.Reset(v.beat)
	}
}

// ping asks the peer for an answer, and tells it if nothing arrives.
func (l *Link) ping(deaf bool) {
	l.datagrams.ping.Store(true)
	l.datagrams.deaf.Store(deaf)
	l.datagrams.wakeUp()
}

// live has the peer hear something in this beat, and asks for nothing: the answers to
// all that a closely watched link asks would be most of what a small meeting costs.
// Where media goes over UDP, it is a sign already.
func (l *Link) live(beat time.Duration) {
	if l.hop != nil && l.hop.active.Load() {
		l.hop.live(beat)
		return
	}
	l.datagrams.live.Store(true)
	l.datagrams.wakeUp()
}

// received counts the packets of the peer, on all carriages.
func (l *Link) received() uint64 {
	n := l.conn.ConnectionStats().PacketsReceived
	if l.hop != nil {
		n += l.hop.count.received.Load()
	}
	return n
}

// shares reports whether tracks of either node travel on the link.
func (l *Link) shares() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tracks) > 0 || len(*l.receiver.bound.Load()) > 0
}

// suspectPeer notes whether the peer is suspect, and tells of a change.
func (l *Link) suspectPeer(suspect bool) {
	if l.suspect.Swap(suspect) == suspect {
		return
	}
	if suspect {
		l.suspicions.Add(1)
	}
	if l.cfg.Suspected != nil {
		l.cfg.Suspected(l, suspect)
	}
}

// Suspect reports whether nothing has arrived from the peer for so long that it, or
// the way to it, may be dead: whoever has another way takes it now.
func (l *Link) Suspect() bool { return l.suspect.Load() }

// beat ends the link when the peer's certificate ends. It is the clock of what has no
// timer of its own.
func (l *Link) beat() error {
	ticker := time.NewTicker(l.cfg.Heartbeat)
	defer ticker.Stop()
	for beats := 1; ; beats++ {
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			return nil
		}
		peer := l.Peer()
		if !peer.ValidAt(l.cfg.Now()) {
			return &LinkError{Peer: peer.Name, Code: wire.CodeExpired,
				Text: fmt.Sprintf("the certificate of node %q ended at %s", peer.Name, peer.NotAfter.UTC().Format(time.RFC3339))}
		}
		if err := l.admitPeer(peer); err != nil {
			return err
		}
		l.sweepTracks()
		l.sweepBindings()
		l.sweepPassing()
		if beats%tallyBeats == 0 {
			l.tally()
		}
	}
}
