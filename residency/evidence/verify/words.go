package verify

import (
	"fmt"

	"github.com/domicile/domicile/residency/evidence"
)

// Severity orders findings.
type Severity int

// The severities.
const (
	None   Severity = iota
	Gap             // something is not proved
	Broken          // the file is not what the nodes wrote, or not what it says it is
	Breach          // it is what the nodes wrote, and the policy did not allow it
)

// Code names a kind of finding; it is the same in every language.
type Code string

// The kinds of findings.
const (
	FileForm       Code = "file-form"
	FileChanged    Code = "file-changed"
	BadSeal        Code = "file-seal"
	WrongRoom      Code = "wrong-room"
	BadCertificate Code = "certificate"
	NoCertificate  Code = "certificate-missing"
	WrongName      Code = "wrong-name"
	BadReceipt     Code = "receipt-form"
	BadSignature   Code = "receipt-signature"
	MissingReceipt Code = "receipt-missing"
	WrongLink      Code = "receipt-link"
	TwoReceipts    Code = "receipt-twice"
	AfterFinal     Code = "receipt-after-final"
	OtherRoom      Code = "receipt-other-room"
	NotInLog       Code = "not-in-log"
	BadHead        Code = "head"
	Forked         Code = "log-forked"
	BadVoucher     Code = "countersignature"
	BadPolicy      Code = "policy"
	PolicyForm     Code = "policy-form"
	NoPolicy       Code = "policy-missing"

	NotAllowed  Code = "not-allowed"
	OtherRule   Code = "other-rule"
	TwoPolicies Code = "two-policies"
	OldPolicy   Code = "old-policy"

	NoReceipts    Code = "no-receipts"
	NotFinal      Code = "not-final"
	NoCounterpart Code = "counterpart-missing"
	CountsDiffer  Code = "counts-differ"
	NotWitnessed  Code = "not-witnessed"
	AnotherLog    Code = "another-log"
	NotComparable Code = "head-not-comparable"
)

// Lang is a language of findings and reports.
type Lang string

// The languages.
const (
	English Lang = "en"
	German  Lang = "de"
)

// Finding is one thing that is wrong or missing.
type Finding struct {
	Code Code     `json:"code"`
	Args []string `json:"args"`
}

// Severity says how grave it is.
func (f Finding) Severity() Severity { return words[f.Code].severity }

// In says it in a language.
func (f Finding) In(lang Lang) string {
	w := words[f.Code]
	text := w.en
	if lang == German {
		text = w.de
	}
	args := make([]any, len(f.Args))
	for i, a := range f.Args {
		args[i] = a
	}
	return fmt.Sprintf(text, args...)
}

func texts(args []any) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = fmt.Sprint(a)
		if h, ok := a.(evidence.Hash); ok && len(h) > 12 {
			out[i] = string(h[:12]) + "…"
		}
	}
	return out
}

