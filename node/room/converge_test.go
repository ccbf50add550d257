package room

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// TestTornMeshConverges plays meetings of nodes whose clocks are up to ten minutes
// apart while links flap, gossip loses nodes, one of the two without the other, and
// sides are cut off; people join twice, on nodes that do not hear of each other, and
// metadata is written on all sides. When the mesh is whole again, within ten seconds
// every node has the same home, record and people; nobody is there twice, and of two
// connections of somebody the newer one has stayed.
func TestTornMeshConverges(t *testing.T) {
	seen := residencytest.Tally{}
	residencytest.Run(t, 40, func(seed uint64) []string {
		c := newCounty(seed)
		for range 40 {
			c.happens()
			for range 1 + c.IntN(4) {
				c.passes()
			}
		}
		c.heals()
		c.agree()
		seen.Add(c.seen)
		return c.wrong
	})
	seen.Want(t, "joined twice", "on two sides", "written", "homes", "sides cut off", "numbered anew")
}

// county is a town whose nodes may all have everything, and whose mesh is worse.
type county struct {
	*town
	arrived map[string]arrival // by identity: the last
}

// arrival is a connection of somebody.
type arrival struct {
	sid    string
	at     time.Time
	close  bool // another came so soon before that it may as well stay
	before string
}

func newCounty(seed uint64) *county {
	r := residencytest.NewRand(seed, 6)
	w := &town{Rand: r, seed: seed, now: residencytest.Noon, seen: map[string]int{}}
	w.wall.Store(w.now.UnixNano())
	zones := map[residency.Class]residency.Zone{}
	for _, class := range residency.Classes() {
		zones[class] = residency.Zone{Name: "DE", Countries: []residency.Country{"DE"}}
	}
	bundle := &residency.Bundle{Epoch: 1, Default: "p", Policies: map[string]*residency.Policy{"p": {Name: "p", Zones: zones}}}
	for i := range 3 + r.IntN(3) {
		roles := []residency.Role{residency.RoleEdge}
		if i < 3 {
			roles = append(roles, residency.RoleOrigin)
		}
		w.stations = append(w.stations, &station{w: w, bundle: bundle, gate: residency.NewGate(bundle), skew: r.Between(-10*time.Minute, 10*time.Minute),
			self: residency.Node{Name: residency.NodeName("node" + string(rune('a'+i))), Country: "DE", Operator: "o", OperatorCountry: "DE", Parent: "o", ParentCountry: "DE",
				Roles: roles, NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(24 * time.Hour), Serial: fmt.Sprintf("c%d", i)},
			view: map[residency.NodeName]member{}, pipes: map[residency.NodeName]*pipe{}, linked: map[residency.NodeName]time.Time{},
			forgot: map[residency.NodeName]bool{}, idle: w.now, flowed: map[residency.NodeName]time.Time{},
			outside: outside{Rand: residencytest.NewRand(seed, uint64(1000+i))}})
	}
	c := &county{town: w, arrived: map[string]arrival{}}
	w.record = Record{Name: "town", SID: "RM_town", Policy: "p", EmptyTimeout: 3600, DepartureTimeout: 3600}
	c.whole()
	return c
}

// whole links all nodes and lets each know the others.
func (c *county) whole() {
	for i, s := range c.stations {
		for _, o := range c.stations[:i] {
			c.meet(s, o)
		}
	}
}

func (c *county) meet(s, o *station) {
	for _, e := range [][2]*station{{s, o}, {o, s}} {
		if _, ok := e[0].view[e[1].self.Name]; !ok {
			e[0].learns(member{node: e[1].self, epoch: 1, at: c.now})
		}
	}
	if s.pipes[o.self.Name] == nil {
		c.connect(s, o)
		s.linkUp(o)
		o.linkUp(s)
		c.replicate(s, o)
		c.replicate(o, s)
	}
}

// replicate shows an origin what another has kept, as nodes do when they meet.
func (c *county) replicate(from, to *station) {
	if from.kept.SID == "" || !to.self.Has(residency.RoleOrigin) {
		return
	}
	if to.kept.SID == "" {
		to.kept = from.kept
	}
	to.kept = to.kept.Merge(from.kept)
	if to.room != nil {
		to.room.doLearn(from.self.Name, to.kept)
		to.posted()
	}
}

func (c *county) part(s, o *station) {
	if ab, ba := s.pipes[o.self.Name], o.pipes[s.self.Name]; ab != nil && ba != nil {
		ab.broken, ba.broken = true, true
		delete(s.pipes, o.self.Name)
		delete(o.pipes, s.self.Name)
		s.linkDown(o)
		o.linkDown(s)
	}
}

