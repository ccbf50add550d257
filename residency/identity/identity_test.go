package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const fraURI = "domicile://node/fra?country=DE&operator=Example+Hosting+GmbH&operator_country=DE&parent=Example+Holding+SE&parent_country=FR&roles=origin%2Cedge"

func fra() residency.Node {
	return residency.Node{
		Name: "fra", Country: "DE", Operator: "Example Hosting GmbH", OperatorCountry: "DE",
		Parent: "Example Holding SE", ParentCountry: "FR", Roles: []residency.Role{residency.RoleOrigin, residency.RoleEdge},
	}
}

func testCA(t testing.TB) *CA {
	t.Helper()
	ca, err := newCA("Example CA", start)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func testKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// holder is a node with its certificate.
type holder struct {
	key  crypto.Signer
	der  []byte
	cert *x509.Certificate
}

func issue(t testing.TB, ca *CA, n residency.Node) holder {
	t.Helper()
	h := holder{key: testKey(t)}
	var err error
	if h.der, err = ca.Issue(h.key.Public(), n, SANs{}, start, start.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if h.cert, err = x509.ParseCertificate(h.der); err != nil {
		t.Fatal(err)
	}
	return h
}

// wantError fails unless err is one that says want.
func wantError(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one that says %q", err, want)
	}
}

func TestIssueAndVerify(t *testing.T) {
	ca := testCA(t)
	h := issue(t, ca, fra())
	cert, got, err := Verify(h.der, ca.Pool(), start)
	if err != nil {
		t.Fatal(err)
	}
	want := fra()
	want.NotBefore, want.NotAfter, want.Serial = start, start.Add(24*time.Hour), cert.SerialNumber.Text(16)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != fraURI {
		t.Errorf("URIs: got %v", cert.URIs)
	}
	if !got.ValidAt(start) || got.ValidAt(start.Add(24*time.Hour)) {
		t.Error("the validity of the node is not that of the certificate")
	}
}

func TestParseURI(t *testing.T) {
	for _, c := range []struct{ name, uri, want string }{
		{"as issued", fraURI, ""},
		{"keys in another order", "domicile://node/fra?roles=edge&parent_country=FR&parent=P&operator_country=DE&operator=O&country=DE", ""},
		{"not ASCII", strings.Replace(fraURI, "Hosting", "M%C3%BCller", 1), ""},
		{"key missing", strings.Replace(fraURI, "&parent_country=FR", "", 1), `key "parent_country" is missing`},
		{"key empty", strings.Replace(fraURI, "parent_country=FR", "parent_country=", 1), `parent country ""`},
		{"key unknown", fraURI + "&city=Frankfurt", `unknown key "city"`},
		{"key twice", fraURI + "&country=US", `key "country" stands there 2 times`},
		{"key twice, escaped", fraURI + "&%63ountry=US", `key "country" stands there 2 times`},
		{"semicolon", fraURI + ";country=US", "semicolon"},
		{"no such country", strings.Replace(fraURI, "country=DE", "country=XX", 1), `country "XX"`},
		{"country in lower case", strings.Replace(fraURI, "country=DE", "country=de", 1), `country "de"`},
		{"zone as country", strings.Replace(fraURI, "country=DE", "country=EU", 1), `country "EU"`},
		{"no role", strings.Replace(fraURI, "origin%2Cedge", "", 1), `role ""`},
		{"role twice", strings.Replace(fraURI, "origin%2Cedge", "edge%2Cedge", 1), `role "edge" is stated twice`},
		{"role unknown", strings.Replace(fraURI, "origin%2Cedge", "admin", 1), `role "admin"`},
		{"operator of spaces", strings.Replace(fraURI, "Example+Hosting+GmbH", "+", 1), `operator " "`},
		{"operator with a line break", strings.Replace(fraURI, "Example+Hosting", "Example%0AHosting", 1), "printable"},
		{"operator not UTF-8", strings.Replace(fraURI, "Hosting", "%FF", 1), "printable"},
		{"operator too long", strings.Replace(fraURI, "Hosting", strings.Repeat("x", 64), 1), "at most 64 bytes"},
		{"name in upper case", strings.Replace(fraURI, "/fra", "/FRA", 1), `node name "FRA"`},
		{"name with a slash", strings.Replace(fraURI, "/fra", "/fra/waw", 1), `node name "fra/waw"`},
		{"name escaped", strings.Replace(fraURI, "/fra", "/fr%61", 1), `%61`},
		{"no name", strings.Replace(fraURI, "/fra", "", 1), "want domicile://node/NAME"},
		{"other scheme", strings.Replace(fraURI, "domicile:", "spiffe:", 1), "want domicile://node/NAME"},
		{"other host", strings.Replace(fraURI, "//node/", "//user/", 1), "want domicile://node/NAME"},
		{"port", strings.Replace(fraURI, "//node/", "//node:1/", 1), "want domicile://node/NAME"},
		{"user", strings.Replace(fraURI, "//node/", "//admin@node/", 1), "want domicile://node/NAME"},
		{"fragment", fraURI + "#country=US", "want domicile://node/NAME"},
		{"huge", fraURI + "&" + strings.Repeat("x=1&", 10_000), "at most 1024"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(c.uri)
			if err != nil {
				t.Fatal(err)
			}
			n, err := ParseURI(u)
			switch {
			case c.want == "" && (err != nil || n.Name != "fra" || n.Country != "DE" || n.ParentCountry != "FR"):
				t.Errorf("got %+v, %v", n, err)
			case c.want != "":
				wantError(t, err, c.want)
			}
		})
	}
}

