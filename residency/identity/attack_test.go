package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

// The attacks on certificates (A14) that the other tests of this package do not
// show: wrong CA, two URIs and odd forms of one, a CA's own certificate and dates
// stand in identity_test.go.

// TestVerifyRefusesExtensions that are critical and that nobody here understands.
func TestVerifyRefusesExtensions(t *testing.T) {
	ca := testCA(t)
	extend := func(critical bool) []byte {
		return forge(t, ca, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: critical, Value: []byte{5, 0}}}
		})
	}
	_, _, err := Verify(extend(true), ca.Pool(), start)
	wantError(t, err, "unhandled critical extension")
	if _, _, err := Verify(extend(false), ca.Pool(), start); err != nil {
		t.Errorf("the control: %v", err)
	}
}

// TestVerifyRefusesWeakKeys has the CA's key sign certificates that the CA itself
// would not issue.
func TestVerifyRefusesWeakKeys(t *testing.T) {
	ca := testCA(t)
	u, err := url.Parse(fraURI)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.PublicKey{"RSA": rsaKey.Public(), "Ed25519": ed}
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[curve.Params().Name] = key.Public()
	}
	for name, pub := range keys {
		template := leaf("fra", SANs{}, start, start.Add(time.Hour))
		template.URIs, template.SerialNumber = []*url.URL{u}, big.NewInt(7)
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Verify(der, ca.Pool(), start)
		if err == nil || !strings.Contains(err.Error(), "want ECDSA on P-256") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestVerifyRefusesSerials that no policy can name.
func TestVerifyRefusesSerials(t *testing.T) {
	ca := testCA(t)
	u, err := url.Parse(fraURI)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		serial *big.Int
		want   string
	}{
		"longest":  {new(big.Int).Lsh(big.NewInt(1), 158), ""},
		"too long": {new(big.Int).Lsh(big.NewInt(1), 161), "no policy could revoke it"},
	} {
		template := leaf("fra", SANs{}, start, start.Add(time.Hour))
		template.URIs, template.SerialNumber = []*url.URL{u}, c.serial
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, testKey(t).Public(), ca.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = Verify(der, ca.Pool(), start); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestCutAndHugeCertificates are errors, wherever they are cut.
func TestCutAndHugeCertificates(t *testing.T) {
	ca := testCA(t)
	h := issue(t, ca, fra())
	for n := range h.der {
		if _, _, err := Verify(h.der[:n], ca.Pool(), start); err == nil {
			t.Fatalf("the first %d of %d bytes verify", n, len(h.der))
		}
	}
	if _, _, err := Verify(append(bytes.Clone(h.der), 0), ca.Pool(), start); err == nil {
		t.Error("a byte after the end is not seen")
	}
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"cut":      {pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: h.der})[:300], "no PEM block"},
		"cut DER":  {pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: h.der[:300]}), "x509"},
		"huge":     {bytes.Repeat([]byte("x"), maxPEM+1), "want at most"},
		"huge DER": {pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: make([]byte, 600_000)}), "x509"},
		"empty":    {nil, "no PEM block"},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadCertificates(path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// FuzzParseCertificate feeds what peers and files may hold to what reads it.
func FuzzParseCertificate(f *testing.F) {
	ca := testCA(f)
	h := issue(f, ca, fra())
	f.Add(h.der)
	f.Add(ca.cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if _, n, err := Verify(der, ca.Pool(), start); err == nil && n.Name != "fra" {
			t.Fatalf("node %q verifies, which was never issued to", n.Name)
		}
		n, err := Parse(cert)
		if err != nil {
			return
		}
		u, err := FormatURI(n)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", n, err)
		}
		if again, err := ParseURI(u); err != nil || SameFacts(n, again) != nil {
			t.Fatalf("%+v is read as %+v (%v) once written", n, again, err)
		}
	})
}

