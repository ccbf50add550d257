package relay

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
)

const (
	// firstDatagram fits every path at its start; QUIC says when less does.
	firstDatagram = 1150
	// packTime is the least time between two rounds of sending. A lone track is
	// sent at once; the packets of many tracks that arrive within it share
	// datagrams, which halves their cost and adds 2 ms at most.
	packTime = 2 * time.Millisecond
)

// datagramSender is the state of the goroutine that packs audio packets and
// heartbeats into datagrams. It stands in front of SendDatagram, which blocks
// while QUIC holds 32 of them.
type datagramSender struct {
	wake  chan struct{} // holds a token while there may be something to send
	limit atomic.Int32  // longest datagram the path takes
	ping  atomic.Bool   // a PING is due
	deaf  atomic.Bool   // and the peer is told that nothing arrives
	live  atomic.Bool   // a sign of life is due, that nobody answers
	pong  atomic.Uint64 // token of a PING to answer, 0 if none; the latest wins

	// Owned by sendDatagrams.
	seq     uint32
	buf     []byte
	records int
}

func (d *datagramSender) init() {
	d.wake = make(chan struct{}, 1)
	d.limit.Store(firstDatagram)
	d.buf = make([]byte, wire.DatagramSize, firstDatagram)
}

func (d *datagramSender) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// fits reports whether a datagram takes an RTP packet of n bytes.
func (d *datagramSender) fits(n int) bool {
	return wire.DatagramSize+wire.RecordOverhead+n <= int(d.limit.Load())
}

// sendDatagrams sends heartbeats and audio until the link ends.
func (l *Link) sendDatagrams() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.datagrams.wake:
		case <-l.ctx.Done():
			return nil
		}
		if err := l.sendRound(); err != nil {
			return err
		}
		timer.Reset(packTime)
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			return nil
		}
	}
}

// sendRound sends what waits now. Heartbeats go first.
func (l *Link) sendRound() error {
	d := &l.datagrams
	if d.ping.Swap(false) {
		d.buf = wire.AppendHeartbeat(d.buf, wire.Ping, l.heart.token(time.Now()))
		d.records++
		if d.deaf.Load() {
			d.buf = wire.AppendHeartbeat(d.buf, wire.Pong, wire.Deaf)
			d.records++
		}
	}
	if d.live.Swap(false) && d.records == 0 {
		d.buf = wire.AppendHeartbeat(d.buf, wire.Pong, wire.Alive)
		d.records++
	}
	if token := d.pong.Swap(0); token != 0 {
		d.buf = wire.AppendHeartbeat(d.buf, wire.Pong, token)
		d.records++
	}
	for _, t := range *l.audio.Load() {
		if err := l.packTrack(t); err != nil {
			return err
		}
	}
	return l.sendPacked()
}

// packTrack moves a track's packets into datagrams, but for those that waited for
// so long that nobody would play them.
func (l *Link) packTrack(t *Track) error {
	standing := t.standing(l.cfg.Now())
	if standing == waits {
		return nil // Renew wakes the sender
	}
	t.audio.take(&t.spare)
	if t.spare.n == 0 {
		return nil
	}
	if standing == over {
		t.count.drop(DropRevoked, t.spare.n)
		return nil
	}
	d := &l.datagrams
	now := time.Now()
	for records := t.spare.buf[t.spare.head:]; ; {
		record, _, rest, _ := wire.NextPacket(records)
		if record == nil {
			return nil
		}
		records = rest
		if since, ok := t.spare.since(timestamp(record[wire.RecordOverhead:])); ok && now.Sub(since) >= l.cfg.FrameDeadline {
			t.count.drop(DropDeadline, 1)
			continue
		}
		if len(d.buf)+len(record) > int(d.limit.Load()) {
			if err := l.sendPacked(); err != nil {
				return err
			}
			if t.revoked.Load() != nil { // sending may have waited
				n, _ := measure(records)
				t.count.drop(DropRevoked, n+1)
				return nil
			}
			now = time.Now()
		}
		d.buf = append(d.buf, record...)
		d.records++
		t.count.sent(1, len(record)-wire.RecordOverhead)
	}
}

// sendPacked hands the packed datagram to QUIC.
func (l *Link) sendPacked() error {
	d := &l.datagrams
	if d.records == 0 {
		return nil
	}
	wire.PutDatagram(d.buf, d.seq)
	err := l.conn.SendDatagram(d.buf)
	var large *quic.DatagramTooLargeError
	switch {
	case errors.As(err, &large):
		d.limit.Store(int32(large.MaxDatagramPayloadSize))
		l.count.drop(DropOversize, d.records)
		err = nil
	case err == nil:
		d.seq++
	}
	d.buf, d.records = d.buf[:wire.DatagramSize], 0
	return l.unlessEnded(err)
}

// receiveDatagrams always reads: QUIC throws away what waits beyond 128.
func (l *Link) receiveDatagrams() error {
	burst := make([][]byte, 1)
	for {
		b, err := l.conn.ReceiveDatagram(l.ctx)
		if err != nil {
			return l.unlessEnded(err)
		}
		if err := l.receiveDatagram(b, burst, l.cfg.Now()); err != nil {
			return protocolError(fmt.Errorf("datagram: %w", err))
		}
	}
}

// receiveDatagram hands each record on; burst has room for one packet.
func (l *Link) receiveDatagram(b []byte, burst [][]byte, now time.Time) error {
	seq, records, err := wire.ParseDatagram(b)
	if err != nil {
		return err
	}
	l.receiver.sawDatagram(seq)
	for len(records) > 0 {
		r, rest, err := wire.NextRecord(records)
		if err != nil {
			return err
		}
		records = rest
		switch {
		case r.Alias != 0:
			if b := l.receiver.binding(r.Alias); b != nil {
				burst[0] = r.Body
				b.deliver(r.Layer, burst, now)
			} else {
				l.count.drop(DropUnbound, 1)
			}
		case r.Layer == wire.Ping:
			l.datagrams.pong.Store(r.Token())
			l.datagrams.wakeUp()
		default:
			l.heart.pong(r.Token(), time.Now())
		}
	}
	return nil
}
