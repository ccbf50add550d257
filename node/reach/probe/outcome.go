package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// failure is an error whose outcome is known better than the error tells.
type failure struct {
	outcome Outcome
	text    string
}

func (f *failure) Error() string { return f.text }

func fail(o Outcome, format string, a ...any) error { return &failure{o, fmt.Sprintf(format, a...)} }

// outcomeOf is what an error says about the way, and what was seen of it.
func outcomeOf(err error) (Outcome, string) {
	var f *failure
	var timeout net.Error
	var dns *net.DNSError
	switch {
	case errors.As(err, &f):
		return f.outcome, f.text
	case errors.As(err, &dns) && dns.IsNotFound:
		return NoName, ""
	case isCertificate(err):
		return Certificate, ""
	case isNoTLS(err):
		return NotDomicile, "what answers does not speak TLS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return Closed, ""
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return NoRoute, ""
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return Unreachable, ""
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT),
		errors.As(err, &timeout) && timeout.Timeout():
		return Filtered, ""
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Cut, ""
	}
	return Broken, err.Error()
}

func isCertificate(err error) bool {
	var verify *tls.CertificateVerificationError
	return errors.As(err, &verify)
}

// isNoTLS finds the error for a first record that is none. net/http puts another
// one in its place when it looks like an answer in clear.
func isNoTLS(err error) bool {
	var header tls.RecordHeaderError
	return errors.As(err, &header) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// distrust says what is wrong with a certificate, and what to do about it.
func distrust(err error, chain []*x509.Certificate, host string, now time.Time) (cause, mend string) {
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	if len(chain) == 0 {
		return "no certificate is shown", "check tls.certificate in node.yaml"
	}
	leaf := chain[0]
	switch {
	case errors.As(err, &name):
		return fmt.Sprintf("the certificate is for %s, not for %s", names(leaf), host),
			fmt.Sprintf("use a certificate that names %s, or a name that it has; public.url must have the same", host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(leaf.NotBefore):
		return "the certificate is valid from " + day(leaf.NotBefore) + " on", "compare the clocks of this machine and of the node"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate ended on " + day(leaf.NotAfter),
			"renew it: the node takes up a file that changes by itself; behind ACME, see what its log says"
	case errors.As(err, &unknown) && len(chain) == 1 && leaf.Issuer.String() != leaf.Subject.String():
		return fmt.Sprintf("nobody here knows who issued the certificate: %s", issuer(leaf)),
			"a public authority: tls.certificate must hold the whole chain, the intermediate certificates after the node's own; a private one: give its file with --ca, and to the attendees' machines"
	case errors.As(err, &unknown):
		return fmt.Sprintf("nobody here knows who issued the certificate: %s", issuer(leaf)),
			"a private authority: give its file with --ca, and to the attendees' machines; if you do not know it, somebody on the way opens TLS"
	}
	return "the certificate does not hold: " + err.Error(), "check tls.certificate in node.yaml"
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func issuer(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" && len(c.Issuer.Organization) > 0 {
		return c.Issuer.Organization[0] + ", " + c.Issuer.CommonName
	}
	if c.Issuer.CommonName != "" {
		return c.Issuer.CommonName
	}
	return c.Issuer.String()
}

// maxNames bounds what is shown of a certificate.
const maxNames = 4

func names(c *x509.Certificate) string {
	list := c.DNSNames
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) > maxNames {
		list = append(list[:maxNames:maxNames], "…")
	}
	if len(list) == 0 {
		return "nobody"
	}
	return strings.Join(list, ", ")
}

// maxText bounds one text of a report, in bytes.
const maxText = 500

// printable is a text that may hold what a stranger sent, fit for a terminal: one
// line without control characters, and not endless.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxText)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
