// Package outbox keeps signed receipts that no log has taken yet.
//
// A Box holds them in the order in which they were written, up to a bound, and those
// that may lie on this node's disk also there: a node that is killed sends them when
// it is started again. It does not decide which may, sends nothing, looks at no
// signature and reads no clock.
package outbox

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// Item is a signed receipt on its way to a log.
type Item struct {
	// What the room's home follows from.
	Room   string `json:"room"`
	Tenant string `json:"tenant,omitempty"`
	Policy string `json:"policy"`

	Line         string          `json:"line"`         // the receipt
	Certificates []evidence.Hash `json:"certificates"` // that are needed to read it
	Since        int64           `json:"since"`        // when it was signed, ms since 1970, UTC

	// Permit lets the receipt lie on this node's disk; without one it waits in memory.
	Permit residency.Permit `json:"-"`

	durable bool // it does
}

// Max bounds the receipts that wait: some 12 MB, an hour of a busy node.
const Max = 10_000

var (
	// ErrFull says that as many wait as may.
	ErrFull = fmt.Errorf("%d receipts wait for an origin that takes them", Max)
	// ErrDisk says that receipts wait in memory alone because the disk refuses them.
	ErrDisk = errors.New("receipts that wait cannot be written to the disk")
)

// Reason says why a receipt was given up.
type Reason string

// The reasons.
const (
	Full    Reason = "full"    // as many waited as may
	Invalid Reason = "invalid" // the origin says that it is none
	Stale   Reason = "stale"   // it waited for a day
	Damaged Reason = "damaged" // it could not be read back from the disk
)

// Reasons lists every reason.
func Reasons() []Reason { return []Reason{Full, Invalid, Stale, Damaged} }

// Box is safe for concurrent use.
type Box struct {
	// Static after Open.
	path string // "" keeps everything in memory
	disk residency.Disk

	// Guarded by mu, which is held while the file is written: who puts receipts in
	// wants them there, and nobody else waits for long.
	mu      sync.Mutex
	items   []Item
	certs   map[evidence.Hash][]byte // DER, of what waits
	dropped map[Reason]uint64
	file    *os.File
	size    int64                  // of the file
	known   map[evidence.Hash]bool // certificates in the file
	broken  error                  // why the last write failed
}

// Open returns a box with what the file has, which takes permits to keep metadata on
// disk; without a path, an empty one in memory. What the end of the file lacks was
// being written when the node was killed.
func Open(path string, disk residency.Disk) (*Box, error) {
	b := &Box{path: path, disk: disk, certs: map[evidence.Hash][]byte{}, dropped: map[Reason]uint64{}, known: map[evidence.Hash]bool{}}
	if path == "" {
		return b, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	b.file = f
	if err := b.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open outbox %s: %w", path, err), f.Close())
	}
	return b, nil
}

// Put adds receipts with the certificates (DER) that they name. After ErrFull the
// last of them are given up; after ErrDisk all wait, in memory alone.
func (b *Box) Put(items []Item, certs func(evidence.Hash) []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var full error
	if free := Max - len(b.items); len(items) > free {
		b.dropped[Full] += uint64(len(items) - free)
		items, full = items[:free], ErrFull
	}
	items = append([]Item(nil), items...)
	for k, i := range items {
		items[k].durable = b.file != nil && b.disk.Admit(i.Permit, i.Room) == nil
		for _, fp := range i.Certificates {
			if der := certs(fp); b.certs[fp] == nil && der != nil {
				b.certs[fp] = der
			}
		}
	}
	b.items = append(b.items, items...)
	return errors.Join(full, b.write(items))
}

// Waiting returns what waits, oldest first.
func (b *Box) Waiting() []Item {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Item(nil), b.items...)
}

// Certificates returns the certificates (DER) that receipts name, as far as they are
// known.
func (b *Box) Certificates(items []Item) (ders [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := map[evidence.Hash]bool{}
	for _, i := range items {
		for _, fp := range i.Certificates {
			if der := b.certs[fp]; der != nil && !seen[fp] {
				seen[fp] = true
				ders = append(ders, der)
			}
		}
	}
	return ders
}

// Done takes out what a log has.
func (b *Box) Done(items []Item) error { return b.remove(items, "") }

// Drop gives receipts up.
func (b *Box) Drop(items []Item, why Reason) error { return b.remove(items, why) }

func (b *Box) remove(items []Item, why Reason) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := make(map[string]bool, len(items))
	for _, i := range items {
		gone[i.Line] = true
	}
	left, used := b.items[:0:0], map[evidence.Hash]bool{}
	for _, i := range b.items {
		if gone[i.Line] {
			if why != "" {
				b.dropped[why]++
			}
			continue
		}
		left = append(left, i)
		for _, fp := range i.Certificates {
			used[fp] = true
		}
	}
	b.items = left
	maps.DeleteFunc(b.certs, func(fp evidence.Hash, _ []byte) bool { return !used[fp] })
	return b.tidy()
}

// Len is how many wait.
func (b *Box) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items)
}

// Dropped counts what was given up, by reason.
func (b *Box) Dropped() map[Reason]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.dropped)
}

// Close gives the file back. What waits stays in it.
func (b *Box) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return nil
	}
	f := b.file
	b.file = nil
	return f.Close()
}
