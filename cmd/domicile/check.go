package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/domicile/domicile/node/reach/probe"
)

type checkCmd struct {
	Config string `required:"" xor:"what" type:"path" help:"A node's configuration, a YAML file: check it and everything it names." placeholder:"node.yaml"`

	Reach   string        `required:"" xor:"what" help:"A running node: test from this machine which of its ways in work. Exits with 0 if all that it offers do, with 1 if not." placeholder:"HOST[:PORT]"`
	CA      string        `name:"ca" type:"path" help:"With --reach: trust the authorities of this PEM file instead of the public ones." placeholder:"ca.pem"`
	Proxy   string        `help:"With --reach: the HTTP proxy by which this machine gets out. Default: HTTPS_PROXY, unless NO_PROXY excepts the host." placeholder:"http://HOST:PORT"`
	Timeout time.Duration `default:"5s" help:"With --reach: how long each way may take."`
	JSON    bool          `name:"json" help:"With --reach: print JSON."`
	Quiet   bool          `short:"q" help:"With --reach: show no progress."`
}

// Run checks the files, or the node, and says what is wrong.
func (c *checkCmd) Run(ctx context.Context) error {
	if c.Reach != "" {
		return c.reach(ctx)
	}
	cfg, err := loadNode(c.Config)
	if err != nil {
		return err
	}
	for _, line := range describeIdentity(cfg.Self, time.Now()) {
		fmt.Println(line)
	}
	for _, line := range describeCertificate(cfg.Certificates.State(), time.Now()) {
		fmt.Println(line)
	}
	if names := cfg.Routing.Strangers(cfg.Routing.Rules); len(names) > 0 {
		fmt.Printf("routing: no node of the register is called %s; a rule that names one is for nobody\n", strings.Join(names, ", "))
	}
	for _, line := range describePlaces(cfg, time.Now()) {
		fmt.Println(line)
	}
	fmt.Printf("%s: node %s in %s, policy epoch %d with %d policies: all well\n",
		c.Config, cfg.Self.Name, cfg.Self.Country, cfg.Bundle.Epoch, len(cfg.Bundle.Policies))
	return nil
}

// Bounds of --timeout: below, distant nodes fail; above, the node has ended the
// test session (package reach).
const (
	minTimeout = time.Second
	maxTimeout = 15 * time.Second
)

var errReach = errors.New("not every way in works")

func (c *checkCmd) reach(ctx context.Context) error {
	cfg, err := c.probe()
	if err != nil {
		return err
	}
	if !c.JSON && !c.Quiet {
		cfg.Progress = func(r probe.Result) {
			fmt.Fprintf(os.Stderr, "%s  %s: %s  %s\n", r.Over, r.Way.Title(cfg.Port), strings.ReplaceAll(string(r.Outcome), "-", " "), r.Took)
		}
	}
	report := probe.Run(ctx, cfg)
	if ctx.Err() != nil {
		return errors.New("stopped before the end")
	}
	if c.JSON {
		err = printJSON(report)
	} else {
		err = report.Print(os.Stdout)
	}
	if err == nil && !report.OK {
		err = errReach
	}
	return err
}

// probe turns flags into what package probe wants.
func (c *checkCmd) probe() (cfg probe.Config, err error) {
	if c.Timeout < minTimeout || c.Timeout > maxTimeout {
		return cfg, usage("--timeout %s: want %s to %s", c.Timeout, minTimeout, maxTimeout)
	}
	cfg.Timeout = c.Timeout
	if cfg.Host, cfg.Port, err = parseHost(c.Reach); err != nil {
		return cfg, err
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return cfg, usage("--ca: %w", err)
		}
		if cfg.Roots = x509.NewCertPool(); !cfg.Roots.AppendCertsFromPEM(pem) {
			return cfg, usage("--ca %q: no certificate in it", c.CA)
		}
	}
	cfg.Proxy, err = c.proxyFor(cfg.Host, cfg.Port)
	return cfg, err
}

// parseHost reads HOST, HOST:PORT or the address of a page.
func parseHost(s string) (host string, port uint16, err error) {
	fault := func() (string, uint16, error) {
		return "", 0, usage("--reach %q: want HOST or HOST:PORT, such as meet.example.org", s)
	}
	if u, uerr := url.Parse(s); uerr == nil && u.Scheme == "https" {
		s = u.Host
	}
	if a, aerr := netip.ParseAddr(strings.Trim(s, "[]")); aerr == nil {
		return a.String(), 443, nil
	}
	host, text, herr := net.SplitHostPort(s)
	if herr != nil {
		host, text = s, "443"
	}
	n, perr := strconv.ParseUint(text, 10, 16)
	if perr != nil || n == 0 || host == "" || strings.ContainsAny(host, "/:@ ?#") {
		return fault()
	}
	return host, uint16(n), nil
}

// proxyFor is the proxy that programs on this machine use for a host, nil if none.
func (c *checkCmd) proxyFor(host string, port uint16) (*url.URL, error) {
	if c.Proxy == "" {
		to := &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}
		u, err := httpproxy.FromEnvironment().ProxyFunc()(to)
		if err != nil {
			return nil, usage("HTTPS_PROXY: %w", err)
		}
		return supported("HTTPS_PROXY", u)
	}
	u, err := url.Parse(c.Proxy)
	if err != nil {
		return nil, usage("--proxy: want http://HOST:PORT") // the error would show a password
	}
	return supported("--proxy", u)
}

func supported(what string, u *url.URL) (*url.URL, error) {
	if u != nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		return nil, usage("%s: want http://HOST:PORT or https://HOST:PORT", what)
	}
	return u, nil
}
