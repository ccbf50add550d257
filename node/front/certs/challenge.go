package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// isChallenge reports whether a handshake is the authority's: it offers the one
// protocol acme-tls/1 (RFC 8737 section 3).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return hello != nil && slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol})
}

var errNoChallenge = errors.New("certificate: a challenge of ACME that nobody has asked for")

// answerTLSALPN returns the certificate that proves the node to the authority.
// It is made for each handshake, while a challenge for the name is under way:
// some ten microseconds for a key on P-256.
func answerTLSALPN(name string) (*tls.Certificate, error) {
	c, ok := certmagic.GetACMEChallenge(strings.ToLower(name))
	if !ok || c.Type != acme.ChallengeTypeTLSALPN01 {
		return nil, errNoChallenge
	}
	return acmez.TLSALPN01ChallengeCert(c.Challenge)
}

// answerHTTP answers a request for a token of a challenge under way.
func answerHTTP(w http.ResponseWriter, r *http.Request) bool {
	if !certmagic.LooksLikeHTTPChallenge(r) {
		return false
	}
	c, ok := certmagic.GetACMEChallenge(strings.ToLower(r.Host))
	return ok && c.Type == acme.ChallengeTypeHTTP01 && certmagic.SolveHTTPChallenge(zap.NewNop(), w, r, c.Challenge)
}

// DNS publishes records for DNS-01 (RFC 8555 section 8.4). It is the seam for
// providers: Program runs any program, and in Go a module of libdns takes ten
// lines. Challenges for several names may be under way at once, and one name may
// have several records.
type DNS interface {
	// Present returns when the TXT record name (without a final dot) with that
	// value can be seen by the public.
	Present(ctx context.Context, name, value string) error

	// Remove removes it again.
	Remove(ctx context.Context, name, value string) error
}

// dnsSolver shows a DNS to the ACME client.
type dnsSolver struct{ DNS }

func (d dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	return fromDNS(d.DNS.Present(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization()))
}

// removeLimit bounds the removal of a record: it goes on while the node goes down.
const removeLimit = 15 * time.Second

func (d dnsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	return fromDNS(d.Remove(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization()))
}

func fromDNS(err error) error {
	if err == nil {
		return nil
	}
	return wrongSide{Program, err}
}
