package configs

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/domicile/domicile/residency/identity"
)

const (
	// letsEncrypt is the authority that is asked if the file names none.
	letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

	// maxNames bounds the names of a certificate; authorities have the same bound.
	maxNames = 100

	// minBinding is the shortest secret of an account's binding, in bytes: it is a
	// key of HMAC-SHA256 (RFC 8555 section 7.3.4).
	minBinding = 16
)

// ByACME reports whether the certificate for attendees comes by ACME.
func (n *Node) ByACME() bool { return n.source.has("tls.acme") }

// PublicHost is the host of PublicURL: a name, or an address without brackets.
func (n *Node) PublicHost() string {
	u, err := url.Parse(n.PublicURL())
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// completeACME fills in what the file leaves out.
func (n *Node) completeACME(d *document) {
	a := &n.TLS.ACME
	if a.Directory == "" && !d.has("tls.acme.directory") {
		a.Directory = letsEncrypt
	}
	for i := range a.Names {
		a.Names[i] = strings.ToLower(a.Names[i])
	}
	if host := n.PublicHost(); len(a.Names) == 0 && host != "" {
		a.Names = []string{host}
	}
}

func (d *document) validateTLS(n *Node) {
	if !d.has("tls") || d.faulty["tls"] {
		return
	}
	d.either("tls", "certificate", "acme")
	if d.has("tls.certificate") && !d.has("tls.key") {
		d.fault("tls.key", Fault{Message: `the key "key" is missing`})
	}
	if !d.has("tls.acme") {
		return
	}
	if d.has("tls.key") {
		d.fault("tls.key", Fault{Message: "with ACME the node makes its keys itself", Hint: "leave the key out"})
	}
	a := n.TLS.ACME
	d.validateDirectory(a.Directory)
	d.validateEmail(a.Email)
	if len(a.Names) > maxNames {
		d.fault("tls.acme.names", Fault{Message: fmt.Sprintf("%d names", len(a.Names)), Allowed: fmt.Sprintf("up to %d", maxNames)})
	}
	for i, name := range a.Names {
		d.validateName(n, i, name)
	}
	if host := n.PublicHost(); d.has("tls.acme.names") && host != "" && !slices.ContainsFunc(a.Names, func(name string) bool { return covers(name, host) }) {
		d.fault("tls.acme.names", Fault{Message: fmt.Sprintf("the host of the public URL is not among them: %q", host),
			Hint: "attendees open " + n.PublicURL() + ", and browsers refuse a certificate for other names"})
	}
}

func (d *document) validateDirectory(directory string) {
	u, err := url.Parse(directory)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		d.fault("tls.acme.directory", Fault{Message: "not the URL of a directory", Allowed: "https://…, such as " + letsEncrypt})
	}
}

func (d *document) validateEmail(email string) {
	if !d.has("tls.acme.email") {
		return
	}
	if a, err := mail.ParseAddress(email); err != nil || a.Address != email {
		d.fault("tls.acme.email", Fault{Message: "not an address of mail", Allowed: "such as operator@example.org"})
	}
}

// hostName is a name as RFC 1123 has it, with a "*" for its first label if need
// be; other scripts are written in their ASCII form.
var hostName = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ownAuthority is the way for names and addresses that no public authority knows.
const ownAuthority = "take a certificate of your own authority: domicile ca server, and tls: {certificate: …, key: …}"

// validateName checks one name of the certificate. One that the file does not
// state is the public URL's, and the fault points there.
func (d *document) validateName(n *Node, i int, name string) {
	path := join("tls.acme.names", strconv.Itoa(i))
	if !d.has(path) {
		path = "public.url"
	}
	if slices.Contains(n.TLS.ACME.Names[:i], name) {
		d.faultf(path, "the same name a second time")
		return
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		d.validateAddress(n.TLS.ACME, path, ip)
		return
	}
	switch {
	case len(name) > 253 || !hostName.MatchString(name):
		d.fault(path, Fault{Message: "no name for a certificate", Allowed: "such as meet.example.org; other scripts in their ASCII form, xn--…"})
	case !strings.Contains(name, ".") && n.TLS.ACME.public():
		d.fault(path, Fault{Message: "no public authority issues a certificate for a name without a dot", Hint: ownAuthority})
	case strings.HasPrefix(name, "*.") && !d.has("tls.acme.dns"):
		d.fault(path, Fault{Message: "a wildcard is proved by DNS alone", Hint: "name the node, or set tls.acme.dns"})
	}
}

// public reports whether the authority is known to follow the rules of browsers.
func (a ACME) public() bool { return strings.HasSuffix(hostOf(a.Directory), ".letsencrypt.org") }

// validateAddress checks an IP address. Public authorities issue for few of them.
func (d *document) validateAddress(a ACME, path string, ip netip.Addr) {
	switch local := !ip.IsGlobalUnicast() || ip.IsPrivate(); {
	case d.has("tls.acme.dns"):
		d.fault(path, Fault{Message: "an address is never proved by DNS", Hint: "give the node a name, or leave tls.acme.dns out"})
	case a.public() && local:
		d.fault(path, Fault{Message: "no public authority issues a certificate for a private address", Hint: "give the node a name, or " + ownAuthority})
	case a.public() && a.Profile != "shortlived":
		d.fault(path, Fault{Message: "Let's Encrypt issues for IP addresses in its short-lived profile only",
			Hint: "set profile: shortlived in tls.acme (six days, renewed every three), or give the node a name and put it into public.url"})
	}
}

func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// covers reports whether a name of a certificate holds for a host.
func covers(name, host string) bool {
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		_, parent, _ := strings.Cut(host, ".")
		return parent == rest
	}
	a, b := net.ParseIP(name), net.ParseIP(host)
	return name == host || a != nil && a.Equal(b)
}

// checkACME reads the files that ACME needs.
func (c *checker) checkACME(f *Files) {
	a := c.n.TLS.ACME
	if a.CARoots != "" {
		roots, err := identity.LoadCertificates(a.CARoots)
		if err != nil {
			c.d.faultf("tls.acme.ca_roots", "%v", err)
		} else {
			f.ACMERoots = identity.Pool(roots...)
		}
	}
	if a.EAB.SecretFile != "" {
		f.EABSecret = c.readBinding(a.EAB.SecretFile)
	}
	if a.DNS.Program != "" {
		c.checkProgram(a.DNS.Program)
	}
}

func (c *checker) readBinding(path string) string {
	b, err := readConfig(path)
	if err != nil {
		return "" // checkSecrets has said so
	}
	secret := strings.TrimRight(strings.TrimSpace(string(b)), "=")
	if raw, err := base64.RawURLEncoding.DecodeString(secret); err != nil || len(raw) < minBinding {
		c.d.fault("tls.acme.eab.secret_file", Fault{Message: "the file does not hold an authority's secret",
			Allowed: fmt.Sprintf("%d bytes or more in base64url, as the authority shows them", minBinding)})
	}
	return secret
}

// checkProgram asks that the program can be run, and that nobody else can change
// what the node runs.
func (c *checker) checkProgram(path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		c.d.faultf("tls.acme.dns.program", "%v", err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		c.d.fault("tls.acme.dns.program", Fault{Message: "it is no program", Hint: "chmod a+x " + path})
	case info.Mode().Perm()&0o022 != 0:
		c.d.fault("tls.acme.dns.program", Fault{Message: fmt.Sprintf("mode %04o lets others change what the node runs", info.Mode().Perm()), Hint: "chmod go-w " + path})
	}
}
