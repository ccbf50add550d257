package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency/identity"
)

type caRenewCmd struct {
	issuing
	CSR         string `name:"csr" type:"existingfile" help:"The node's request, for another key. Without it the key stays the same." placeholder:"NAME.csr"`
	Policy      string `type:"existingfile" help:"Refuse a certificate that this policy file revokes." placeholder:"policy.yaml"`
	Certificate string `arg:"" type:"existingfile" help:"The certificate that the node has now. What it states is stated again; to change that, use 'ca issue'." placeholder:"NAME.pem"`
}

// Run issues the certificate once more.
func (c *caRenewCmd) Run() error {
	certs, err := identity.LoadCertificates(c.Certificate)
	if err != nil {
		return usageError{err}
	}
	old := certs[0]
	n, ok := identity.NodeOf(old)
	if !ok {
		return usage("%s: it is not the certificate of a node; one for servers is issued anew", c.Certificate)
	}
	if err := c.revoked(old); err != nil {
		return err
	}
	name := filepath.Join(c.Out, string(n.Name)+".pem")
	return c.write(name, identity.Serial(old), func(ca *identity.CA, from, to time.Time) ([]byte, error) {
		var pub crypto.PublicKey
		if c.CSR != "" {
			if pub, err = requested(c.CSR, n.Name); err != nil {
				return nil, err
			}
		}
		return ca.Renew(old, pub, from, to)
	})
}

var errRevoked = errors.New("is revoked and not renewed: issue a new one for a new key with 'ca issue'")

// revoked asks the authority's index, and the policy if one is named.
func (c *caRenewCmd) revoked(old *x509.Certificate) error {
	serial := identity.Serial(old)
	list, err := identity.ReadIndex(c.Dir)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(l identity.Listed) bool { return l.Revoked && l.Cert.Equal(old) }) {
		return fmt.Errorf("certificate %s %w", serial, errRevoked)
	}
	if c.Policy == "" {
		return nil
	}
	b, err := configs.LoadPolicy(c.Policy)
	if err == nil && b.Revokes(serial) {
		err = fmt.Errorf("certificate %s %w", serial, errRevoked)
	}
	return err
}

type caRevokeCmd struct {
	Dir     string `required:"" type:"path" help:"Directory of the authority."`
	Policy  string `required:"" type:"existingfile" help:"The policy file. It is changed in place, comments stay, and signed: FILE.sig." placeholder:"policy.yaml"`
	Reason  string `help:"Why, for the authority's index."`
	Unknown bool   `help:"Revoke a serial number that the authority's index does not know."`
	What    string `arg:"" help:"The certificate's serial number, or its file." placeholder:"SERIAL|NAME.pem"`
}

// Run revokes the certificate.
func (c *caRevokeCmd) Run() error {
	ca, err := identity.LoadCA(c.Dir)
	if err != nil {
		return err
	}
	serial, whose, err := c.find(ca)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(c.Policy)
	if err != nil {
		return err
	}
	next, b, err := configs.Revoke(c.Policy, text, serial)
	if err != nil {
		return err
	}
	sig, err := ca.Sign(next)
	if err != nil {
		return err
	}
	// The index first: it must not forget. Then the signature, then what it signs:
	// a node that reads in between refuses the pair and keeps what it has.
	if err := identity.Record(c.Dir, identity.Entry{At: time.Now().UTC(), Serial: serial, Revoked: true, Epoch: uint64(b.Epoch), Reason: c.Reason}); err != nil {
		return err
	}
	if err := errors.Join(replaceFile(c.Policy+configs.SignatureSuffix, sig), replaceFile(c.Policy, next)); err != nil {
		return err
	}
	fmt.Printf("certificate %s%s is revoked by %s, epoch %d, signed\n", serial, whose, c.Policy, b.Epoch)
	fmt.Printf("put it in force on all nodes: domicile policy apply %s\n", c.Policy)
	return nil
}

// find returns the serial number that is meant, and whose it is in words.
func (c *caRevokeCmd) find(ca *identity.CA) (serial, whose string, err error) {
	list, err := identity.ReadIndex(c.Dir)
	if err != nil {
		return "", "", err
	}
	if _, err := os.Stat(c.What); err == nil {
		certs, err := identity.LoadCertificates(c.What)
		if err == nil {
			err = ca.Issued(certs[0])
		}
		if err != nil {
			return "", "", usageError{err}
		}
		return identity.Serial(certs[0]), of(certs[0]), nil
	}
	serial, err = configs.ParseSerial(c.What)
	if err != nil {
		return "", "", usage("%q is no file and no serial number: %w", c.What, err)
	}
	i := slices.IndexFunc(list, func(l identity.Listed) bool { return identity.Serial(l.Cert) == serial })
	switch {
	case i >= 0:
		return serial, of(list[i].Cert), nil
	case !c.Unknown:
		return "", "", usage("this authority's index knows no certificate %s: 'domicile ca show --dir %s' lists them; --unknown revokes it all the same", serial, c.Dir)
	}
	return serial, "", nil
}

