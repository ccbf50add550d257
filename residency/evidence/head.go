package evidence

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/domicile/domicile/residency"
)

// Head is what an origin states about its log: so many receipts, this hash over
// all of them (RFC 6962 section 2.1).
type Head struct {
	Version     int                `json:"version"` // 1
	Origin      residency.NodeName `json:"origin"`
	Certificate Hash               `json:"certificate"`
	Log         string             `json:"log"` // 32 digits of chance: an origin whose disk was lost begins another log
	Size        int64              `json:"size"`
	Root        Hash               `json:"root"`
	Time        int64              `json:"time"` // ms since 1970, UTC
}

const headVersion = 1

// newLogID names a log for good.
func newLogID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (h Head) validate() error {
	_, name := residency.ParseNodeName(string(h.Origin))
	switch {
	case h.Version != headVersion:
		return fmt.Errorf("version %d: want %d", h.Version, headVersion)
	case name != nil:
		return name
	case !h.Certificate.valid() || !h.Root.valid() || !lowerHex(h.Log, 32):
		return errors.New("a hash or the log's name is not one")
	case h.Size < 1 || h.Size > maxCount || h.Time <= 0 || h.Time > maxCount:
		return fmt.Errorf("size %d at %d", h.Size, h.Time)
	}
	return nil
}

func (h Head) sign(key crypto.Signer) ([]byte, error) {
	if err := h.validate(); err != nil {
		return nil, fmt.Errorf("sign head: %w", err)
	}
	return sign(headContext, h, key)
}

// PeekHead reads a signed head without looking at its signature.
func PeekHead(signed []byte) (Head, error) {
	var h Head
	if err := read(signed, &h); err != nil {
		return Head{}, fmt.Errorf("read head: %w", err)
	}
	if err := h.validate(); err != nil {
		return Head{}, fmt.Errorf("read head: %w", err)
	}
	return h, nil
}

// OpenHead reads a signed head of the holder of cert.
func OpenHead(signed []byte, cert *x509.Certificate) (Head, error) {
	h, err := PeekHead(signed)
	if err != nil {
		return Head{}, err
	}
	if h.Certificate != Fingerprint(cert.Raw) {
		return Head{}, fmt.Errorf("open head of origin %s: it names another certificate than this", h.Origin)
	}
	if err := check(headContext, signed, cert); err != nil {
		return Head{}, fmt.Errorf("open head of origin %s: %w", h.Origin, err)
	}
	return h, nil
}

// Countersignature is what another node states about an origin's head: I was
// shown this, and it continues all that I was shown before of this log.
type Countersignature struct {
	Version     int                `json:"version"` // 1
	Witness     residency.NodeName `json:"witness"`
	Certificate Hash               `json:"certificate"`
	Origin      residency.NodeName `json:"origin"`
	Log         string             `json:"log"`
	Size        int64              `json:"size"`
	Root        Hash               `json:"root"`
	Logs        int                `json:"logs"` // how many logs of this origin the witness has seen, this one included
	Time        int64              `json:"time"` // ms since 1970, UTC
}

func (c Countersignature) validate() error {
	if _, err := residency.ParseNodeName(string(c.Witness)); err != nil {
		return err
	}
	if c.Logs < 1 || int64(c.Logs) > maxCount {
		return fmt.Errorf("%d logs", c.Logs)
	}
	return Head{Version: c.Version, Origin: c.Origin, Certificate: c.Certificate, Log: c.Log, Size: c.Size, Root: c.Root, Time: c.Time}.validate()
}

// Countersign states that the witness was shown a head.
func Countersign(h Head, witness residency.NodeName, logs int, cert *x509.Certificate, key crypto.Signer, now time.Time) ([]byte, error) {
	c := Countersignature{Version: headVersion, Witness: witness, Certificate: Fingerprint(cert.Raw),
		Origin: h.Origin, Log: h.Log, Size: h.Size, Root: h.Root, Logs: logs, Time: Millis(now)}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("countersign: %w", err)
	}
	b, err := sign(countersignature, c, key)
	if err != nil {
		return nil, fmt.Errorf("countersign: %w", err)
	}
	return b, nil
}

// PeekCountersignature reads one without looking at its signature.
func PeekCountersignature(signed []byte) (Countersignature, error) {
	var c Countersignature
	if err := read(signed, &c); err != nil {
		return Countersignature{}, fmt.Errorf("read countersignature: %w", err)
	}
	if err := c.validate(); err != nil {
		return Countersignature{}, fmt.Errorf("read countersignature: %w", err)
	}
	return c, nil
}

// OpenCountersignature reads one of the holder of cert.
func OpenCountersignature(signed []byte, cert *x509.Certificate) (Countersignature, error) {
	c, err := PeekCountersignature(signed)
	if err != nil {
		return Countersignature{}, err
	}
	if c.Certificate != Fingerprint(cert.Raw) {
		return Countersignature{}, fmt.Errorf("open countersignature of node %s: it names another certificate than this", c.Witness)
	}
	if err := check(countersignature, signed, cert); err != nil {
		return Countersignature{}, fmt.Errorf("open countersignature of node %s: %w", c.Witness, err)
	}
	return c, nil
}

// hash turns the text of a hash into the library's value.
func (h Hash) hash() (out tlog.Hash, err error) {
	b, err := hex.DecodeString(string(h))
	if err != nil || len(b) != len(out) {
		return out, fmt.Errorf("hash %q: want a SHA-256", h)
	}
	return tlog.Hash(b), nil
}

func textOf(h tlog.Hash) Hash { return Hash(hex.EncodeToString(h[:])) }

func textsOf(hs []tlog.Hash) []Hash {
	out := make([]Hash, len(hs))
	for i, h := range hs {
		out[i] = textOf(h)
	}
	return out
}

func hashesOf(texts []Hash) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(texts))
	for i, t := range texts {
		var err error
		if out[i], err = t.hash(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// CheckConsistent says whether a log of size receipts with hash root begins with
// what it was at oldSize (RFC 6962 section 2.1.2).
func CheckConsistent(proof []Hash, size int64, root Hash, oldSize int64, oldRoot Hash) error {
	hashes, err := hashesOf(proof)
	if err != nil {
		return err
	}
	r, err := root.hash()
	if err != nil {
		return err
	}
	o, err := oldRoot.hash()
	if err != nil {
		return err
	}
	if oldSize < 1 || oldSize > size {
		return fmt.Errorf("a log of %d receipts cannot continue one of %d", size, oldSize)
	}
	if err := tlog.CheckTree(hashes, size, r, oldSize, o); err != nil {
		return errors.New("the log does not continue what it was before")
	}
	return nil
}