// words is every finding in every language. Reasons from below are English in
// both: they quote the gate and the parsers word by word.
var words = map[Code]struct {
	severity Severity
	en, de   string
}{
	FileForm:       {Broken, "The file cannot be read: %s.", "Die Datei ist nicht lesbar: %s."},
	FileChanged:    {Broken, "The file was changed after it was exported.", "Die Datei wurde nach dem Export verändert."},
	BadSeal:        {Broken, "The file is not sealed by node %s, which it names as its exporter: %s.", "Die Datei trägt nicht das Siegel des Knotens %s, den sie als Aussteller nennt: %s."},
	WrongRoom:      {Broken, "The file does not show that it is about the room it names: %s.", "Die Datei belegt nicht, dass sie den genannten Raum betrifft: %s."},
	BadCertificate: {Broken, "The certificate of %s was not issued to a node by an authority that you trust: %s.", "Das Zertifikat von %s stammt nicht von einer Stelle, der Sie vertrauen: %s."},
	NoCertificate:  {Broken, "Node %s signed with a certificate (%s) that the file does not have, or that is not trusted.", "Knoten %s unterschrieb mit einem Zertifikat (%s), das in der Datei fehlt oder nicht vertrauenswürdig ist."},
	WrongName:      {Broken, "Something in the name of node %s is signed with the certificate of node %s.", "Im Namen des Knotens %s wurde mit dem Zertifikat des Knotens %s unterschrieben."},
	BadReceipt:     {Broken, "A line is not a receipt: %s.", "Eine Zeile ist kein Beleg: %s."},
	BadSignature:   {Broken, "Receipt %s of node %s was changed, or node %[2]s did not write it.", "Beleg %s des Knotens %s wurde verändert oder stammt nicht von Knoten %[2]s."},
	MissingReceipt: {Broken, "Receipt %s of node %s is missing.", "Beleg %s des Knotens %s fehlt."},
	WrongLink:      {Broken, "Receipt %s of node %s does not continue the one before it.", "Beleg %s des Knotens %s setzt den vorigen nicht fort."},
	TwoReceipts:    {Broken, "Node %[2]s wrote two different receipts with the number %[1]s.", "Knoten %[2]s schrieb zwei verschiedene Belege mit der Nummer %[1]s."},
	AfterFinal:     {Broken, "Node %[2]s went on after its final receipt (number %[1]s).", "Knoten %[2]s schrieb nach seinem Schlussbeleg (Nummer %[1]s) weiter."},
	OtherRoom:      {Broken, "Receipt %s of node %s is of another room.", "Beleg %s des Knotens %s gehört zu einem anderen Raum."},
	NotInLog:       {Broken, "The receipts are not all those, unchanged, that the log of origin %s has at these places: %s.", "Die Belege stehen nicht vollzählig und unverändert an diesen Stellen im Protokoll des Knotens %s: %s."},
	BadHead:        {Broken, "What the log's origin %s states about its log is not signed by it: %s.", "Die Aussage des Knotens %s über sein Protokoll trägt nicht seine Unterschrift: %s."},
	Forked:         {Broken, "The log of origin %s was rewritten, or shown in two versions: node %s holds a signed head of %s receipts that it does not continue.", "Das Protokoll des Knotens %s wurde umgeschrieben oder in zwei Fassungen gezeigt: Knoten %s besitzt einen unterschriebenen Stand von %s Belegen, den es nicht fortsetzt."},
	BadVoucher:     {Broken, "A countersignature of node %s is not its own: %s.", "Eine Gegenzeichnung des Knotens %s stammt nicht von ihm: %s."},
	BadPolicy:      {Broken, "The policies of epoch %s are not signed by an authority that you trust: %s.", "Die Richtlinien der Epoche %s sind nicht von einer Stelle unterschrieben, der Sie vertrauen: %s."},
	PolicyForm:     {Broken, "The policies of epoch %s are told differently in the file than they were signed.", "Die Richtlinien der Epoche %s sind in der Datei anders wiedergegeben, als sie unterschrieben wurden."},
	NoPolicy:       {Broken, "The policies of epoch %s, under which node %s worked, are not in the file.", "Die Richtlinien der Epoche %s, nach denen Knoten %s arbeitete, fehlen in der Datei."},

	NotAllowed:  {Breach, "Node %s had what the policy did not allow: it %s %s, with node %s: %s.", "Knoten %s hatte, was die Richtlinie nicht erlaubte (%s %s, mit Knoten %s): %s."},
	OtherRule:   {Breach, "Node %s states the rule %q for %s with node %s; the policy gives the rule %q.", "Knoten %s nennt die Regel %q für %s mit Knoten %s; nach der Richtlinie gilt die Regel %q."},
	TwoPolicies: {Breach, "The room was handled under two policies or for two tenants: %q and %q.", "Der Raum wurde nach zwei Richtlinien oder für zwei Mandanten behandelt: %q und %q."},
	OldPolicy:   {Breach, "Node %s worked by the policies of epoch %s until %s, when epoch %s had been in force for more than a minute.", "Knoten %s arbeitete nach den Richtlinien der Epoche %s bis %s, als die Epoche %s seit mehr als einer Minute galt."},

	NoReceipts:    {Gap, "There is no receipt in the file.", "Die Datei enthält keinen Beleg."},
	NotFinal:      {Gap, "The last receipt of node %s, number %s of %s, is not its final one: the room was not over there, or the node failed, or later ones are held back.", "Der letzte Beleg des Knotens %s, Nummer %s vom %s, ist nicht sein Schlussbeleg: der Raum war dort nicht zu Ende, der Knoten fiel aus, oder spätere Belege fehlen."},
	NoCounterpart: {Gap, "Node %s states that it %s %s, with node %s, which has no receipt for its own end.", "Knoten %s belegt: %s %s, mit Knoten %s; von diesem fehlt der Beleg der Gegenseite."},
	CountsDiffer:  {Gap, "Nodes %s and %s do not agree on %s: %s.", "Die Knoten %s und %s stimmen bei %s nicht überein: %s."},
	NotWitnessed:  {Gap, "No other node countersigned the log of origin %s after these receipts: that its tail was not rewritten rests on that origin alone.", "Kein anderer Knoten hat das Protokoll des Knotens %s nach diesen Belegen gegengezeichnet: dass sein Ende nicht umgeschrieben wurde, beruht allein auf diesem Knoten."},
	AnotherLog:    {Gap, "Node %s has seen %s logs of origin %s: the earlier ones are not in this file.", "Knoten %s hat %s Protokolle des Knotens %s gesehen: die früheren sind nicht in dieser Datei."},
	NotComparable: {Gap, "A head of %s receipts of origin %s that you hold cannot be compared with this file.", "Ein Stand von %s Belegen des Knotens %s, den Sie besitzen, lässt sich mit dieser Datei nicht vergleichen."},
}
