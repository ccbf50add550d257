package transport

// kind is what a datagram is by its first bytes.
type kind uint8

const (
	kindUnknown kind = iota
	kindSTUN
	kindDTLS
	kindRTP
	kindRTCP
	kindChannel // TURN's ChannelData if the 5-tuple has a tunnel, else QUIC
	kindQUIC
)

// classify tells the protocols on one port apart by the first byte (RFC 7983
// section 7, RFC 9443 section 3), and RTCP from RTP by the second (RFC 5761 section 4):
//
//	            +----------------+
//	            |        [0..3] -+--> STUN
//	            |                |
//	packet -->  |      [20..63] -+--> DTLS
//	            |                |
//	            |      [64..79] -+--> TURN channel, or QUIC
//	            |     [80..127] -+--> QUIC
//	            |    [128..191] -+--> RTP, or RTCP if the second byte is in [192..223]
//	            |    [192..255] -+--> QUIC
//	            +----------------+
//
// ZRTP [16..19] is for nobody here.
func classify(b []byte) kind {
	if len(b) < 2 {
		return kindUnknown
	}
	switch first := b[0]; {
	case first <= 3:
		return kindSTUN
	case first >= 20 && first <= 63:
		return kindDTLS
	case first < 64:
		return kindUnknown
	case first < 80:
		return kindChannel
	case first < 128 || first > 191:
		return kindQUIC
	case b[1] >= 192 && b[1] <= 223:
		return kindRTCP
	default:
		return kindRTP
	}
}
