package evidence

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// Side says what a node did with the bytes of a receipt.
type Side string

// The sides of a receipt.
const (
	Sent     Side = "sent"     // to the peer
	Received Side = "received" // from the peer
	Stored   Side = "stored"   // kept by the node itself; the peer is the node
	Recorded Side = "recorded" // recorded by the node itself; the peer is the node
	Erased   Side = "erased"   // by the node itself, which is the peer; packets counts what went, the rule says why
	Refused  Side = "refused"  // the gate kept them from the peer; packets counts how often, bytes and lost are 0
)

// Sides lists every side.
func Sides() []Side { return []Side{Sent, Received, Stored, Recorded, Erased, Refused} }

// Receipt is what one node states about one stream of bytes: one side, peer,
// class, rule and epoch. Counts are since the node's last receipt of that stream.
//
// All receipts of a node for a room form a chain, whichever stream they are of:
// Seq counts from 1, Previous is the hash of the signed receipt before. A chain
// belongs to one stay of the node in the room: Run is when it began. It ends
// with a receipt that says Final; after a crash there is none, and that shows.
type Receipt struct {
	Version         int                `json:"version"` // 1
	Room            Pseudonym          `json:"room"`
	Node            residency.NodeName `json:"node"`        // who writes
	Certificate     Hash               `json:"certificate"` // with whose key it is signed
	Run             int64              `json:"run"`         // ms since 1970, UTC; greater in each later stay
	Seq             uint64             `json:"seq"`
	Previous        Hash               `json:"previous"` // empty in the first
	Side            Side               `json:"side"`
	Peer            residency.NodeName `json:"peer"`
	PeerCertificate Hash               `json:"peer_certificate"` // empty only if refused
	Class           residency.Class    `json:"class"`
	QA              bool               `json:"qa,omitempty"` // stored chat that is a question or an answer, whose log has a switch of its own
	Policy          string             `json:"policy"`
	Tenant          string             `json:"tenant"` // empty if the room has none
	Rule            string             `json:"rule"`   // by which the gate allowed it, or refused
	Epoch           residency.Epoch    `json:"epoch"`
	Packets         uint64             `json:"packets"`
	Bytes           uint64             `json:"bytes"`
	Lost            uint64             `json:"lost"`       // packets of the peer that did not arrive
	LostBytes       uint64             `json:"lost_bytes"` // and the bytes in them
	First           int64              `json:"first"`      // ms since 1970, UTC
	Last            int64              `json:"last"`
	Final           bool               `json:"final"`
}

// receiptVersion is the form described here and in docs/evidence/format.md.
const receiptVersion = 1

const (
	// maxCount keeps numbers exact in every language's JSON: 2^53 - 1.
	maxCount = 1<<53 - 1
	// maxWord bounds names of policies, tenants and rules, in bytes.
	maxWord = 255
)

// Validate reports the first fact that cannot be.
func (r Receipt) Validate() error {
	if r.Version != receiptVersion {
		return fmt.Errorf("version %d: want %d", r.Version, receiptVersion)
	}
	if _, err := ParsePseudonym(string(r.Room)); err != nil {
		return err
	}
	for _, n := range []residency.NodeName{r.Node, r.Peer} {
		if _, err := residency.ParseNodeName(string(n)); err != nil {
			return err
		}
	}
	if err := r.validWords(); err != nil {
		return err
	}
	return r.validNumbers()
}

func (r Receipt) validWords() error {
	own := r.Side == Stored || r.Side == Recorded || r.Side == Erased
	switch {
	case !slices.Contains(Sides(), r.Side):
		return fmt.Errorf("side %q: want sent, received, stored, recorded, erased or refused", r.Side)
	case !slices.Contains(residency.Classes(), r.Class):
		return fmt.Errorf("data class %q is unknown", r.Class)
	case own != (r.Peer == r.Node) && r.Side != Refused:
		return fmt.Errorf("%s by node %s with peer %s", r.Side, r.Node, r.Peer)
	case !r.Certificate.valid():
		return fmt.Errorf("certificate %q: want a SHA-256", r.Certificate)
	case own && r.PeerCertificate != r.Certificate:
		return fmt.Errorf("%s by node %s with another certificate than its own", r.Side, r.Node)
	case !r.PeerCertificate.valid() && (r.PeerCertificate != "" || r.Side != Refused):
		return fmt.Errorf("peer's certificate %q: want a SHA-256", r.PeerCertificate)
	case r.QA && (r.Class != residency.ClassChat || r.Side != Stored):
		return fmt.Errorf("questions and answers are chat that is stored, not %s that is %s", r.Class, r.Side)
	case r.Policy == "" || r.Rule == "":
		return errors.New("no policy or no rule")
	}
	for _, w := range []string{r.Policy, r.Tenant, r.Rule} {
		if len(w) > maxWord || strings.ContainsFunc(w, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
			return fmt.Errorf("name %.40q: want at most %d characters of ASCII without quotes", w, maxWord)
		}
	}
	return nil
}

