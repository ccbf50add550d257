package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
)

// Tenant is what changes for a customer, over all policies that its rooms may have.
type Tenant struct {
	Name string   `json:"name"`
	From string   `json:"from,omitempty"` // the policy of its rooms that name none; empty: there is no such tenant
	To   string   `json:"to,omitempty"`
	May  []string `json:"may,omitempty"`   // policies that its rooms may ask for and might not before
	Not  []string `json:"not,omitempty"`   // policies that its rooms may no longer have
	Area []Reach  `json:"reach,omitempty"` // where a class of its rooms may go and might not, or no longer

	Rooms        []string `json:"rooms,omitempty"`   // live, in which something stops: sids
	Participants int      `json:"participants"`      // on the nodes concerned
	Objects      []string `json:"objects,omitempty"` // stored, that would lie where they may not
}

// changes reports whether there is anything to say.
func (t Tenant) changes() bool {
	return t.From != t.To || len(t.May)+len(t.Not)+len(t.Area)+len(t.Rooms)+len(t.Objects) > 0
}

// tenants says for whom the bundle changes what.
func (d *diff) tenants(before, after *residency.Bundle) {
	all := map[string]bool{}
	for _, t := range slices.Concat(before.Tenants, after.Tenants) {
		all[t.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		was, existed := before.Tenant(name)
		is, exists := after.Tenant(name)
		t := Tenant{Name: name, From: was.Policy, To: is.Policy}
		if existed && exists {
			t.May, t.Not = without(policiesOf(is), policiesOf(was)), without(policiesOf(was), policiesOf(is))
			t.Area = d.area(before, after, was, is)
		}
		d.affected(&t)
		if t.changes() {
			d.plan.Tenants = append(d.plan.Tenants, t)
		}
	}
}

// policiesOf are all that a tenant's rooms may have.
func policiesOf(t residency.Tenant) []string {
	list := append([]string{t.Policy}, t.Policies...)
	slices.Sort(list)
	return slices.Compact(list)
}

// area compares where the classes of a tenant's rooms may go at all.
func (d *diff) area(before, after *residency.Bundle, was, is residency.Tenant) (list []Reach) {
	for _, c := range residency.Classes() {
		old, oldEdge := d.union(before, was, c)
		now, nowEdge := d.union(after, is, c)
		if r := (Reach{Class: c, New: without(now, old), Lost: without(old, now)}); len(r.New)+len(r.Lost) > 0 {
			list = append(list, r)
		}
		// What is at the edge now and was inside is lost above, and not new here.
		r := Reach{Class: c, Edge: true, New: without(nowEdge, slices.Concat(old, oldEdge)), Lost: without(oldEdge, slices.Concat(now, nowEdge))}
		if len(r.New)+len(r.Lost) > 0 {
			list = append(list, r)
		}
	}
	return list
}

// union is where a class may go under any policy of the tenant's.
func (d *diff) union(b *residency.Bundle, t residency.Tenant, c residency.Class) (within, edge []residency.Country) {
	for _, policy := range policiesOf(t) {
		w, e := d.reachable(b, policy, c)
		within, edge = append(within, w...), append(edge, e...)
	}
	slices.Sort(within)
	slices.Sort(edge)
	within = slices.Compact(within)
	return within, without(slices.Compact(edge), within)
}

// affected adds the tenant's rooms and objects of which the plan says something.
func (d *diff) affected(t *Tenant) {
	people := map[string]int{}
	for _, e := range d.plan.Rooms {
		if e.Tenant == t.Name && !e.Allowed {
			t.Rooms = append(t.Rooms, e.Room)
			people[e.Room+" "+string(e.Node)] = e.Participants
		}
	}
	t.Rooms = slices.Compact(t.Rooms) // they are sorted
	for _, n := range people {
		t.Participants += n
	}
	for _, o := range d.plan.Objects {
		if o.Tenant == t.Name {
			t.Objects = append(t.Objects, o.ID)
		}
	}
}

// textTenants says so for people; classes with the same change share a line.
func (p Plan) textTenants(b *strings.Builder) {
	title := "\nTenants:\n"
	for _, t := range p.Tenants {
		fmt.Fprintf(b, "%s  %s: %s\n", title, t.Name, t.policies())
		title = ""
		areas(b, "may newly go to", t.Area, func(r Reach) []residency.Country { return r.New })
		areas(b, "may no longer go to", t.Area, func(r Reach) []residency.Country { return r.Lost })
		if len(t.Rooms)+len(t.Objects) > 0 {
			fmt.Fprintf(b, "    %s and %s affected now%s; %s would lie where they may not\n", plural(len(t.Rooms), "live room", "live rooms"),
				plural(t.Participants, "participant", "participants"), among(t.Rooms), plural(len(t.Objects), "stored object", "stored objects"))
		}
	}
}

// policies says what the tenant's rooms are under.
func (t Tenant) policies() string {
	text := "policy " + t.To
	switch {
	case t.From == "":
		return "is new, with policy " + t.To
	case t.To == "":
		return "is no tenant any more; nothing of its rooms goes anywhere"
	case t.From != t.To:
		text = fmt.Sprintf("policy %s now, %s planned", t.From, t.To)
	}
	if len(t.May) > 0 {
		text += "; may newly have " + strings.Join(t.May, ", ")
	}
	if len(t.Not) > 0 {
		text += "; may no longer have " + strings.Join(t.Not, ", ")
	}
	return text
}

// maxAmong bounds how many rooms a line names; JSON has them all.
const maxAmong = 3

func among(rooms []string) string {
	switch {
	case len(rooms) == 0:
		return ""
	case len(rooms) <= maxAmong:
		return ": " + strings.Join(rooms, ", ")
	}
	return fmt.Sprintf(": %s and %d more", strings.Join(rooms[:maxAmong], ", "), len(rooms)-maxAmong)
}

// areas lists countries, classes with the same ones in one line.
func areas(b *strings.Builder, what string, list []Reach, of func(Reach) []residency.Country) {
	var order []string
	classes := map[string][]string{}
	for _, r := range list {
		if c := of(r); len(c) > 0 {
			key := where(r.Edge) + countries(c)
			if classes[key] == nil {
				order = append(order, key)
			}
			classes[key] = append(classes[key], string(r.Class))
		}
	}
	for _, key := range order {
		fmt.Fprintf(b, "    %s %s: %s\n", strings.Join(classes[key], ", "), what, key)
	}
}
