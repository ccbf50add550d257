package evidence

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/domicile/domicile/residency"
)

// The evidence of a room leaves as one text file, a line a thing, in this order:
//
//	domicile-evidence 1
//	room {…}                  id, key of the pseudonym
//	authority BASE64          certificates of authorities; nobody trusts them for standing here
//	certificate BASE64        of every node that signed or is named
//	policy {…}                of every epoch: signed text, signature, the same as JSON
//	head SIGNED               of a log; what follows up to the next head is of this log
//	countersignature {…}      signed by another node, with the proof from its size to the head's
//	proof […]                 for all receipts of this log together (proof.go)
//	receipt NUMBER SIGNED     in the order of the log
//	end SIGNED                the exporting origin's statement over all lines before
//
// docs/evidence/format.md describes every field, so that others can read it.
const fileHeader = "domicile-evidence 1"

// MaxFile bounds a file in bytes: a day of ten nodes, with room to spare.
const MaxFile = 1 << 30

// File is the evidence of one room.
type File struct {
	Room         RoomLine
	Authorities  [][]byte // DER
	Certificates [][]byte // DER
	Policies     []PolicyLine
	Logs         []Extract
	Manifest     Manifest
	SignedEnd    []byte // the signed manifest
	Digest       Hash   // of all lines before it, as they are
}

// RoomLine says which room the pseudonym stands for.
type RoomLine struct {
	SID       string    `json:"sid"`
	Key       RoomKey   `json:"key"`
	Pseudonym Pseudonym `json:"pseudonym"`
}

// PolicyLine is one epoch's policies: what the authority signed, and the same in
// a form that needs no YAML. The second is the exporter's word; a verifier that
// reads the first compares them.
type PolicyLine struct {
	Epoch     residency.Epoch `json:"epoch"`
	Text      string          `json:"text"`
	Signature string          `json:"signature"`
	Form      json.RawMessage `json:"form"`
}

// Extract is what a log has of a room.
type Extract struct {
	Head              []byte // signed
	Countersignatures []CountersignatureLine
	Proof             []Hash
	Receipts          []Indexed
}

// CountersignatureLine is what another node signed of a head of this log, and
// the proof that the head in the file continues it.
type CountersignatureLine struct {
	Signed string `json:"signed"`
	Proof  []Hash `json:"proof"`
}

// Indexed is a signed receipt with its number in the log.
type Indexed struct {
	Index  int64
	Signed []byte
}

// Manifest is what the exporting origin states about a file.
type Manifest struct {
	Version     int                `json:"version"` // 1
	Origin      residency.NodeName `json:"origin"`
	Certificate Hash               `json:"certificate"`
	Lines       int                `json:"lines"`    // before this one
	Digest      Hash               `json:"digest"`   // SHA-256 of them, with their line ends
	Exported    int64              `json:"exported"` // ms since 1970, UTC
}

// OpenManifest verifies the statement at the file's end by the certificate it names.
func OpenManifest(f *File, cert *x509.Certificate) error {
	if f.Manifest.Certificate != Fingerprint(cert.Raw) {
		return errors.New("it names another certificate than this")
	}
	return check(manifestContext, f.SignedEnd, cert)
}

// CheckReceipt verifies a receipt's signature alone.
func CheckReceipt(signed []byte, cert *x509.Certificate) error {
	return check(receiptContext, signed, cert)
}

// LineHash is the hash of a signed receipt, as the next one names it.
func LineHash(signed []byte) Hash { return hashOf(signed) }

// CheckExtract says whether the receipts are in the log whose hash the head states.
func CheckExtract(e Extract, h Head) error {
	leaves, hashes := make([]int64, len(e.Receipts)), make([]tlog.Hash, len(e.Receipts))
	for i, r := range e.Receipts {
		leaves[i], hashes[i] = r.Index, tlog.RecordHash(r.Signed)
	}
	proof, err := hashesOf(e.Proof)
	if err != nil {
		return err
	}
	root, err := rootOf(h.Size, leaves, hashes, proof)
	if err != nil {
		return err
	}
	if textOf(root) != h.Root {
		return fmt.Errorf("the receipts are not those in the log of %d", h.Size)
	}
	return nil
}

// form is a bundle of policies as JSON, for verifiers without YAML.
type form struct {
	Bundle *residency.Bundle   `json:"bundle"`
	EEA    []residency.Country `json:"eea"` // outside it a transfer basis may be needed
}

// PolicyForm writes policies in the form that stands in a file.
func PolicyForm(b *residency.Bundle) ([]byte, error) {
	eea, _ := residency.NamedZone("EEA")
	return encode(form{b, eea})
}

// Write makes the file, signed by the exporting origin.
func (f *File) Write(origin residency.NodeName, cert *x509.Certificate, key crypto.Signer, now time.Time) ([]byte, error) {
	b, err := f.body()
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	end, err := sign(manifestContext, Manifest{Version: 1, Origin: origin, Certificate: Fingerprint(cert.Raw),
		Lines: bytes.Count(b, []byte("\n")), Digest: hashOf(b), Exported: Millis(now)}, key)
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	return appendLine(b, "end", end), nil
}