// TestNoResumption connects twice with a client that would resume.
func TestNoResumption(t *testing.T) {
	ca := testCA(t)
	server, client := TLS(Fixed(issue(t, ca, fra()).pair()), ca.Pool(), testALPN, at(start))
	if server.MinVersion != tls.VersionTLS13 || client.MinVersion != tls.VersionTLS13 {
		t.Error("older versions are offered")
	}
	client = client.Clone()
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	client.ServerName = "fra"
	for range 2 {
		s, c, errServer, errClient := handshake(t, server, client)
		if errServer != nil || errClient != nil {
			t.Fatal(errServer, errClient)
		}
		if s.DidResume || c.DidResume {
			t.Error("a session is resumed: it would outlive its certificate")
		}
	}
}

// TestTLSFollowsRenewal shows the new certificate from the next handshake on.
func TestTLSFollowsRenewal(t *testing.T) {
	ca := testCA(t)
	first, second := issue(t, ca, fra()).pair(), issue(t, ca, fra()).pair()
	now := &first
	server, client := TLS(func() *tls.Certificate { return now }, ca.Pool(), testALPN, at(start))
	for _, pair := range []*tls.Certificate{&first, &second} {
		now = pair
		s, c, errServer, errClient := handshake(t, server, client)
		if errServer != nil || errClient != nil {
			t.Fatal(errServer, errClient)
		}
		for _, cs := range []tls.ConnectionState{s, c} {
			if !bytes.Equal(cs.PeerCertificates[0].Raw, pair.Certificate[0]) {
				t.Error("another certificate was shown")
			}
		}
	}
}

func TestProof(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	h, foreign, binding := issue(t, ca, fra()), issue(t, other, fra()), []byte("this connection, this end")
	pair := h.pair()
	proof, err := Prove(&pair, binding)
	if err != nil {
		t.Fatal(err)
	}
	n, err := VerifyProof(proof, binding, ca.Pool(), start)
	if err != nil || SameFacts(n, fra()) != nil || n.Serial != Serial(h.cert) {
		t.Fatalf("got %+v, %v", n, err)
	}
	stranger := foreign.pair()
	strange, err := Prove(&stranger, binding)
	if err != nil {
		t.Fatal(err)
	}
	stolen := tls.Certificate{Certificate: [][]byte{h.der}, PrivateKey: foreign.key} // the certificate is public, the key is not
	unowned, err := Prove(&stolen, binding)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		proof, binding []byte
		now            time.Time
		want           string
	}{
		"of another connection":   {proof, []byte("another connection"), start, "did not sign this"},
		"without the key":         {unowned, binding, start, "did not sign this"},
		"of another CA":           {strange, binding, start, "unknown authority"},
		"expired":                 {proof, binding, start.Add(25 * time.Hour), "expired"},
		"not yet valid":           {proof, binding, start.Add(-time.Hour), "not yet valid"},
		"empty":                   {nil, binding, start, "no proof"},
		"of another version":      {append([]byte{2}, proof[1:]...), binding, start, "no proof of version 1"},
		"with a byte more":        {append(bytes.Clone(proof), 0), binding, start, "a certificate of"},
		"huge":                    {make([]byte, MaxProof+1), binding, start, "no proof"},
		"a signed claim's length": {proof[:len(proof)-1], binding, start, "a certificate of"},
	} {
		if _, err := VerifyProof(c.proof, c.binding, ca.Pool(), c.now); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	for n := range proof {
		if _, err := VerifyProof(proof[:n], binding, ca.Pool(), start); err == nil {
			t.Fatalf("the first %d bytes verify", n)
		}
	}
}

func TestSameFacts(t *testing.T) {
	n := fra()
	later := fra()
	later.NotAfter, later.Serial = start, "2"
	later.Roles = []residency.Role{residency.RoleEdge, residency.RoleOrigin}
	if err := SameFacts(n, later); err != nil {
		t.Error(err)
	}
	later.ParentCountry = "US"
	wantError(t, SameFacts(n, later), `the parent country is "US" now and was "FR"`)
}

