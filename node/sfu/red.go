package sfu

// redPrimary returns the newest frame of redundant audio (RFC 2198 section 3),
// where the late copies of earlier ones come first:
//
//	|1| block PT  | timestamp offset, 14 | length, 10 |   each copy
//	|0| block PT  |                                       the newest
func redPrimary(b []byte) (primary []byte, ok bool) {
	at, copies := 0, 0
	for at < len(b) && b[at]&0x80 != 0 {
		if at+4 > len(b) {
			return nil, false
		}
		copies += int(b[at+2]&0x03)<<8 | int(b[at+3])
		at += 4
	}
	if at++; at+copies > len(b) {
		return nil, false
	}
	return b[at+copies:], true
}

// redRename gives the blocks in b the payload type under which the receiver
// knows Opus. b has been read by redPrimary.
func redRename(b []byte, pt uint8) {
	at := 0
	for at < len(b) && b[at]&0x80 != 0 {
		b[at] = 0x80 | pt&0x7f
		at += 4
	}
	if at < len(b) {
		b[at] = pt & 0x7f
	}
}
