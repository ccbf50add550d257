package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

type caCmd struct {
	Init    caInitCmd    `cmd:"" help:"Create a certificate authority: ca.pem and ca-key.pem."`
	Request caRequestCmd `cmd:"" help:"On a node: make its key, and a request for a certificate: NAME-key.pem and NAME.csr. The key stays on the node."`
	Issue   caIssueCmd   `cmd:"" help:"Issue a node's certificate for its request: NAME.pem. What the node is, you say here."`
	Renew   caRenewCmd   `cmd:"" help:"Issue what a node's certificate states once more, with later dates."`
	Revoke  caRevokeCmd  `cmd:"" help:"Revoke a certificate: add it to a policy file, raise the epoch, sign it."`
	Show    caShowCmd    `cmd:"" help:"Say what certificates state, and how long they last; or list all that the authority issued."`
	Server  caServerCmd  `cmd:"" help:"Issue a certificate for HTTPS and TURN, where no public authority is used."`
}

type caInitCmd struct {
	Dir  string `required:"" type:"path" help:"Directory of the authority. Keep it off the nodes."`
	Name string `default:"Domicile operator CA" help:"The authority's common name."`
}

// Run creates the authority.
func (c *caInitCmd) Run() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	if _, err := identity.CreateCA(c.Dir, c.Name, time.Now()); err != nil {
		return err
	}
	fmt.Println(filepath.Join(c.Dir, "ca.pem"))
	return nil
}

type caRequestCmd struct {
	Name string `required:"" help:"The node's name."`
	Key  string `type:"existingfile" help:"Ask for a key that is there already, instead of making one." placeholder:"NAME-key.pem"`
	Out  string `default:"." type:"path" help:"Directory for the key and the request."`
}

// Run makes the key and the request.
func (c *caRequestCmd) Run() error {
	name, err := residency.ParseNodeName(c.Name)
	if err != nil {
		return usageError{err}
	}
	var key crypto.Signer
	if c.Key != "" {
		key, err = identity.LoadKey(c.Key)
	} else if key, err = identity.GenerateKey(); err == nil {
		err = identity.WriteKey(filepath.Join(c.Out, c.Name+"-key.pem"), key)
	}
	if err != nil {
		return err
	}
	der, err := identity.NewRequest(name, key)
	if err != nil {
		return err
	}
	csr := filepath.Join(c.Out, c.Name+".csr")
	if err := identity.WriteRequest(csr, der); err != nil {
		return err
	}
	fmt.Println(csr)
	return nil
}

// issuing is what all kinds of certificate need.
type issuing struct {
	Dir  string `required:"" type:"path" help:"Directory of the authority."`
	Out  string `default:"." type:"path" help:"Directory for the certificate."`
	Days int    `default:"90" help:"Days for which the certificate is valid."`
}

// holds are a certificate's names and addresses.
type holds struct {
	IPs []netip.Addr `name:"ip" help:"Addresses of the node."`
	DNS []string     `help:"Names of the node."`
}

func (h holds) sans() identity.SANs { return identity.SANs{DNS: h.DNS, IPs: h.IPs} }

// early is how long before now a certificate begins, for clocks that are late: nodes
// take those that differ by twenty-one minutes.
const early = 25 * time.Minute

