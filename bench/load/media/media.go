// Package media makes the payloads that the load generator publishes: frames
// that a VP8 depacketiser and a node's keyframe detection take for real ones,
// and packets of Opus's size. Each payload ends with the time it was made, by
// which receivers on the same machine measure how long it was on its way.
//
// It is pure: callers pass the time. Its frames cannot be decoded to pictures.
package media

import (
	"encoding/binary"
	"time"
)

// What a publisher sends unless told otherwise: 180 packets/s of video, as a
// camera at 1.65 Mbit/s does, and 50 of audio. A sharper one sends 210 that are a
// little larger, which is 2 Mbit/s of RTP.
const (
	FrameRate      = 30
	FramePackets   = 6
	VideoPayload   = 1138 // bytes; 1150 with the RTP header
	SharpPackets   = 7    // of a frame
	SharpPayload   = 1178 // bytes; 1190 with the RTP header
	VideoClock     = 90000
	AudioRate      = 50
	AudioPayload   = 80 // bytes, 32 kbit/s
	AudioClock     = 48000
	stampSize      = 4 + 8
	stampMagic     = 0x444d4243
	descriptorSize = 5
	keyframeWidth  = 640
	keyframeHeight = 360
)

// Stamp writes the time into the end of a payload, which must hold 12 bytes.
//
//	| ... | magic (4) | Unix time in nanoseconds (8) |
func Stamp(payload []byte, at time.Time) {
	b := payload[len(payload)-stampSize:]
	binary.BigEndian.PutUint32(b, stampMagic)
	binary.BigEndian.PutUint64(b[4:], uint64(at.UnixNano()))
}

// ReadStamp returns the time in the end of a payload; false if there is none.
func ReadStamp(payload []byte) (time.Time, bool) {
	if len(payload) < stampSize {
		return time.Time{}, false
	}
	b := payload[len(payload)-stampSize:]
	if binary.BigEndian.Uint32(b) != stampMagic {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b[4:]))), true
}

// Video makes the packets of one VP8 stream.
type Video struct {
	Sharp bool // of 2 Mbit/s

	picture uint16
	tl0     uint8
	buf     [SharpPayload]byte
}

// Packets is how many there are in a frame.
func (v *Video) Packets() int {
	if v.Sharp {
		return SharpPackets
	}
	return FramePackets
}

func (v *Video) payload() []byte {
	if v.Sharp {
		return v.buf[:]
	}
	return v.buf[:VideoPayload]
}

// Packet makes packet i of the frame at work. The result is valid until the
// next call.
func (v *Video) Packet(i int, keyframe bool, now time.Time) []byte {
	v.describe(i)
	if i == 0 {
		v.frameHeader(keyframe)
	}
	b := v.payload()
	Stamp(b, now)
	return b
}

// Next goes on to the next frame.
func (v *Video) Next() {
	v.picture = (v.picture + 1) & 0x7fff
	v.tl0++
}

// describe writes the payload descriptor of RFC 7741 section 4.2, with a picture
// id of 15 bits and TL0PICIDX as browsers send them.
func (v *Video) describe(i int) {
	const extended, start, hasPicture, hasTL0, longPicture = 0x80, 0x10, 0x80, 0x40, 0x80
	v.buf[0] = extended
	if i == 0 {
		v.buf[0] |= start
	}
	v.buf[1] = hasPicture | hasTL0
	v.buf[2] = longPicture | byte(v.picture>>8)
	v.buf[3] = byte(v.picture)
	v.buf[4] = v.tl0
}

// frameHeader writes the uncompressed part of RFC 6386 section 9.1.
func (v *Video) frameHeader(keyframe bool) {
	const inter, show = 0x01, 0x10
	b := v.buf[descriptorSize:]
	size := uint32(1000) << 5
	b[0], b[1], b[2] = show|byte(size), byte(size>>8), byte(size>>16)
	if !keyframe {
		b[0] |= inter
		return
	}
	b[3], b[4], b[5] = 0x9d, 0x01, 0x2a
	binary.LittleEndian.PutUint16(b[6:], keyframeWidth)
	binary.LittleEndian.PutUint16(b[8:], keyframeHeight)
}

// Audio makes the packets of one stream of Opus's size.
type Audio struct{ buf [AudioPayload]byte }

// Packet makes the next packet, valid until the next call.
func (a *Audio) Packet(now time.Time) []byte {
	a.buf[0] = 0x78 // 20 ms of CELT, stereo off (RFC 6716 section 3.1)
	Stamp(a.buf[:], now)
	return a.buf[:]
}
