package front

import (
	"crypto/tls"
	"slices"
)

// forMedia gives clients that come for TURN a cheaper handshake: without the
// post-quantum half of the key exchange, and without a ticket that nobody uses again.
// What they carry is sealed end to end by DTLS-SRTP before TLS sees it. They are told by
// ALPN, stun.turn or none: Chromium sends none for turns:, and pages always have one.
func forMedia(base *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	cheap := base.Clone()
	cheap.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	cheap.SessionTicketsDisabled = true
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 0 || slices.Equal(hello.SupportedProtos, []string{alpnTURN}) {
			return cheap, nil
		}
		return nil, nil // the base
	}
}