// TestLongestURI has names as long as allowed, every byte escaped: what Issue
// writes, Parse reads.
func TestLongestURI(t *testing.T) {
	n := fra()
	n.Name = residency.NodeName(strings.Repeat("n", residency.MaxNodeName))
	n.Operator, n.Parent = strings.Repeat("ü", residency.MaxOrganisation/2), strings.Repeat("%", residency.MaxOrganisation)
	if got, err := Parse(issue(t, testCA(t), n).cert); err != nil || got.Operator != n.Operator || got.Parent != n.Parent {
		t.Errorf("got %+v, %v", got, err)
	}
}

// forge signs any certificate with the CA's key: what Issue would refuse.
func forge(t *testing.T, ca *CA, change func(*x509.Certificate)) []byte {
	t.Helper()
	u, err := url.Parse(fraURI)
	if err != nil {
		t.Fatal(err)
	}
	template := leaf("fra", SANs{}, start, start.Add(time.Hour))
	template.URIs = []*url.URL{u}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	change(template)
	der, err := sign(template, ca.cert, testKey(t).Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestVerifyRefuses(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	good := forge(t, ca, func(*x509.Certificate) {})
	if _, _, err := Verify(good, ca.Pool(), start); err != nil {
		t.Fatal(err)
	}
	second := &url.URL{Scheme: "https", Host: "example.org"}
	for _, c := range []struct {
		name  string
		der   []byte
		roots *x509.CertPool
		now   time.Time
		want  string
	}{
		{"of another CA", good, other.Pool(), start, "unknown authority"},
		{"no roots: the machine's do not count", good, nil, start, "no roots"},
		{"empty roots", good, x509.NewCertPool(), start, "unknown authority"},
		{"no time: the machine's does not count", good, ca.Pool(), time.Time{}, "no time"},
		{"too early", good, ca.Pool(), start.Add(-time.Second), "not yet valid"},
		{"too late", good, ca.Pool(), start.Add(time.Hour + time.Second), "expired"},
		{"cut", good[:len(good)-1], ca.Pool(), start, "verify node certificate"},
		{"two URIs", forge(t, ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), ca.Pool(), start, "2 URIs"},
		{"two URIs, one of something else", forge(t, ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, second) }), ca.Pool(), start, "2 URIs"},
		{"no URI", forge(t, ca, func(c *x509.Certificate) { c.URIs = nil }), ca.Pool(), start, "0 URIs"},
		{"for servers alone", forge(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), ca.Pool(), start, "extended key usages"},
		{"for everything unsaid", forge(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = nil }), ca.Pool(), start, "extended key usages"},
		{"an authority", forge(t, ca, func(c *x509.Certificate) { c.IsCA = true }), ca.Pool(), start, "verify node certificate"},
		{"the CA itself", ca.cert.Raw, ca.Pool(), start, "is an authority's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, n, err := Verify(c.der, c.roots, c.now)
			wantError(t, err, c.want)
			if cert != nil || n.Name != "" {
				t.Error("an error and a node")
			}
		})
	}
}

