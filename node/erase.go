package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
)

// An admin gives an order on any origin. It is on that origin's disk before it counts,
// and goes to each origin that may keep anything that it could be about: now, or when
// the origin is back.

// maxTold bounds the orders in one message: 350 bytes each.
const maxTold = 200

// told is how much of the book an origin was shown on a link.
type told struct {
	link    *relay.Link
	next    int
	refused map[string]bool // tenants whose orders it could not be shown: from the beginning, once it can
}

// ordersMessage is what one origin tells another, and its answer.
type ordersMessage struct {
	Orders []retention.Order     `json:"orders,omitempty"`
	States map[string]OrderState `json:"states,omitempty"` // in an answer
}

// orderClasses are the classes as which an order may go to an origin: one that may keep
// any of them may have something that has to go.
var orderClasses = []residency.Class{residency.ClassMetadata, residency.ClassRecording, residency.ClassChat, residency.ClassExport}

// orderPermit lets an origin know of an order: it may keep something of the tenant's
// rooms, or of some room if the order does not say whose. No room is named.
func (n *Node) orderPermit(tenant string, at residency.NodeName) (residency.Permit, bool) {
	gate := n.gate()
	peer, epoch, ok := n.peerBy(gate, at)
	if !ok || !peer.Has(residency.RoleOrigin) {
		return residency.Permit{}, false
	}
	b := gate.Bundle()
	if b == nil {
		return residency.Permit{}, false
	}
	tenants := []string{tenant}
	if tenant == "" {
		for _, t := range b.Tenants {
			tenants = append(tenants, t.Name)
		}
	}
	for _, tenant := range tenants {
		for _, policy := range b.Names() {
			for _, class := range orderClasses {
				permit, v := gate.Permit(residency.Request{Tenant: tenant, Policy: policy, Class: class, Store: true,
					Peer: peer, PeerEpoch: epoch, Contradiction: n.contradiction(at), Now: n.now()})
				if v.Allow {
					return permit, true
				}
			}
		}
	}
	return residency.Permit{}, false
}

