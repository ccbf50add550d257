// Package retention decides what of the things that origins keep has to go, and what
// may not: by the policies' times, by orders to erase, and by legal holds, which win
// over both.
//
// It knows what is kept as values and performs no I/O, reads no clock and keeps
// nothing. Orders name no room and no person: they carry keyed hashes of the names, so
// that what is left of an erasure does not tell whom it was about.
package retention

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/domicile/domicile/residency"
)

// Subject is what somebody wants held or erased, in their words. Each part that is not
// empty narrows it down.
type Subject struct {
	Tenant      string
	Room        string // name
	Participant string // identity
	Recording   string // id: of an erasure alone, which is then about nothing else of the room
	// NoTenant says that an empty Tenant means rooms that are no tenant's, and no others:
	// what somebody without a tenant asks for is not about the rooms of those who have one.
	NoTenant bool
}

// Kind says what an order is.
type Kind string

// The kinds of orders.
const (
	Hold    Kind = "hold"    // nothing of the subject is erased until the hold is lifted
	Erasure Kind = "erasure" // what there was of the subject when it was ordered goes, everywhere
)

// The rules by which something goes, as receipts state them.
const (
	RuleErasure    = "erasure"    // somebody ordered it
	RuleWithdrawal = "withdrawal" // a participant has taken back the consent to be recorded
	RuleRetention  = "retention"  // the policy's time is over
)

// Order is a hold or an erasure, as every origin has it. An order is given once, under
// an id of its own, and is never changed but for being lifted, which is for good: it
// does not matter in which order origins hear of it, and no old message lifts a hold
// or sets one again.
type Order struct {
	ID          string           `json:"id"`
	Kind        Kind             `json:"kind"`
	Rule        string           `json:"rule,omitempty"` // of an erasure
	Salt        string           `json:"salt"`           // hexadecimal, of this order alone
	Tenant      string           `json:"tenant,omitempty"`
	NoTenant    bool             `json:"no_tenant,omitempty"`   // rooms that are no tenant's, where Tenant is empty; else those of all
	Room        string           `json:"room,omitempty"`        // hash of the name
	Participant string           `json:"participant,omitempty"` // hash of the identity
	Only        []residency.Kept `json:"only,omitempty"`        // kinds; empty: all
	Reason      string           `json:"reason,omitempty"`      // the admin's: a file number, no names
	AtMS        int64            `json:"at_ms"`
	LiftedMS    int64            `json:"lifted_ms,omitempty"` // of a hold; 0: in force

	// Recording is the id of one recording, which is random and names nobody. Such an order
	// names nothing else: whoever does not know of this field takes it for one about
	// everything, and refuses it, instead of erasing all of the room.
	Recording string `json:"recording,omitempty"`

	// BeforeMS bounds, at each origin for itself, what an erasure is about: what began
	// later is something else of the same name. It is not sent.
	BeforeMS int64 `json:"before_ms,omitempty"`
}

const (
	// MaxOrders bounds what an origin keeps: 300 bytes each.
	MaxOrders = 100_000
	maxReason = 200
	saltSize  = 16
	// clockSlack is how far the clocks of two nodes may differ for what was begun
	// before the erasure to be taken for that.
	clockSlack = 2 * time.Second
	// lateness bounds what an origin erases that hears of an order late: what it has
	// begun more than so long after the order is something new.
	lateness = 5 * time.Minute
)

// New makes an order of a subject. salt are 16 random bytes, id as many letters.
func New(kind Kind, s Subject, id string, salt []byte, at time.Time) Order {
	o := Order{ID: prefix(kind) + id, Kind: kind, Salt: hex.EncodeToString(salt), Tenant: s.Tenant, NoTenant: s.NoTenant && s.Tenant == "", AtMS: at.UnixMilli()}
	if kind == Erasure {
		o.Rule = RuleErasure
	}
	if o.Recording = s.Recording; o.Recording != "" {
		o.Tenant, o.NoTenant = "", false
		return o
	}
	if s.Room != "" {
		o.Room = o.hash("room", s.Room)
	}
	if s.Participant != "" {
		o.Participant = o.hash("participant", s.Participant)
	}
	return o
}

func prefix(k Kind) string {
	if k == Hold {
		return "HO_"
	}
	return "ER_"
}

// hash is what an order has in place of a name.
func (o Order) hash(what, name string) string {
	key, _ := hex.DecodeString(o.Salt) // a salt that is none makes a hash that fits nothing else
	m := hmac.New(sha256.New, key)
	m.Write([]byte(what + "\x00" + name))
	return hex.EncodeToString(m.Sum(nil))
}

