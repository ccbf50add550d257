package residency

import "time"

// Permit is the only key to sending: relay takes it, and only Gate.Permit makes
// one. Its zero value opens nothing.
type Permit struct {
	verdict Verdict
	room    string
	store   bool
	place   Place
}

// Allows reports whether the permit lets bytes of its room go to peer at now
// under the epoch in force. Anything else than an exact match refuses.
func (p Permit) Allows(peer NodeName, epoch Epoch, now time.Time) bool {
	return p.verdict.Allow && p.verdict.Peer == peer && p.verdict.Epoch == epoch && now.Before(p.verdict.Until)
}

// Verdict returns the decision behind the permit.
func (p Permit) Verdict() Verdict { return p.verdict }

// Room returns the room the permit is for.
func (p Permit) Room() string { return p.room }

// Class returns the data class the permit is for.
func (p Permit) Class() Class { return p.verdict.Class }

// Peer returns the node the permit is for.
func (p Permit) Peer() NodeName { return p.verdict.Peer }

// Stores reports whether the permit was asked for keeping the bytes.
func (p Permit) Stores() bool { return p.store }

// Tenant returns the tenant of the permit's room, "" if it has none.
func (p Permit) Tenant() string { return p.verdict.Tenant }

// Until returns the moment from which the permit is void: the earliest end of
// what it rests on, which is the peer's certificate, the bundle, and if they
// were needed an override and a transfer basis.
func (p Permit) Until() time.Time { return p.verdict.Until }
