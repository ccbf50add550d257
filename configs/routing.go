package configs

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// routingFile is routing.yaml: how an operator wants attendees to be placed, among
// the nodes that the policy permits. Every key may be left out.
type routingFile struct {
	// Weights say what counts how much, in milliseconds of round trip.
	Weights weightsFile `yaml:"weights"`
	// Limits put nodes behind all others. They refuse nobody.
	Limits limitsFile `yaml:"limits"`
	// ReservePercent is the share of a node's capacity that is kept for those who
	// come back to it, 0 to 90. Default 5: it absorbs the bursts of those who are
	// there. More costs capacity, less makes who reconnects move.
	ReservePercent float64 `yaml:"reserve_percent"`
	// Capacity bounds nodes more than they do themselves, in attendees.
	Capacity map[residency.NodeName]int `yaml:"capacity"`
	// Regions are sets of nodes with a name, for overrides.
	Regions map[string]regionFile `yaml:"regions"`
	// Overrides say otherwise for some attendees. All count whose conditions hold.
	Overrides []overrideFile `yaml:"overrides" empty:"leave the key out to have no overrides"`
}

// weightsFile is the scale of the terms that explain shows.
type weightsFile struct {
	// Attendee is what a ms between attendee and node counts, 0 to 10. Default 1.
	Attendee float64 `yaml:"attendee"`
	// Room is what a ms between the node and those of the others in the room counts,
	// 0 to 10. Default 0.25. With 1 and more a meeting gathers on few nodes, with
	// 0 everybody gets the node next door.
	Room float64 `yaml:"room"`
	// LoadMS is what a saturated node counts, 0 to 1000; a node half loaded a
	// quarter of it. Default 30.
	LoadMS float64 `yaml:"load_ms"`
	// OpenMS is what it counts to open a node for a room that another carries,
	// 0 to 1000. Default 10. Higher, fewer nodes carry a room, with longer ways.
	OpenMS float64 `yaml:"open_ms"`
	// MoveMS is by how much another node must be better for who comes back, 0 to
	// 1000. Default 20. Lower, people who reconnect go to and fro.
	MoveMS float64 `yaml:"move_ms"`
}

// limitsFile holds what puts nodes last.
type limitsFile struct {
	// AttendeeMS is the longest round trip to an attendee, up to 2000. 0, the
	// default, is no limit.
	AttendeeMS float64 `yaml:"attendee_ms"`
	// NodesPerRoom is how many nodes carry one room, while they have room
	// themselves. 0, the default, is no limit.
	NodesPerRoom int `yaml:"nodes_per_room"`
}

// regionFile is a set of nodes: those listed, and those in its countries and continents.
type regionFile struct {
	Nodes      []residency.NodeName `yaml:"nodes" empty:"leave the key out to list none"`
	Countries  []countrySet         `yaml:"countries" empty:"leave the key out to list none"`
	Continents []continent          `yaml:"continents" empty:"leave the key out to list none"`
}

// overrideFile is for attendees of whom one value of each stated condition holds;
// without conditions, for everybody. Consequences name regions, or nodes.
type overrideFile struct {
	// Name stands in explanations. Required.
	Name string `yaml:"name,required"`
	// Networks are ranges of attendees' addresses.
	Networks []netip.Prefix `yaml:"networks" empty:"leave the key out for every network"`
	// Countries and Continents are where attendees are, as far as it is known.
	Countries  []countrySet `yaml:"countries" empty:"leave the key out for every country"`
	Continents []continent  `yaml:"continents" empty:"leave the key out for every continent"`
	// Tenants are whose rooms.
	Tenants []string `yaml:"tenants" empty:"leave the key out for every tenant"`
	// Only keeps these attendees on these nodes: if none can serve, they are refused.
	Only []string `yaml:"only" empty:"an empty list would refuse everybody; leave the key out"`
	// Not keeps them off these.
	Not []string `yaml:"not" empty:"leave the key out to exclude none"`
	// Prefer has every other node count by_ms more, 1 to 2000.
	Prefer []string `yaml:"prefer" empty:"leave the key out to prefer none"`
	ByMS   float64  `yaml:"by_ms"`
}

// continent is a code of GeoIP databases.
type continent router.Continent

func (c *continent) readScalar(s scalar) *Fault {
	if *c = continent(s.text); slices.Contains(router.Continents(), router.Continent(*c)) {
		return nil
	}
	return &Fault{Message: "unknown continent", Allowed: allowedFor(reflect.TypeFor[continent]())}
}

// maxOverrides bounds what is asked of every attendee.
const maxOverrides = 500

// LoadRouting reads a routing file. An error about the file is of type Faults.
func LoadRouting(path string) (*router.Rules, error) {
	b, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	return ParseRouting(path, b)
}

// ParseRouting reads the text of a routing file; name stands in errors, which are
// of type Faults.
func ParseRouting(name string, b []byte) (*router.Rules, error) {
	d, root := parse(name, b)
	if root == nil {
		return nil, d.faults.sorted()
	}
	def := router.DefaultRules()
	f := routingFile{Weights: weightsFile{Attendee: def.Weights.You, Room: def.Weights.Room, LoadMS: float64(def.Weights.Load),
		OpenMS: float64(def.Weights.Open), MoveMS: float64(def.Weights.Move)}, ReservePercent: 100 * def.Reserve}
	d.read(root, &f)
	rules := d.rules(&f)
	if err := d.faults.sorted(); err != nil {
		return nil, err
	}
	return rules, nil
}

