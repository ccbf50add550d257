package sfu

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/pion/rtcp"
)

const (
	// seenWindow is how many sequence numbers are remembered, for duplicates and
	// stragglers: the packets of more than a second at 5 Mbit/s.
	seenWindow = 1024
	// A missing packet is asked for when it can no longer be merely overtaken:
	// after so many later ones (RFC 5681 uses the same number), or so long.
	overtakePackets = 3
	overtakeTime    = 20 * time.Millisecond
	// nackRetry is how long the answer may take before a packet is asked for
	// again, and grows by half with each try. Publishers reach their node within
	// some 50 ms, and ask twice for nothing otherwise.
	nackRetry = 60 * time.Millisecond
	nackTries = 8
	// A packet is given up when it would come too late to be shown: browsers'
	// jitter buffers hold video for about a second and audio for a third of that.
	videoPatience = time.Second
	audioPatience = 300 * time.Millisecond
	// maxMissing bounds the packets that are waited for. A larger hole is filled
	// more cheaply by a keyframe.
	maxMissing = 256
)

// ReceiverConfig describes an incoming stream.
type ReceiverConfig struct {
	SSRC      uint32
	Kind      Kind
	ClockRate uint32 // Hz
	Nack      bool   // the publisher takes NACKs (RFC 4585)
}

// Receiver follows one stream of a publisher: which packets came, which are to be
// asked for again, and what its receiver report says (RFC 3550). It is a plain
// value; its owner calls one method at a time.
type Receiver struct {
	cfg     ReceiverConfig
	started bool
	base    int64 // the first sequence number, without wrap, as are the others
	highest int64
	seen    [seenWindow / 64]uint64 // bit per number of the window that ends with highest
	missing []missing               // in order

	received uint64 // without those that were repaired: the report is about the path
	prior    struct{ expected, received uint64 }
	reported int64 // highest at the last report
	jitter   float64
	transit  float64
	report   uint32 // middle 32 bits of the last sender report's NTP time
	reportAt time.Time
}

// missing is a packet that did not come yet.
type missing struct {
	ext   int64
	since time.Time
	next  time.Time // when to ask (again)
	wait  time.Duration
	tries int
}

// NewReceiver returns a Receiver before its first packet.
func NewReceiver(cfg ReceiverConfig) *Receiver {
	cfg.ClockRate = max(cfg.ClockRate, 1)
	return &Receiver{cfg: cfg}
}

// Take notes a packet with at least a whole fixed header. It reports false for one
// that came before, or so late that nobody can tell.
func (r *Receiver) Take(rtp []byte, at time.Time) bool {
	if len(rtp) < headerSize {
		return false
	}
	seq, ts := binary.BigEndian.Uint16(rtp[2:]), binary.BigEndian.Uint32(rtp[4:])
	if !r.note(seq, at) {
		return false
	}
	r.received++
	r.vary(ts, at)
	return true
}

// Repair undoes RFC 4588 in place and notes the packet that comes out:
//
//	| header: RTX type, SSRC, number | original number (16) | payload |
//
// It reports false for padding, for what came before, and for what cannot be read.
func (r *Receiver) Repair(rtx []byte, primaryPT uint8, at time.Time) (rtp []byte, ok bool) {
	h, err := parseHeader(rtx)
	if err != nil || h.end-h.start < 2 {
		return nil, false
	}
	seq := binary.BigEndian.Uint16(rtx[h.start:])
	rtx[1] = rtx[1]&0x80 | primaryPT&0x7f
	binary.BigEndian.PutUint16(rtx[2:], seq)
	binary.BigEndian.PutUint32(rtx[8:], r.cfg.SSRC)
	copy(rtx[2:], rtx[:h.start]) // the header takes the place of the original number
	return rtx[2:], r.note(seq, at)
}

// note puts a sequence number where it belongs.
func (r *Receiver) note(seq uint16, at time.Time) bool {
	if !r.started {
		r.restart(seq)
		return true
	}
	ahead := int64(int16(seq - uint16(r.highest)))
	switch {
	case ahead > maxDropout || ahead < -maxDropout:
		r.restart(seq) // RFC 3550 appendix A.1; the UpTrack wants to see it twice
		return true
	case ahead > 0:
		r.advance(r.highest+ahead, at)
		return true
	case ahead <= -seenWindow || r.has(r.highest+ahead):
		return false
	}
	r.mark(r.highest + ahead)
	r.found(r.highest + ahead)
	return true
}

func (r *Receiver) restart(seq uint16) {
	r.started = true
	r.highest = 1<<16 + int64(seq)
	r.base, r.reported = r.highest, r.highest-1
	r.missing = r.missing[:0]
	r.received, r.prior.expected, r.prior.received = 0, 0, 0
	clear(r.seen[:])
	r.mark(r.highest)
}

// advance moves the window on and notes the hole that a packet leaves.
func (r *Receiver) advance(ext int64, at time.Time) {
	for n := r.highest + 1; n < ext; n++ {
		r.unmark(n)
		if r.cfg.Nack {
			r.missing = append(r.missing, missing{ext: n, since: at, next: at.Add(overtakeTime)})
		}
	}
	r.mark(ext)
	r.highest = ext
}