// TestNodeIsNoAuthority has a node issue a certificate to itself.
func TestNodeIsNoAuthority(t *testing.T) {
	ca := testCA(t)
	h := issue(t, ca, fra())
	der := forge(t, &CA{cert: h.cert, key: h.key}, func(*x509.Certificate) {})
	_, _, err := Verify(der, ca.Pool(), start)
	wantError(t, err, "unknown authority")
	roots := ca.Pool()
	roots.AddCert(h.cert)
	_, _, err = Verify(der, roots, start)
	wantError(t, err, "verify node certificate")
}

func TestIssueRefuses(t *testing.T) {
	ca := testCA(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub := testKey(t).Public()
	changed := func(change func(*residency.Node)) residency.Node {
		n := fra()
		change(&n)
		return n
	}
	day := start.Add(24 * time.Hour)
	for _, c := range []struct {
		name string
		pub  crypto.PublicKey
		n    residency.Node
		to   time.Time
		want string
	}{
		{"Ed25519", edKey.Public(), fra(), day, "want ECDSA on P-256"},
		{"P-384", p384.Public(), fra(), day, "want ECDSA on P-256"},
		{"ends before it starts", pub, fra(), start, "want an end after the start"},
		{"outlives the CA", pub, fra(), start.Add(11 * 365 * 24 * time.Hour), "not after the CA's"},
		{"no country", pub, changed(func(n *residency.Node) { n.Country = "" }), day, `country ""`},
		{"no parent", pub, changed(func(n *residency.Node) { n.Parent = "" }), day, `parent "": want a name`},
		{"no roles", pub, changed(func(n *residency.Node) { n.Roles = nil }), day, "no role"},
		{"bad name", pub, changed(func(n *residency.Node) { n.Name = "-" }), day, `node name "-"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.Issue(c.pub, c.n, SANs{}, start, c.to)
			wantError(t, err, c.want)
		})
	}
}

func TestIssueServer(t *testing.T) {
	ca := testCA(t)
	sans := SANs{DNS: []string{"meet.example.org"}, IPs: []netip.Addr{netip.MustParseAddr("127.20.0.1"), netip.MustParseAddr("::1")}}
	der, err := ca.IssueServer(testKey(t).Public(), sans, start, start.Add(MaxServerValidity))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"meet.example.org", "127.20.0.1", "::1"} {
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: ca.Pool(), CurrentTime: start}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Verify(der, ca.Pool(), start); err == nil {
		t.Error("a server's certificate passes as a node's")
	}
	_, err = ca.IssueServer(testKey(t).Public(), sans, start, start.Add(MaxServerValidity+time.Second))
	wantError(t, err, "browsers accept")
	_, err = ca.IssueServer(testKey(t).Public(), SANs{}, start, start.Add(time.Hour))
	wantError(t, err, "no name and no address")
}

func TestCAFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	ca, err := CreateCA(dir, "Example CA", start)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, CAKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key: got %v, %v", info.Mode(), err)
	}
	loaded, err := LoadCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !loaded.Certificate().Equal(ca.Certificate()) {
		t.Error("another certificate was loaded")
	}
	if _, _, err := Verify(issue(t, loaded, fra()).der, ca.Pool(), start); err != nil {
		t.Error(err)
	}

	_, err = CreateCA(dir, "Another CA", start)
	wantError(t, err, "file exists")
	if again, err := LoadCA(dir); err != nil || !again.Certificate().Equal(ca.Certificate()) {
		t.Errorf("the CA was overwritten: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, CAKeyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = LoadCA(dir)
	wantError(t, err, "chmod 600 it")
	_, err = CreateCA(t.TempDir(), "", start)
	wantError(t, err, "common name is empty")
}

func TestLoadCARefuses(t *testing.T) {
	dir := t.TempDir()
	ca, err := CreateCA(dir, "Example CA", start)
	if err != nil {
		t.Fatal(err)
	}
	h := issue(t, ca, fra())
	replace := func(name string, write func(path string) error) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := write(path); err != nil {
			t.Fatal(err)
		}
	}
	text := func(s string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(s), 0o600) }
	}
	replace(CAKeyFile, func(path string) error { return WriteKey(path, h.key) })
	_, err = LoadCA(dir)
	wantError(t, err, "the key in ca-key.pem is not that of ca.pem")
	replace(CAFile, func(path string) error { return WriteCertificates(path, h.der) })
	_, err = LoadCA(dir)
	wantError(t, err, "not the certificate of an authority")
	replace(CAFile, text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	_, err = LoadCA(dir)
	wantError(t, err, "ca.pem: x509: malformed certificate")
	replace(CAFile, text("nothing"))
	_, err = LoadCA(dir)
	wantError(t, err, `no PEM block of type "CERTIFICATE"`)
	replace(CAFile, func(path string) error { return WriteKey(path, h.key) })
	_, err = LoadCA(dir)
	wantError(t, err, `a PEM block of type "PRIVATE KEY"`)
}

func TestLoadPair(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "node.pem"), filepath.Join(dir, "node-key.pem")
	h := issue(t, testCA(t), fra())
	if err := WriteCertificates(certPath, h.der); err != nil {
		t.Fatal(err)
	}
	if err := WriteKey(keyPath, h.key); err != nil {
		t.Fatal(err)
	}
	pair, err := LoadPair(certPath, keyPath)
	if err != nil || !pair.Leaf.Equal(h.cert) {
		t.Errorf("got %v, %v", pair.Leaf, err)
	}
}

func TestSignature(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	policy := []byte("epoch: 1\n")
	sig, err := ca.Sign(policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifySignature(policy, sig, other.Certificate(), ca.Certificate()); err != nil {
		t.Error(err)
	}
	h := issue(t, ca, fra())
	byNode, err := (&CA{cert: h.cert, key: h.key}).Sign(policy)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := "none of the trusted authorities"
	for _, c := range []struct {
		name        string
		policy, sig []byte
		cas         []*x509.Certificate
		want        string
	}{
		{"changed policy", []byte("epoch: 2\n"), sig, []*x509.Certificate{ca.cert}, unsigned},
		{"policy with a line more", []byte("epoch: 1\n\n"), sig, []*x509.Certificate{ca.cert}, unsigned},
		{"another CA", policy, sig, []*x509.Certificate{other.cert}, unsigned},
		{"no CA", policy, sig, nil, unsigned},
		{"signed by a node", policy, byNode, []*x509.Certificate{ca.cert, h.cert}, unsigned},
		{"no signature", policy, nil, []*x509.Certificate{ca.cert}, "no PEM block"},
		{"a certificate instead", policy, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []*x509.Certificate{ca.cert}, "no PEM block"},
		{"not ASN.1", policy, []byte("-----BEGIN DOMICILE SIGNATURE-----\nAAAA\n-----END DOMICILE SIGNATURE-----\n"), []*x509.Certificate{ca.cert}, unsigned},
		{"huge", policy, make([]byte, 1<<20), []*x509.Certificate{ca.cert}, "at most"},
	} {
		t.Run(c.name, func(t *testing.T) { wantError(t, VerifySignature(c.policy, c.sig, c.cas...), c.want) })
	}
}

// TestSerialsDiffer guards the numbers that policies revoke by.
func TestSerialsDiffer(t *testing.T) {
	ca := testCA(t)
	a, b := issue(t, ca, fra()).cert.SerialNumber, issue(t, ca, fra()).cert.SerialNumber
	if a.Cmp(b) == 0 || a.Cmp(big.NewInt(1<<62)) < 0 {
		t.Errorf("serial numbers %x and %x", a, b)
	}
}
