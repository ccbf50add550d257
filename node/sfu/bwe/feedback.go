package bwe

import (
	"time"

	"github.com/pion/rtcp"
)

// Ignored counts reports that said nothing, by cause.
type Ignored struct {
	Malformed uint64 // chunks, deltas and count disagree, or a value that cannot be
	Unknown   uint64 // feedback on packets that were not sent, or are long forgotten
	Repeated  uint64 // packets that an earlier feedback reported already
}

// arrival is a packet that feedback spoke of. arrived is on the receiver's clock.
type arrival struct {
	sent, arrived time.Duration
	size          uint16
	cluster       uint8
	lost          bool
	revived       bool // reported as lost before
}

// arrivalClock turns reference times, 24 bits of 64 ms, into a clock that runs on.
type arrivalClock struct {
	last    int64 // unwrapped reference time
	started bool
}

const (
	referenceUnit = 64 * time.Millisecond
	// clockLeap is a minute: further apart it is another clock, and starts anew.
	clockLeap = int64(time.Minute / referenceUnit)
)

func (c *arrivalClock) reference(ref uint32) time.Duration {
	ref &= 1<<24 - 1
	if !c.started {
		c.started, c.last = true, int64(ref)+1<<24
	}
	diff := int64(int32((ref-uint32(c.last&(1<<24-1)))<<8) >> 8)
	if diff > clockLeap || diff < -clockLeap {
		c.last = int64(ref) + 1<<24
		return time.Duration(c.last) * referenceUnit
	}
	c.last += diff
	return time.Duration(c.last) * referenceUnit
}

// reader walks the receive deltas beside the symbols of the chunks.
type reader struct {
	deltas []*rtcp.RecvDelta
	time   time.Duration
}

// next returns the arrival time of a packet with that symbol.
func (r *reader) next(symbol uint16) (time.Duration, bool) {
	if len(r.deltas) == 0 || r.deltas[0] == nil {
		return 0, false
	}
	d := r.deltas[0]
	r.deltas = r.deltas[1:]
	// The library gives microseconds; what is beyond 16 bits of 250 µs is made up.
	if d.Type != symbol || d.Delta > 32767*250 || d.Delta < -32768*250 {
		return 0, false
	}
	r.time += time.Duration(d.Delta) * time.Microsecond
	return r.time, true
}

// read fills e.recent with what a feedback says of packets that were sent. It
// looks at no more statuses than there are packets in the history, however many
// the feedback claims.
func (e *Estimator) read(fb *rtcp.TransportLayerCC, at time.Duration) bool {
	e.recent = e.recent[:0]
	count := int(fb.PacketStatusCount)
	base := e.history.unwrap(fb.BaseSequenceNumber)
	if count == 0 || count > historySize {
		e.ignored.Malformed++
		return false
	}
	if !e.history.started || base > e.history.newest || base+int64(count) <= e.history.newest-historySize {
		e.ignored.Unknown++
		return false
	}
	if !plausible(fb, count) {
		e.ignored.Malformed++
		return false
	}
	r := reader{deltas: fb.RecvDeltas, time: e.clock.reference(fb.ReferenceTime)}
	n, newest := base, time.Duration(-1)
	for _, chunk := range fb.PacketChunks {
		symbols, run, list := unpack(chunk)
		for i := 0; i < symbols && count > 0; i++ {
			symbol := run
			if list != nil {
				symbol = list[i]
			}
			if sent, ok := e.status(n, symbol, &r); ok {
				newest = max(newest, sent)
			}
			n++
			count--
		}
	}
	if newest >= 0 {
		e.measure(at - newest)
	}
	return len(e.recent) > 0
}

// unpack returns a chunk's symbols: a run of one, or a list.
func unpack(chunk rtcp.PacketStatusChunk) (n int, run uint16, list []uint16) {
	switch c := chunk.(type) {
	case *rtcp.RunLengthChunk:
		if c != nil {
			return int(c.RunLength), c.PacketStatusSymbol, nil
		}
	case *rtcp.StatusVectorChunk:
		if c != nil {
			return len(c.SymbolList), 0, c.SymbolList
		}
	}
	return 0, 0, nil
}

// plausible checks before anything is believed that symbols, deltas and count
// agree: a feedback counts whole or not at all.
func plausible(fb *rtcp.TransportLayerCC, count int) bool {
	r := reader{deltas: fb.RecvDeltas}
	for _, chunk := range fb.PacketChunks {
		symbols, run, list := unpack(chunk)
		for i := 0; i < symbols && count > 0; i++ {
			symbol := run
			if list != nil {
				symbol = list[i]
			}
			if hasDelta(symbol) {
				if _, ok := r.next(symbol); !ok {
					return false
				}
			}
			count--
		}
	}
	return count == 0
}

func hasDelta(symbol uint16) bool {
	return symbol == rtcp.TypeTCCPacketReceivedSmallDelta || symbol == rtcp.TypeTCCPacketReceivedLargeDelta
}

// status takes what the feedback says of packet n, and returns when that was
// sent if it is news that it arrived.
func (e *Estimator) status(n int64, symbol uint16, r *reader) (time.Duration, bool) {
	received, when := hasDelta(symbol), time.Duration(0)
	if received {
		when, _ = r.next(symbol)
	}
	rec := e.history.get(n)
	if rec == nil || symbol == rtcp.TypeTCCPacketReceivedWithoutDelta {
		return 0, false
	}
	if rec.known == landed || rec.known == missing && !received {
		e.ignored.Repeated++
		return 0, false
	}
	p := arrival{sent: rec.sent, arrived: when, size: rec.size, cluster: rec.cluster, lost: !received, revived: rec.known == missing}
	rec.known = landed
	if !received {
		rec.known = missing
	}
	e.recent = append(e.recent, p)
	return rec.sent, received
}

// measure smooths the time from sending a packet to hearing of it: the round
// trip and what the receiver waits before it reports.
func (e *Estimator) measure(sample time.Duration) {
	sample = min(max(sample, 0), maxRTT)
	if e.rtt == 0 {
		e.rtt = sample
		return
	}
	e.rtt += (sample - e.rtt) / 8
}

// maxRTT bounds what is believed of a round trip.
const maxRTT = 2 * time.Second
