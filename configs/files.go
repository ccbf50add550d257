package configs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

// Files is what the files that a node file names hold, read and found to fit
// together.
type Files struct {
	Node        residency.Node      // what the node's certificate states
	Certificate tls.Certificate     // for links between nodes
	Authorities []*x509.Certificate // whose nodes and policies count
	Bundle      *residency.Bundle   // the newest policies that verify, of the policy file or taken over since
	Signed      bundles.Signed      // the same, as they were signed
	Routing     *router.Rules       // of the routing file; nil without one
	Warnings    []error             // of what does not count, and keeps nothing from starting
	ServerTLS   tls.Certificate     // for attendees: HTTPS and TURN; empty with ACME
	ACMERoots   *x509.CertPool      // by which the authority's server is believed; nil: the system's
	EABSecret   string              // of the account's binding, empty without one
}

// CheckFiles reads the files that the node file names and reports, as Faults,
// what keeps the node from starting at now: a certificate of another node or
// another authority, a key that others can read, a policy whose signature does
// not fit or whose register does not have the node. A missing GeoIP database is
// no fault: then every address is unknown.
func (n *Node) CheckFiles(now time.Time) (*Files, error) {
	c := checker{d: n.source.again(), n: n, now: now}
	f := &Files{}
	c.checkSecrets()
	c.checkIdentity(f)
	c.checkPolicy(f)
	c.checkRouting(f)
	c.checkServer(f)
	if info, err := os.Stat(n.DataDir); err == nil && !info.IsDir() {
		c.d.faultf("data_dir", "it is not a directory")
	}
	if err := c.d.faults.sorted(); err != nil {
		return nil, err
	}
	return f, nil
}

type checker struct {
	d   *document
	n   *Node
	now time.Time
}

// checkSecrets asks of every file with a secret in it that not everybody on the
// machine can read it.
func (c *checker) checkSecrets() {
	for path, file := range map[string]string{
		"api_keys": c.d.file, "api_keys_file": c.n.APIKeysFile,
		"gossip.keys": c.d.file, "gossip.keys_file": c.n.Gossip.KeysFile,
		"tls.key": c.n.TLS.Key, "tls.acme.eab.secret_file": c.n.TLS.ACME.EAB.SecretFile,
		"store.key_file": c.n.Store.KeyFile, "store.postgres.password_file": c.n.Store.Postgres.PasswordFile,
	} {
		if !c.d.has(path) {
			continue
		}
		info, err := os.Stat(file)
		switch {
		case err != nil:
			c.d.faultf(path, "%v", err)
		case info.Mode().Perm()&0o007 != 0:
			f := Fault{Message: fmt.Sprintf("%s holds a secret, and mode %04o lets everybody at it", file, info.Mode().Perm()), Hint: "chmod o= " + file}
			p := c.d.places[path]
			p.text, p.secret = "", true // the line may hold the secret
			c.d.faultIn(p, f)
		}
	}
}

func (c *checker) checkIdentity(f *Files) {
	cas, err := identity.LoadCertificates(c.n.Identity.CA)
	if err != nil {
		c.d.faultf("identity.ca", "%v", err)
		return
	}
	if i := slices.IndexFunc(cas, func(cert *x509.Certificate) bool { return !cert.IsCA }); i >= 0 {
		c.d.faultf("identity.ca", "certificate %d of the file is not an authority's", i+1)
		return
	}
	f.Authorities = cas
	if f.Certificate, err = identity.LoadPair(c.n.Identity.Certificate, c.n.Identity.Key); err != nil {
		c.d.faultf("identity.key", "%v", err)
		return
	}
	if _, f.Node, err = identity.Verify(f.Certificate.Certificate[0], identity.Pool(f.Authorities...), c.now); err != nil {
		c.d.faultf("identity.certificate", "%v", err)
		return
	}
	if f.Node.Name != c.n.Name {
		c.d.fault("name", Fault{Message: fmt.Sprintf("the certificate is that of node %q", f.Node.Name)})
	}
}

func (c *checker) checkPolicy(f *Files) {
	if f.Authorities == nil {
		return // nothing to verify by, and reported already
	}
	bundle, faults := c.newestPolicy(f)
	if len(faults) > 0 {
		c.d.faults = append(c.d.faults, faults...)
		return
	}
	f.Bundle = bundle
	if f.Node.Name == "" {
		return
	}
	if ok, why := bundle.Registers(f.Node); !ok {
		c.d.faultf("policy", "%s", why)
	}
	if bundle.Revokes(f.Node.Serial) {
		c.d.faultf("policy", "it revokes the certificate of this node")
	}
	if !bundle.Expires.IsZero() && !c.now.Before(bundle.Expires) {
		c.d.faultf("policy", "it expired at %s", bundle.Expires.UTC().Format(time.RFC3339))
	}
}

func (c *checker) checkRouting(f *Files) {
	if c.n.Routing == "" {
		return
	}
	rules, err := LoadRouting(c.n.Routing)
	var faults Faults
	if errors.As(err, &faults) {
		c.d.faults = append(c.d.faults, faults...)
	}
	f.Routing = rules
}

func (c *checker) checkServer(f *Files) {
	if c.n.ByACME() {
		c.checkACME(f)
		return
	}
	var err error
	if f.ServerTLS, err = tls.LoadX509KeyPair(c.n.TLS.Certificate, c.n.TLS.Key); err != nil {
		c.d.faultf("tls.certificate", "%v", err)
		return
	}
	leaf := f.ServerTLS.Leaf
	if c.now.Before(leaf.NotBefore) || !c.now.Before(leaf.NotAfter) {
		c.d.faultf("tls.certificate", "it is valid from %s to %s, not now", leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	u, err := url.Parse(c.n.PublicURL())
	if err == nil {
		err = leaf.VerifyHostname(u.Hostname())
	}
	if err != nil {
		c.d.fault("tls.certificate", Fault{Message: fmt.Sprintf("it does not hold for %s: %v", c.n.PublicURL(), err)})
	}
}
