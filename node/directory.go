package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Requests between nodes, beside the messages of package room.
const (
	kindResolve  relay.Kind = 1 + iota // an origin: what is this room's record?
	kindCommand                        // a node of the room: do this
	kindReceipts                       // the room's home: put these receipts into the log
	kindHead                           // any node: this is what the log here is now
	kindRoomKey                        // an origin that may become the home: the key of a room's pseudonym
	kindRecord                         // an origin that may become the home: the room's record
	kindCopy                           // an origin that may keep recordings: hold a copy of this one
	kindOrders                         // an origin that may keep something: what is held and what has to go
)

// askTimeout bounds a question to another node: attendees wait for it.
const askTimeout = 4 * time.Second

// resolveRequest asks an origin for a room's record.
type resolveRequest struct {
	Spec   room.Record `json:"spec"` // Name, and what a new room would be like
	Create bool        `json:"create,omitempty"`
	// Country is where the attendee is who asks, as far as the asking node
	// knows: an edge outside the zone may have the room only for outsiders (R3).
	Country residency.Country `json:"country,omitempty"`
	// Identity is who wants to come in: who was there before should come to the same node.
	Identity string `json:"identity,omitempty"`
}

type resolveReply struct {
	Found  bool        `json:"found"`
	Record room.Record `json:"record"`
	// Participants of a live room, so that one that is full refuses at the door.
	Participants int `json:"participants,omitempty"`
	// Nodes are those of a live room, Before the one that serves the identity asked about.
	Nodes  []room.Presence    `json:"nodes,omitempty"`
	Before residency.NodeName `json:"before,omitempty"`
}

// seat is what the reply says of the room as it lives.
func (r resolveReply) seat() seat { return seat{carriers: carriers(r.Nodes), before: r.Before} }

// resolve finds the record of a room, and creates the room where asked to.
// Every origin is asked before a room counts as new, because the policy of an
// existing room binds: an origin that cannot be asked is a refusal.
func (n *Node) resolve(ctx context.Context, q resolveRequest) (room.Record, error) {
	r, err := n.lookup(ctx, q)
	return r.Record, err
}

