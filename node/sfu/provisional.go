package sfu

// Provisional: what node/rtc needs until the media plane has the real ones.

import (
	"encoding/binary"
	"time"
)

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