// request makes one and has change spoil it.
func request(t *testing.T, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "fra"}}
	change(template)
	der, err := x509.CreateCertificateRequest(rand.Reader, template, testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRequest(t *testing.T) {
	key := testKey(t)
	der, err := NewRequest("fra", key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(der)
	if err != nil || r.Name != "fra" || !r.Key.Equal(key.Public()) {
		t.Fatalf("got %+v, %v", r, err)
	}
	forged := bytes.Clone(der)
	forged[bytes.Index(forged, []byte("fra"))] = 'b'
	_, err = ParseRequest(forged)
	wantError(t, err, "does not hold the key")
	u, err := url.Parse(fraURI)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseRequest(request(t, func(r *x509.CertificateRequest) { r.URIs = []*url.URL{u} }))
	wantError(t, err, "the operator says")
	_, err = ParseRequest(request(t, func(r *x509.CertificateRequest) { r.Subject.CommonName = "FRA" }))
	wantError(t, err, `node name "FRA"`)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "fra"}}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseRequest(weak)
	wantError(t, err, "want ECDSA on P-256")
	for n := range der {
		if _, err := ParseRequest(der[:n]); err == nil {
			t.Fatalf("the first %d bytes are a request", n)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	der, err := NewRequest("fra", testKey(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if _, bad := residency.ParseNodeName(string(r.Name)); err == nil && (bad != nil || r.Key == nil) {
			t.Fatalf("%+v", r)
		}
	})
}

func TestRenewStatesTheSame(t *testing.T) {
	ca := testCA(t)
	h := issue(t, ca, fra())
	der, err := ca.Renew(h.cert, nil, start.Add(time.Hour), start.Add(48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	cert, n, err := Verify(der, ca.Pool(), start.Add(time.Hour))
	if err != nil || SameFacts(n, fra()) != nil || Serial(cert) == Serial(h.cert) || !cert.PublicKey.(*ecdsa.PublicKey).Equal(h.key.Public()) {
		t.Errorf("got %+v, %v", n, err)
	}
	_, err = ca.Renew(issue(t, testCA(t), fra()).cert, nil, start, start.Add(time.Hour))
	wantError(t, err, "was not issued by")
	_, err = ca.Renew(ca.cert, nil, start, start.Add(time.Hour))
	wantError(t, err, "0 URIs")
}

func TestIndex(t *testing.T) {
	dir, ca := t.TempDir(), testCA(t)
	if list, err := ReadIndex(dir); err != nil || len(list) != 0 {
		t.Fatalf("no index: %v, %v", list, err)
	}
	a, b := issue(t, ca, fra()), issue(t, ca, fra())
	for _, e := range []Entry{
		{At: start, Serial: Serial(a.cert), Certificate: a.der},
		{At: start, Serial: Serial(b.cert), Certificate: b.der, Replaces: Serial(a.cert)},
		{At: start, Serial: Serial(a.cert), Revoked: true, Epoch: 2, Reason: "sold"},
		{At: start, Serial: "1", Revoked: true},
	} {
		if err := Record(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	list, err := ReadIndex(dir)
	if err != nil || len(list) != 2 || !list[0].Revoked || list[0].Reason != "sold" || list[0].ReplacedBy != Serial(b.cert) || list[1].Revoked {
		t.Fatalf("got %+v, %v", list, err)
	}
	if info, err := os.Stat(filepath.Join(dir, IndexFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for want, line := range map[string]any{
		"there twice":    Entry{Serial: Serial(a.cert), Certificate: a.der},
		"no certificate": Entry{Serial: "2", Certificate: a.der},
		"line 1":         "half",
	} {
		text, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		first, err := json.Marshal(Entry{Serial: Serial(a.cert), Certificate: a.der})
		if err != nil {
			t.Fatal(err)
		}
		all := append(append(first, '\n'), text...)
		if want == "line 1" {
			all = text
		}
		_, err = parseIndex(bytes.NewReader(all))
		wantError(t, err, want)
	}
}

func TestStages(t *testing.T) {
	end := start.Add(90 * 24 * time.Hour)
	for days, want := range map[int]Stage{-1: StageEarly, 0: StageGood, 59: StageGood, 60: StageDue, 80: StageDue, 81: StageUrgent, 89: StageUrgent, 90: StageEnded, 99: StageEnded} {
		if got := StageOf(start, end, start.Add(time.Duration(days)*24*time.Hour)); got != want {
			t.Errorf("day %d: %s, want %s", days, got, want)
		}
	}
}