// lookup is resolve with what else is known of the room.
func (n *Node) lookup(ctx context.Context, q resolveRequest) (resolveReply, error) {
	if err := control.ValidRoomName(q.Spec.Name); err != nil {
		return resolveReply{}, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	if err := n.mayHave(q.Spec); err != nil {
		return resolveReply{}, err
	}
	if err := n.inForce(); err != nil {
		return resolveReply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := n.find(ctx, q)
	switch {
	case err != nil:
		return resolveReply{}, err
	case r.Found:
		return r, q.agrees(r.Record)
	case !q.Create:
		return resolveReply{}, notFound(q.Spec.Name)
	}
	rec, err := n.found(ctx, q)
	if err != nil {
		return resolveReply{}, err
	}
	// Another was faster and asked for another policy.
	return resolveReply{Found: true, Record: rec}, q.agrees(rec)
}

// agrees refuses a room of another tenant, and one whose policy is another than
// the one asked for: a token that promises a policy must not open a room with a
// different one.
func (q resolveRequest) agrees(rec room.Record) error {
	if q.Spec.Tenant != rec.Tenant {
		return otherTenant(rec.Name)
	}
	if q.Spec.Policy == "" || q.Spec.Policy == rec.Policy {
		return nil
	}
	return &Refusal{Code: CodeRefused, Rule: rulePolicyMismatch, Policy: rec.Policy,
		Message: fmt.Sprintf("room %q has policy %q, not %q as this token asks", rec.Name, rec.Policy, q.Spec.Policy),
		Hint:    "use another room, or a token whose roomPreset is the room's policy"}
}

// find looks for an existing room: here, then on the origin that would be its home,
// then on all others at once. Only if none has it and all were asked is it new.
func (n *Node) find(ctx context.Context, q resolveRequest) (resolveReply, error) {
	look := q
	look.Create = false
	if rec, ok, err := n.known(ctx, q.Spec.Name); ok || err != nil {
		return n.alive(ctx, look, n.reply(ok, rec, q.Identity)), err
	}
	var first []residency.Node
	var others []residency.Node
	home := n.home(q.Spec)
	for _, c := range n.candidates() {
		switch {
		case c.Local || !c.Node.Has(residency.RoleOrigin):
		case c.Node.Name == home:
			first = append(first, c.Node)
		default:
			others = append(others, c.Node)
		}
	}
	reply, err := n.askOrigins(ctx, look, first)
	if reply.Found {
		return reply, nil
	}
	reply, also := n.askOrigins(ctx, look, others)
	if reply.Found {
		return reply, nil
	}
	return resolveReply{}, cmp.Or(err, also)
}

// askOrigins asks origins at once. The first that has the room answers; if none has,
// one that could not be asked is an error.
func (n *Node) askOrigins(ctx context.Context, q resolveRequest, origins []residency.Node) (found resolveReply, err error) {
	ctx, cancel := context.WithCancel(ctx)
	type answer struct {
		resolveReply
		err error
	}
	answers := make(chan answer, len(origins))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, origin := range origins {
		asking.Go(func() {
			r, err := n.askOrigin(ctx, origin, q)
			answers <- answer{r, err}
		})
	}
	for range origins {
		a := <-answers
		if a.err == nil && a.Found {
			n.noteRoom(a.Record)
			return a.resolveReply, nil
		}
		err = cmp.Or(err, a.err)
	}
	return resolveReply{}, err
}

// aliveWait bounds the question to a room's home of how the room lives: who asks has
// its record already, and joins without that.
const aliveWait = time.Second

// alive adds to what is kept here of a room that lives elsewhere how it lives: its
// home knows. Without an answer it is as if nobody were in it.
func (n *Node) alive(ctx context.Context, q resolveRequest, r resolveReply) resolveReply {
	if !r.Found || n.rooms.get(r.Record.Name) != nil {
		return r
	}
	home, _, ok := n.peer(n.home(r.Record))
	if !ok || home.Name == n.self().Name {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, aliveWait)
	defer cancel()
	q.Spec = r.Record
	if of, err := n.askOrigin(ctx, home, q); err == nil && of.Found && of.Record.SID == r.Record.SID {
		r.Participants, r.Nodes, r.Before = of.Participants, of.Nodes, of.Before
	}
	return r
}

// reply is what this node knows of a room.
func (n *Node) reply(found bool, rec room.Record, identity string) resolveReply {
	out := resolveReply{Found: found, Record: rec}
	if r := n.rooms.get(rec.Name); found && r != nil {
		snap := r.Snapshot()
		out.Participants, out.Nodes = len(snap.Participants), snap.Nodes
		if identity != "" {
			out.Before, _ = snap.Where(identity)
		}
	}
	return out
}

// known is what this node itself has of a room.
func (n *Node) known(ctx context.Context, name string) (room.Record, bool, error) {
	if r := n.rooms.get(name); r != nil {
		return r.Snapshot().Record, true, nil
	}
	if n.store == nil {
		return room.Record{}, false, nil
	}
	rec, ok, err := n.store.load(ctx, name)
	if err != nil {
		return room.Record{}, false, fmt.Errorf("resolve room: %w", err)
	}
	return rec, ok, nil
}

// found creates a room at its home.
func (n *Node) found(ctx context.Context, q resolveRequest) (room.Record, error) {
	if err := n.allAsked(q.Spec.Tenant); err != nil {
		return room.Record{}, err
	}
	policy := n.policyName(q.Spec)
	q.Spec.Policy = policy
	home := router.Home(n.gate(), routed(q.Spec), n.homes(), n.now())
	if home.Chosen == nil {
		return room.Record{}, &Refusal{Code: CodeRefused, Rule: home.Rule, Policy: policy, Message: home.Reason, Hint: home.Hint}
	}
	if home.Chosen.Node == n.self().Name {
		return n.create(q.Spec, policy)
	}
	peer, _, ok := n.peer(home.Chosen.Node)
	if !ok {
		return room.Record{}, &Refusal{Code: CodeUnavailable, Message: fmt.Sprintf("node %s has just left the mesh", home.Chosen.Node)}
	}
	reply, err := n.askOrigin(ctx, peer, q)
	switch {
	case err != nil:
		return room.Record{}, err
	case !reply.Found:
		return room.Record{}, &Refusal{Code: CodeUnavailable, Policy: policy, Hint: "try again in a moment",
			Message: fmt.Sprintf("node %s, which would be the room's home, may not be asked about it", peer.Name)}
	}
	n.noteRoom(reply.Record)
	return reply.Record, nil
}

// create writes a new room's record on its home. One creation at a time, so
// that two first attendees meet in one room.
func (n *Node) create(spec room.Record, policy string) (room.Record, error) {
	if err := control.ValidMetadata(spec.Metadata); err != nil {
		return room.Record{}, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	n.creating.Lock()
	defer n.creating.Unlock()
	if rec, ok, err := n.known(n.ctx, spec.Name); ok || err != nil {
		return rec, err
	}
	if err := n.allAsked(spec.Tenant); err != nil { // the home may know of more than who asks it
		return room.Record{}, err
	}
	rec := spec.WithDefaults()
	if err := n.canProve(room.Record{Name: spec.Name, Tenant: spec.Tenant, Policy: policy}); err != nil {
		return room.Record{}, err
	}
	if n.store != nil { // asked again when it is written; here it is told in whole
		if _, v := n.keep(keeping(room.Record{Name: spec.Name, Tenant: spec.Tenant, Policy: policy}, residency.ClassMetadata)); !v.Allow {
			return room.Record{}, refused(v)
		}
	}
	rec.Policy, rec.SID, rec.CreatedMS = policy, room.NewID("RM_"), n.now().UnixMilli()
	rec.Recording, rec.RecordingProblem = nil, ""
	if err := n.pseudonymise(&rec); err != nil {
		return room.Record{}, fmt.Errorf("create room: %w", err)
	}
	if n.store != nil {
		if err := n.keepRecord(rec); err != nil {
			return room.Record{}, fmt.Errorf("create room: %w", err)
		}
	}
	if _, err := n.rooms.ensure(rec); err != nil {
		return room.Record{}, &Refusal{Code: CodeUnavailable, Message: "this node is shutting down"}
	}
	n.log.Info("room created", "room", rec.SID, "policy", rec.Policy)
	return rec, nil
}

// askOrigin asks one origin. It is asked only if the policy that the room
// would get admits it, for the room's name is the room's data.
func (n *Node) askOrigin(ctx context.Context, origin residency.Node, q resolveRequest) (resolveReply, error) {
	permit, v := n.permit(q.Spec, residency.ClassSignalling, origin.Name, false)
	if v.Rule == residency.RuleEvidence {
		return resolveReply{}, unprovable(v)
	}
	if !v.Allow {
		return resolveReply{}, nil // it cannot have a room that it may not have
	}
	var reply resolveReply
	err := n.ask(ctx, permit, kindResolve, q, &reply)
	return reply, err
}

// ask sends a request to the permit's node and decodes the answer.
func (n *Node) ask(ctx context.Context, permit residency.Permit, kind relay.Kind, q, reply any) error {
	link := n.link(permit.Peer())
	if link == nil {
		return &Refusal{Code: CodeUnavailable, Hint: "try again in a moment",
			Message: fmt.Sprintf("node %s, which has to be asked about the room, cannot be reached", permit.Peer())}
	}
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("ask node %s: %w", permit.Peer(), err)
	}
	b, err := link.Request(ctx, permit, kind, body)
	var late *relay.RefusedError
	if errors.As(err, &late) {
		return &Refusal{Code: CodeUnavailable, Hint: "try again in a moment",
			Message: fmt.Sprintf("the policies or a certificate changed while node %s was asked about the room", permit.Peer())}
	}
	if err != nil {
		return fmt.Errorf("ask node %s: %w", permit.Peer(), decodeRefusal(err.Error()))
	}
	if err := json.Unmarshal(b, reply); err != nil {
		return fmt.Errorf("ask node %s: its answer: %w", permit.Peer(), err)
	}
	return nil
}

// doResolve answers another node's question about a room.
func (n *Node) doResolve(ctx context.Context, asked question) ([]byte, residency.Permit, error) {
	var q resolveRequest
	if err := json.Unmarshal(asked.body, &q); err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("resolve: %v", err)}
	}
	if err := asked.about(q.Spec.Name, residency.ClassSignalling); err != nil {
		return nil, residency.Permit{}, err
	}
	from := asked.from
	if err := control.ValidRoomName(q.Spec.Name); err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	rec, found, err := n.known(ctx, q.Spec.Name)
	if err != nil {
		return nil, residency.Permit{}, err
	}
	like := q.Spec
	if found {
		if q.Spec.Tenant != rec.Tenant {
			return nil, residency.Permit{}, otherTenant(rec.Name)
		}
		like = rec
	}
	permit, v := n.permit(like, residency.ClassSignalling, from, n.outside(like, q.Country))
	if !v.Allow {
		n.noteRefused(q.Spec.Name, v)
		return nil, residency.Permit{}, refused(v)
	}
	if !found && q.Create {
		if n.home(q.Spec) != n.self().Name {
			return nil, residency.Permit{}, &Refusal{Code: CodeUnavailable, Hint: "try again in a moment",
				Message: fmt.Sprintf("nodes %s and %s do not agree which of them is home of the room", from, n.self().Name)}
		}
		if rec, err = n.create(q.Spec, n.policyName(q.Spec)); err != nil {
			return nil, residency.Permit{}, err
		}
		found = true
	}
	b, err := json.Marshal(n.reply(found, rec, q.Identity))
	return b, permit, err
}

