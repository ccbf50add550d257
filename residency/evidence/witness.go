package evidence

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/domicile/domicile/residency"
)

// Announcement is how an origin shows its newest head to another node: with the
// proof that it continues what that node was shown before.
type Announcement struct {
	Head  string `json:"head"`  // signed
	From  int64  `json:"from"`  // the size that the proof starts at, 0 if the node has none
	Proof []Hash `json:"proof"` // empty if From is 0
}

// Complaint says that an origin's log is not what it was. Both heads are signed
// by the origin, so that a third can see it too.
type Complaint struct {
	Kind   string             `json:"kind"` // split-view, rewritten or new-log
	Origin residency.NodeName `json:"origin"`
	Reason string             `json:"reason"`
	Known  string             `json:"known"` // the signed head that was shown before
	Got    string             `json:"got"`   // the signed head that does not continue it
}

// The kinds of complaints.
const (
	SplitView = "split-view" // two hashes for one size: two logs were shown
	Rewritten = "rewritten"  // the log does not begin with what it was
	NewLog    = "new-log"    // the origin began another log
)

// Error makes a complaint an error.
func (c *Complaint) Error() string { return fmt.Sprintf("origin %s: %s", c.Origin, c.Reason) }

// Witness remembers the newest head of each origin and countersigns what
// continues it. It belongs to one goroutine; it is written and read as JSON,
// so that a restart forgets nothing.
type Witness struct {
	Heads map[residency.NodeName]*Shown `json:"heads"`
}

// Shown is what a witness remembers of one origin.
type Shown struct {
	Head string `json:"head"` // signed, the newest
	Logs int    `json:"logs"` // logs of this origin seen so far
	head Head
}

// maxOrigins bounds a witness's memory; a mesh has far less.
const maxOrigins = 4096

// NewWitness returns one that has been shown nothing.
func NewWitness() *Witness { return &Witness{Heads: map[residency.NodeName]*Shown{}} }

// UnmarshalJSON reads what MarshalJSON wrote. A head that cannot be read is an
// error: to forget one silently is what a liar hopes for.
func (w *Witness) UnmarshalJSON(b []byte) error {
	var plain struct {
		Heads map[residency.NodeName]*Shown `json:"heads"`
	}
	if err := json.Unmarshal(b, &plain); err != nil {
		return fmt.Errorf("read remembered heads: %w", err)
	}
	for name, s := range plain.Heads {
		if s == nil {
			return fmt.Errorf("read remembered heads: origin %q: nothing", name)
		}
		h, err := PeekHead([]byte(s.Head))
		if err != nil || h.Origin != name || s.Logs < 1 {
			return fmt.Errorf("read remembered heads: origin %q: %w", name, err)
		}
		s.head = h
	}
	if w.Heads = plain.Heads; w.Heads == nil {
		w.Heads = map[residency.NodeName]*Shown{}
	}
	return nil
}

// LoadWitness reads what Save wrote; without a file, a witness that has been shown
// nothing.
func LoadWitness(dir string) (*Witness, error) {
	w := NewWitness()
	b, err := os.ReadFile(filepath.Join(dir, witnessFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return w, nil
	case err != nil:
		return nil, fmt.Errorf("read remembered heads: %w", err)
	}
	if err := json.Unmarshal(b, w); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, witnessFile), err)
	}
	return w, nil
}

// witnessFile lies beside a log.
const witnessFile = "witness.json"

// Save puts what is remembered on the disk, in place of what was there.
func (w *Witness) Save(dir string) error {
	b, err := json.Marshal(w)
	if err == nil {
		err = replaceFile(dir, witnessFile, b)
	}
	if err != nil {
		return fmt.Errorf("keep remembered heads: %w", err)
	}
	return nil
}

// Newest returns the size that the next proof of an origin has to start at, and
// of which log; 0 if nothing of it was shown.
func (w *Witness) Newest(origin residency.NodeName) (log string, size int64) {
	if s := w.Heads[origin]; s != nil {
		return s.head.Log, s.head.Size
	}
	return "", 0
}

// Observe looks at what the holder of cert, verified as node origin, shows. If
// it continues what was shown before it is remembered and may be countersigned.
// An error that is a *Complaint is for an operator; a new log is complained of
// and remembered all the same, for the next head of it continues it.
func (w *Witness) Observe(a Announcement, origin residency.NodeName, cert *x509.Certificate) (Head, error) {
	h, err := OpenHead([]byte(a.Head), cert)
	if err != nil {
		return Head{}, err
	}
	if h.Origin != origin {
		return Head{}, fmt.Errorf("observe head: node %s shows a head of %s", origin, h.Origin)
	}
	s := w.Heads[origin]
	if s == nil {
		if len(w.Heads) >= maxOrigins {
			return Head{}, fmt.Errorf("observe head: more than %d origins", maxOrigins)
		}
		w.Heads[origin] = &Shown{Head: a.Head, Logs: 1, head: h}
		return h, nil
	}
	if h.Log != s.head.Log {
		c := s.complain(NewLog, a.Head, "it began another log than the one it showed before")
		s.Head, s.head = a.Head, h
		s.Logs++
		return h, c
	}
	if err := s.continues(a, h); err != nil {
		return Head{}, err
	}
	s.Head, s.head = a.Head, h
	return h, nil
}

// continues compares a head with the newest one of the same log.
func (s *Shown) continues(a Announcement, h Head) error {
	known := s.head
	switch {
	case h.Size == known.Size && h.Root != known.Root:
		return s.complain(SplitView, a.Head, fmt.Sprintf("it shows two logs of %d receipts", h.Size))
	case h.Size == known.Size:
		return nil
	case h.Size < known.Size && h.Time <= known.Time:
		return fmt.Errorf("observe head: origin %s shows an older one, of %d receipts", h.Origin, h.Size)
	case h.Size < known.Size:
		return s.complain(Rewritten, a.Head, fmt.Sprintf("its log had %d receipts and has %d now", known.Size, h.Size))
	case a.From != known.Size:
		return fmt.Errorf("observe head: origin %s proves from %d receipts: want %d", h.Origin, a.From, known.Size)
	}
	if err := CheckConsistent(a.Proof, h.Size, h.Root, known.Size, known.Root); err != nil {
		return s.complain(Rewritten, a.Head, fmt.Sprintf("its log of %d receipts does not begin with the %d that it showed before", h.Size, known.Size))
	}
	return nil
}

func (s *Shown) complain(kind, got, reason string) *Complaint {
	return &Complaint{Kind: kind, Origin: s.head.Origin, Reason: reason, Known: s.Head, Got: got}
}

// Countersign signs the newest head of an origin.
func (w *Witness) Countersign(origin, witness residency.NodeName, cert *x509.Certificate, key crypto.Signer, now time.Time) ([]byte, error) {
	s := w.Heads[origin]
	if s == nil {
		return nil, fmt.Errorf("countersign: origin %s has shown nothing", origin)
	}
	return Countersign(s.head, witness, s.Logs, cert, key, now)
}