// Validate reports what cannot be.
func (o Order) Validate() error {
	salt, err := hex.DecodeString(o.Salt)
	id, ok := strings.CutPrefix(o.ID, prefix(o.Kind))
	switch {
	case o.Kind != Hold && o.Kind != Erasure:
		return fmt.Errorf("order of kind %q: want hold or erasure", o.Kind)
	case !ok || len(id) < 8 || len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return !alphanumeric(r) }):
		return fmt.Errorf("order id %q: want %q and 8 to 64 letters or digits", o.ID, prefix(o.Kind))
	case err != nil || len(salt) != saltSize:
		return errors.New("an order without its salt")
	case o.Recording != "" && (o.Kind != Erasure || o.NoTenant || o.Tenant+o.Room+o.Participant != "" || !recordingID(o.Recording)):
		return errors.New("an order about a recording that names more, or no recording")
	case o.Tenant+o.Room+o.Participant+o.Recording == "":
		return errors.New("an order about everything")
	case !hashed(o.Room) || !hashed(o.Participant):
		return errors.New("an order that names somebody")
	case o.NoTenant && o.Tenant != "":
		return errors.New("an order about a tenant's rooms and rooms of none")
	case len(o.Tenant) > residency.MaxNodeName || o.AtMS <= 0 || o.LiftedMS < 0 || o.BeforeMS < 0:
		return errors.New("an order with a tenant or time that cannot be")
	case o.Kind == Hold && o.Rule != "" || o.Kind == Erasure && o.Rule != RuleErasure && o.Rule != RuleWithdrawal:
		return fmt.Errorf("an order of rule %q", o.Rule)
	case o.Kind == Erasure && o.LiftedMS != 0:
		return errors.New("an erasure cannot be lifted")
	case len(o.Only) > len(residency.KeptKinds()):
		return errors.New("an order of more kinds than there are")
	}
	return ValidReason(o.Reason)
}

// ValidReason bounds what an admin may write beside an order.
func ValidReason(s string) error {
	if len(s) > maxReason || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("reason: want at most %d bytes of text on one line", maxReason)
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// recordingID reports whether a text has the form of a recording's id.
func recordingID(s string) bool {
	id, ok := strings.CutPrefix(s, "RE_")
	return ok && id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool { return !alphanumeric(r) })
}

func hashed(s string) bool {
	b, err := hex.DecodeString(s)
	return s == "" || err == nil && len(b) == sha256.Size
}

// InForce reports whether the order still says something: a hold until it is lifted,
// an erasure for good.
func (o Order) InForce() bool { return o.LiftedMS == 0 }

// Sent is the order as other origins are told it.
func (o Order) Sent() Order {
	o.BeforeMS = 0
	return o
}

// Arrived is the order as an origin keeps that hears of it at now.
func (o Order) Arrived(now time.Time) Order {
	if o.Kind == Erasure && o.BeforeMS == 0 {
		o.BeforeMS = min(now.Add(clockSlack).UnixMilli(), o.AtMS+lateness.Milliseconds())
	}
	return o
}

// Merge joins what two origins know of one order, and reports whether that is more
// than the first one knew.
func Merge(own, other Order) (Order, bool) {
	if own.Kind != Hold || other.LiftedMS == 0 || own.LiftedMS != 0 {
		return own, false
	}
	own.LiftedMS = other.LiftedMS
	return own, true
}

// isOf reports whether the order is about rooms of a tenant; "" are those of none.
func (o Order) isOf(tenant string) bool {
	return o.Tenant == tenant || o.Tenant == "" && !o.NoTenant
}

// OfRoom reports whether the order may be about a room or something in it, and not about
// more. That of a recording does not tell of which room it is.
func (o Order) OfRoom(tenant, room string) bool {
	return o.Recording != "" || o.Tenant == tenant && o.Room != "" && o.hash("room", room) == o.Room
}

// Covers reports whether the order is about all of a subject.
func (o Order) Covers(s Subject) bool {
	return o.isOf(s.Tenant) &&
		(o.Recording == "" || o.Recording == s.Recording) &&
		(o.Room == "" || s.Room != "" && o.hash("room", s.Room) == o.Room) &&
		(o.Participant == "" || s.Participant != "" && o.hash("participant", s.Participant) == o.Participant)
}

// asked is an order with what is known of the names that it was compared with: there
// are far fewer of them than objects.
type asked struct {
	Order
	rooms, people map[string]bool
}

func ask(orders []Order) []asked {
	list := make([]asked, len(orders))
	for i, o := range orders {
		list[i] = asked{o, map[string]bool{}, map[string]bool{}}
	}
	return list
}

// place reports whether an order is about what is kept of a room.
func (o asked) place(x Object) bool {
	return o.isOf(x.Tenant) && (len(o.Only) == 0 || slices.Contains(o.Only, x.Kind)) &&
		(o.Room == "" || x.Anyone && x.Room == "" || o.same(o.rooms, "room", x.Room, o.Room))
}

// names reports whether an order that is about a person is about this one.
func (o asked) names(identity string) bool {
	return o.Participant != "" && o.same(o.people, "participant", identity, o.Participant)
}

func (o asked) same(known map[string]bool, what, name, hash string) bool {
	is, ok := known[name]
	if !ok {
		is = o.hash(what, name) == hash
		known[name] = is
	}
	return is
}
