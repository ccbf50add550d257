package verify_test

import (
	"crypto/x509"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence/evidencetest"
	"github.com/domicile/domicile/residency/evidence/verify"
)

func parse(b []byte) (*residency.Bundle, error) { return configs.ParsePolicy("policy.yaml", b) }

func mesh(t testing.TB, nodes int, outside bool) *evidencetest.Mesh {
	t.Helper()
	m, err := evidencetest.New(t.TempDir(), nodes, outside, evidencetest.PolicyText, parse)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func options(m *evidencetest.Mesh) verify.Options {
	return verify.Options{Roots: []*x509.Certificate{m.CA.Certificate()}, Parse: parse}
}

func export(t testing.TB, m *evidencetest.Mesh, minutes int) []byte {
	t.Helper()
	b, err := m.Room(t.TempDir(), evidencetest.Shape{SID: "RM_a", Minutes: minutes, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func show(r *verify.Result) (text string) {
	for _, f := range r.Findings {
		text += fmt.Sprintf("%s: %s\n", f.Code, f.In(verify.English))
	}
	return text
}

func TestWholeEvidenceIsProved(t *testing.T) {
	for _, outside := range []bool{false, true} {
		m := mesh(t, 3, outside)
		b := export(t, m, 3)
		r := verify.File(b, options(m))
		if !r.Whole() || r.Receipts != 3*(2*2*3*3)+3+1 || len(r.Nodes) != 3 || r.Policy != "europe" || len(r.Epochs) != 1 {
			t.Errorf("outside %v: %d receipts, %d nodes, policy %q\n%s", outside, r.Receipts, len(r.Nodes), r.Policy, show(r))
		}
	}
}

// A room whose home failed has receipts on two origins, some of them on both.
func TestEvidenceOfTwoOriginsIsCheckedTogether(t *testing.T) {
	m := mesh(t, 3, false)
	receipts, err := m.Receipts(evidencetest.Shape{SID: "RM_a", Minutes: 4, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var files [][]byte
	for _, part := range [][]evidencetest.Signed{receipts[:90], receipts[80:]} {
		l, err := m.Log(t.TempDir(), part)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		b, err := m.Export(l, "RM_a")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, b)
	}
	if r := verify.Files(files, options(m)); !r.Whole() || r.Receipts != len(receipts) {
		t.Errorf("%d receipts of %d\n%s", r.Receipts, len(receipts), show(r))
	}
	for _, b := range files {
		if r := verify.File(b, options(m)); r.Whole() {
			t.Error("one half is proved without the other")
		}
	}
}

// However much is missing, what is worse is still seen.
func TestManySmallThingsHideNoGraveOne(t *testing.T) {
	m, err := evidencetest.New(t.TempDir(), 3, true, strings.Replace(evidencetest.PolicyText, "all: EEA", "all: DACH", 1), parse)
	if err != nil {
		t.Fatal(err)
	}
	receipts, err := m.Receipts(evidencetest.Shape{SID: "RM_a", Minutes: 20, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var holes []evidencetest.Signed
	for i, s := range receipts {
		if i%2 == 0 {
			holes = append(holes, s)
		}
	}
	l, err := m.Log(t.TempDir(), holes)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := m.Export(l, "RM_a")
	if err != nil {
		t.Fatal(err)
	}
	if r := verify.File(b, options(m)); r.Worst() != verify.Breach || len(r.Findings) < 50 || len(r.Findings) > 400 {
		t.Errorf("%d findings, the worst %d", len(r.Findings), r.Worst())
	}
}

// G5: 500 attendees on ten nodes for an hour. What is counted is counted between
// nodes, so attendees add bytes and no receipts; a stream of an hour has about
// twenty. Time on the processor, so that a busy machine does not count.
func TestVerifyTakesLessThanASecond(t *testing.T) {
	m := mesh(t, 10, true)
	file := export(t, m, 20)
	before := processor(t)
	r := verify.File(file, options(m))
	if took := processor(t) - before; took > time.Second {
		t.Errorf("%d receipts in %d bytes took %v", r.Receipts, len(file), took)
	}
	if !r.Whole() {
		t.Error(show(r))
	}
}

func processor(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A webinar of 500 attendees on ten nodes: what is counted is counted between
// nodes, so attendees add bytes and no receipts (G5).
func BenchmarkVerify(b *testing.B) {
	m := mesh(b, 10, true)
	file := export(b, m, 60)
	o := options(m)
	b.SetBytes(int64(len(file)))
	var r *verify.Result
	for b.Loop() {
		r = verify.File(file, o)
	}
	if !r.Whole() {
		b.Fatal(show(r))
	}
	b.ReportMetric(float64(r.Receipts), "receipts")
}
