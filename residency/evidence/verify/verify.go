// Package verify checks a room's evidence without trusting whoever handed it over.
//
// It takes the bytes of a file (see residency/evidence), the authorities that the
// verifier trusts and the gate's own reading of policies, and says what is proved,
// what is missing and what is wrong. Nothing of the file is believed before a
// signature that leads to those authorities covers it; every receipt is judged
// again by the gate that runs in a node. It performs no I/O and reads no clock.
package verify

import (
	"cmp"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/identity"
)

// Options say whom the verifier trusts, and what it knows from elsewhere.
type Options struct {
	Roots []*x509.Certificate

	// Parse reads the text of a policy file.
	Parse func(text []byte) (*residency.Bundle, error)

	// Held are signed heads that somebody else got from the origin: a log that
	// was rewritten afterwards does not go with them.
	Held []string
}

// Result is what a file proves.
type Result struct {
	Room     evidence.RoomLine
	Origin   residency.NodeName // which exported it
	Exported int64              // ms since 1970, UTC
	Findings []Finding          // worst first
	Nodes    []residency.Node   // whose receipts there are, or who are named, by their certificates
	Epochs   []Epoch
	Policy   string
	Tenant   string
	Flows    []Flow
	Receipts int
	Logs     []LogFacts
	First    int64 // of all receipts, ms since 1970, UTC; 0 without any
	Last     int64
}

// Epoch is a version of the policies under which the room was handled.
type Epoch struct {
	Number      residency.Epoch
	Title       string // of the room's policy
	Description string
	First, Last int64
}

// Flow sums up the receipts of one writer, side, peer, class and rule.
type Flow struct {
	Node, Peer  residency.NodeName
	Side        evidence.Side
	Class       residency.Class
	QA          bool // of what was stored: questions and answers
	Epoch       residency.Epoch
	Rule        string
	Packets     uint64
	Bytes       uint64
	Lost        uint64
	LostBytes   uint64
	First, Last int64
}

// LogFacts are what is known of a log.
type LogFacts struct {
	Origin    residency.NodeName
	Size      int64
	Time      int64
	Witnesses []residency.NodeName // whose countersignatures the log's head continues
}

// Whole reports whether nothing is wrong and nothing is missing.
func (r *Result) Whole() bool { return len(r.Findings) == 0 }

// Worst is the gravest severity found, None if there is no finding.
func (r *Result) Worst() Severity {
	if len(r.Findings) == 0 {
		return None
	}
	return r.Findings[0].Severity()
}

// File checks the evidence in b.
func File(b []byte, o Options) *Result { return Files([][]byte{b}, o) }

// Files checks the evidence of one room that several origins have, because its
// home failed and another took over: each file by itself, the receipts together.
func Files(files [][]byte, o Options) *Result {
	v := &verifier{opts: o, result: &Result{}, certs: map[evidence.Hash]*holder{}, gates: map[residency.Epoch]*residency.Gate{},
		bundles: map[residency.Epoch]*residency.Bundle{}, texts: map[residency.Epoch]string{},
		found: map[Code]int{}, writes: map[residency.NodeName]bool{}, open: map[residency.NodeName]bool{}}
	readable := true
	for i, b := range files {
		f, err := evidence.ReadFile(b)
		if err != nil {
			v.find(FileForm, err)
			readable = false
			continue
		}
		v.file(f, i == 0)
	}
	if readable {
		v.together()
	}
	slices.SortStableFunc(v.result.Findings, func(a, b Finding) int { return cmp.Compare(b.Severity(), a.Severity()) })
	return v.result
}

// verifier is one check on its way.
type verifier struct {
	opts     Options
	result   *Result
	certs    map[evidence.Hash]*holder
	gates    map[residency.Epoch]*residency.Gate
	bundles  map[residency.Epoch]*residency.Bundle
	texts    map[residency.Epoch]string // what was signed
	found    map[Code]int               // how often each kind was
	receipts []entry
	writes   map[residency.NodeName]bool // who wrote receipts
	open     map[residency.NodeName]bool // and whose chain has no end
}

// holder is a certificate of the file and what it states.
type holder struct {
	cert *x509.Certificate
	node residency.Node
}

// entry is a receipt, and the line that it stands in.
type entry struct {
	evidence.Receipt
	signed []byte
}

// maxFindings bounds how often a report says the same of different receipts. It
// is for each kind, so that no number of small things hides a grave one.
const maxFindings = 50

func (v *verifier) find(code Code, args ...any) {
	if v.found[code]++; v.found[code] <= maxFindings {
		v.result.Findings = append(v.result.Findings, Finding{Code: code, Args: texts(args)})
	}
}

