package membership

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// credentials are a certificate of this node with its key.
type credentials struct {
	node residency.Node
	cert *x509.Certificate
	key  crypto.Signer
}

func (c *Config) credentials(pair *tls.Certificate) (*credentials, error) {
	cert, node, err := identity.Verify(pair.Certificate[0], c.Roots, c.Now())
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a private key of type %T cannot sign", pair.PrivateKey)
	}
	return &credentials{node: node, cert: cert, key: key}, nil
}

// Renew has the claim signed with another certificate of this node from now on.
// Others go on with the last claim until they have seen the certificate, which
// they ask for. The facts it states have to be those of the first.
func (m *Mesh) Renew(pair tls.Certificate) error {
	if len(pair.Certificate) == 0 {
		return fmt.Errorf("renew certificate: there is none")
	}
	own, err := m.cfg.credentials(&pair)
	if err == nil {
		err = identity.SameFacts(m.cfg.Self, own.node)
	}
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	m.renewal.Store(own)
	m.in.poke()
	return nil
}

// doRenew takes over what Renew left.
func (m *Mesh) doRenew() {
	if own := m.renewal.Swap(nil); own != nil {
		m.cert, m.key = own.cert, own.key
		m.self.Node, m.self.Cert = own.node, own.cert
	}
}
