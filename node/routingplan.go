package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/replan"
)

// RoutingPlan is what a routing file would change for those in live rooms.
type RoutingPlan struct {
	replan.Tally
	Refused      int                  `json:"refused"`       // people whom nobody would serve
	NewCountries []residency.Country  `json:"new_countries"` // where a node would be opened for a room
	Strangers    []string             `json:"strangers"`     // names in the file that stand for nobody
	Unasked      []residency.NodeName `json:"unasked"`       // nodes that did not answer, or may not tell this one everything
	Text         string               `json:"text"`
}

// opRouting asks a node what routing rules would change for those whom it serves.
// It is a command about no room in particular: each policy's people are asked for,
// and told, by a permit of that policy.
const opRouting = "routing"

// maxRoutingFile bounds the rules that travel; in JSON they take a third more.
const maxRoutingFile = 256 << 10

// arrivals is what is known of the places of attendees who are connected here, as it
// was when they came. It is in memory while they are, and never told.
type arrivals struct {
	mu  sync.Mutex
	who map[string]router.Attendee // by the participant's sid
}

// came notes somebody until the returned function is called.
func (p *arrivals) came(sid string, a router.Attendee) (gone func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.who == nil {
		p.who = map[string]router.Attendee{}
	}
	p.who[sid] = a
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.who, sid)
	}
}

// of is what is known of somebody; of who is away for a moment, nothing.
func (p *arrivals) of(sid string) router.Attendee {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.who[sid]
	if !ok {
		a.Source = "not connected now"
	}
	return a
}

// planRouting answers `domicile routing plan`.
func (n *Node) planRouting(w http.ResponseWriter, r *http.Request) (RoutingPlan, error) {
	var q struct {
		Rules []byte `json:"rules"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*maxRoutingFile)).Decode(&q); err != nil || len(q.Rules) > maxRoutingFile {
		return RoutingPlan{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("read the rules: want at most %d bytes", maxRoutingFile)}
	}
	rules, err := n.parseRouting(q.Rules)
	if err != nil {
		return RoutingPlan{}, err
	}
	out := RoutingPlan{Unasked: []residency.NodeName{}, Strangers: []string{}, NewCountries: []residency.Country{}}
	var parts []replan.Tally
	for _, policy := range n.gate().Bundle().Names() {
		parts = append(parts, replan.Of(n.gate(), n.people(policy, everyTenant), n.routing.rules.Load(), rules))
	}
	for _, c := range n.candidates() {
		if c.Local {
			continue
		}
		got, whole := n.askRouting(r.Context(), c.Node.Name, q.Rules)
		parts = append(parts, got)
		if !whole {
			out.Unasked = append(out.Unasked, c.Node.Name)
		}
	}
	out.Tally = replan.Join(parts...)
	out.Refused, out.Text = out.Tally.Refused(), out.Tally.String()
	out.NewCountries = append(out.NewCountries, out.Tally.NewCountries()...)
	if n.cfg.Routing.Strangers != nil {
		out.Strangers = append(out.Strangers, n.cfg.Routing.Strangers(rules)...)
	}
	if len(out.Strangers) > 0 {
		out.Text += fmt.Sprintf("No node of the register is called %v: what names one is for nobody.\n", out.Strangers)
	}
	if len(out.Unasked) > 0 {
		out.Text += fmt.Sprintf("Not asked, because they cannot be reached or may not tell this node: %v. Those whom they serve are missing here.\n", out.Unasked)
	}
	return out, nil
}

func (n *Node) parseRouting(text []byte) (*router.Rules, error) {
	if n.cfg.Routing.Parse == nil {
		return nil, &Refusal{Code: CodePrecondition, Message: "this node reads no routing rules"}
	}
	rules, err := n.cfg.Routing.Parse("routing", text)
	if err != nil {
		return nil, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	return rules, nil
}

// people are those of a policy's rooms whom this node serves, as placement would be
// asked about them now.
func (n *Node) people(policy string, mayTell func(tenant string) bool) (list []replan.Person) {
	for _, r := range n.rooms.all() {
		snap := r.Snapshot()
		if snap.Record.Policy != policy || !mayTell(snap.Record.Tenant) {
			continue
		}
		s := seat{carriers: carriers(snap.Nodes)}
		for _, p := range snap.Participants {
			if residency.NodeName(p.Region) == n.self().Name {
				list = append(list, replan.Person{SID: snap.Record.SID, At: n.self().Name, Ask: n.question(snap.Record, n.arrivals.of(p.Sid), s)})
			}
		}
	}
	return list
}

// askRouting asks a node about each policy whose signalling it and this one may share.
func (n *Node) askRouting(ctx context.Context, to residency.NodeName, rules []byte) (t replan.Tally, whole bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	whole = true
	for _, policy := range n.gate().Bundle().Names() {
		permit, v := n.permit(room.Record{Policy: policy}, residency.ClassSignalling, to, false)
		if !v.Allow {
			whole = whole && v.Rule == residency.RuleZone // it serves at most its own there
			continue
		}
		var out reply
		if err := n.ask(ctx, permit, kindCommand, command{Op: opRouting, Policy: policy, Request: rules}, &out); err != nil || out.Routing == nil {
			whole = false
			continue
		}
		t = replan.Join(t, *out.Routing)
	}
	return t, whole
}

// doRouting answers another node that may know of the rooms of a policy.
func (n *Node) doRouting(from residency.NodeName, c command) (reply, residency.Permit, error) {
	permit, v := n.permit(room.Record{Policy: c.Policy}, residency.ClassSignalling, from, false)
	if !v.Allow {
		return reply{}, permit, refused(v)
	}
	if len(c.Request) > maxRoutingFile {
		return reply{}, permit, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("rules of %d bytes, at most %d", len(c.Request), maxRoutingFile)}
	}
	rules, err := n.parseRouting(c.Request)
	if err != nil {
		return reply{}, permit, err
	}
	people := n.people(c.Policy, func(tenant string) bool {
		_, v := n.permit(room.Record{Tenant: tenant, Policy: c.Policy}, residency.ClassSignalling, from, false)
		return v.Allow
	})
	t := replan.Of(n.gate(), people, n.routing.rules.Load(), rules)
	return reply{Routing: &t}, permit, nil
}
