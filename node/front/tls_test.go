package front

import (
	"crypto/tls"
	"testing"
)

// TestKeyExchange is hybrid for pages and plain for TURN.
func TestKeyExchange(t *testing.T) {
	f := start(t, nil)
	for _, c := range []struct {
		protos []string
		want   tls.CurveID
	}{
		{[]string{alpnHTTP2, alpnHTTP1}, tls.X25519MLKEM768},
		{[]string{alpnHTTP1}, tls.X25519MLKEM768},
		{[]string{alpnTURN}, tls.X25519},
		{nil, tls.X25519},
	} {
		conn := dialTLS(t, f, clientTLS(t, c.protos...))
		if got := conn.ConnectionState().CurveID; got != c.want {
			t.Errorf("ALPN %q: %v, want %v", c.protos, got, c.want)
		}
	}
}
