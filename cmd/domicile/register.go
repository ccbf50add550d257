package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/residency/register"
)

type registerCmd struct {
	target
	Format string `default:"text" enum:"text,html,csv,json" help:"text, html (a page to print or publish), csv or json."`
	Lang   string `default:"en" enum:"en,de" help:"Language: en or de."`

	Policy       string   `type:"path" help:"Make the register from this signed policy file and the certificates, without a running node." placeholder:"policy.yaml"`
	CA           string   `name:"ca" type:"path" help:"With --policy: the certificate of the operator's authority." placeholder:"ca.pem"`
	Certificates []string `arg:"" optional:"" type:"path" help:"With --policy: certificates of the nodes."`
}

// Run prints the register of processors.
func (c *registerCmd) Run(ctx context.Context) error {
	r, err := c.make(ctx)
	if err != nil {
		return err
	}
	write := map[string]func(io.Writer, register.Language) error{"text": r.Text, "html": r.HTML, "csv": r.CSV,
		"json": func(io.Writer, register.Language) error { return printJSON(r) }}[c.Format]
	return write(os.Stdout, register.Language(c.Lang))
}

func (c *registerCmd) make(ctx context.Context) (register.Register, error) {
	if c.Policy != "" {
		return c.offline(time.Now())
	}
	if c.CA != "" || len(c.Certificates) > 0 {
		return register.Register{}, usage("--ca and certificates go with --policy")
	}
	dir, err := c.dataDir()
	if err != nil {
		return register.Register{}, err
	}
	var r register.Register
	err = ask(ctx, dir, "/register", nil, &r)
	return r, err
}

// offline makes the register from files. Nothing is known of what contradicts
// the certificates there.
func (c *registerCmd) offline(now time.Time) (register.Register, error) {
	if c.CA == "" {
		return register.Register{}, usage("--policy needs --ca: a register is made of signed policies alone")
	}
	cas, err := identity.LoadCertificates(c.CA)
	if err != nil {
		return register.Register{}, err
	}
	bundle, err := configs.LoadSignedPolicy(c.Policy, cas...)
	if err != nil {
		return register.Register{}, err
	}
	var nodes []register.Entry
	for _, path := range c.Certificates {
		certs, err := identity.LoadCertificates(path)
		if err != nil {
			return register.Register{}, err
		}
		_, node, err := identity.Verify(certs[0].Raw, identity.Pool(cas...), now)
		if err != nil {
			return register.Register{}, fmt.Errorf("%s: %w", path, err)
		}
		nodes = append(nodes, register.Entry{Node: node})
	}
	return register.Make(residency.NewGate(bundle), nodes, now), nil
}