func (f *File) body() (b []byte, err error) {
	b = append(b, fileHeader+"\n"...)
	object := func(kind string, v any) {
		line, e := encode(v)
		b, err = appendLine(b, kind, line), errors.Join(err, e)
	}
	object("room", f.Room)
	for _, der := range f.Authorities {
		b = appendLine(b, "authority", base64.StdEncoding.AppendEncode(nil, der))
	}
	for _, der := range f.Certificates {
		b = appendLine(b, "certificate", base64.StdEncoding.AppendEncode(nil, der))
	}
	for _, p := range f.Policies {
		object("policy", p)
	}
	for _, l := range f.Logs {
		b = appendLine(b, "head", l.Head)
		for _, c := range l.Countersignatures {
			object("countersignature", c)
		}
		object("proof", l.Proof)
		for _, r := range l.Receipts {
			b = appendLine(b, "receipt "+strconv.FormatInt(r.Index, 10), r.Signed)
		}
	}
	return b, err
}

func appendLine(b []byte, kind string, rest []byte) []byte {
	b = append(append(b, kind...), ' ')
	return append(append(b, rest...), '\n')
}

// ReadFile reads a file without verifying anything but its form.
func ReadFile(b []byte) (*File, error) {
	f := &File{}
	if err := f.read(b); err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	return f, nil
}

// order is where a kind of line may stand; a kind of the same rank may repeat.
var order = map[string]int{"room": 1, "authority": 2, "certificate": 3, "policy": 4, "head": 5, "countersignature": 6, "proof": 7, "receipt": 8, "end": 9}

func (f *File) read(b []byte) error {
	if len(b) > MaxFile {
		return fmt.Errorf("%d bytes: want at most %d", len(b), MaxFile)
	}
	rest, ok := bytes.CutPrefix(b, []byte(fileHeader+"\n"))
	if !ok {
		return fmt.Errorf("it does not begin with %q", fileHeader)
	}
	rank := 0
	for line := 2; ; line++ {
		before := len(b) - len(rest)
		text, after, whole := bytes.Cut(rest, []byte("\n"))
		kind, value, _ := bytes.Cut(text, []byte(" "))
		n := order[string(kind)]
		again := n == rank && n != 1 && n != 7 || n == 5 && rank == 8 // another log
		if !whole || n == 0 || n < rank && !again || n == rank && !again || rank == 0 && n != 1 || n == 9 && rank < 8 || n == 8 && rank < 7 || n > 5 && rank < 5 {
			return fmt.Errorf("line %d: %.20q cannot stand here", line, text)
		}
		rank = n
		if err := f.readLine(string(kind), value); err != nil {
			return fmt.Errorf("line %d (%s): %w", line, kind, err)
		}
		rest = after
		if n == 9 {
			f.Digest = hashOf(b[:before])
			if f.Manifest.Lines != line-1 || len(rest) > 0 {
				return fmt.Errorf("line %d: the end of a file of %d lines", line, f.Manifest.Lines+1)
			}
			return nil
		}
	}
}

func (f *File) readLine(kind string, value []byte) error {
	var log *Extract
	if n := len(f.Logs); n > 0 {
		log = &f.Logs[n-1]
	}
	switch kind {
	case "room":
		return readObject(value, &f.Room)
	case "authority":
		return readDER(value, &f.Authorities)
	case "certificate":
		return readDER(value, &f.Certificates)
	case "policy":
		f.Policies = append(f.Policies, PolicyLine{})
		return readObject(value, &f.Policies[len(f.Policies)-1])
	case "head":
		f.Logs = append(f.Logs, Extract{Head: value})
		return nil
	case "countersignature":
		log.Countersignatures = append(log.Countersignatures, CountersignatureLine{})
		return readObject(value, &log.Countersignatures[len(log.Countersignatures)-1])
	case "proof":
		return readObject(value, &log.Proof)
	case "receipt":
		return log.readReceipt(value)
	}
	f.SignedEnd = value
	if err := read(value, &f.Manifest); err != nil {
		return err
	}
	if f.Manifest.Version != 1 {
		return fmt.Errorf("version %d: want 1", f.Manifest.Version)
	}
	return nil
}

func (e *Extract) readReceipt(value []byte) error {
	number, signed, _ := bytes.Cut(value, []byte(" "))
	n, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil || n < 0 || n == math.MaxInt64 || strconv.FormatInt(n, 10) != string(number) {
		return fmt.Errorf("number %.20q", number)
	}
	e.Receipts = append(e.Receipts, Indexed{n, signed})
	return nil
}

func readObject(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if again, err := encode(into); err != nil || !bytes.Equal(again, b) {
		return errForm
	}
	return nil
}

func readDER(b []byte, into *[][]byte) error {
	der, err := base64.StdEncoding.Strict().DecodeString(string(b))
	if err == nil && base64.StdEncoding.EncodeToString(der) != string(b) {
		err = errors.New("not in base64")
	}
	*into = append(*into, der)
	return err
}