func of(cert *x509.Certificate) string {
	if n, ok := identity.NodeOf(cert); ok {
		return " of node " + string(n.Name)
	}
	return ""
}

// replaceFile writes a file beside the old one and renames it into its place, so
// that nobody reads half of it.
func replaceFile(path string, b []byte) error {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // what failed before it is what matters
	}
	return err
}

type caShowCmd struct {
	Dir    string   `type:"path" help:"Directory of the authority. Without files: list all that it issued."`
	CA     string   `name:"ca" type:"existingfile" help:"Say whether these authorities issued it." placeholder:"ca.pem"`
	Policy string   `type:"existingfile" help:"Say whether this policy file revokes it." placeholder:"policy.yaml"`
	JSON   bool     `name:"json" help:"Print JSON."`
	Files  []string `arg:"" optional:"" type:"existingfile" help:"Certificates, PEM." placeholder:"FILE"`
}

// shown is what there is to say of a certificate.
type shown struct {
	File            string         `json:"file,omitempty"`
	Kind            string         `json:"kind"` // node, server or authority
	Name            string         `json:"name,omitempty"`
	Country         string         `json:"country,omitempty"`
	Operator        string         `json:"operator,omitempty"`
	OperatorCountry string         `json:"operator_country,omitempty"`
	Parent          string         `json:"parent,omitempty"`
	ParentCountry   string         `json:"parent_country,omitempty"`
	Roles           []string       `json:"roles,omitempty"`
	Hosts           []string       `json:"hosts,omitempty"` // names and addresses
	Serial          string         `json:"serial"`
	Fingerprint     string         `json:"fingerprint"`
	Issuer          string         `json:"issuer"`
	NotBefore       time.Time      `json:"not_before"`
	NotAfter        time.Time      `json:"not_after"`
	SecondsLeft     int64          `json:"seconds_left"`
	Stage           identity.Stage `json:"stage"`
	ReplacedBy      string         `json:"replaced_by,omitempty"` // serial number
	Revoked         bool           `json:"revoked"`
	Reason          string         `json:"reason,omitempty"`  // of the revocation
	Problem         string         `json:"problem,omitempty"` // why no node would accept it
}

// Run prints the certificates.
func (c *caShowCmd) Run() error {
	list, err := c.list(time.Now())
	if err != nil {
		return err
	}
	switch {
	case c.JSON:
		return printJSON(list)
	case len(c.Files) == 0:
		return printTable(list)
	}
	for i, s := range list {
		if i > 0 {
			fmt.Println()
		}
		fmt.Print(s.words())
	}
	return nil
}

