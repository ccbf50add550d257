package sfu

// keyframeH264 looks for a sequence parameter set (RFC 6184): browsers send one
// in front of every IDR picture, and a decoder cannot start without it.
func keyframeH264(b []byte) bool {
	const sps, stapA, fuA = 7, 24, 28
	if len(b) == 0 {
		return false
	}
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
