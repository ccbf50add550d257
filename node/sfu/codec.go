package sfu

import "strings"

// format is what the media plane must know of a payload: how a keyframe begins,
// and whether pictures carry numbers that a switch would break.
type format uint8

const (
	formatOpaque format = iota // audio, and codecs we do not read: every packet may begin a stream
	formatVP8
	formatVP9
	formatH264
	formatAV1
)

func formatOf(c Codec) format {
	switch strings.ToLower(c.MimeType) {
	case "video/vp8":
		return formatVP8
	case "video/vp9":
		return formatVP9
	case "video/h264":
		return formatH264
	case "video/av1":
		return formatAV1
	}
	return formatOpaque
}

// keyframe reports whether the payload starts a keyframe.
func (f format) keyframe(payload []byte) bool {
	if len(payload) == 0 {
		return false
	}
	switch f {
	case formatVP8:
		d, ok := parseVP8(payload)
		return ok && d.keyframe
	case formatVP9:
		return keyframeVP9(payload)
	case formatH264:
		return keyframeH264(payload)
	case formatAV1:
		return keyframeAV1(payload)
	}
	return true
}

// vp8 is a VP8 payload descriptor (RFC 7741 section 4.2):
//
//	|X|R|N|S|R| PID |  required
//	|I|L|T|K|  RSV  |  if X
//	|M| PictureID   |  if I; two bytes if M
//	|   TL0PICIDX   |  if L
//	|TID|Y| KEYIDX  |  if T or K
type vp8 struct {
	pid      uint16
	tl0      uint8
	pidAt    int // offset of PictureID, 0 if there is none
	pidMask  uint16
	tl0At    int // offset of TL0PICIDX, 0 if there is none
	keyframe bool
}

func parseVP8(b []byte) (d vp8, ok bool) {
	if len(b) < 1 {
		return d, false
	}
	at := 1
	if b[0]&0x80 != 0 {
		if at, ok = d.parseExtended(b); !ok {
			return d, false
		}
	}
	if at > len(b) {
		return d, false
	}
	first := b[0]&0x10 != 0 && b[0]&0x07 == 0
	// The frame's own header begins with the inverse key frame flag (RFC 6386 section 9.1).
	d.keyframe = first && at < len(b) && b[at]&0x01 == 0
	return d, true
}

// parseExtended returns the offset of the frame data.
func (d *vp8) parseExtended(b []byte) (int, bool) {
	if len(b) < 2 {
		return 0, false
	}
	flags, at := b[1], 2
	if flags&0x80 != 0 {
		if at >= len(b) {
			return 0, false
		}
		d.pidAt, d.pidMask, d.pid = at, 0x7f, uint16(b[at]&0x7f)
		if b[at]&0x80 != 0 {
			if at+1 >= len(b) {
				return 0, false
			}
			d.pidMask, d.pid = 0x7fff, d.pid<<8|uint16(b[at+1])
			at++
		}
		at++
	}
	if flags&0x40 != 0 {
		if at >= len(b) {
			return 0, false
		}
		d.tl0At, d.tl0 = at, b[at]
		at++
	}
	if flags&0x30 != 0 {
		at++
	}
	return at, true
}

// patch writes new numbers into b, which starts with the descriptor that d was
// parsed from. The width of the picture id stays.
func (d *vp8) patch(b []byte, pid uint16, tl0 uint8) {
	if d.pidAt != 0 {
		pid &= d.pidMask
		if d.pidMask == 0x7f {
			b[d.pidAt] = byte(pid)
		} else {
			b[d.pidAt] = 0x80 | byte(pid>>8)
			b[d.pidAt+1] = byte(pid)
		}
	}
	if d.tl0At != 0 {
		b[d.tl0At] = tl0
	}
}

// keyframeVP9 reads the descriptor of RFC 9628 section 4.2: not inter-predicted,
// beginning of a frame, lowest spatial layer.
func keyframeVP9(b []byte) bool {
	const i, p, l, begin = 0x80, 0x40, 0x20, 0x08
	if b[0]&p != 0 || b[0]&begin == 0 {
		return false
	}
	if b[0]&l == 0 {
		return true
	}
	at := 1
	if b[0]&i != 0 {
		if at >= len(b) {
			return false
		}
		if b[at]&0x80 != 0 {
			at++
		}
		at++
	}
	return at < len(b) && b[at]>>1&0x07 == 0
}

// keyframeH264 looks for a sequence parameter set (RFC 6184): browsers send one
// in front of every IDR picture, and a decoder cannot start without it.
func keyframeH264(b []byte) bool {
	const sps, stapA, fuA = 7, 24, 28
	switch b[0] & 0x1f {
	case sps:
		return true
	case stapA:
		for at := 1; at+2 < len(b); {
			if b[at+2]&0x1f == sps {
				return true
			}
			at += 2 + int(b[at])<<8 + int(b[at+1])
		}
	case fuA:
		return len(b) > 1 && b[1]&0x80 != 0 && b[1]&0x1f == sps
	}
	return false
}

// keyframeAV1 reads the aggregation header of the AV1 RTP payload: N marks the
// first packet of a coded video sequence, Z a continued fragment.
func keyframeAV1(b []byte) bool {
	const z, n = 0x80, 0x08
	return b[0]&n != 0 && b[0]&z == 0
}
