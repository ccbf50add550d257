package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/evidencetest"
	"github.com/domicile/domicile/residency/evidence/verify"
	"github.com/domicile/domicile/residency/identity"
)

var (
	tamperings = flag.Int("tamperings", 1000, "how many random tamperings to try; make evidence-tamper tries 10000")
	seed       = flag.Uint64("seed", 1, "of the tamperings")
)

// world is a room's evidence and what a thief, or its own origin, has at hand.
type world struct {
	t        *testing.T
	mesh     *evidencetest.Mesh
	forger   *evidencetest.Node // has a key that the authority never saw, under the origin's name
	receipts []evidencetest.Signed
	file     []byte
	chance   *rand.Rand
}

func newWorld(t *testing.T, minutes int) *world {
	m := mesh(t, 3, true)
	receipts, err := m.Receipts(evidencetest.Shape{SID: "RM_a", Minutes: minutes, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, mesh: m, receipts: receipts, chance: rand.New(rand.NewPCG(*seed, 2))}
	w.forger = &evidencetest.Node{Node: m.Nodes[0].Node, Cert: m.Nodes[0].Cert, Key: key}
	w.file = w.export(receipts)
	return w
}

// export is what an origin that wants to hide something does: it puts what
// receipts it likes into a new log, has it countersigned, and seals the file.
func (w *world) export(receipts []evidencetest.Signed) []byte {
	l, err := w.mesh.Log(w.t.TempDir(), receipts)
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	b, err := w.mesh.Export(l, "RM_a")
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// open reads the file, for a change that its own origin seals again.
func (w *world) open() *evidence.File {
	f, err := evidence.ReadFile(bytes.Clone(w.file))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) seal(f *evidence.File, by *evidencetest.Node) []byte {
	b, err := f.Write(by.Name, by.Cert, by.Key, evidencetest.Start.Add(3*time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) origin() *evidencetest.Node { return w.mesh.Nodes[0] }

// lines of the file, to be changed by somebody without any key.
func (w *world) lines() [][]byte { return bytes.SplitAfter(bytes.Clone(w.file), []byte("\n")) }

func (w *world) any(n int) int { return w.chance.IntN(n) }

// resign changes a fact of a random receipt and signs it with a key.
func (w *world) resign(by *evidencetest.Node, change func(*evidence.Receipt)) []evidencetest.Signed {
	all := slices.Clone(w.receipts)
	i := w.any(len(all))
	r, err := evidence.Peek(all[i].Line)
	if err != nil {
		w.t.Fatal(err)
	}
	if by == nil && r.Final {
		return nil // what nobody has a hash of yet, its node may write as it likes
	}
	change(&r)
	key := all[i].By.Key
	if by != nil {
		key = by.Key
	}
	line, err := r.Sign(key)
	if err != nil {
		w.t.Fatal(err)
	}
	all[i].Line = line
	return all
}

// tampering makes a file that is not what the nodes wrote.
type tampering struct {
	name string
	make func(w *world) []byte
}

var changes = []func(*evidence.Receipt){
	func(r *evidence.Receipt) { r.Bytes++ },
	func(r *evidence.Receipt) { r.Packets += 1000 },
	func(r *evidence.Receipt) { r.Last++ },
	func(r *evidence.Receipt) { r.Policy = "anything" },
	func(r *evidence.Receipt) { r.Rule = residency.RuleEdgeEmpty },
	func(r *evidence.Receipt) { r.Epoch++ },
	func(r *evidence.Receipt) { r.Tenant = "acme" },
	func(r *evidence.Receipt) { r.Final = !r.Final },
}

// Who has no key of a node can change the file, and nothing else.
var byThieves = []tampering{
	{"a bit", func(w *world) []byte {
		b := bytes.Clone(w.file)
		b[w.any(len(b))] ^= 1 << w.any(8)
		return b
	}},
	{"a byte more or less", func(w *world) []byte {
		i := w.any(len(w.file))
		if w.any(2) == 0 {
			return slices.Delete(bytes.Clone(w.file), i, i+1)
		}
		return slices.Insert(bytes.Clone(w.file), i, byte(w.any(256)))
	}},
	{"cut", func(w *world) []byte { return w.file[:w.any(len(w.file))] }},
	{"a line dropped", func(w *world) []byte {
		lines := w.lines()
		i := w.any(len(lines) - 1)
		return bytes.Join(slices.Delete(lines, i, i+1), nil)
	}},
	{"two lines swapped", func(w *world) []byte {
		lines := w.lines()
		i := w.any(len(lines) - 2)
		lines[i], lines[i+1] = lines[i+1], lines[i]
		return bytes.Join(lines, nil)
	}},
	{"a line twice", func(w *world) []byte {
		lines := w.lines()
		i := w.any(len(lines) - 1)
		return bytes.Join(slices.Insert(lines, i, lines[i]), nil)
	}},
	{"sealed by another key", func(w *world) []byte { return w.seal(w.open(), w.forger) }},
	{"a receipt of another key", func(w *world) []byte {
		return w.export(w.resign(w.forger, changes[w.any(len(changes))]))
	}},
}

// The origin can seal what it likes; it cannot make what others signed.
var byOrigin = []tampering{
	{"a receipt dropped from the file", func(w *world) []byte {
		f := w.open()
		l := &f.Logs[0]
		i := w.any(len(l.Receipts))
		l.Receipts = slices.Delete(l.Receipts, i, i+1)
		return w.seal(f, w.origin())
	}},
	{"a receipt changed in the file", func(w *world) []byte {
		f := w.open()
		l := &f.Logs[0]
		i := w.any(len(l.Receipts))
		line := bytes.Clone(l.Receipts[i].Signed)
		line[w.any(len(line))] ^= 1
		if bytes.ContainsAny(line, "\n") {
			return nil
		}
		l.Receipts[i].Signed = line
		return w.seal(f, w.origin())
	}},
	{"two receipts swapped in the file", func(w *world) []byte {
		f := w.open()
		l := &f.Logs[0]
		i, j := w.any(len(l.Receipts)), w.any(len(l.Receipts))
		if i == j {
			return nil
		}
		l.Receipts[i].Signed, l.Receipts[j].Signed = l.Receipts[j].Signed, l.Receipts[i].Signed
		return w.seal(f, w.origin())
	}},
	{"the key of the room changed", func(w *world) []byte {
		f := w.open()
		f.Room.SID = "RM_b"
		return w.seal(f, w.origin())
	}},
	{"a certificate dropped", func(w *world) []byte {
		f := w.open()
		i := w.any(len(f.Certificates))
		f.Certificates = slices.Delete(f.Certificates, i, i+1)
		return w.seal(f, w.origin())
	}},
	{"the policies dropped", func(w *world) []byte {
		f := w.open()
		f.Policies = nil
		return w.seal(f, w.origin())
	}},
	{"the policies changed", func(w *world) []byte {
		f := w.open()
		f.Policies[0].Text = strings.Replace(f.Policies[0].Text, "EEA", "EU", 1)
		return w.seal(f, w.origin())
	}},
	{"the countersignatures dropped", func(w *world) []byte {
		f := w.open()
		f.Logs[0].Countersignatures = nil
		return w.seal(f, w.origin())
	}},
	{"a receipt left out of the log", func(w *world) []byte {
		all := slices.Clone(w.receipts)
		i := w.any(len(all))
		return w.export(slices.Delete(all, i, i+1))
	}},
	{"the end of a node's receipts left out of the log", func(w *world) []byte {
		node := w.mesh.Nodes[w.any(len(w.mesh.Nodes))]
		from := w.any(len(w.receipts))
		all := slices.DeleteFunc(slices.Clone(w.receipts), func(s evidencetest.Signed) bool {
			return s.By == node && slices.IndexFunc(w.receipts, func(x evidencetest.Signed) bool { return bytes.Equal(x.Line, s.Line) }) >= from
		})
		if len(all) == len(w.receipts) {
			return nil
		}
		return w.export(all)
	}},
	{"a node's receipts left out of the log", func(w *world) []byte {
		node := w.mesh.Nodes[w.any(len(w.mesh.Nodes))]
		return w.export(slices.DeleteFunc(slices.Clone(w.receipts), func(s evidencetest.Signed) bool { return s.By == node }))
	}},
	{"a receipt rewritten by its own node", func(w *world) []byte {
		if all := w.resign(nil, changes[w.any(len(changes))]); all != nil {
			return w.export(all)
		}
		return nil
	}},
	{"the tail rewritten after others signed", func(w *world) []byte { return w.fork(len(w.receipts) - 1 - w.any(len(w.receipts)/2)) }},
	{"another view for each", func(w *world) []byte { return w.fork(0) }},
	{"a countersignature of the origin itself", func(w *world) []byte {
		f := w.open()
		h, err := evidence.PeekHead(f.Logs[0].Head)
		if err != nil {
			w.t.Fatal(err)
		}
		o := w.origin()
		signed, err := evidence.Countersign(h, o.Name, 1, o.Cert, o.Key, evidencetest.Start)
		if err != nil {
			w.t.Fatal(err)
		}
		f.Logs[0].Countersignatures = []evidence.CountersignatureLine{{Signed: string(signed), Proof: []evidence.Hash{}}}
		return w.seal(f, o)
	}},
}

// fork shows one log to the witnesses and exports another, with other receipts
// from the given one on: there is no proof from one to the other.
func (w *world) fork(at int) []byte {
	others := slices.Clone(w.receipts)
	for i := at; i+1 < len(others); i += 2 {
		others[i], others[i+1] = others[i+1], others[i]
	}
	f, err := evidence.ReadFile(w.export(others))
	if err != nil {
		w.t.Fatal(err)
	}
	f.Logs[0].Countersignatures = w.open().Logs[0].Countersignatures
	return w.seal(f, w.origin())
}

// control says what a tampering of a kind must at least be called.
var control = map[string][]verify.Code{
	"cut":                                     {verify.FileForm},
	"sealed by another key":                   {verify.BadSeal},
	"a receipt dropped from the file":         {verify.NotInLog},
	"the key of the room changed":             {verify.WrongRoom},
	"a certificate dropped":                   {verify.NoCertificate},
	"the policies dropped":                    {verify.NoPolicy},
	"the policies changed":                    {verify.BadPolicy},
	"the countersignatures dropped":           {verify.NotWitnessed},
	"a receipt left out of the log":           {verify.MissingReceipt, verify.NotFinal},
	"a node's receipts left out of the log":   {verify.NoCounterpart},
	"the tail rewritten after others signed":  {verify.Forked},
	"another view for each":                   {verify.Forked},
	"a countersignature of the origin itself": {verify.NotWitnessed},
	"a receipt changed in the file":           {verify.NotInLog},
	"two receipts swapped in the file":        {verify.NotInLog},
	"a receipt of another key":                {verify.BadSignature, verify.WrongLink},
}

// A20: nothing that is left out, changed or shown twice passes. Each seed is the
// same tamperings again.
func TestEveryTamperingIsFound(t *testing.T) {
	w := newWorld(t, 2)
	o := options(w.mesh)
	if r := verify.File(w.file, o); !r.Whole() {
		t.Fatalf("the whole file is not proved:\n%s", show(r))
	}
	// Those that make a log are a hundred times slower than the others.
	tried := map[string]int{}
	for n := range *tamperings {
		kind := byThieves[n%6]
		if n%10 == 9 {
			all := append(byThieves[6:len(byThieves):len(byThieves)], byOrigin...)
			kind = all[n/10%len(all)]
		}
		b := kind.make(w)
		if b == nil || bytes.Equal(b, w.file) {
			continue
		}
		tried[kind.name]++
		r := verify.File(b, o)
		if r.Whole() {
			t.Fatalf("seed %d, number %d, %s: passes", *seed, n, kind.name)
		}
		if want := control[kind.name]; want != nil && !slices.ContainsFunc(r.Findings, func(f verify.Finding) bool { return slices.Contains(want, f.Code) }) {
			t.Errorf("seed %d, number %d, %s: found\n%s, want one of %v", *seed, n, kind.name, show(r), want)
		}
	}
	for name := range control {
		if tried[name] == 0 {
			t.Errorf("%s: never tried", name)
		}
	}
	t.Logf("seed %d: %v", *seed, tried)
}

// What the nodes wrote can be whole, and still not what was allowed.
func TestReceiptsOfWhatWasNotAllowedAreABreach(t *testing.T) {
	for name, tt := range map[string]struct {
		policy string
		want   verify.Code
	}{
		"narrower zone":   {strings.Replace(evidencetest.PolicyText, "all: EEA", "all: DACH", 1), verify.NotAllowed},
		"no edge outside": {strings.Replace(evidencetest.PolicyText, "only-for-local-participants", "never", 1), verify.NotAllowed},
		"no recording":    {strings.Replace(evidencetest.PolicyText, "allowed: true", "allowed: false", 1), verify.NotAllowed},
		"wider zone":      {strings.Replace(strings.Replace(evidencetest.PolicyText, "all: EEA", "all: world", 1), "policies:", "zones: {world: {countries: [DE, FR, PL, NL, US]}}\npolicies:", 1), verify.OtherRule},
	} {
		m, err := evidencetest.New(t.TempDir(), 3, true, tt.policy, parse)
		if err != nil {
			t.Fatal(err)
		}
		r := verify.File(export(t, m, 2), options(m))
		if r.Worst() != verify.Breach || !slices.ContainsFunc(r.Findings, func(f verify.Finding) bool { return f.Code == tt.want }) {
			t.Errorf("%s: found\n%s", name, show(r))
		}
	}
}

// Somebody who kept a head that the origin signed needs no countersignature.
func TestAHeadSomebodyHoldsFindsAnotherLog(t *testing.T) {
	w := newWorld(t, 2)
	o := options(w.mesh)
	other, err := evidence.ReadFile(w.fork(0))
	if err != nil {
		t.Fatal(err)
	}
	held := string(w.open().Logs[0].Head)
	o.Held = []string{held}
	if r := verify.File(w.file, o); !r.Whole() {
		t.Errorf("the head it was exported with:\n%s", show(r))
	}
	other.Logs[0].Countersignatures = nil
	if r := verify.File(w.seal(other, w.origin()), o); r.Whole() || !slices.ContainsFunc(r.Findings, func(f verify.Finding) bool { return f.Code == verify.NotComparable || f.Code == verify.Forked }) {
		t.Errorf("another log than the one held:\n%s", show(r))
	}
}

func TestAForgedAuthorityIsRefused(t *testing.T) {
	m, forged := mesh(t, 2, false), mesh(t, 2, false)
	r := verify.File(export(t, forged, 1), options(m))
	for _, code := range []verify.Code{verify.BadCertificate, verify.NoCertificate, verify.BadPolicy} {
		if !slices.ContainsFunc(r.Findings, func(f verify.Finding) bool { return f.Code == code }) {
			t.Errorf("%s is not among\n%s", code, show(r))
		}
	}
}

// special is what an origin writes beside what every room has.
var special = map[string][]evidence.Receipt{
	"refusals": {{Side: evidence.Refused, Peer: "us9", Class: residency.ClassMedia, Rule: residency.RuleZone, Packets: 3},
		{Side: evidence.Refused, Peer: "us2", PeerCertificate: evidence.Fingerprint([]byte("not in the file")), Class: residency.ClassRecording, Rule: residency.RuleStoreRole, Packets: 1}},
	"chat that is kept":      {{Side: evidence.Stored, Class: residency.ClassChat, Rule: residency.RuleZone, Packets: 2, Bytes: 300}},
	"questions kept unasked": {{Side: evidence.Stored, Class: residency.ClassChat, QA: true, Rule: residency.RuleZone, Packets: 2, Bytes: 300}},
	"what was erased":        {{Side: evidence.Erased, Class: residency.ClassRecording, Rule: "erasure", Packets: 2, Bytes: 300}, {Side: evidence.Erased, Class: residency.ClassChat, Rule: "retention", Packets: 1}},
}

// Refusals and erasures break nothing, and chat and questions are judged by a switch each.
func TestRefusalsAndKeptChatAreJudged(t *testing.T) {
	w := newWorld(t, 1)
	for name, want := range map[string][]verify.Code{"refusals": {}, "chat that is kept": {}, "questions kept unasked": {verify.NotAllowed}, "what was erased": {}} {
		receipts, err := w.mesh.Receipts(evidencetest.Shape{SID: "RM_a", Minutes: 1, Seed: 1, Also: special[name]})
		if err != nil {
			t.Fatal(err)
		}
		r := verify.File(w.export(receipts), options(w.mesh))
		if codes := codesOf(r); !slices.Equal(codes, want) {
			t.Errorf("%s: found %v\n%s", name, codes, show(r))
		}
		for _, also := range special[name] {
			if !slices.ContainsFunc(r.Flows, func(f verify.Flow) bool {
				return f.Side == also.Side && f.Class == also.Class && f.QA == also.QA && f.Packets == also.Packets
			}) {
				t.Errorf("%s: %s of %s is not in the result", name, also.Side, also.Class)
			}
		}
	}
}

// The verifier in docs/evidence is written from the description alone, in another
// language. Both must come to the same answer, on whole files and on others.
func TestTheOtherVerifierAgrees(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("python3 is missing (scripts/deps installs it): %v", err)
	}
	w := newWorld(t, 2)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	pem := "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(w.mesh.CA.Certificate().Raw) + "\n-----END CERTIFICATE-----\n"
	if err := os.WriteFile(ca, []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
	names, files, paths := []string{"whole"}, [][]byte{w.file}, []string{}
	for _, kind := range append(byThieves[:len(byThieves):len(byThieves)], byOrigin...) {
		for range 3 {
			if b := kind.make(w); b != nil {
				names, files = append(names, kind.name), append(files, b)
			}
		}
	}
	for name, also := range special {
		receipts, err := w.mesh.Receipts(evidencetest.Shape{SID: "RM_a", Minutes: 1, Seed: 1, Also: also})
		if err != nil {
			t.Fatal(err)
		}
		names, files = append(names, name), append(files, w.export(receipts))
	}
	for i, b := range files {
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("%d.evidence", i)))
		if err := os.WriteFile(paths[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append(append([]string{filepath.Join("..", "..", "..", "docs", "evidence", "verify.py")}, paths...), "--json", "--each", "--ca", ca)
	var complaints strings.Builder
	cmd := exec.Command(python, args...)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if code, ok := err.(*exec.ExitError); !ok || code.ExitCode() != 1 || complaints.Len() > 0 {
		t.Fatalf("verify.py: %v\n%s", err, complaints.String())
	}
	answers := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(answers) != len(files) {
		t.Fatalf("%d answers to %d files:\n%s", len(answers), len(files), out)
	}
	for i, line := range answers {
		var other struct {
			Severity verify.Severity
			Codes    []verify.Code
			Receipts int
		}
		if err := json.Unmarshal([]byte(line), &other); err != nil {
			t.Fatal(err)
		}
		r := verify.File(files[i], options(w.mesh))
		if codes := codesOf(r); other.Severity != r.Worst() || !slices.Equal(codes, other.Codes) || other.Receipts != r.Receipts {
			t.Errorf("%s: verify.py says %s of severity %d, we say %s\n%s", names[i], other.Codes, other.Severity, codes, show(r))
		}
	}
}

func codesOf(r *verify.Result) []verify.Code {
	codes := []verify.Code{}
	for _, f := range r.Findings {
		codes = append(codes, f.Code)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}