// write issues a certificate, writes it down in the index, then hands it out.
func (i issuing) write(path, replaces string, issue func(ca *identity.CA, from, to time.Time) ([]byte, error)) error {
	if i.Days < 1 {
		return usage("--days %d: want 1 or more", i.Days)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already and is not overwritten: choose another directory with --out", path)
	}
	ca, err := identity.LoadCA(i.Dir)
	if err != nil {
		return err
	}
	if _, err := identity.ReadIndex(i.Dir); err != nil {
		return err // a line after half a line would be lost
	}
	now := time.Now()
	der, err := issue(ca, now.Add(-early), now.AddDate(0, 0, i.Days))
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if err := identity.Record(i.Dir, identity.Entry{At: now.UTC(), Serial: identity.Serial(cert), Certificate: der, Replaces: replaces}); err != nil {
		return err
	}
	if err := identity.WriteCertificates(path, der); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

// ownKey makes the key of a certificate here, for machines of one's own.
func (i issuing) ownKey(name string) (crypto.PublicKey, error) {
	key, err := identity.GenerateKey()
	if err != nil {
		return nil, err
	}
	return key.Public(), identity.WriteKey(filepath.Join(i.Out, name+"-key.pem"), key)
}

type caIssueCmd struct {
	issuing
	holds
	CSR             string   `name:"csr" type:"existingfile" help:"The node's request, from 'domicile ca request'. Without it the key is made here as well, NAME-key.pem: only for a machine of your own, such as a test bed, since a key should not travel." placeholder:"NAME.csr"`
	Name            string   `required:"" help:"The node's name. It has to be that of the request."`
	Country         string   `required:"" help:"Where the machine stands, ISO 3166-1."`
	Operator        string   `required:"" help:"Who runs it."`
	OperatorCountry string   `required:"" help:"Where the operator is established."`
	Parent          string   `help:"The operator's ultimate parent. Default: the operator."`
	ParentCountry   string   `help:"Where the parent is established. Required with --parent."`
	Roles           []string `default:"edge" enum:"origin,edge" help:"origin stores, edge serves attendees."`
}

// Run issues the node's certificate.
func (c *caIssueCmd) Run() error {
	n, err := c.node()
	if err != nil {
		return err
	}
	return c.write(filepath.Join(c.Out, c.Name+".pem"), "", func(ca *identity.CA, from, to time.Time) ([]byte, error) {
		pub, err := c.key(n.Name)
		if err != nil {
			return nil, err
		}
		return ca.Issue(pub, n, c.sans(), from, to)
	})
}

// key is that of the request, which has to be in the name that the operator gives.
func (c *caIssueCmd) key(name residency.NodeName) (crypto.PublicKey, error) {
	if c.CSR == "" {
		return c.ownKey(c.Name)
	}
	return requested(c.CSR, name)
}

func requested(path string, name residency.NodeName) (crypto.PublicKey, error) {
	r, err := identity.LoadRequest(path)
	if err != nil {
		return nil, usageError{err}
	}
	if r.Name != name {
		return nil, usage("--csr %s: it is the request of node %q, not of %q", path, r.Name, name)
	}
	return r.Key, nil
}

func (c *caIssueCmd) node() (n residency.Node, err error) {
	switch {
	case c.Parent == "" && c.ParentCountry == "":
		c.Parent, c.ParentCountry = c.Operator, c.OperatorCountry
	case c.Parent == "":
		return n, usage("--parent-country %q: say with --parent whose country it is", c.ParentCountry)
	case c.ParentCountry == "":
		// The parent's country decides about residency: it is never guessed.
		return n, usage("--parent %q: say with --parent-country where it is established", c.Parent)
	}
	n = residency.Node{Name: residency.NodeName(c.Name), Operator: c.Operator, Parent: c.Parent}
	for _, r := range c.Roles {
		n.Roles = append(n.Roles, residency.Role(r))
	}
	var errs [3]error
	n.Country, errs[0] = residency.ParseCountry(c.Country)
	n.OperatorCountry, errs[1] = residency.ParseCountry(c.OperatorCountry)
	n.ParentCountry, errs[2] = residency.ParseCountry(c.ParentCountry)
	if err := errors.Join(errs[:]...); err != nil {
		return n, usageError{err}
	}
	return n, nil
}

type caServerCmd struct {
	issuing
	holds
	Name string `default:"tls" help:"Name of the files."`
}

// Run issues a server certificate. Its key is made here: it states nothing about a node.
func (c *caServerCmd) Run() error {
	return c.write(filepath.Join(c.Out, c.Name+".pem"), "", func(ca *identity.CA, from, to time.Time) ([]byte, error) {
		pub, err := c.ownKey(c.Name)
		if err != nil {
			return nil, err
		}
		return ca.IssueServer(pub, c.sans(), from, to)
	})
}

type policyCmd struct {
	Profiles policyProfilesCmd `cmd:"" help:"List the built-in policy profiles."`
	Check    policyCheckCmd    `cmd:"" help:"Check a policy file."`
	Sign     policySignCmd     `cmd:"" help:"Check a policy file and sign it: FILE.sig."`
	Plan     policyPlanCmd     `cmd:"" help:"Show what a signed policy file would change in a running mesh, and change nothing. Exit code 3: something live would stop."`
	Apply    policyApplyCmd    `cmd:"" help:"Put a signed policy file in force in a running mesh, on all its nodes, after showing what it changes."`
}

type policyProfilesCmd struct{}

// Run lists the profiles.
func (policyProfilesCmd) Run() error {
	for _, name := range configs.Profiles() {
		p, err := configs.Profile(name)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n  %s\n", name, p.Title)
	}
	return nil
}

type policyCheckCmd struct {
	File string `arg:"" type:"path" help:"The policy file."`
}

// Run checks the file.
func (c *policyCheckCmd) Run() error {
	b, err := configs.LoadPolicy(c.File)
	if err != nil {
		return err
	}
	fmt.Printf("%s: epoch %d, %d policies: all well\n", c.File, b.Epoch, len(b.Policies))
	return nil
}

type policySignCmd struct {
	Dir  string `required:"" type:"path" help:"Directory of the authority."`
	File string `arg:"" type:"path" help:"The policy file."`
}

// Run signs the file.
func (c *policySignCmd) Run() error {
	if _, err := configs.LoadPolicy(c.File); err != nil {
		return err
	}
	ca, err := identity.LoadCA(c.Dir)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	sig, err := ca.Sign(b)
	if err != nil {
		return err
	}
	return os.WriteFile(c.File+configs.SignatureSuffix, sig, 0o644)
}