// rules makes the value that a routing file stands for.
func (d *document) rules(f *routingFile) *router.Rules {
	d.validateScale(f)
	r := &router.Rules{
		Weights: router.Weights{You: f.Weights.Attendee, Room: f.Weights.Room, Load: router.Millis(f.Weights.LoadMS),
			Open: router.Millis(f.Weights.OpenMS), Move: router.Millis(f.Weights.MoveMS)},
		Limits:  router.Limits{RTT: router.Millis(f.Limits.AttendeeMS), Nodes: f.Limits.NodesPerRoom},
		Reserve: f.ReservePercent / 100, Capacity: map[residency.NodeName]int{}, Regions: map[string]router.Region{},
	}
	for name, n := range f.Capacity {
		path := join("capacity", string(name))
		if !validName(string(name)) {
			d.faultKey(path, Fault{Message: "not a node name", Allowed: nameForm})
		}
		d.within(path, float64(n), 1, maxAttendees)
		r.Capacity[name] = n
	}
	for name, region := range f.Regions {
		r.Regions[name] = d.region(name, region)
	}
	if len(f.Overrides) > maxOverrides {
		d.fault("overrides", Fault{Message: fmt.Sprintf("%d overrides", len(f.Overrides)), Allowed: fmt.Sprintf("at most %d", maxOverrides)})
		return r
	}
	for i, o := range f.Overrides {
		r.Overrides = append(r.Overrides, d.override(i, o, f))
	}
	return r
}

func (d *document) validateScale(f *routingFile) {
	const maxWeight, maxMS = 10, 1000
	d.within("weights.attendee", f.Weights.Attendee, 0, maxWeight)
	d.within("weights.room", f.Weights.Room, 0, maxWeight)
	d.within("weights.load_ms", f.Weights.LoadMS, 0, maxMS)
	d.within("weights.open_ms", f.Weights.OpenMS, 0, maxMS)
	d.within("weights.move_ms", f.Weights.MoveMS, 0, maxMS)
	d.within("limits.attendee_ms", f.Limits.AttendeeMS, 0, 2*maxMS)
	d.within("limits.nodes_per_room", float64(f.Limits.NodesPerRoom), 0, maxMS)
	d.within("reserve_percent", f.ReservePercent, 0, 90)
}

func (d *document) region(name string, f regionFile) router.Region {
	path := join("regions", name)
	if !validName(name) {
		d.faultKey(path, Fault{Message: "not a name of a region", Allowed: nameForm})
	}
	if len(f.Nodes)+len(f.Countries)+len(f.Continents) == 0 && d.has(path) {
		d.fault(path, Fault{Message: "nothing is in the region", Allowed: strings.Join(keysOf(reflect.TypeOf(f)), ", ")})
	}
	for i, n := range f.Nodes {
		if !validName(string(n)) {
			d.fault(join(path+".nodes", strconv.Itoa(i)), Fault{Message: "not a node name", Allowed: nameForm})
		}
	}
	return router.Region{Nodes: f.Nodes, Countries: flatten(f.Countries), Continents: continentsOf(f.Continents)}
}

func (d *document) override(i int, f overrideFile, all *routingFile) router.Override {
	path := join("overrides", strconv.Itoa(i))
	for _, before := range all.Overrides[:i] {
		if before.Name == f.Name && d.has(path+".name") {
			d.faultf(path+".name", "a second override has this name")
		}
	}
	if d.has(path+".name") && !validName(f.Name) {
		d.fault(path+".name", Fault{Message: "not a name of an override", Allowed: nameForm})
	}
	for j, p := range f.Networks {
		if p.IsValid() && p != p.Masked() {
			d.fault(join(path+".networks", strconv.Itoa(j)), Fault{Message: "an address and not a range", Hint: "the range is " + p.Masked().String()})
		}
	}
	for key, names := range map[string][]string{"only": f.Only, "not": f.Not, "prefer": f.Prefer} {
		for j, name := range names {
			if _, ok := all.Regions[name]; !ok && !validName(name) {
				d.fault(join(path+"."+key, strconv.Itoa(j)), Fault{Message: "neither a region nor a node name", Allowed: nameForm})
			}
		}
	}
	switch {
	case len(f.Only)+len(f.Not)+len(f.Prefer) == 0 && d.has(path) && !d.has(path+".only") && !d.has(path+".not") && !d.has(path+".prefer"):
		d.fault(path, Fault{Message: "the override has no consequence", Allowed: "only, not, prefer"})
	case d.has(path+".prefer") != d.has(path+".by_ms"):
		d.fault(path, Fault{Message: "prefer and by_ms go together", Hint: "by_ms is what every other node counts more"})
	}
	d.within(path+".by_ms", f.ByMS, 1, 2000)
	return router.Override{Name: f.Name, Networks: f.Networks, Countries: flatten(f.Countries), Continents: continentsOf(f.Continents), Tenants: f.Tenants,
		Only: f.Only, Not: f.Not, Prefer: f.Prefer, By: router.Millis(f.ByMS)}
}

func continentsOf(list []continent) (out []router.Continent) {
	for _, c := range list {
		out = append(out, router.Continent(c))
	}
	return out
}

// Strangers lists the nodes that routing rules name and a register does not have:
// a pin on one of them would refuse everybody. Without a register nobody knows.
func Strangers(r *router.Rules, b *residency.Bundle) (names []string) {
	if r == nil || b == nil || len(b.Nodes) == 0 {
		return nil
	}
	note := func(name string) {
		known := slices.ContainsFunc(b.Nodes, func(n residency.Registered) bool { return string(n.Name) == name })
		if _, region := r.Regions[name]; !known && !region && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for name := range r.Capacity {
		note(string(name))
	}
	for _, region := range r.Regions {
		for _, n := range region.Nodes {
			note(string(n))
		}
	}
	for _, o := range r.Overrides {
		for _, name := range slices.Concat(o.Only, o.Not, o.Prefer) {
			note(name)
		}
	}
	slices.Sort(names)
	return names
}
