package identity

import (
	"crypto/x509"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/domicile/domicile/residency"
)

// testdata/claim1.txt has a certificate and a claim of its holder as the release of
// 2026-11 makes them. They are read for as long as such a node may be met.
const previous = "testdata/claim1.txt"

var writePrevious = flag.Bool("previous", false, "write "+previous+"; only ever from the tree of that release")

func TestClaimOfTheReleaseBefore(t *testing.T) {
	if *writePrevious {
		h := issue(t, testCA(t), fra())
		b, err := SignClaim(fraClaim(t, h), h.key)
		if err == nil {
			err = os.WriteFile(previous, fmt.Appendf(nil, "certificate %x\nclaim %x\n", h.der, b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(previous)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string][]byte{}
	for line := range strings.Lines(string(file)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kept[name], err = hex.DecodeString(text); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(kept["certificate"])
	if err != nil {
		t.Fatal(err)
	}
	stated, err := Parse(cert)
	if err != nil {
		t.Fatal(err)
	}
	if n := fra(); stated.Name != n.Name || stated.Operator != n.Operator || stated.ParentCountry != n.ParentCountry ||
		!stated.Has(residency.RoleOrigin) || !stated.Has(residency.RoleEdge) {
		t.Errorf("the certificate states %+v", stated)
	}
	got, err := VerifyClaim(kept["claim"], cert)
	if err != nil {
		t.Fatal(err)
	}
	want := fraClaim(t, holder{cert: cert})
	if math.Abs(got.Load-want.Load) > 1.0/65535 {
		t.Errorf("load %v, want %v", got.Load, want.Load)
	}
	got.Load = want.Load
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	again, err := encodeClaim(want)
	if err != nil || hex.EncodeToString(again) != hex.EncodeToString(kept["claim"][:len(kept["claim"])-claimSignature]) {
		t.Errorf("the claim is written as\n%x (%v), the release before wrote\n%x", again, err, kept["claim"])
	}
}
