package sfu

// parseVP9 reads a VP9 payload descriptor (RFC 9628 section 4.2):
//
//	|I|P|L|F|B|E|V|Z|  required
//	|M| PICTURE ID  |  if I; two bytes if M
//	| TID |U| SID |D|  if L
//	|   TL0PICIDX   |  if L and not F
//	| P_DIFF      |N|  if P and F: up to three
//	  scalability structure, if V: passed on unread
//
// Within a stream picture ids are left as they are, also where pictures are
// left out: the reference differences count in them. TL0PICIDX moves with the
// lowest temporal layer, of which nothing is left out.
func parseVP9(b []byte, svc bool) (d descriptor, ok bool) {
	const i, p, l, f, begin, end = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04
	if len(b) < 1 {
		return d, false
	}
	at, ok := d.parseNumbers(b, 1, b[0]&i != 0, false)
	if !ok {
		return d, false
	}
	d.begins, d.ends = b[0]&begin != 0, b[0]&end != 0
	d.intra = b[0]&p == 0
	spatial := uint8(0)
	if b[0]&l != 0 {
		if at >= len(b) {
			return d, false
		}
		d.temporal = min(b[at]>>5, MaxTemporal-1)
		d.sync = b[at]&0x10 != 0
		spatial = b[at] >> 1 & 0x07
		if _, ok = d.parseNumbers(b, at+1, false, b[0]&f == 0); !ok {
			return d, false
		}
	}
	d.keyframe = d.intra && d.begins && spatial == 0
	if svc {
		d.spatial = spatial
	}
	return d, true
}
