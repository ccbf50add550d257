package sfu

// Provisional: what node/rtc needs until the media plane has the real ones.

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtcp"
)

type ReceiverConfig struct {
	SSRC      uint32
	Kind      Kind
	ClockRate uint32
	Nack      bool
}
type Receiver struct {
	cfg     ReceiverConfig
	highest uint16
	n       int
}

func NewReceiver(c ReceiverConfig) *Receiver { return &Receiver{cfg: c} }
func (r *Receiver) Take(rtp []byte, at time.Time) bool {
	r.highest = binary.BigEndian.Uint16(rtp[2:])
	r.n++
	return true
}
func (r *Receiver) Repair(rtx []byte, pt uint8, at time.Time) ([]byte, bool) {
	h, err := parseHeader(rtx)
	if err != nil || h.end-h.start < 2 {
		return nil, false
	}
	binary.BigEndian.PutUint16(rtx[2:], binary.BigEndian.Uint16(rtx[h.start:]))
	binary.BigEndian.PutUint32(rtx[8:], r.cfg.SSRC)
	rtx[1] = rtx[1]&0x80 | pt
	copy(rtx[2:h.start+2], rtx[:h.start])
	return rtx[2:], true
}
func (r *Receiver) Nacks(now time.Time, buf []rtcp.NackPair) ([]rtcp.NackPair, bool) {
	return buf, false
}
func (r *Receiver) SenderReport(sr SenderReport) {}
func (r *Receiver) Report(now time.Time) (rtcp.ReceptionReport, bool) {
	n := r.n
	r.n = 0
	return rtcp.ReceptionReport{SSRC: r.cfg.SSRC, LastSequenceNumber: uint32(r.highest)}, n > 0
}

func ExtensionValue(rtp []byte, id uint8) []byte {
	if id == 0 || len(rtp) < headerSize || rtp[0]&0x10 == 0 {
		return nil
	}
	at := headerSize + 4*int(rtp[0]&0x0f)
	if len(rtp) < at+4 {
		return nil
	}
	profile := binary.BigEndian.Uint16(rtp[at:])
	end := at + 4 + 4*int(binary.BigEndian.Uint16(rtp[at+2:]))
	if end > len(rtp) {
		return nil
	}
	switch {
	case profile == 0xbede:
		return provisionalOne(rtp[at+4:end], id)
	case profile&0xfff0 == 0x1000:
		return provisionalTwo(rtp[at+4:end], id)
	}
	return nil
}

func provisionalOne(b []byte, id uint8) []byte {
	for len(b) > 0 {
		if b[0] == 0 { // padding
			b = b[1:]
			continue
		}
		have, n := b[0]>>4, int(b[0]&0x0f)+1
		if have == 15 || len(b) < 1+n {
			return nil
		}
		if have == id {
			return b[1 : 1+n]
		}
		b = b[1+n:]
	}
	return nil
}

func provisionalTwo(b []byte, id uint8) []byte {
	for len(b) > 1 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			return nil
		}
		if b[0] == id {
			return b[2 : 2+n]
		}
		b = b[2+n:]
	}
	return nil
}

type Demand struct {
	Max    Layer
	Rates  [3][4]float64
	Paused bool
}

func (d *DownTrack) Demand(now time.Time) Demand {
	one := [4]float64{1, 1, 1, 1}
	return Demand{Max: d.max, Rates: [3][4]float64{one, one, one}}
}
func (d *DownTrack) Pad(bytes int, out Out) int { return 0 }
