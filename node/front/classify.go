package front

// kind is what the first bytes of a connection say that it speaks.
type kind uint8

const (
	kindUnknown kind = iota // none of ours: close
	kindTLS
	kindTURN // TURN over TCP (RFC 8656 section 3.1)
	kindICE  // ICE-TCP: STUN framed as in RFC 4571
	kindHTTP // HTTP in clear
)

func (k kind) String() string {
	return [...]string{"unknown", "tls", "turn", "ice-tcp", "http"}[k]
}

const (
	peekMax     = 10 // bytes that settle every case below
	magicCookie = "\x21\x12\xA4\x42"
)

// classify names the protocol of a connection from its first bytes, as many as
// have arrived. more says that they do not settle it yet; never with peekMax
// bytes.
//
//	 0    1    2    3    4    5    6    7    8    9
//	16                                               TLS handshake record
//	A-Z                                              HTTP method
//	<4  type | length  | 21   12   A4   42 |         STUN header: TURN over TCP
//	<4  length | type  | length  | 21   12   A4   42 RFC 4571 length, STUN: ICE-TCP
//
// The first byte alone cannot tell the last two apart: a STUN type is below
// 0x4000, and so is the length of a short framed message. Where both cookies
// match, the first one decides.
func classify(b []byte) (k kind, more bool) {
	if len(b) == 0 {
		return kindUnknown, true
	}
	switch first := b[0]; {
	case first == 0x16:
		return kindTLS, false
	case first >= 'A' && first <= 'Z':
		return kindHTTP, false
	case first >= 4:
		return kindUnknown, false
	}
	turn, turnOpen := cookieAt(b, 4)
	ice, iceOpen := cookieAt(b, 6)
	switch {
	case turn:
		return kindTURN, false
	case turnOpen:
		return kindUnknown, true
	case ice:
		return kindICE, false
	}
	return kindUnknown, iceOpen
}

// cookieAt reports whether the STUN magic cookie stands at an offset; open says
// that the bytes so far allow it and the rest is missing.
func cookieAt(b []byte, at int) (found, open bool) {
	if len(b) <= at {
		return false, true
	}
	have := b[at:min(len(b), at+len(magicCookie))]
	if string(have) != magicCookie[:len(have)] {
		return false, false
	}
	return len(have) == len(magicCookie), len(have) < len(magicCookie)
}
