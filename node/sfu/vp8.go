package sfu

// parseVP8 reads a VP8 payload descriptor (RFC 7741 section 4.2):
//
//	|X|R|N|S|R| PID |  required
//	|I|L|T|K|  RSV  |  if X
//	|M| PictureID   |  if I; two bytes if M
//	|   TL0PICIDX   |  if L
//	|TID|Y| KEYIDX  |  if T or K
func parseVP8(b []byte) (d descriptor, ok bool) {
	if len(b) < 1 {
		return d, false
	}
	at := 1
	if b[0]&0x80 != 0 {
		if at, ok = d.parseVP8Extension(b); !ok {
			return d, false
		}
	}
	if at > len(b) {
		return d, false
	}
	d.begins = b[0]&0x10 != 0 && b[0]&0x07 == 0
	// The frame's own header begins with the inverse key frame flag (RFC 6386 section 9.1).
	d.keyframe = d.begins && at < len(b) && b[at]&0x01 == 0
	return d, true
}

// parseVP8Extension returns the offset of the frame data.
func (d *descriptor) parseVP8Extension(b []byte) (at int, ok bool) {
	if len(b) < 2 {
		return 0, false
	}
	flags := b[1]
	if at, ok = d.parseNumbers(b, 2, flags&0x80 != 0, flags&0x40 != 0); !ok {
		return 0, false
	}
	if flags&0x30 == 0 {
		return at, true
	}
	if at >= len(b) {
		return 0, false
	}
	if flags&0x20 != 0 {
		d.temporal = b[at] >> 6
		d.sync = b[at]&0x20 != 0
	}
	if flags&0x10 != 0 {
		d.keyAt, d.keyIdx = uint8(at), b[at]&0x1f
	}
	return at + 1, true
}

// parseNumbers reads picture id and TL0PICIDX, which VP8 and VP9 write alike if
// VP9 has no layer byte between them.
func (d *descriptor) parseNumbers(b []byte, at int, pid, tl0 bool) (next int, ok bool) {
	if pid {
		if at >= len(b) {
			return 0, false
		}
		d.pidAt, d.pidMask, d.pid = uint8(at), 0x7f, uint16(b[at]&0x7f)
		if b[at]&0x80 != 0 {
			if at+1 >= len(b) {
				return 0, false
			}
			d.pidMask, d.pid = 0x7fff, d.pid<<8|uint16(b[at+1])
			at++
		}
		at++
	}
	if tl0 {
		if at >= len(b) {
			return 0, false
		}
		d.tl0At, d.tl0 = uint8(at), b[at]
		at++
	}
	return at, true
}