// runOrders tells the other origins of every order until ctx ends.
func (n *Node) runOrders(ctx context.Context) error {
	if n.retaining.book == nil {
		return nil
	}
	tick := time.NewTicker(replicaRetry)
	defer tick.Stop()
	for {
		for _, l := range n.fabric.Links() {
			if peer := l.Peer(); peer.Has(residency.RoleOrigin) {
				n.tellOrders(ctx, peer.Name, l)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// tellOrders shows an origin what it has not been shown on this link.
func (n *Node) tellOrders(ctx context.Context, to residency.NodeName, l *relay.Link) {
	k := &n.retaining
	k.mu.Lock()
	have := k.told[to]
	k.mu.Unlock()
	if have.link != l {
		have = told{link: l}
	}
	for tenant := range have.refused {
		if _, ok := n.orderPermit(tenant, to); ok {
			have = told{link: l}
			break
		}
	}
	for {
		list, next := k.book.Since(have.next, maxTold)
		if len(list) == 0 {
			break
		}
		_, refused, err := n.tellOrder(ctx, to, list)
		if err != nil {
			n.log.Debug("orders are not told", "peer", to, "error", err)
			break
		}
		have.next = next
		for _, tenant := range refused {
			if have.refused == nil {
				have.refused = map[string]bool{}
			}
			have.refused[tenant] = true
		}
	}
	k.mu.Lock()
	k.told[to] = have
	k.mu.Unlock()
}

// tellOrder shows an origin those orders of a list that it may know, and returns how
// far it is with them, and of which tenants it may know none now.
func (n *Node) tellOrder(ctx context.Context, to residency.NodeName, list []retention.Order) (states map[string]OrderState, refused []string, _ error) {
	states = map[string]OrderState{}
	byTenant := map[string][]retention.Order{}
	for _, o := range list {
		byTenant[o.Tenant] = append(byTenant[o.Tenant], o)
	}
	for tenant, part := range byTenant {
		permit, ok := n.orderPermit(tenant, to)
		if !ok {
			refused = append(refused, tenant) // nothing that it may keep could be meant
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		var answer ordersMessage
		err := n.ask(ctx, permit, kindOrders, ordersMessage{Orders: part}, &answer)
		cancel()
		if err != nil {
			return states, refused, err
		}
		for id, s := range answer.States {
			states[id] = s
		}
	}
	return states, refused, nil
}

// doOrders takes orders of another origin.
func (n *Node) doOrders(_ context.Context, q question) ([]byte, residency.Permit, error) {
	var m ordersMessage
	if q.room != "" || !slices.Contains(orderClasses, q.class) {
		return nil, residency.Permit{}, q.about("", residency.ClassMetadata)
	}
	if err := json.Unmarshal(q.body, &m); err != nil || len(m.Orders) == 0 || len(m.Orders) > maxTold {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: "orders: malformed"}
	}
	if n.retaining.book == nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeRefused, Rule: residency.RuleStoreRole, Message: errNoBook.Error()}
	}
	// Both ask: who gives orders is an origin that may keep such things itself, of the
	// tenant of each.
	var permit residency.Permit
	asked := map[string]bool{}
	for _, o := range m.Orders {
		if asked[o.Tenant] {
			continue
		}
		asked[o.Tenant] = true
		var ok bool
		if permit, ok = n.orderPermit(o.Tenant, q.from); !ok {
			return nil, residency.Permit{}, &Refusal{Code: CodeRefused, Rule: residency.RuleZone, Message: fmt.Sprintf("node %s may keep nothing that could be held or erased", q.from)}
		}
	}
	answer := ordersMessage{States: map[string]OrderState{}}
	for _, o := range m.Orders {
		if err := n.takeOrder(o.Sent()); err != nil {
			return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: err.Error()}
		}
		answer.States[o.ID] = n.retaining.state(o.ID)
	}
	b, err := json.Marshal(answer)
	return b, permit, err
}

// takeOrder keeps an order and has it carried out.
func (n *Node) takeOrder(o retention.Order) error {
	news, err := n.retaining.book.Add(o, n.now())
	if err == nil && news {
		n.retaining.nudge()
		n.retaining.erasing.Lock()   // what was being erased when it came is: nothing else is by older orders
		n.retaining.erasing.Unlock() //nolint:staticcheck // nothing is done here, but waited
	}
	return err
}

// OrderRequest is what an admin asks for.
type OrderRequest struct {
	Tenant      string `json:"tenant,omitempty"`
	Room        string `json:"room,omitempty"`
	Participant string `json:"participant,omitempty"`
	Recording   string `json:"recording,omitempty"`
	Reason      string `json:"reason,omitempty"`

	noTenant bool // an empty Tenant is none, not all; the operator's is all
}

func (q OrderRequest) subject() retention.Subject {
	return retention.Subject{Tenant: q.Tenant, Room: q.Room, Participant: q.Participant, Recording: q.Recording, NoTenant: q.noTenant && q.Tenant == ""}
}

// OrderReport is how far an order is in the mesh.
type OrderReport struct {
	ID     string         `json:"id"`
	Kind   retention.Kind `json:"kind"`
	About  string         `json:"about"` // room, participant, tenant
	Reason string         `json:"reason,omitempty"`
	Set    time.Time      `json:"set"`
	Lifted *time.Time     `json:"lifted,omitempty"`
	Nodes  []OrderAt      `json:"nodes,omitempty"`
}

// OrderAt is how far it is on one origin.
type OrderAt struct {
	Node residency.NodeName `json:"node"`
	// State is "done", "pending", "held" (something stays because of a hold), "away"
	// (it hears of it when it is back) or "not-told" (it may keep nothing of the kind).
	State string `json:"state"`
	OrderState
}

// The states of orders.
const (
	OrderDone    = "done"
	OrderPending = "pending"
	OrderHeld    = "held"
	OrderAway    = "away"
	OrderNotTold = "not-told"
)

// setOrder gives an order: POST /holds and POST /erase.
func (n *Node) setOrder(w http.ResponseWriter, r *http.Request, kind retention.Kind) (OrderReport, error) {
	var q OrderRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&q); err != nil {
		return OrderReport{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("order: %v", err)}
	}
	if q.Recording != "" {
		if err := n.ofRecording(&q, kind); err != nil {
			return OrderReport{}, err
		}
	}
	return n.giveOrder(r.Context(), q, kind)
}

