// Package alloc is the state machine of a closed TURN server (RFC 8656): it
// decides who may have an allocation, which of this node's own endpoints it
// reaches, and when it ends.
//
// It has two halves. The Guard reads messages, asks for credentials and knows
// nothing of allocations, so that what strangers send takes no lock. The Table
// holds the allocations and sees authenticated requests only; it answers them
// and says in Events what that means for whoever carries the packets.
//
// It performs no I/O, reads no clock and starts no goroutine. It allocates UDP
// alone, opens no port, and does neither RFC 6062 nor even ports nor reservations.
package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Flow is the 5-tuple between client and server. An allocation is known by it.
type Flow struct {
	Client, Server netip.AddrPort
	// Stream is 0 over UDP, and another number for each stream of TCP or TLS, so that
	// what belonged to one is worth nothing on the next between the same ports.
	Stream uint64
}

// Source is what counts as one source: an IPv4 address or an IPv6 /64, which is
// what one subscriber line has.
func (f Flow) Source() netip.Prefix {
	a := f.Client.Addr().Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // fails for no valid address, and then is the zero prefix
	return p
}

// What RFC 8656 sets, and what we make of it.
const (
	// Lifetime of an allocation after each Refresh, whatever is asked for: the
	// shortest that the RFC lets a server choose, so that a client that vanished
	// holds its place for no longer.
	Lifetime = 10 * time.Minute
	// PermissionLife and ChannelLife are sections 9 and 12 of the RFC.
	PermissionLife = 5 * time.Minute
	ChannelLife    = 10 * time.Minute

	// MinChannel and MaxChannel bound the numbers of channels (section 12).
	MinChannel = 0x4000
	MaxChannel = 0x4FFF
)

// Relayed addresses are virtual: nothing is bound to them, no packet from a
// network ever reaches one. Their ports lie above those that services use, for
// people who read them in a trace.
const (
	firstPort = 16384
	numPorts  = 65536 - firstPort
)

// Limits bound the allocations.
type Limits struct {
	PerNode    int
	PerSession int // of one participant in one room
	PerSource  int // of an IPv4 address or IPv6 /64
}

// Validate refuses limits that cannot be kept.
func (l Limits) Validate() error {
	if l.PerNode < 1 || l.PerSession < 1 || l.PerSource < 1 {
		return errors.New("a limit is below one")
	}
	if l.PerNode > numPorts {
		return fmt.Errorf("%d allocations: there are %d relayed addresses", l.PerNode, numPorts)
	}
	return nil
}