func (c *caShowCmd) list(now time.Time) ([]shown, error) {
	if len(c.Files) == 0 && c.Dir == "" {
		return nil, usage("say which: files, or --dir for all that an authority issued")
	}
	issued, err := identity.ReadIndex(c.Dir)
	if c.Dir == "" {
		issued, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	judge, err := c.judge(now)
	if err != nil {
		return nil, err
	}
	list := []shown{}
	if len(c.Files) == 0 {
		for _, l := range issued {
			list = append(list, judge(l.Cert, issued))
		}
		return list, nil
	}
	for _, path := range c.Files {
		certs, err := identity.LoadCertificates(path)
		if err != nil {
			return nil, usageError{err}
		}
		for _, cert := range certs {
			s := judge(cert, issued)
			s.File = path
			list = append(list, s)
		}
	}
	return list, nil
}

// judge returns what describes a certificate by all that the flags name.
func (c *caShowCmd) judge(now time.Time) (func(*x509.Certificate, []identity.Listed) shown, error) {
	var cas []*x509.Certificate
	path := c.CA
	if path == "" && c.Dir != "" {
		path = filepath.Join(c.Dir, identity.CAFile)
	}
	if path != "" {
		var err error
		if cas, err = identity.LoadCertificates(path); err != nil {
			return nil, usageError{err}
		}
	}
	revokes := func(string) bool { return false }
	if c.Policy != "" {
		b, err := configs.LoadPolicy(c.Policy)
		if err != nil {
			return nil, err
		}
		revokes = b.Revokes
	}
	return func(cert *x509.Certificate, issued []identity.Listed) shown {
		s := describe(cert, now)
		if s.Kind == "node" && cas != nil {
			if _, _, err := identity.Verify(cert.Raw, identity.Pool(cas...), now); err != nil {
				s.Problem = err.Error()
			}
		}
		s.Revoked = revokes(s.Serial)
		for _, l := range issued {
			if l.Cert.Equal(cert) {
				s.ReplacedBy, s.Reason, s.Revoked = l.ReplacedBy, l.Reason, s.Revoked || l.Revoked
			}
		}
		return s
	}, nil
}

func describe(cert *x509.Certificate, now time.Time) shown {
	s := shown{Kind: "server", Serial: identity.Serial(cert), Fingerprint: fmt.Sprintf("%x", identity.Fingerprint(cert)),
		Issuer: cert.Issuer.CommonName, NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
		SecondsLeft: int64(cert.NotAfter.Sub(now) / time.Second), Stage: identity.StageOf(cert.NotBefore, cert.NotAfter, now),
		Hosts: slices.Clone(cert.DNSNames)}
	for _, ip := range cert.IPAddresses {
		s.Hosts = append(s.Hosts, ip.String())
	}
	if cert.IsCA {
		s.Kind, s.Name = "authority", cert.Subject.CommonName
	} else if len(cert.URIs) > 0 {
		s.Kind = "node"
		n, err := identity.Parse(cert)
		if err != nil {
			s.Problem = err.Error()
			return s
		}
		s.Name, s.Country, s.Operator, s.OperatorCountry = string(n.Name), string(n.Country), n.Operator, string(n.OperatorCountry)
		s.Parent, s.ParentCountry = n.Parent, string(n.ParentCountry)
		for _, r := range n.Roles {
			s.Roles = append(s.Roles, string(r))
		}
	}
	return s
}

// state is one word, or two, for a table.
func (s shown) state() string {
	switch {
	case s.Revoked:
		return "revoked"
	case s.Problem != "" && s.Stage != identity.StageEnded:
		return "bad"
	case s.ReplacedBy != "":
		return "renewed"
	}
	return string(s.Stage)
}

// words describes a certificate for people.
func (s shown) words() string {
	var b strings.Builder
	line := func(what, format string, a ...any) { fmt.Fprintf(&b, "  %-16s %s\n", what, fmt.Sprintf(format, a...)) }
	fmt.Fprintf(&b, "%s: certificate of %s\n", s.File, strings.TrimSpace(s.Kind+" "+s.Name))
	if s.Country != "" {
		line("stands in", "%s", s.Country)
		line("operator", "%s, %s", s.Operator, s.OperatorCountry)
		line("ultimate parent", "%s, %s", s.Parent, s.ParentCountry)
		line("roles", "%s", strings.Join(s.Roles, ", "))
	}
	if len(s.Hosts) > 0 {
		line("answers as", "%s", strings.Join(s.Hosts, ", "))
	}
	line("issued by", "%s", s.Issuer)
	line("serial number", "%s", s.Serial)
	line("SHA-256", "%s", s.Fingerprint)
	line("valid", "%s to %s", s.NotBefore.Format(time.RFC3339), s.NotAfter.Format(time.RFC3339))
	line("time left", "%s", s.left())
	if s.Revoked {
		line("revoked", "%s", orElse(s.Reason, "yes"))
	}
	if s.ReplacedBy != "" {
		line("renewed by", "%s", s.ReplacedBy)
	}
	if s.Problem != "" {
		line("no good", "%s", s.Problem)
	}
	return b.String()
}

// left is the time left in words.
func (s shown) left() string {
	left := time.Duration(s.SecondsLeft) * time.Second
	text := fmt.Sprintf("%d days", left/(24*time.Hour))
	if left < 48*time.Hour {
		text = left.Round(time.Minute).String()
	}
	switch s.Stage {
	case identity.StageEnded:
		return "none: it has ended"
	case identity.StageEarly:
		return "not valid yet"
	case identity.StageDue:
		return text + ": renew it"
	case identity.StageUrgent:
		return text + ": renew it now"
	}
	return text
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// printTable lists certificates, one on a line.
func printTable(list []shown) error {
	rows := [][]string{{"SERIAL", "KIND", "NAME", "COUNTRY", "UNTIL", "STATE"}}
	for _, s := range list {
		name := s.Name
		if name == "" {
			name = strings.Join(s.Hosts, ",")
		}
		rows = append(rows, []string{s.Serial, s.Kind, orElse(name, "-"), orElse(s.Country, "-"), s.NotAfter.Format(time.DateOnly), s.state()})
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}