// giveOrder gives an order of somebody who may.
func (n *Node) giveOrder(ctx context.Context, q OrderRequest, kind retention.Kind) (OrderReport, error) {
	if err := n.mayOrder(q); err != nil {
		return OrderReport{}, err
	}
	if holds := n.held(q.subject()); kind == retention.Erasure && len(holds) > 0 {
		return OrderReport{}, &Refusal{Code: CodePrecondition, Rule: ruleHold, Message: "nothing is erased: it is under legal hold " + strings.Join(holds, ", "),
			Hint: "domicile hold list says why; lift the hold first if it has ended"}
	}
	o := newOrder(kind, q.subject(), n.now())
	o.Reason = q.Reason
	if err := n.takeOrder(o); err != nil {
		return OrderReport{}, fmt.Errorf("give order: %w", err)
	}
	n.log.Info("an order was given", "object", o.ID, "kind", string(o.Kind))
	return n.orderReport(ctx, o), nil
}

// ruleHold refuses to erase what is under legal hold.
const ruleHold = "hold"

// mayOrder checks what an admin asks for.
func (n *Node) mayOrder(q OrderRequest) error {
	if n.retaining.book == nil {
		return &Refusal{Code: CodeRefused, Rule: residency.RuleStoreRole, Message: errNoBook.Error()}
	}
	if q.subject() == (retention.Subject{}) {
		return &Refusal{Code: CodeInvalid, Message: "name a room, a participant or a tenant"}
	}
	if q.Room != "" {
		if err := control.ValidRoomName(q.Room); err != nil {
			return &Refusal{Code: CodeInvalid, Message: err.Error()}
		}
	}
	if err := retention.ValidReason(q.Reason); err != nil {
		return &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	b := n.gate().Bundle()
	if _, ok := b.Tenant(q.Tenant); q.Tenant != "" && !ok {
		return &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("tenant %q is not in the policies", q.Tenant)}
	}
	if q.Participant != "" && q.Room == "" && q.Tenant == "" && b != nil && len(b.Tenants) > 0 {
		return &Refusal{Code: CodeInvalid, Message: "an identity means somebody else with each tenant", Hint: "say which with --tenant, or name a --room"}
	}
	return nil
}

// liftHold lifts a hold: DELETE /holds?id=HO_….
func (n *Node) liftHold(r *http.Request) (OrderReport, error) {
	if n.retaining.book == nil {
		return OrderReport{}, &Refusal{Code: CodeRefused, Rule: residency.RuleStoreRole, Message: errNoBook.Error()}
	}
	o, ok := n.retaining.book.Get(r.FormValue("id"))
	if !ok || o.Kind != retention.Hold {
		return OrderReport{}, &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("hold %q does not exist", r.FormValue("id"))}
	}
	if o.InForce() {
		o.LiftedMS = n.now().UnixMilli()
		if err := n.takeOrder(o); err != nil {
			return OrderReport{}, fmt.Errorf("lift hold: %w", err)
		}
		n.log.Info("a hold was lifted", "object", o.ID)
	}
	return n.orderReport(r.Context(), o), nil
}