func (r Receipt) validNumbers() error {
	switch {
	case r.Seq == 0 || (r.Seq == 1) != (r.Previous == ""):
		return fmt.Errorf("number %d with %q before it", r.Seq, r.Previous)
	case r.Previous != "" && !r.Previous.valid():
		return fmt.Errorf("previous %q: want a SHA-256", r.Previous)
	case r.Epoch == 0:
		return errors.New("no policy epoch")
	case max(r.Seq, uint64(r.Epoch), r.Packets, r.Bytes, r.Lost, r.LostBytes) > maxCount:
		return errors.New("a number above 2^53")
	case r.Run <= 0 || r.First < r.Run-maxBackdate || r.Last < r.First || r.Last > maxCount:
		return fmt.Errorf("times %d, %d, %d: want run, first, last in this order", r.Run, r.First, r.Last)
	case r.Side == Refused && (r.Bytes != 0 || r.Lost != 0 || r.LostBytes != 0):
		return errors.New("refused, and yet bytes")
	}
	return nil
}

// maxBackdate is how long before its chain a receipt's first byte may lie, in
// ms: counting may begin before the room has told the node its pseudonym.
const maxBackdate = 60_000

// Millis is the form of times in receipts and heads.
func Millis(t time.Time) int64 { return t.UnixMilli() }

// Time reads a time of a receipt or head.
func Time(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// Sign makes the signed receipt, the line that goes into the log. Chain.Write
// does it in order.
func (r Receipt) Sign(key crypto.Signer) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("sign receipt: %w", err)
	}
	b, err := sign(receiptContext, r, key)
	if err != nil {
		return nil, fmt.Errorf("sign receipt: %w", err)
	}
	return b, nil
}

// Open reads a signed receipt that the holder of cert wrote. That cert is a
// node's and valid at the receipt's time is the caller's to verify.
func Open(signed []byte, cert *x509.Certificate) (Receipt, error) {
	r, err := Peek(signed)
	if err != nil {
		return Receipt{}, err
	}
	if r.Certificate != Fingerprint(cert.Raw) {
		return Receipt{}, fmt.Errorf("open receipt %d of node %s: it names another certificate than this", r.Seq, r.Node)
	}
	if err := check(receiptContext, signed, cert); err != nil {
		return Receipt{}, fmt.Errorf("open receipt %d of node %s: %w", r.Seq, r.Node, err)
	}
	return r, nil
}

// Peek reads a signed receipt without looking at its signature: to find the
// certificate, or after the receipt behind it in the chain vouched for it.
func Peek(signed []byte) (Receipt, error) {
	body, _, err := split(signed)
	if err != nil {
		return Receipt{}, fmt.Errorf("read receipt: %w", err)
	}
	r, err := scanReceipt(body)
	if err != nil {
		return Receipt{}, fmt.Errorf("read receipt: %w", err)
	}
	if err := r.Validate(); err != nil {
		return Receipt{}, fmt.Errorf("read receipt %d of node %q: %w", r.Seq, r.Node, err)
	}
	return r, nil
}

// roomPrefix stands before the pseudonym in every signed receipt.
var roomPrefix = []byte(`{"version":1,"room":"`)

// roomOf finds a signed receipt's room without decoding it.
func roomOf(signed []byte) (Pseudonym, error) {
	rest, ok := bytes.CutPrefix(signed, roomPrefix)
	if !ok || len(rest) < 2*pseudonymSize {
		return "", errors.New("not a receipt")
	}
	return ParsePseudonym(string(rest[:2*pseudonymSize]))
}

// Chain writes one node's receipts for one room, one after the other. It belongs
// to one goroutine.
type Chain struct {
	room     Pseudonym
	node     residency.NodeName
	run      int64
	seq      uint64
	previous Hash
	final    bool
}

// NewChain begins the chain of a node's stay in a room at now.
func NewChain(room Pseudonym, node residency.NodeName, now time.Time) *Chain {
	return &Chain{room: room, node: node, run: Millis(now)}
}

// ErrFinal says that the chain has ended.
var ErrFinal = errors.New("the chain of receipts has ended")

// Write completes a receipt (version, room, node, certificate, run, number,
// previous; the peer of what the node itself keeps), signs it with the key of cert and makes it the chain's newest. If
// it fails the chain stays as it was.
func (c *Chain) Write(r Receipt, cert *x509.Certificate, key crypto.Signer) ([]byte, error) {
	if c.final {
		return nil, ErrFinal
	}
	if c.seq == math.MaxInt64 {
		return nil, errors.New("write receipt: too many")
	}
	r.Version, r.Room, r.Node, r.Certificate = receiptVersion, c.room, c.node, Fingerprint(cert.Raw)
	r.Run, r.Seq, r.Previous = c.run, c.seq+1, c.previous
	if r.Side == Stored || r.Side == Recorded || r.Side == Erased {
		r.Peer, r.PeerCertificate = r.Node, r.Certificate
	}
	signed, err := r.Sign(key)
	if err != nil {
		return nil, err
	}
	c.seq, c.previous, c.final = r.Seq, hashOf(signed), r.Final
	return signed, nil
}

// Newest returns the number of the newest receipt and whether it is the final one.
func (c *Chain) Newest() (seq uint64, final bool) { return c.seq, c.final }