// outside reports whether a country is known to lie outside a room's media zone.
func (n *Node) outside(rec room.Record, c residency.Country) bool {
	p, err := n.gate().Bundle().PolicyFor(rec.Tenant, rec.Policy)
	return err == nil && c != "" && !p.Zone(residency.ClassMedia).Contains(c)
}

// permit asks the gate about a room that need not live on this node.
func (n *Node) permit(rec room.Record, c residency.Class, to residency.NodeName, outside bool) (residency.Permit, residency.Verdict) {
	gate := n.gate()
	peer, epoch, ok := n.peerBy(gate, to)
	if !ok {
		return residency.Permit{}, residency.Verdict{Tenant: rec.Tenant, Policy: rec.Policy, Class: c, Peer: to, Rule: residency.RuleCertificate,
			Reason: fmt.Sprintf("node %s is not a verified member of the mesh", to)}
	}
	return gate.Permit(residency.Request{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Class: c, Peer: peer,
		PeerEpoch: epoch, OutsideParticipant: outside, Contradiction: n.contradiction(to), NoEvidence: n.noEvidenceOf(rec.Name), Now: n.now()})
}

// policyName is the policy that a room gets which asks for the record's.
func (n *Node) policyName(rec room.Record) string {
	p, err := n.gate().Bundle().PolicyFor(rec.Tenant, rec.Policy)
	if err != nil {
		return rec.Policy
	}
	return p.Name
}