// file checks all that one file has to show by itself.
func (v *verifier) file(f *evidence.File, first bool) {
	if first {
		v.result.Room = f.Room
		v.result.Origin, v.result.Exported = f.Manifest.Origin, f.Manifest.Exported
	} else if f.Room != v.result.Room {
		v.find(WrongRoom, "another file is about another room")
	}
	v.room(f)
	v.certificates(f)
	v.manifest(f)
	v.policies(f)
	for _, e := range f.Logs {
		v.log(e)
	}
}

// together checks what receipts say of each other.
func (v *verifier) together() {
	if len(v.receipts) == 0 {
		v.find(NoReceipts)
		return
	}
	v.summarise()
	v.chains()
	v.judgeAll()
	v.rounds()
	v.counterparts()
}

// room asks whether the key makes the pseudonym of the room's id.
func (v *verifier) room(f *evidence.File) {
	p, err := f.Room.Key.Pseudonym(f.Room.SID)
	if err == nil && p != f.Room.Pseudonym {
		err = errors.New("the key does not make this pseudonym")
	}
	if err != nil {
		v.find(WrongRoom, err)
	}
}

// certificates reads those that a trusted authority issued; which time they are
// for is asked with each receipt.
func (v *verifier) certificates(f *evidence.File) {
	pool := identity.Pool(v.opts.Roots...)
	for _, der := range f.Certificates {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			v.find(BadCertificate, "?", err)
			continue
		}
		_, node, err := identity.Verify(der, pool, within(cert, v.opts.Roots))
		if err != nil {
			v.find(BadCertificate, cert.Subject.CommonName, err)
			continue
		}
		v.certs[evidence.Fingerprint(der)] = &holder{cert, node}
	}
}

func (v *verifier) manifest(f *evidence.File) {
	if f.Digest != f.Manifest.Digest {
		v.find(FileChanged)
	}
	h := v.certs[f.Manifest.Certificate]
	switch {
	case h == nil:
		v.find(NoCertificate, f.Manifest.Origin, f.Manifest.Certificate)
	case h.node.Name != f.Manifest.Origin:
		v.find(WrongName, f.Manifest.Origin, h.node.Name)
	default:
		if err := evidence.OpenManifest(f, h.cert); err != nil {
			v.find(BadSeal, f.Manifest.Origin, err)
		}
	}
}

// once drops what stands in two logs: a node that was not told that the first
// origin had a receipt sent it to the next.
func (v *verifier) once() {
	seen := make(map[string]bool, len(v.receipts))
	v.receipts = slices.DeleteFunc(v.receipts, func(e entry) bool {
		again := seen[string(e.signed)]
		seen[string(e.signed)] = true
		return again
	})
}

// summarise collects what the receipts state, whoever is to be believed.
func (v *verifier) summarise() {
	r := v.result
	v.once()
	r.Receipts = len(v.receipts)
	named := map[residency.NodeName]bool{}
	flows := map[Flow]*Flow{}
	for _, e := range v.receipts {
		for _, fp := range []evidence.Hash{e.Certificate, e.PeerCertificate} {
			if h := v.certs[fp]; h != nil && !named[h.node.Name] {
				named[h.node.Name] = true
				r.Nodes = append(r.Nodes, h.node)
			}
		}
		key := Flow{Node: e.Node, Peer: e.Peer, Side: e.Side, Class: e.Class, QA: e.QA, Epoch: e.Epoch, Rule: e.Rule}
		if flows[key] == nil {
			f := key
			f.First = e.First
			flows[key] = &f
		}
		f := flows[key]
		f.Packets, f.Bytes, f.Lost, f.LostBytes = f.Packets+e.Packets, f.Bytes+e.Bytes, f.Lost+e.Lost, f.LostBytes+e.LostBytes
		f.First, f.Last = min(f.First, e.First), max(f.Last, e.Last)
		if r.First == 0 || e.First < r.First {
			r.First = e.First
		}
		r.Last = max(r.Last, e.Last)
	}
	for _, f := range flows {
		r.Flows = append(r.Flows, *f)
	}
	slices.SortFunc(r.Flows, compareFlows)
	slices.SortFunc(r.Nodes, func(a, b residency.Node) int { return cmp.Compare(a.Name, b.Name) })
	first := v.receipts[0]
	r.Policy, r.Tenant = first.Policy, first.Tenant
	for _, e := range v.receipts {
		if e.Policy != first.Policy || e.Tenant != first.Tenant {
			v.find(TwoPolicies, first.Policy+" "+first.Tenant, e.Policy+" "+e.Tenant)
			break
		}
	}
}

func compareFlows(a, b Flow) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Side, b.Side), cmp.Compare(a.Peer, b.Peer),
		cmp.Compare(a.Class, b.Class), compareBools(a.QA, b.QA), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Rule, b.Rule))
}

// compareBools puts false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