func (c *county) happens() {
	s, o := residencytest.Pick(c.Rand, c.stations...), residencytest.Pick(c.Rand, c.stations...)
	switch c.IntN(10) {
	case 0, 1, 2, 3:
		c.joins(s, residencytest.Pick(c.Rand, "anna", "bob", "carl", "dora"))
	case 4:
		c.leaves(s)
	case 5:
		if r := s.room; r != nil && r.home.name == s.self.Name {
			c.serial++
			c.seen["written"]++
			r.setRecord(func(rec *Record) { rec.Metadata = fmt.Sprint(c.serial) })
			s.posted()
		}
	case 6: // a link, for a while; gossip goes round
		if s != o {
			c.part(s, o)
			c.sends(c.Between(0, 6*time.Second), func() { c.meet(s, o) })
		}
	case 7: // gossip of one about another, in one direction
		if s != o {
			delete(s.view, o.self.Name)
			s.changed()
			c.sends(c.Between(0, 4*time.Second), func() { s.learns(member{node: o.self, epoch: 1, at: c.now}) })
		}
	case 8: // a side
		c.seen["sides cut off"]++
		side := map[*station]bool{}
		for _, x := range c.stations {
			side[x] = c.In(2)
		}
		for _, x := range c.stations {
			for _, y := range c.stations {
				if side[x] && !side[y] {
					c.part(x, y)
					delete(x.view, y.self.Name)
					delete(y.view, x.self.Name)
				}
			}
		}
		for _, x := range c.stations {
			x.changed()
		}
		c.sends(c.Between(time.Second, 20*time.Second), c.whole)
	default:
		for range c.IntN(30) {
			c.passes()
		}
	}
	c.looks()
}

func (c *county) joins(s *station, identity string) {
	if s.room == nil {
		rec := c.record
		if s.kept.SID != "" {
			rec = s.kept
		}
		s.opens(rec)
	}
	old, known := c.arrived[identity]
	if known {
		c.seen["joined twice"]++
		if s.room.byIdentity(identity) == nil && len(s.room.namesakes(identity)) == 0 {
			c.seen["on two sides"]++
		}
	}
	a := arrival{sid: s.admitsAs(identity, "DE"), at: c.now, before: old.sid}
	// What is stated of an age is older by as long as it takes to be told.
	a.close = known && (old.close || a.at.Sub(old.at) < 2*time.Second)
	c.arrived[identity] = a
}

// namesakes are the connections of an identity on other nodes, as they are known here.
func (r *Room) namesakes(identity string) (sids []string) {
	for _, m := range r.remotes {
		for sid, p := range m.participants {
			if p.info.Identity == identity {
				sids = append(sids, sid)
			}
		}
	}
	return sids
}

func (c *county) leaves(s *station) {
	if len(s.people) == 0 {
		return
	}
	v := s.people[0]
	if c.arrived[v.identity].sid != v.sid {
		return // it is about to be sent away
	}
	delete(c.arrived, v.identity)
	s.people = s.people[1:]
	s.room.removeLocal(v.Participant, 1)
	s.ends()
}

// looks lets go of people who were sent away, and counts.
func (c *county) looks() {
	for _, s := range c.stations {
		if s.room == nil {
			continue
		}
		s.people = slices.DeleteFunc(s.people, func(v *visitor) bool { return s.room.locals[v.identity] != v.Participant })
		c.seen["homes"] = max(c.seen["homes"], int(s.room.record.Term)-1)
		if s.room.numbers > uint64(c.serial) {
			c.wrong = append(c.wrong, "more numbers than connections could take")
		}
		for _, p := range s.room.locals {
			if p.version > 1 && len(p.info.Tracks) == 0 {
				c.seen["numbered anew"]++
			}
		}
	}
}

// heals makes the mesh whole and gives it ten seconds.
func (c *county) heals() {
	for c.now.Before(residencytest.Noon.Add(24*time.Hour)) && len(c.flights) > 0 {
		c.passes()
		c.looks()
		if c.now.Sub(residencytest.Noon) > 10*time.Minute {
			break
		}
		if !slices.ContainsFunc(c.flights, func(f flight) bool { return f.due.Sub(c.now) > time.Second }) {
			break // nothing but messages is under way
		}
	}
	c.whole()
	for range 100 {
		c.passes()
		c.looks()
	}
}

// agree compares what all nodes have.
func (c *county) agree() {
	var first *station
	here := map[string]string{} // sid → node that serves it
	twice := map[string][]string{}
	for _, s := range c.stations {
		if s.room == nil {
			continue
		}
		for _, p := range s.room.locals {
			here[p.sid] = string(s.self.Name)
			twice[p.identity] = append(twice[p.identity], p.sid)
		}
	}
	for identity, sids := range twice {
		a, still := c.arrived[identity] // else they came and left on one side, and an older connection is on the other
		if len(sids) != 1 || still && a.sid != sids[0] && !a.close {
			c.wrong = append(c.wrong, fmt.Sprintf("%s is there as %v, and came last as %s", identity, sids, a.sid))
		}
	}
	for identity, a := range c.arrived {
		if len(twice[identity]) == 0 {
			c.wrong = append(c.wrong, fmt.Sprintf("%s, who came as %s, is nowhere", identity, a.sid))
		}
	}
	for _, s := range c.stations {
		if s.room == nil || len(s.people) == 0 && s.room.home.name != s.self.Name { // it is about to leave
			continue
		}
		if first == nil {
			first = s
		}
		r := s.room
		if r.home.name != first.room.home.name || r.record.Metadata != first.room.record.Metadata || r.record.Term != first.room.record.Term {
			c.wrong = append(c.wrong, fmt.Sprintf("%s: home %s, %q in term %d; %s: home %s, %q in term %d", s.self.Name, r.home.name, r.record.Metadata, r.record.Term,
				first.self.Name, first.room.home.name, first.room.record.Metadata, first.room.record.Term))
		}
		people := map[string]string{}
		for _, p := range r.participants() {
			people[p.Sid] = p.Region
		}
		if !maps.Equal(people, here) {
			c.wrong = append(c.wrong, fmt.Sprintf("%s knows %v, there are %v", s.self.Name, people, here))
		}
	}
}
