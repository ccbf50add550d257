package identity

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/domicile/domicile/residency"
)

func fraClaim(t testing.TB, h holder) Claim {
	t.Helper()
	c, err := ClaimOf(h.cert)
	if err != nil {
		t.Fatal(err)
	}
	c.Epoch, c.Load, c.Attendees, c.Issued = 3, 0.25, 120, start
	c.Latitude, c.Longitude = 50.11, 8.68
	c.RelayAddr, c.GossipAddr = netip.MustParseAddrPort("127.20.0.1:7900"), netip.MustParseAddrPort("[2001:db8::1]:7946")
	c.URL = "https://127.20.0.1:7443"
	return c
}

func TestClaim(t *testing.T) {
	h := issue(t, testCA(t), fra())
	want := fraClaim(t, h)
	b, err := SignClaim(want, h.key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyClaim(b, h.cert)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(got.Load-want.Load) > 1.0/65535 {
		t.Errorf("load: got %v, want %v", got.Load, want.Load)
	}
	got.Load = want.Load
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if peeked, err := PeekClaim(b); err != nil || peeked.Name != "fra" || peeked.CertFingerprint != Fingerprint(h.cert) {
		t.Errorf("peek: got %+v, %v", peeked, err)
	}
	later := want
	later.Issued = start.Add(time.Millisecond)
	if !later.Newer(want) || want.Newer(later) || want.Newer(want) {
		t.Error("Newer does not order claims by when they were issued")
	}
}

// TestLongestClaim has every string as long as allowed: it still fits what
// memberlist takes.
func TestLongestClaim(t *testing.T) {
	n := fra()
	n.Name = residency.NodeName(strings.Repeat("n", residency.MaxNodeName))
	n.Operator, n.Parent = strings.Repeat("o", residency.MaxOrganisation), strings.Repeat("p", residency.MaxOrganisation)
	h := issue(t, testCA(t), n)
	c := fraClaim(t, h)
	c.RelayAddr = c.GossipAddr
	c.URL = "https://" + strings.Repeat("u", maxClaimURL-len("https://"))
	b, err := SignClaim(c, h.key)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != MaxClaim || MaxClaim > 512 {
		t.Errorf("%d bytes, MaxClaim is %d", len(b), MaxClaim)
	}
	if _, err := VerifyClaim(b, h.cert); err != nil {
		t.Error(err)
	}
}

// TestLyingClaim has a node state what its certificate does not (A13).
func TestLyingClaim(t *testing.T) {
	nyc := fra()
	nyc.Name, nyc.Country, nyc.OperatorCountry, nyc.ParentCountry, nyc.Roles = "nyc", "US", "US", "US", []residency.Role{residency.RoleEdge}
	h := issue(t, testCA(t), nyc)
	for _, c := range []struct {
		lie  func(*Claim)
		want string
	}{
		{func(c *Claim) { c.Country = "DE" }, `node "nyc": the claim states the country "DE", the certificate "US"`},
		{func(c *Claim) { c.Name = "fra" }, `the claim states the name "fra", the certificate "nyc"`},
		{func(c *Claim) { c.Operator = "Other AG" }, `the claim states the operator "Other AG", the certificate "Example Hosting GmbH"`},
		{func(c *Claim) { c.OperatorCountry = "DE" }, `the operator country "DE", the certificate "US"`},
		{func(c *Claim) { c.Parent = "Other AG" }, `the parent "Other AG"`},
		{func(c *Claim) { c.ParentCountry = "DE" }, `the parent country "DE", the certificate "US"`},
		{func(c *Claim) { c.Roles = residency.Roles() }, `the roles "origin,edge", the certificate "edge"`},
		{func(c *Claim) { c.CertFingerprint[0]++ }, `refers to the certificate with fingerprint`},
	} {
		claim := fraClaim(t, h)
		c.lie(&claim)
		b, err := SignClaim(claim, h.key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = VerifyClaim(b, h.cert)
		wantError(t, err, c.want)
	}
}

func TestClaimOfAnotherKey(t *testing.T) {
	ca := testCA(t)
	h, thief := issue(t, ca, fra()), issue(t, ca, fra())
	b, err := SignClaim(fraClaim(t, h), thief.key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = VerifyClaim(b, h.cert)
	wantError(t, err, "the certificate's key did not sign this")
	// Nor is a signature under something else one under a claim.
	signed := b[:len(b)-claimSignature]
	sig, err := signFixed(h.key, signatureContext, signed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = VerifyClaim(slices.Concat(signed, sig), h.cert)
	wantError(t, err, "the certificate's key did not sign this")
}

// TestTamperedClaim turns every bit of a claim: none of these verifies.
func TestTamperedClaim(t *testing.T) {
	h := issue(t, testCA(t), fra())
	b, err := SignClaim(fraClaim(t, h), h.key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := VerifyClaim(b, h.cert); err == nil {
				t.Fatalf("bit %d of byte %d turned, and it verifies", bit, i)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range b {
		if _, err := VerifyClaim(b[:n], h.cert); err == nil {
			t.Fatalf("cut to %d bytes, and it verifies", n)
		}
	}
}

func TestSignClaimRefuses(t *testing.T) {
	h := issue(t, testCA(t), fra())
	for _, c := range []struct {
		change func(*Claim)
		want   string
	}{
		{func(c *Claim) { c.Load = math.NaN() }, "load NaN"},
		{func(c *Claim) { c.Load = 1.01 }, "load 1.01"},
		{func(c *Claim) { c.Load = -0.01 }, "load -0.01"},
		{func(c *Claim) { c.Latitude = 91 }, "place 91"},
		{func(c *Claim) { c.Longitude = math.Inf(-1) }, "place 50.11, -Inf"},
		{func(c *Claim) { c.Issued = time.Time{} }, "want a time after 1970"},
		{func(c *Claim) { c.URL = "http://127.20.0.1" }, "want https://HOST"},
		{func(c *Claim) { c.URL = "https://" }, "want https://HOST"},
		{func(c *Claim) { c.URL = "https://user@example.org" }, "want https://HOST"},
		{func(c *Claim) { c.URL = "https://example.org/page" }, "want https://HOST"},
		{func(c *Claim) { c.URL = "https://example.org?token=x" }, "want https://HOST"},
		{func(c *Claim) { c.URL = "javascript:alert(1)" }, "want https://HOST"},
		{func(c *Claim) { c.URL = "https://" + strings.Repeat("u", 100) }, "at most 96 bytes"},
		{func(c *Claim) { c.RelayAddr = netip.MustParseAddrPort("[fe80::1%eth0]:1") }, "a zone means nothing"},
		{func(c *Claim) { c.Country = "" }, `country ""`},
		{func(c *Claim) { c.Name = "FRA" }, `node name "FRA"`},
	} {
		claim := fraClaim(t, h)
		c.change(&claim)
		_, err := SignClaim(claim, h.key)
		wantError(t, err, c.want)
	}
}

// TestClaimRoundTrip sends claims of any content.
func TestClaimRoundTrip(t *testing.T) {
	h := issue(t, testCA(t), fra())
	base := fraClaim(t, h)
	rapid.Check(t, func(t *rapid.T) {
		c := base
		c.Epoch = residency.Epoch(rapid.Uint64().Draw(t, "epoch"))
		c.Load = float64(rapid.Uint16().Draw(t, "load")) / math.MaxUint16
		c.Attendees = rapid.Uint32().Draw(t, "attendees")
		c.Latitude = float64(rapid.Int32Range(-90e6, 90e6).Draw(t, "latitude")) / degrees
		c.Longitude = float64(rapid.Int32Range(-180e6, 180e6).Draw(t, "longitude")) / degrees
		c.Issued = time.UnixMilli(rapid.Int64Range(1, 1<<48).Draw(t, "issued")).UTC()
		c.RelayAddr = drawAddr(t, "relay")
		c.GossipAddr = drawAddr(t, "gossip")
		c.URL = rapid.SampledFrom([]string{"", "https://example.org", "https://[2001:db8::1]:7443"}).Draw(t, "url")
		b, err := SignClaim(c, h.key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := VerifyClaim(b, h.cert); err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, c)
		}
	})
}

func drawAddr(t *rapid.T, label string) netip.AddrPort {
	n := rapid.SampledFrom([]int{0, 4, 16}).Draw(t, label+" size")
	if n == 0 {
		return netip.AddrPort{}
	}
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, label))
	return netip.AddrPortFrom(a.Unmap(), rapid.Uint16().Draw(t, label+" port"))
}

// FuzzPeekClaim holds the decoder to one form: what it accepts, the encoder
// writes again byte for byte.
func FuzzPeekClaim(f *testing.F) {
	h := issue(f, testCA(f), fra())
	b, err := SignClaim(fraClaim(f, h), h.key)
	if err != nil {
		f.Fatal(err)
	}
	signedClaim := slices.Clone(b)
	f.Add(b)
	f.Add(b[:claimFixed])
	f.Add(append(slices.Clone(b), 0))
	hostile := slices.Clone(b)
	hostile[claimFixed] = 255 // a name longer than the claim
	f.Add(hostile)
	negative := slices.Clone(b)
	binary.BigEndian.PutUint64(negative[10:], 1<<63)
	f.Add(negative)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, signed, err := decodeClaim(b)
		if err != nil {
			return
		}
		again, err := encodeClaim(c)
		if err != nil || string(again) != string(b[:signed]) {
			t.Fatalf("accepted %x, writes %x, %v", b, again, err)
		}
		if got, err := VerifyClaim(b, h.cert); err == nil && !slices.Equal(b, signedClaim) {
			t.Fatalf("nobody signed %+v, and it verifies", got)
		}
	})
}

func ExampleClaimOf() {
	ca, _ := newCA("Example CA", start)
	key, _ := GenerateKey()
	der, _ := ca.Issue(key.Public(), fra(), SANs{}, start, start.Add(time.Hour))
	cert, n, _ := Verify(der, ca.Pool(), start)
	claim, _ := ClaimOf(cert)
	claim.Issued, claim.Country = start, "US"
	b, _ := SignClaim(claim, key)
	_, err := VerifyClaim(b, cert)
	fmt.Println(n.Name, n.Country, n.Roles)
	fmt.Println(err)
	// Output:
	// fra DE [origin edge]
	// verify claim: node "fra": the claim states the country "US", the certificate "DE"
}