// listOrders lists what this origin knows: GET /holds, GET /erase?id=.
func (n *Node) listOrders(r *http.Request, kind retention.Kind) ([]OrderReport, error) {
	if n.retaining.book == nil {
		return nil, &Refusal{Code: CodeRefused, Rule: residency.RuleStoreRole, Message: errNoBook.Error()}
	}
	if id := r.FormValue("id"); id != "" {
		o, ok := n.retaining.book.Get(id)
		if !ok || o.Kind != kind {
			return nil, &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("order %q does not exist", id)}
		}
		return []OrderReport{n.orderReport(r.Context(), o)}, nil
	}
	list := []OrderReport{}
	of := OrderRequest{Tenant: r.FormValue("tenant"), Room: r.FormValue("room"), Participant: r.FormValue("participant")}.subject()
	for _, o := range n.retaining.book.All() {
		if o.Kind == kind && (of == (retention.Subject{}) || o.Covers(of)) {
			list = append(list, reportOf(o))
		}
	}
	return list, nil
}

func reportOf(o retention.Order) OrderReport {
	r := OrderReport{ID: o.ID, Kind: o.Kind, Reason: o.Reason, Set: time.UnixMilli(o.AtMS).UTC()}
	var parts []string
	if o.Participant != "" {
		parts = append(parts, "participant")
	}
	if o.Room != "" {
		parts = append(parts, "room")
	}
	if o.Recording != "" {
		parts = append(parts, "recording "+o.Recording)
	}
	if o.Tenant != "" {
		parts = append(parts, "tenant "+o.Tenant)
	}
	r.About = strings.Join(parts, ", ")
	if !o.InForce() {
		at := time.UnixMilli(o.LiftedMS).UTC()
		r.Lifted = &at
	}
	return r
}

// orderReport asks every origin how far it is.
func (n *Node) orderReport(ctx context.Context, o retention.Order) OrderReport {
	r := reportOf(o)
	for _, name := range n.allOrigins() {
		at := OrderAt{Node: name, State: OrderAway}
		if name == n.self().Name {
			at.OrderState = n.retaining.state(o.ID)
			at.State = stateText(o, at.OrderState)
		} else if n.link(name) != nil {
			states, _, err := n.tellOrder(ctx, name, []retention.Order{o.Sent()})
			s, answered := states[o.ID]
			switch {
			case err != nil:
				at.Why = err.Error()
			case !answered:
				at.State = OrderNotTold
			default:
				at.OrderState, at.State = s, stateText(o, s)
			}
		}
		r.Nodes = append(r.Nodes, at)
	}
	return r
}

func stateText(o retention.Order, s OrderState) string {
	switch {
	case o.Kind == retention.Hold:
		return OrderDone // it is known there
	case !s.Swept || s.Left > 0:
		return OrderPending
	case s.Kept > 0:
		return OrderHeld
	}
	return OrderDone
}

// allOrigins are those of the mesh, those that were in it since this node started, and
// those of the register.
func (n *Node) allOrigins() (names []residency.NodeName) {
	add := func(name residency.NodeName) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add(n.self().Name)
	for _, c := range n.candidates() {
		if c.Node.Has(residency.RoleOrigin) {
			add(c.Node.Name)
		}
	}
	n.origins.mu.Lock()
	for name := range n.origins.nodes {
		add(name)
	}
	n.origins.mu.Unlock()
	if b := n.gate().Bundle(); b != nil {
		for _, r := range b.Nodes {
			if slices.Contains(r.Roles, residency.RoleOrigin) {
				add(r.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// serveOrders are the operator's ways to hold and to erase.
func (n *Node) serveOrders(mux *http.ServeMux) {
	for path, kind := range map[string]retention.Kind{"/holds": retention.Hold, "/erase": retention.Erasure} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			o, err := n.setOrder(w, r, kind)
			answer(w, o, err)
		})
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			list, err := n.listOrders(r, kind)
			answer(w, list, err)
		})
	}
	mux.HandleFunc("DELETE /holds", func(w http.ResponseWriter, r *http.Request) {
		o, err := n.liftHold(r)
		answer(w, o, err)
	})
}
