package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
	"github.com/domicile/domicile/router/plan"
)

// PolicyPlan is what a bundle would change, and what cannot be known of it.
type PolicyPlan struct {
	plan.Plan
	Live    bool                 `json:"live"`    // something stops that flows now
	Unasked []residency.NodeName `json:"unasked"` // origins that did not answer, or may not tell this node everything
	Text    string               `json:"text"`
}

// census is what an origin has of one policy: sids and numbers, no names.
type census struct {
	Rooms   []plan.Room   `json:"rooms,omitempty"`
	Objects []plan.Object `json:"objects,omitempty"`
}

// signedRequest is the body of the operator's requests about a bundle.
type signedRequest struct {
	Policy    []byte `json:"policy"`
	Signature []byte `json:"signature"`
}

func readSigned(r *http.Request) (bundles.Signed, error) {
	var q signedRequest
	// Base64 takes a third more.
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 2*bundles.MaxPolicy)).Decode(&q); err != nil {
		return bundles.Signed{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("read the bundle: %v", err)}
	}
	s := bundles.Signed{Policy: q.Policy, Signature: q.Signature}
	if err := s.Check(); err != nil {
		return s, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	return s, nil
}

// planPolicy says what a signed bundle would change.
func (n *Node) planPolicy(r *http.Request) (PolicyPlan, error) {
	s, err := readSigned(r)
	if err != nil {
		return PolicyPlan{}, err
	}
	if n.cfg.Policies.Open == nil {
		return PolicyPlan{}, &Refusal{Code: CodePrecondition, Message: errNoPolicies.Error()}
	}
	b, err := n.cfg.Policies.Open(s)
	if err != nil {
		return PolicyPlan{}, &Refusal{Code: CodeInvalid, Message: err.Error(), Hint: "sign the file again after every change: domicile policy sign"}
	}
	ref := bundles.Ref{Epoch: b.Epoch, Digest: s.Digest()}
	if err := ref.Follows(n.policies.has()); err != nil && !errors.Is(err, bundles.ErrKnown) {
		return PolicyPlan{}, &Refusal{Code: CodePrecondition, Message: err.Error(), Hint: "raise the epoch with every change"}
	}
	world, unasked := n.world(r.Context())
	p := plan.Of(n.gate().Bundle(), b, world)
	out := PolicyPlan{Plan: p, Live: p.Live(), Unasked: unasked, Text: p.String()}
	if len(unasked) > 0 {
		out.Text += fmt.Sprintf("Not asked, because they cannot be reached or may not tell this node: %v. What they have is missing here.\n", unasked)
	}
	return out, nil
}

// applyPolicy takes a signed bundle over and answers with what the mesh decides by.
func (n *Node) applyPolicy(r *http.Request) (PolicyState, error) {
	s, err := readSigned(r)
	if err != nil {
		return PolicyState{}, err
	}
	if err := n.applyBundle(s, n.self().Name); err != nil {
		return PolicyState{}, &Refusal{Code: CodePrecondition, Message: err.Error()}
	}
	return n.policyState(), nil
}

// world is what this node can find out of the mesh: its own rooms and files, and
// those of the origins that may tell it.
func (n *Node) world(ctx context.Context) (w plan.World, unasked []residency.NodeName) {
	w.Now = n.now()
	add := func(c census) {
		w.Rooms, w.Objects = append(w.Rooms, c.Rooms...), append(w.Objects, c.Objects...)
	}
	for _, policy := range n.gate().Bundle().Names() {
		add(n.census(ctx, policy, everyTenant))
	}
	for _, c := range n.candidates() {
		w.Nodes = append(w.Nodes, plan.Node{Node: c.Node, Contradiction: c.Contradiction})
		if c.Local || !c.Node.Has(residency.RoleOrigin) {
			continue
		}
		whole := true
		for _, policy := range n.gate().Bundle().Names() {
			got, ok := n.askCensus(ctx, c.Node.Name, policy)
			whole = whole && ok
			add(got)
		}
		if !whole {
			unasked = append(unasked, c.Node.Name)
		}
	}
	return w, unasked
}

// askCensus asks an origin what it has of a policy.
func (n *Node) askCensus(ctx context.Context, origin residency.NodeName, policy string) (census, bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	permit, v := n.permit(room.Record{Policy: policy}, residency.ClassSignalling, origin, false)
	if !v.Allow {
		// It may have nothing of this policy, then, or nothing that it could tell.
		return census{}, v.Rule == residency.RuleZone
	}
	var out reply
	if err := n.ask(ctx, permit, kindCommand, command{Op: opCensus, Policy: policy}, &out); err != nil || out.Census == nil {
		return census{}, false
	}
	return *out.Census, true
}

// doCensus answers another node that may know the rooms of a policy.
func (n *Node) doCensus(ctx context.Context, from residency.NodeName, policy string) (reply, residency.Permit, error) {
	permit, v := n.permit(room.Record{Policy: policy}, residency.ClassSignalling, from, false)
	if !v.Allow {
		return reply{}, permit, refused(v)
	}
	c := n.census(ctx, policy, func(tenant string) bool {
		_, v := n.permit(room.Record{Tenant: tenant, Policy: policy}, residency.ClassSignalling, from, false)
		return v.Allow
	})
	return reply{Census: &c}, permit, nil
}

func everyTenant(string) bool { return true }

// census counts what has its home here, and what is stored here, of one policy.
func (n *Node) census(ctx context.Context, policy string, mayTell func(tenant string) bool) (c census) {
	for _, r := range n.rooms.all() {
		snap := r.Snapshot()
		if snap.Record.Policy != policy || snap.Home != n.self().Name || !mayTell(snap.Record.Tenant) {
			continue
		}
		live := plan.Room{SID: snap.Record.SID, Tenant: snap.Record.Tenant, Policy: policy, Home: snap.Home}
		for _, p := range snap.Nodes {
			live.Nodes = append(live.Nodes, plan.Presence{Node: p.Node, Participants: p.Participants, Outside: p.Outside, Recorder: p.Recorder})
		}
		c.Rooms = append(c.Rooms, live)
	}
	if n.store != nil {
		stored, err := n.store.all(ctx)
		if err != nil {
			n.log.Error("counting the stored rooms", "error", err)
		}
		for _, rec := range stored {
			if rec.Policy == policy && mayTell(rec.Tenant) {
				c.Objects = append(c.Objects, plan.Object{ID: rec.SID, Class: residency.ClassMetadata, Tenant: rec.Tenant, Policy: policy, Node: n.self().Name})
			}
		}
	}
	for _, k := range n.vaults() {
		list, err := k.vault.List()
		if err != nil {
			n.log.Error("counting what is kept", "class", k.class, "error", err)
		}
		for _, info := range list {
			if info.Policy == policy && mayTell(info.Tenant) {
				c.Objects = append(c.Objects, plan.Object{ID: string(info.ID), Class: k.class, Tenant: info.Tenant, Policy: policy, Node: n.self().Name})
			}
		}
	}
	return c
}
