package residency

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotKept is what a Disk says of bytes that it may not have.
var ErrNotKept = errors.New("it may not be kept here")

// Disk is a place where one node keeps one class of rooms' data. Whatever writes
// there takes a permit and shows it to the disk, as relay shows its permits to the
// link: a decision of the gate is the only way in. The zero Disk takes nothing.
//
// What holds no data of a room, such as the end of a file or its erasure, needs no
// permit: a node that may not keep a room any more must still be able to finish.
type Disk struct {
	Node  NodeName
	Class Class
	Epoch func() Epoch // of the policies in force
	Now   func() time.Time

	// Place is where the bytes lie if not on the node's own disk: then the permit must
	// have been asked for it, too.
	Place Place
}

// Admit refuses every permit but one to keep this class of that room on this
// node, in force now. The error says why and wraps ErrNotKept; it names no room.
func (d Disk) Admit(p Permit, room string) error {
	if why := d.refuses(p, room); why != "" {
		return fmt.Errorf("%w: %s", ErrNotKept, why)
	}
	return nil
}

func (d Disk) refuses(p Permit, room string) string {
	if d.Epoch == nil || d.Now == nil {
		return "nobody says by which policies"
	}
	epoch, now := d.Epoch(), d.Now()
	switch {
	case !p.verdict.Allow:
		return "the gate has given no permit"
	case !p.store:
		return "the permit is for passing it on"
	case p.verdict.Class != d.Class:
		return fmt.Sprintf("the permit is for %s, this is %s", p.verdict.Class, d.Class)
	case p.verdict.Peer != d.Node:
		return fmt.Sprintf("the permit is for node %s, this is %s", p.verdict.Peer, d.Node)
	case d.Place != (Place{}) && p.place != d.Place:
		return fmt.Sprintf("the permit was not asked for a %s in %s", d.Place.What, d.Place.Country)
	case p.room != room:
		return "the permit is for another room"
	case !p.Allows(d.Node, epoch, now):
		return fmt.Sprintf("the permit is of epoch %d and ends at %s, this is epoch %d", p.verdict.Epoch, p.Until().UTC().Format(time.RFC3339), epoch)
	}
	return ""
}
