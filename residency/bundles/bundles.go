// Package bundles decides which signed policy bundle is in force on a node while
// the mesh changes from one to the next, and keeps the bundles on disk.
//
// The core (Agreement) is pure: what other nodes state and `now` go in, what is to
// be offered, and when to switch, comes out. It never lets an older bundle replace
// a newer one, nor two bundles of one epoch replace each other. It reads no policy
// and checks no signature: callers do, before they tell it of a bundle. Dir alone
// does I/O.
package bundles

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/domicile/domicile/residency"
)

// MaxPolicy bounds the text of a policy, in bytes: 1,000 tenants and 500 nodes take
// a tenth of it. MaxSignature bounds a signature's.
const (
	MaxPolicy    = 4 << 20
	MaxSignature = 4 << 10
)

// Signed is a policy file as its author signed it, byte for byte.
type Signed struct {
	Policy    []byte
	Signature []byte
}

// Check refuses what is too long or has no content, before anything is computed.
func (s Signed) Check() error {
	switch {
	case len(s.Policy) == 0 || len(s.Signature) == 0:
		return errors.New("a bundle is a policy file and its signature, and one of them is empty")
	case len(s.Policy) > MaxPolicy:
		return fmt.Errorf("the policy has %d bytes: want at most %d", len(s.Policy), MaxPolicy)
	case len(s.Signature) > MaxSignature:
		return fmt.Errorf("the signature has %d bytes: want at most %d", len(s.Signature), MaxSignature)
	}
	return nil
}

// Digest tells two policies of one epoch apart. The signature does not count: one
// text may be signed several times.
type Digest [sha256.Size]byte

// String is the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Digest is that of the policy's text.
func (s Signed) Digest() Digest { return sha256.Sum256(s.Policy) }

// Opener verifies a bundle's signature and reads it.
type Opener func(Signed) (*residency.Bundle, error)

// Ref names a bundle. The zero Ref is none.
type Ref struct {
	Epoch  residency.Epoch
	Digest Digest
}

// String is the epoch with the beginning of the digest.
func (r Ref) String() string { return fmt.Sprintf("%d (%s)", r.Epoch, r.Digest.String()[:12]) }

// Statement is what a node says of itself: the bundle it decides by, and the newest
// that it holds and will switch to. They are equal most of the time.
type Statement struct {
	Force Ref
	Has   Ref
}

// Why a bundle is not taken over.
var (
	// ErrKnown says that the node has this very bundle already.
	ErrKnown = errors.New("the bundle is known already")
	// ErrOlder says that the node has a newer bundle.
	ErrOlder = errors.New("the bundle is older than the one this node has")
	// ErrConflict says that there are two bundles of one epoch.
	ErrConflict = errors.New("another bundle of the same epoch is known")
)

// Follows says whether a bundle may take the place of another, and why not.
func (r Ref) Follows(has Ref) error {
	switch {
	case r == has:
		return ErrKnown
	case r.Epoch == has.Epoch:
		return fmt.Errorf("%w: epoch %d is already that of policy %s, and this one is %s; raise the epoch with every change",
			ErrConflict, r.Epoch, has.Digest.String()[:12], r.Digest.String()[:12])
	case r.Epoch < has.Epoch:
		return fmt.Errorf("%w: epoch %d, and this node has %d", ErrOlder, r.Epoch, has.Epoch)
	}
	return nil
}
