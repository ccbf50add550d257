package alloc

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

// Allocation is what a client has: a relayed address of its own, and with it
// the way to some of this node's endpoints. Its fields are the Table's.
type Allocation struct {
	Flow    Flow
	Session Session
	Relayed netip.AddrPort

	transaction [stun.TransactionIDSize]byte // of the Allocate, to know it again
	ends        time.Time
	permits     []permit  // one for each address of an endpoint, at most
	channels    []channel // one for each endpoint, at most

	due   time.Time // nothing of it runs out before
	place int       // in Table.due
}

type permit struct {
	addr netip.Addr
	ends time.Time
}

type channel struct {
	number uint16
	peer   netip.AddrPort
	ends   time.Time
}

// addressOnly is an address without a port.
func addressOnly(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }

// EventKind is what an Event says.
type EventKind uint8

// The events. Whoever carries packets follows them in their order.
const (
	Opened  EventKind = iota // there is a new allocation
	Bound                    // Peer has channel Number from now on
	Unbound                  // Peer has none any more; Permitted tells whether it is still reachable
	Lapsed                   // the permission for Addr has ended; its channels stay
	Ended                    // the allocation is no more: nothing passes from now on
)

// Event is a change of what may pass.
type Event struct {
	Kind       EventKind
	Allocation *Allocation
	Peer       netip.AddrPort // of Bound and Unbound; its address alone of Lapsed
	Number     uint16         // of Bound
	Permitted  bool           // of Unbound
}

// reach is what allocations may touch. Endpoints is the real one.
type reach interface {
	permits(netip.Addr) bool
	has(netip.AddrPort) bool
	relayed(family byte) (netip.Addr, bool)
}

// Table holds the allocations. It belongs to one goroutine at a time, except
// that Permits may be called by several while nothing else is.
type Table struct {
	limits Limits
	peers  reach

	flows    map[Flow]*Allocation
	sessions map[Session][]*Allocation
	sources  map[netip.Prefix]int
	relayed  map[netip.AddrPort]struct{}
	port     int // the last that was given away
	due      deadlines

	revoked     map[Session]time.Time // credentials issued until then are void
	revocations []revocation          // the same, oldest first

	events []Event

	// For the controls of the tests: expired and revoked credentials are good.
	trusting bool
}

type revocation struct {
	session Session
	at      time.Time
}

// NewTable makes an empty table. Without endpoints nothing can be allocated.
func NewTable(l Limits, peers *Endpoints) *Table {
	return &Table{
		limits: l, peers: peers,
		flows: map[Flow]*Allocation{}, sessions: map[Session][]*Allocation{},
		sources: map[netip.Prefix]int{}, relayed: map[netip.AddrPort]struct{}{},
		revoked: map[Session]time.Time{},
	}
}

// SetEndpoints changes what is reachable: interfaces come and go. What was
// granted for endpoints that are no more lasts until it has to be renewed, and
// leads nowhere.
func (t *Table) SetEndpoints(peers *Endpoints) { t.peers = peers }

// Len is the number of allocations.
func (t *Table) Len() int { return len(t.flows) }

// Answer decides about a request that the Guard found authentic and writes the
// reply. When it returns Expired or Revoked, the Guard has to Refuse. Events are
// valid until the next call.
func (t *Table) Answer(x *Exchange, now time.Time) (Reason, []Event) {
	t.events = t.events[:0]
	a := t.flows[x.Flow]
	why := t.decide(x, a, now)
	switch why {
	case Expired, Revoked:
		return why, nil
	case Granted:
		t.success(x, now)
	default:
		fail(x, why)
	}
	_ = stun.MessageIntegrity(x.key[:]).AddTo(&x.out) // fails only behind a FINGERPRINT
	x.Reply = x.out.Raw
	return why, t.events
}

