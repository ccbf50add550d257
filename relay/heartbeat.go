package relay

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

// heart measures the round trip of heartbeats. A PING's token is the sender's
// own clock since the link's start, so nothing has to be remembered.
type heart struct {
	rtt atomic.Int64 // smoothed, nanoseconds; written by receiveDatagrams
}

// maxRTT bounds what a PONG may claim; a longer round trip ends the link anyway.
const maxRTT = 10 * time.Second

// token is never 0, which stands for no token.
func (h *heart) token(started time.Time) uint64 { return uint64(time.Since(started)) | 1 }

// pong takes a round trip into the average, an eighth of it (RFC 9002 section
// 5.3). Tokens that this link cannot have sent are ignored.
func (h *heart) pong(token uint64, started time.Time) {
	elapsed := uint64(time.Since(started)) | 1
	if token > elapsed || elapsed-token > uint64(maxRTT) {
		return
	}
	sample := int64(elapsed - token)
	if old := h.rtt.Load(); old > 0 {
		sample = old + (sample-old)/8
	}
	h.rtt.Store(max(sample, 1))
}

func (h *heart) smoothed() time.Duration { return time.Duration(h.rtt.Load()) }

// beat pings, and ends the link when the peer is silent or its certificate ends.
// Whatever arrives counts as a sign of life, so that lost heartbeats alone end
// nothing. It is also the clock of what has no timer of its own.
func (l *Link) beat() error {
	ticker := time.NewTicker(l.cfg.Heartbeat)
	defer ticker.Stop()
	watch := silence{heartbeat: l.cfg.Heartbeat, limit: l.cfg.DeadAfter, heard: time.Now(), looked: time.Now()}
	for {
		l.datagrams.ping.Store(true)
		l.datagrams.wakeUp()
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			return nil
		}
		if quiet := watch.look(time.Now(), l.conn.ConnectionStats().PacketsReceived); quiet > 0 {
			return &LinkError{Peer: l.peer.Name, Code: wire.CodeSilent, Text: fmt.Sprintf("nothing arrived for %s", quiet)}
		}
		if !l.peer.ValidAt(l.cfg.Now()) {
			return &LinkError{Peer: l.peer.Name, Code: wire.CodeExpired,
				Text: fmt.Sprintf("the certificate of node %q ended at %s", l.peer.Name, l.peer.NotAfter.UTC().Format(time.RFC3339))}
		}
		l.sweepTracks()
	}
}

// silence judges from the count of received packets whether a peer is dead. It
// reads no clock.
type silence struct {
	heartbeat, limit time.Duration
	packets          uint64
	heard, looked    time.Time
}

// look returns how long nothing arrived, 0 while that is within the limit. When
// this process itself did not look in time, because it was suspended or starved,
// the silence is its own and the peer gets the whole limit again.
func (s *silence) look(now time.Time, packets uint64) time.Duration {
	late := now.Sub(s.looked) > 2*s.heartbeat
	s.looked = now
	if packets != s.packets || late {
		s.packets, s.heard = packets, now
		return 0
	}
	if quiet := now.Sub(s.heard); quiet >= s.limit {
		return quiet
	}
	return 0
}
