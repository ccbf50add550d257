package retention

import (
	"cmp"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
)

// Object is something that an origin keeps and that can go by itself.
type Object struct {
	ID   string // of the recording, the file, the room
	Part string // of it: a track; empty: all of it
	Kind residency.Kept

	Room   string // empty: it may have something of any room of the tenant
	Tenant string
	Policy string // whose times hold for it

	People []string // identities of those whose data it has
	Lines  bool     // what is of one of People can go without the rest
	Anyone bool     // it may have anything of anybody in the room

	// Unknown says that it cannot be read: nobody can tell whose it is. It goes by its id
	// alone, and any hold keeps it.
	Unknown bool

	// Recording is the id of what it is a part of or was made of; AnyRecording if it
	// may have something of any in the room.
	Recording string

	Began time.Time
	Ended time.Time // from when retention counts; zero: it is not complete

	Size int64 // bytes, as far as is known
}

// AnyRecording is the Recording of an object that may have something of several.
const AnyRecording = "*"

// Verdict says what becomes of an object.
type Verdict struct {
	Object
	Erase bool
	Rule  string    // why, if it goes
	Due   time.Time // since when it has to

	// Gone are those whose lines go, and no others; empty: all of it goes.
	Gone []string

	Orders []string // the orders by which it goes
	Held   []string // the holds for which it stays although it would have to go
}

// Judge says what has to go, and what stays only because of a hold. What nothing asks
// for is not in the answer. It asks each object's own policy; one that is not known
// keeps it. What may have something of everybody comes first: as long as anything
// else of a person is there, it is known that it may have something of theirs.
func Judge(objects []Object, orders []Order, policy func(Object) *residency.Policy, now time.Time) []Verdict {
	var out []Verdict
	list := ask(orders)
	met := meetings(objects, list)
	left := leftovers(objects, list, met)
	for _, x := range objects {
		v := Verdict{Object: x}
		v.ordered(list, met, left)
		if !v.Erase || len(v.Gone) > 0 {
			v.outlived(policy(x), now)
		}
		if !v.Erase {
			continue
		}
		v.held(list, met)
		out = append(out, v)
	}
	slices.SortStableFunc(out, func(a, b Verdict) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

func rank(v Verdict) int {
	switch {
	case v.Anyone:
		return 0
	case v.Kind == residency.KeptMetadata:
		return 2
	case v.Kind == residency.KeptEvidence:
		return 3 // by which the receipts of the others find their room
	}
	return 1
}

// meeting is a room in which a person whom an order names has left something, or of
// which the recording is that it names.
type meeting struct{ order, tenant, room string }

// anyArchive is met by an erasure of a recording of which nobody can tell the room.
func anyArchive(o asked) meeting { return meeting{order: o.ID, room: AnyRecording} }

func meetings(objects []Object, orders []asked) map[meeting]bool {
	met := map[meeting]bool{}
	for _, o := range orders {
		for _, x := range objects {
			switch {
			case o.Recording != "" && o.Recording == x.Recording:
				met[meeting{o.ID, x.Tenant, ""}] = true // archives of all rooms have it, too
				if x.Unknown {
					met[anyArchive(o)] = true // so may any archive
				}
			case o.Participant == "" || !o.place(x) || len(named(o, x)) == 0:
				continue
			}
			met[meeting{o.ID, x.Tenant, x.Room}] = true
		}
	}
	return met
}

// leftovers are the rooms, and "" for any, in which an erasure has still something to
// erase. What was made since then of all that there was, such as an export under a hold
// that has been lifted, may have it too.
func leftovers(objects []Object, orders []asked, met map[meeting]bool) map[meeting]bool {
	left := map[meeting]bool{}
	for _, o := range orders {
		for _, x := range objects {
			if o.Kind != Erasure || x.Anyone || x.Kind == residency.KeptMetadata || x.Kind == residency.KeptEvidence || x.Began.UnixMilli() >= o.BeforeMS {
				continue
			}
			if ok, _ := about(o, x, met); ok {
				left[meeting{o.ID, x.Tenant, x.Room}], left[meeting{o.ID, x.Tenant, ""}] = true, true
			}
		}
	}
	return left
}

func named(o asked, x Object) (who []string) {
	for _, p := range x.People {
		if o.names(p) {
			who = append(who, p)
		}
	}
	return who
}

// about reports whether an order is about an object, and of whom if not about all of it.
func about(o asked, x Object, met map[meeting]bool) (ok bool, who []string) {
	switch {
	case x.Unknown:
		return o.Kind == Hold || o.Recording != "" && o.Recording == x.Recording, nil
	case !o.place(x):
		return false, nil
	case o.Recording != "":
		return x.Recording == o.Recording || x.Recording == AnyRecording && (met[meeting{o.ID, x.Tenant, x.Room}] || met[anyArchive(o)]), nil
	case o.Participant == "":
		return true, nil
	case x.Anyone:
		return o.Room != "" || x.Room == "" || met[meeting{o.ID, x.Tenant, x.Room}], nil
	}
	who = named(o, x)
	if !x.Lines && len(who) > 0 {
		return true, nil // one track is one person's
	}
	return len(who) > 0, who
}

// ordered follows the erasures.
func (v *Verdict) ordered(orders []asked, met, left map[meeting]bool) {
	whole := false
	for _, o := range orders {
		late := v.Began.UnixMilli() >= o.BeforeMS && (!v.Anyone || !left[meeting{o.ID, v.Tenant, v.Room}])
		if o.Kind != Erasure || late {
			continue
		}
		ok, who := about(o, v.Object, met)
		if !ok {
			continue
		}
		v.Erase, v.Rule, v.Orders = true, o.Rule, append(v.Orders, o.ID)
		v.due(time.UnixMilli(o.AtMS))
		whole = whole || len(who) == 0
		v.Gone = append(v.Gone, who...)
	}
	if whole {
		v.Gone = nil
	}
}

// outlived asks whether the policy's time is over.
func (v *Verdict) outlived(p *residency.Policy, now time.Time) {
	if p == nil || v.Ended.IsZero() {
		return
	}
	if d, ends := p.Retains(v.Kind); ends && !now.Before(v.Ended.Add(d)) {
		v.Erase, v.Rule, v.Gone = true, RuleRetention, nil
		v.due(v.Ended.Add(d))
	}
}

func (v *Verdict) due(at time.Time) {
	if v.Due.IsZero() || at.Before(v.Due) {
		v.Due = at
	}
}

// held looks for holds. Of lines that go, a hold on somebody else's does not matter.
func (v *Verdict) held(orders []asked, met map[meeting]bool) {
	for _, o := range orders {
		if o.Kind != Hold || !o.InForce() {
			continue
		}
		ok, who := about(o, v.Object, met)
		if ok && len(v.Gone) > 0 && len(who) > 0 && !slices.ContainsFunc(v.Gone, func(p string) bool { return slices.Contains(who, p) }) {
			ok = false
		}
		if ok {
			v.Held = append(v.Held, o.ID)
		}
	}
	v.Erase = v.Erase && len(v.Held) == 0
}
