package router

import (
	"net/netip"
	"reflect"
	"slices"

	"golang.org/x/text/language"

	"github.com/domicile/domicile/residency"
)

// Rules are how an operator wants attendees to be placed. They order and narrow
// what the gate permits and can never widen it; they touch neither a room's home
// nor where it is recorded, on which all nodes have to agree.
type Rules struct {
	Weights  Weights
	Limits   Limits
	Reserve  float64                    // share of a node's capacity that is kept for those who come back
	Capacity map[residency.NodeName]int // attendees, where the operator bounds a node more than it does itself
	Regions  map[string]Region

	// Overrides all count whose conditions an attendee meets: what one excludes
	// no other brings back, and what they prefer adds up.
	Overrides []Override
}

// Weights say what counts how much. All are 0 or more, so a shorter round trip
// never ranks a node worse.
type Weights struct {
	You  float64 // for each ms between the attendee and the node
	Room float64 // for each ms between the node and the others in the room, on average
	Load Millis  // for a saturated node; a node half loaded counts a quarter
	Open Millis  // for a node that does not carry the room, if another does
	Move Millis  // for another node than the one that served the attendee before
}

// Limits put nodes behind all others. They refuse nobody.
type Limits struct {
	RTT   Millis // of the round trip to the attendee; 0: none
	Nodes int    // that carry one room; 0: none
}

// Region is a set of nodes with a name: those listed, and those in its countries
// and continents.
type Region struct {
	Nodes      []residency.NodeName
	Countries  []residency.Country
	Continents []Continent
}

// Override is what an operator wants for some attendees. Of each condition that
// is stated one value has to fit; without any, it is for everybody.
type Override struct {
	Name       string // in reasons
	Networks   []netip.Prefix
	Countries  []residency.Country
	Continents []Continent
	Tenants    []string

	// The consequences name regions, or nodes.
	Only   []string // no other node
	Not    []string // none of these
	Prefer []string // every other node counts By more
	By     Millis
}

// Continent is a code of two letters, as GeoIP databases have them.
type Continent string

// continents are the regions of UN M.49 behind each code.
var continents = map[Continent][]language.Region{
	"AF": {language.MustParseRegion("002")},
	"AS": {language.MustParseRegion("142")},
	"EU": {language.MustParseRegion("150")},
	"NA": {language.MustParseRegion("021"), language.MustParseRegion("013"), language.MustParseRegion("029")},
	"OC": {language.MustParseRegion("009")},
	"SA": {language.MustParseRegion("005")},
}

// Continents lists the codes.
func Continents() []Continent { return []Continent{"AF", "AS", "EU", "NA", "OC", "SA"} }

// Has reports whether a country is on the continent.
func (c Continent) Has(country residency.Country) bool {
	r, err := language.ParseRegion(string(country))
	return err == nil && slices.ContainsFunc(continents[c], func(part language.Region) bool { return part.Contains(r) })
}

const (
	// defaultRoom: a millisecond between nodes counts a quarter of one to the
	// attendee. It lies on links that the operator has, losses are mended hop by
	// hop there, and each track crosses them once for everybody. With 1, every
	// meeting would gather on the node of whoever came first.
	defaultRoom = 0.25
	// defaultLoad is about what a busy node adds by queueing.
	defaultLoad = 30
	// defaultOpen is 500 km at the upper end of the estimates: for less than that
	// no second node carries the room, with a copy of every track.
	defaultOpen = 10
	// defaultMove is more than probes of one line differ from one minute to the
	// next, so that who comes back is not sent to and fro.
	defaultMove = 20
	// defaultReserve absorbs the bursts of those who are already there.
	defaultReserve = 0.05
)

// DefaultRules are the rules of an operator who has written none.
func DefaultRules() *Rules {
	return &Rules{Weights: Weights{You: 1, Room: defaultRoom, Load: defaultLoad, Open: defaultOpen, Move: defaultMove}, Reserve: defaultReserve}
}

// Equal reports whether two sets of rules say the same. Nil is DefaultRules.
func (r *Rules) Equal(o *Rules) bool {
	if r == nil {
		r = DefaultRules()
	}
	if o == nil {
		o = DefaultRules()
	}
	return reflect.DeepEqual(r, o)
}

// rules are those of the question, or the defaults.
func (q Question) rules() *Rules {
	if q.Rules == nil {
		return DefaultRules()
	}
	return q.Rules
}

// Named reports whether a name of an override stands for a node: as a region, or itself.
func (r *Rules) Named(name string, n residency.Node) bool {
	region, ok := r.Regions[name]
	if !ok {
		return name == string(n.Name)
	}
	return slices.Contains(region.Nodes, n.Name) || slices.Contains(region.Countries, n.Country) ||
		slices.ContainsFunc(region.Continents, func(c Continent) bool { return c.Has(n.Country) })
}

func (r *Rules) among(names []string, n residency.Node) bool {
	return slices.ContainsFunc(names, func(name string) bool { return r.Named(name, n) })
}

// fits reports whether an override is for an attendee of a tenant's room.
func (o Override) fits(a Attendee, country residency.Country, tenant string) bool {
	addr := a.Addr.Unmap()
	return (len(o.Networks) == 0 || slices.ContainsFunc(o.Networks, func(p netip.Prefix) bool { return p.Contains(addr) })) &&
		(len(o.Countries) == 0 || slices.Contains(o.Countries, country)) &&
		(len(o.Continents) == 0 || slices.ContainsFunc(o.Continents, func(c Continent) bool { return c.Has(country) })) &&
		(len(o.Tenants) == 0 || slices.Contains(o.Tenants, tenant))
}

// overrides are those that are for the question's attendee.
func (q Question) overrides(w whereabouts) (list []Override) {
	for _, o := range q.rules().Overrides {
		if o.fits(q.Attendee, w.country, q.Room.Tenant) {
			list = append(list, o)
		}
	}
	return list
}

// bound makes a candidate as small as the operator has it, if that is smaller than
// it says itself. Its load is then a share of that.
func (r *Rules) bound(c *Candidate) {
	own, ok := r.Capacity[c.Node.Name]
	if !ok || own < 1 || c.Capacity > 0 && c.Capacity <= own {
		return
	}
	c.Capacity, c.Load = own, max(saneLoad(c.Load), float64(c.Attendees)/float64(own))
}
