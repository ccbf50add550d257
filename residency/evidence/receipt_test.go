package evidence

import (
	"bytes"
	"crypto"
	"errors"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// holder is a node with its certificate and key.
type holder struct {
	name residency.NodeName
	cert *x509.Certificate
	key  crypto.Signer
}

func newCA(t testing.TB) *identity.CA {
	t.Helper()
	ca, err := identity.CreateCA(t.TempDir(), "test", noon.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newHolder(t testing.TB, ca *identity.CA, name residency.NodeName, country residency.Country) holder {
	t.Helper()
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	n := residency.Node{Name: name, Country: country, Operator: "Example GmbH", OperatorCountry: "DE",
		Parent: "Example GmbH", ParentCountry: "DE", Roles: []residency.Role{residency.RoleOrigin, residency.RoleEdge}}
	der, err := ca.Issue(key.Public(), n, identity.SANs{}, noon.Add(-time.Hour), noon.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return holder{name, cert, key}
}

func room(t testing.TB, sid string) Pseudonym {
	t.Helper()
	p, err := RoomKey(strings.Repeat("ab", 32)).Pseudonym(sid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func sent(peer holder, bytes uint64) Receipt {
	return Receipt{Side: Sent, Peer: peer.name, PeerCertificate: Fingerprint(peer.cert.Raw), Class: residency.ClassMedia,
		Policy: "eea-only", Rule: residency.RuleZone, Epoch: 3, Packets: bytes / 1000, Bytes: bytes,
		First: Millis(noon), Last: Millis(noon.Add(time.Minute))}
}

func write(t testing.TB, c *Chain, r Receipt, by holder) []byte {
	t.Helper()
	b, err := c.Write(r, by.cert, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReceiptIsSignedAndChained(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	c := NewChain(room(t, "RM_a"), "fra", noon)
	first := write(t, c, sent(waw, 5000), fra)
	last := sent(waw, 1)
	last.Final = true
	second := write(t, c, last, fra)

	r, err := Open(second, fra.cert)
	if err != nil {
		t.Fatal(err)
	}
	if r.Seq != 2 || r.Previous != hashOf(first) || !r.Final || r.Node != "fra" || r.Bytes != 1 {
		t.Errorf("second receipt is %+v", r)
	}
	if p, err := roomOf(second); err != nil || p != r.Room {
		t.Errorf("room of the receipt is %q (%v), want %q", p, err, r.Room)
	}
	if _, err := c.Write(sent(waw, 1), fra.cert, fra.key); !errors.Is(err, ErrFinal) {
		t.Errorf("a receipt after the final one: %v", err)
	}
	if _, err := Open(second, waw.cert); err == nil {
		t.Error("opened by another node's certificate")
	}
}

func TestOneBitChangesAReceipt(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	signed := write(t, NewChain(room(t, "RM_a"), "fra", noon), sent(waw, 5000), fra)
	for i := range signed {
		for bit := range 8 {
			b := bytes.Clone(signed)
			b[i] ^= 1 << bit
			if _, err := Open(b, fra.cert); err == nil {
				t.Fatalf("byte %d with bit %d changed: %s", i, bit, b)
			}
		}
	}
}

func TestReceiptThatCannotBe(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	for name, change := range map[string]func(*Receipt){
		"side":      func(r *Receipt) { r.Side = "seen" },
		"class":     func(r *Receipt) { r.Class = "video" },
		"to itself": func(r *Receipt) { r.Peer = "fra" },
		"no epoch":  func(r *Receipt) { r.Epoch = 0 },
		"no rule":   func(r *Receipt) { r.Rule = "" },
		"backwards": func(r *Receipt) { r.Last = r.First - 1 },
		"nobody":    func(r *Receipt) { r.PeerCertificate = "" },
		"too many":  func(r *Receipt) { r.Bytes = 1 << 53 },
		"long":      func(r *Receipt) { r.Tenant = strings.Repeat("x", 300) },
		"refused":   func(r *Receipt) { r.Side = Refused },
		"questions": func(r *Receipt) { r.Class, r.QA = residency.ClassChat, true },
	} {
		r := sent(waw, 5000)
		change(&r)
		if b, err := NewChain(room(t, "RM_a"), "fra", noon).Write(r, fra.cert, fra.key); err == nil {
			t.Errorf("%s: signed as %s", name, b)
		}
	}
}

func TestPseudonymHidesTheRoom(t *testing.T) {
	a, b := NewRoomKey(), NewRoomKey()
	pa, err := a.Pseudonym("RM_a")
	if err != nil {
		t.Fatal(err)
	}
	pb, _ := b.Pseudonym("RM_a")
	again, _ := a.Pseudonym("RM_a")
	other, _ := a.Pseudonym("RM_b")
	if pa == pb || pa != again || pa == other {
		t.Errorf("pseudonyms %s, %s, %s, %s", pa, pb, again, other)
	}
	if _, err := RoomKey("").Pseudonym("RM_a"); err == nil {
		t.Error("an empty key makes a pseudonym")
	}
}
