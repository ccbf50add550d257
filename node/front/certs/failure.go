package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"strings"

	"github.com/mholt/acmez/v3/acme"
)

// Reason says why a certificate could not be had, in as many kinds as there are
// things to do about it. It is the label of a metric.
type Reason string

// The reasons.
const (
	Files       Reason = "files"        // the files cannot be read, do not belong together, or are not fit for use
	Away        Reason = "away"         // the authority does not answer, or with an error of its own
	Trust       Reason = "trust"        // the certificate of the authority's own server is not believed
	Unreachable Reason = "unreachable"  // the authority cannot open a connection to the node
	DNSWrong    Reason = "dns"          // the authority does not find the name, or a CAA record forbids it
	WrongAnswer Reason = "wrong-answer" // the authority reached somebody else
	RateLimit   Reason = "rate-limit"   // too many attempts
	Account     Reason = "account"      // the account, its binding or its address is not accepted
	Refused     Reason = "refused"      // the authority does not issue such a certificate
	Storage     Reason = "storage"      // data_dir/acme cannot be written or read
	Program     Reason = "program"      // the program that writes DNS records failed
	Other       Reason = "other"
)

// hints say what an operator can do about each.
var hints = map[Reason]string{
	Files: "write the certificate with its chain and the key that belongs to it, best to new files that are renamed into place",
	Away:  "it is tried again by itself; if this lasts, look at tls.acme.directory, at the firewall for connections to it, and at the authority's status page",
	Trust: "for an authority of your own, name its root certificate in tls.acme.ca_roots; for a public one, look whether something intercepts connections",
	Unreachable: "the authority must reach this node from the internet at TCP port 80 (with listen.http_redirect) or 443, over IPv6 too if the name has an AAAA record: " +
		"look at the firewall and at forwarded ports",
	DNSWrong:    "look at the A, AAAA and CAA records of the name, as the public sees them: they must name this node's public address and allow this authority",
	WrongAnswer: "the name leads to another machine, or a proxy stands before the node and answers in its place: look at its A and AAAA records, and pass ports 80 and 443 through",
	RateLimit:   "the authority grants no more for now; do not restart to hurry it. Try with its staging directory until everything works",
	Account:     "look at tls.acme.email and tls.acme.eab; an account that the authority does not know any more is made anew when its folder in data_dir/acme is removed",
	Refused:     "this authority does not issue for such a name or profile: look at tls.acme.names and tls.acme.profile",
	Storage:     "data_dir/acme must belong to the node's user, with room on the disk; what is damaged there may be removed, the node makes it anew",
	Program:     "run the program of tls.acme.dns by hand, as the node's user",
	Other:       "see the error",
}

// Hint says what an operator can do about it.
func (r Reason) Hint() string { return hints[r] }

// failure is an attempt that failed.
type failure struct {
	reason Reason
	err    error
}

// without returns the failure without a text that is nobody's business.
func (f failure) without(private string) failure {
	if private != "" {
		f.err = errors.New(strings.ReplaceAll(f.err.Error(), private, "…"))
	}
	return f
}

func (f failure) String() string { return f.err.Error() + "; " + f.reason.Hint() }

// wrongSide marks errors whose reason is known where they arise.
type wrongSide struct {
	Reason
	error
}

func (w wrongSide) Unwrap() error { return w.error }

// reasonOf finds out why an attempt failed.
func reasonOf(err error) Reason {
	var known wrongSide
	if errors.As(err, &known) {
		return known.Reason
	}
	var problem acme.Problem
	if errors.As(err, &problem) {
		return reasonOfProblem(problem)
	}
	if untrusted(err) {
		return Trust
	}
	var path *fs.PathError
	var syntax *json.SyntaxError
	if errors.As(err, &path) || errors.As(err, &syntax) {
		return Storage
	}
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) {
		return Away
	}
	return Other
}

func untrusted(err error) bool {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify)
}

// problems are the types of RFC 8555 section 6.7.
var problems = map[string]Reason{
	acme.ProblemTypeConnection:              Unreachable,
	acme.ProblemTypeTLS:                     WrongAnswer,
	acme.ProblemTypeUnauthorized:            WrongAnswer,
	acme.ProblemTypeIncorrectResponse:       WrongAnswer,
	acme.ProblemTypeDNS:                     DNSWrong,
	acme.ProblemTypeCAA:                     DNSWrong,
	acme.ProblemTypeRateLimited:             RateLimit,
	acme.ProblemTypeExternalAccountRequired: Account,
	acme.ProblemTypeInvalidContact:          Account,
	acme.ProblemTypeUnsupportedContact:      Account,
	acme.ProblemTypeUserActionRequired:      Account,
	acme.ProblemTypeAccountDoesNotExist:     Account,
	acme.ProblemTypeRejectedIdentifier:      Refused,
	acme.ProblemTypeUnsupportedIdentifier:   Refused,
	acme.ProblemTypeBadCSR:                  Refused,
	invalidProfile:                          Refused,
	acme.ProblemTypeBadNonce:                Away,
	acme.ProblemTypeServerInternal:          Away,
}

// invalidProfile is of draft-ietf-acme-profiles.
const invalidProfile = acme.ProblemTypeNamespace + "invalidProfile"

func reasonOfProblem(p acme.Problem) Reason {
	if _, ofChallenge := p.Resource.(acme.Authorization); p.Type == acme.ProblemTypeUnauthorized && !ofChallenge {
		return Account
	}
	if r, ok := problems[p.Type]; ok {
		return r
	}
	// A compound error says why with the names it is about.
	for _, sub := range p.Subproblems {
		if r, ok := problems[sub.Type]; ok {
			return r
		}
	}
	switch {
	case p.Status == http.StatusTooManyRequests:
		return RateLimit
	case p.Status >= 500:
		return Away
	}
	return Other
}

// anotherWay reports whether another kind of challenge may succeed where one
// failed for that reason.
func anotherWay(r Reason) bool { return r == Unreachable || r == WrongAnswer }