func (r *Receiver) has(ext int64) bool {
	return r.seen[ext%seenWindow/64]&(1<<(ext%64)) != 0
}
func (r *Receiver) mark(ext int64)   { r.seen[ext%seenWindow/64] |= 1 << (ext % 64) }
func (r *Receiver) unmark(ext int64) { r.seen[ext%seenWindow/64] &^= 1 << (ext % 64) }

func (r *Receiver) found(ext int64) {
	i, ok := slices.BinarySearchFunc(r.missing, ext, func(m missing, ext int64) int { return int(m.ext - ext) })
	if ok {
		r.missing = slices.Delete(r.missing, i, i+1)
	}
}

// vary follows the interarrival jitter (RFC 3550 section 6.4.1 and appendix A.8).
func (r *Receiver) vary(ts uint32, at time.Time) {
	// Arrival on the stream's clock, within a day, so that a float64 holds it well.
	arrival := float64(at.UnixMicro()%86_400_000_000) / 1e6 * float64(r.cfg.ClockRate)
	transit := arrival - float64(ts)
	if d := transit - r.transit; r.received > 1 && d < 1<<31 && d > -1<<31 {
		r.jitter += (max(d, -d) - r.jitter) / 16
	}
	r.transit = transit
}

// Nacks appends the packets to be asked for now. keyframe says that some were
// given up, so that a picture can only go on with a keyframe.
func (r *Receiver) Nacks(now time.Time, buf []rtcp.NackPair) (pairs []rtcp.NackPair, keyframe bool) {
	if len(r.missing) == 0 {
		return buf, false
	}
	keyframe = r.giveUp(now)
	for i := range r.missing {
		m := &r.missing[i]
		if !m.due(now, r.highest) {
			continue
		}
		m.wait = max(m.wait+m.wait/2, nackRetry)
		m.next = now.Add(m.wait)
		m.tries++
		buf = appendNack(buf, uint16(m.ext))
	}
	return buf, keyframe
}

// due: the first time as soon as enough later packets came.
func (m *missing) due(now time.Time, highest int64) bool {
	if !now.Before(m.next) {
		return true
	}
	return m.tries == 0 && highest-m.ext >= overtakePackets
}

// giveUp drops what will not come any more.
func (r *Receiver) giveUp(now time.Time) (keyframe bool) {
	patience := videoPatience
	if r.cfg.Kind == Audio {
		patience = audioPatience
	}
	n := max(len(r.missing)-maxMissing, 0)
	for n < len(r.missing) && (now.Sub(r.missing[n].since) > patience || r.missing[n].tries >= nackTries) {
		n++
	}
	r.missing = slices.Delete(r.missing, 0, n)
	return n > 0 && r.cfg.Kind == Video
}

// appendNack adds a sequence number to a list of pairs (RFC 4585 section 6.2.1):
// a number and a mask of the sixteen that follow.
func appendNack(pairs []rtcp.NackPair, seq uint16) []rtcp.NackPair {
	if n := len(pairs); n > 0 {
		last := &pairs[n-1]
		if d := seq - last.PacketID; d >= 1 && d <= 16 {
			last.LostPackets |= 1 << (d - 1)
			return pairs
		}
	}
	return append(pairs, rtcp.NackPair{PacketID: seq})
}

// SenderReport notes when the publisher's last report came, for its round-trip time.
func (r *Receiver) SenderReport(sr SenderReport) {
	r.report, r.reportAt = uint32(sr.NTP>>16), sr.Arrival
}

// Report returns the stream's block of a receiver report; false if nothing came
// since the last one.
func (r *Receiver) Report(now time.Time) (rtcp.ReceptionReport, bool) {
	if !r.started || r.highest == r.reported {
		return rtcp.ReceptionReport{}, false
	}
	r.reported = r.highest
	expected := uint64(r.highest - r.base + 1)
	lost := int64(expected) - int64(r.received)
	rep := rtcp.ReceptionReport{
		SSRC: r.cfg.SSRC, LastSequenceNumber: uint32(r.highest - 1<<16),
		TotalLost: uint32(min(max(lost, 0), 1<<23-1)), Jitter: uint32(r.jitter),
		FractionLost: fraction(expected-r.prior.expected, r.received-r.prior.received),
	}
	r.prior.expected, r.prior.received = expected, r.received
	if !r.reportAt.IsZero() {
		rep.LastSenderReport = r.report
		rep.Delay = uint32(max(now.Sub(r.reportAt), 0).Seconds() * (1 << 16))
	}
	return rep, true
}

// fraction is the loss between two reports in 1/256 (RFC 3550 appendix A.3).
func fraction(expected, received uint64) uint8 {
	if expected == 0 || received >= expected {
		return 0
	}
	return uint8(min((expected-received)*256/expected, 255))
}

// Counts is what a Receiver has seen since the stream began or began anew.
type Counts struct {
	Expected uint64 // packets, by their numbers
	Received uint64 // of them, without those that were sent again
	Jitter   time.Duration
}

// Counts returns what came of the stream.
func (r *Receiver) Counts() Counts {
	if !r.started {
		return Counts{}
	}
	return Counts{
		Expected: uint64(r.highest - r.base + 1), Received: r.received,
		Jitter: time.Duration(r.jitter / float64(r.cfg.ClockRate) * float64(time.Second)),
	}
}
