package relay

import (
	"github.com/domicile/domicile/relay/flow"
	"github.com/domicile/domicile/relay/wire"
)

// carriage brings to the peer what tracks offer. There are two: streams, on the
// QUIC connection of the link, which every link has; and hop, on UDP beside it,
// which is used where it passes. Messages, requests and all that is counted stay
// on QUIC. Permits and accounts belong to tracks and bindings, whatever carries
// them: each carriage looks at Track.standing before a batch leaves, and hands
// what comes to binding.deliver.
type carriage interface {
	// offer queues a copy of a packet. It never blocks.
	offer(t *Track, layer uint8, marker bool, rtp []byte)
}

// carriage is for a packet of n bytes, now.
func (l *Link) carriage(n int) carriage {
	if l.hop != nil && l.hop.takes(n) {
		return l.hop
	}
	return streams{l}
}

// streams is the carriage on QUIC: audio in datagrams, video in a stream for each
// frame.
type streams struct{ l *Link }

func (s streams) offer(t *Track, layer uint8, marker bool, rtp []byte) {
	if t.audio == nil || !s.l.datagrams.fits(len(rtp)) {
		t.offerLane(layer, marker, rtp)
		return
	}
	var head [wire.RecordOverhead]byte
	wire.PutRecord(head[:], t.alias, layer, len(rtp))
	t.count.drop(DropQueueFull, t.audio.push(head[:], rtp, false))
	s.l.datagrams.wakeUp()
}

// carriageNow names the carriage in use, and why it is.
func (l *Link) carriageNow() (flow.Carriage, flow.Reason) {
	if l.hop == nil {
		return flow.QUIC, flow.Alone
	}
	return l.hop.chosen()
}
