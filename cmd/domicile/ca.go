package main

import (
	"crypto"
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
	Init   caInitCmd   `cmd:"" help:"Create a certificate authority: ca.pem and ca-key.pem."`
	Issue  caIssueCmd  `cmd:"" help:"Issue a node's certificate and key: NAME.pem and NAME-key.pem."`
	Server caServerCmd `cmd:"" help:"Issue a certificate for HTTPS and TURN, where no public authority is used."`
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

// issuing is what both kinds of certificate need.
type issuing struct {
	Dir  string       `required:"" type:"path" help:"Directory of the authority."`
	Out  string       `default:"." type:"path" help:"Directory for the certificate and its key."`
	IPs  []netip.Addr `name:"ip" help:"Addresses of the node."`
	DNS  []string     `help:"Names of the node."`
	Days int          `default:"90" help:"Days for which the certificate is valid."`
}

func (i issuing) write(name string, issue func(*identity.CA, crypto.PublicKey, identity.SANs, time.Time, time.Time) ([]byte, error)) error {
	ca, err := identity.LoadCA(i.Dir)
	if err != nil {
		return err
	}
	key, err := identity.GenerateKey()
	if err != nil {
		return err
	}
	now := time.Now()
	der, err := issue(ca, key.Public(), identity.SANs{DNS: i.DNS, IPs: i.IPs}, now.Add(-5*time.Minute), now.AddDate(0, 0, i.Days))
	if err != nil {
		return err
	}
	cert := filepath.Join(i.Out, name+".pem")
	if err := errors.Join(identity.WriteKey(filepath.Join(i.Out, name+"-key.pem"), key), identity.WriteCertificates(cert, der)); err != nil {
		return err
	}
	fmt.Println(cert)
	return nil
}

type caIssueCmd struct {
	issuing
	Name            string   `required:"" help:"The node's name."`
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
	return c.write(c.Name, func(ca *identity.CA, pub crypto.PublicKey, s identity.SANs, from, to time.Time) ([]byte, error) {
		return ca.Issue(pub, n, s, from, to)
	})
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
	Name string `default:"tls" help:"Name of the files."`
}

// Run issues a server certificate.
func (c *caServerCmd) Run() error {
	return c.write(c.Name, func(ca *identity.CA, pub crypto.PublicKey, s identity.SANs, from, to time.Time) ([]byte, error) {
		return ca.IssueServer(pub, s, from, to)
	})
}

type policyCmd struct {
	Profiles policyProfilesCmd `cmd:"" help:"List the built-in policy profiles."`
	Check    policyCheckCmd    `cmd:"" help:"Check a policy file."`
	Sign     policySignCmd     `cmd:"" help:"Check a policy file and sign it: FILE.sig."`
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
