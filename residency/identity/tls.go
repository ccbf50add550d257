package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/domicile/domicile/residency"
)

// TLS returns the two configurations of a node's links: TLS 1.3 alone, both
// ends show a node certificate, which is verified against roots at now(). What
// counts is what the peer's certificate states, not the name or address it was
// dialled under. Sessions are never resumed, so nothing outlives a certificate
// and there is no 0-RTT data to replay. The node's own certificate is asked for at
// each handshake, so that it can be renewed.
func TLS(own func() *tls.Certificate, roots *x509.CertPool, alpn string, now func() time.Time) (server, client *tls.Config) {
	verify := func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != alpn {
			return fmt.Errorf("verify peer: protocol %q: want %q", cs.NegotiatedProtocol, alpn)
		}
		if len(cs.PeerCertificates) == 0 {
			return errors.New("verify peer: it showed no certificate")
		}
		_, _, err := Verify(cs.PeerCertificates[0].Raw, roots, now())
		return err
	}
	base := &tls.Config{
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own(), nil },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own(), nil },
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true,
		VerifyConnection:       verify,
		Time:                   now,
		KeyLogWriter:           keyLog,
	}
	server = base.Clone()
	server.ClientAuth = tls.RequireAnyClientCert // verified by VerifyConnection
	client = base
	client.InsecureSkipVerify = true // likewise: by node, not by host name
	return server, client
}

// Fixed is the source of a certificate that does not change.
func Fixed(cert tls.Certificate) func() *tls.Certificate {
	return func() *tls.Certificate { return &cert }
}

// Expecting returns a client configuration from TLS that also refuses every
// node but the named one: for dialling an address that gossip gave.
func Expecting(client *tls.Config, name residency.NodeName) *tls.Config {
	verify := client.VerifyConnection
	client = client.Clone()
	client.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		n, err := Parse(cs.PeerCertificates[0])
		if err == nil && n.Name != name {
			err = fmt.Errorf("verify peer: node %q answers where node %q was expected", n.Name, name)
		}
		return err
	}
	return client
}

// PeerNode returns the node at the other end of a connection made with a
// configuration from TLS.
func PeerNode(cs tls.ConnectionState) (residency.Node, error) {
	if len(cs.PeerCertificates) == 0 {
		return residency.Node{}, errors.New("read peer: it showed no certificate")
	}
	return Parse(cs.PeerCertificates[0])
}