func (t *Table) decide(x *Exchange, a *Allocation, now time.Time) Reason {
	r := &x.req
	if t.void(x.claims) {
		return Revoked
	}
	if a == nil && !t.trusting && !now.Before(x.claims.Expires) {
		return Expired // an allocation outlives the credentials that opened it
	}
	switch {
	case a != nil && a.Session != x.claims.Session:
		return OthersFlow
	case r.malformed:
		return BadRequest
	case r.unknowns > 0:
		return UnknownDemand
	case r.kind.Method == stun.MethodAllocate:
		return t.allocate(x, a, now)
	case a == nil:
		return NoAllocation
	}
	switch r.kind.Method {
	case stun.MethodRefresh:
		return t.refresh(r, a, now)
	case stun.MethodCreatePermission:
		return t.permit(r, a, now)
	default: // the Guard lets no other method pass
		return t.bind(r, a, now)
	}
}

// void reports whether the credentials were revoked.
func (t *Table) void(c Claims) bool {
	at, ok := t.revoked[c.Session]
	return ok && !c.Issued.After(at) && !t.trusting
}

// success writes the reply to what was granted. A repeated Allocate gets the
// same one, but for the time that is left.
func (t *Table) success(x *Exchange, now time.Time) {
	begin(x, stun.ClassSuccessResponse)
	a := t.flows[x.Flow]
	var life time.Duration
	if a != nil {
		life = a.ends.Sub(now)
	}
	switch x.req.kind.Method {
	case stun.MethodAllocate:
		addAddress(&x.out, stun.AttrXORRelayedAddress, a.Relayed)
		addAddress(&x.out, stun.AttrXORMappedAddress, x.Flow.Client)
		addLifetime(&x.out, life)
	case stun.MethodRefresh:
		addLifetime(&x.out, life)
	}
}

func addLifetime(m *stun.Message, d time.Duration) {
	m.Add(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second)))
}

func fail(x *Exchange, why Reason) {
	begin(x, stun.ClassErrorResponse)
	code := why.code()
	if why == WrongFamily {
		code = 443
		if x.req.kind.Method == stun.MethodAllocate {
			code = 440
		}
	}
	addError(&x.out, code)
	if why == UnknownDemand {
		var list [2 * maxUnknown]byte
		for i, kind := range x.req.unknown[:x.req.unknowns] {
			binary.BigEndian.PutUint16(list[2*i:], uint16(kind))
		}
		x.out.Add(stun.AttrUnknownAttributes, list[:2*x.req.unknowns])
	}
}

// Revoke voids what a session was issued until now and ends its allocations.
func (t *Table) Revoke(s Session, now time.Time) []Event {
	t.events = t.events[:0]
	t.forget(now)
	t.revoked[s] = now
	t.revocations = append(t.revocations, revocation{s, now})
	for len(t.sessions[s]) > 0 {
		t.end(t.sessions[s][0])
	}
	return t.events
}

// forget drops revocations of credentials that have expired by themselves.
func (t *Table) forget(now time.Time) {
	n := 0
	for n < len(t.revocations) && now.Sub(t.revocations[n].at) > MaxTTL {
		if old := t.revocations[n]; t.revoked[old.session].Equal(old.at) {
			delete(t.revoked, old.session)
		}
		n++
	}
	t.revocations = t.revocations[n:]
}

// Close ends the allocation of a flow that is no more, if it has one.
func (t *Table) Close(f Flow) []Event {
	t.events = t.events[:0]
	if a := t.flows[f]; a != nil {
		t.end(a)
	}
	return t.events
}

func (t *Table) end(a *Allocation) {
	delete(t.flows, a.Flow)
	delete(t.relayed, a.Relayed)
	heap.Remove(&t.due, a.place)
	src := a.Flow.Source()
	if t.sources[src]--; t.sources[src] == 0 {
		delete(t.sources, src)
	}
	rest := t.sessions[a.Session]
	for i, b := range rest {
		if a == b {
			rest[i] = rest[len(rest)-1]
			rest[len(rest)-1] = nil
			rest = rest[:len(rest)-1]
			break
		}
	}
	if t.sessions[a.Session] = rest; len(rest) == 0 {
		delete(t.sessions, a.Session)
	}
	t.events = append(t.events, Event{Kind: Ended, Allocation: a})
}
