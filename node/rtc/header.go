package rtc

import "encoding/binary"

// The parts of an RTP packet (RFC 3550 section 5.1) that say whose it is. The
// media plane reads the rest.
const rtpHeader = 12

func payloadType(rtp []byte) uint8 { return rtp[1] & 0x7f }
func sequence(rtp []byte) uint16   { return binary.BigEndian.Uint16(rtp[2:]) }
func ssrcOf(rtp []byte) uint32     { return binary.BigEndian.Uint32(rtp[8:]) }
