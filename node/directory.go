package node

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Requests between nodes, beside the messages of package room.
const (
	kindResolve relay.Kind = 1 + iota // an origin: what is this room's record?
	kindCommand                       // a node of the room: do this
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
}

type resolveReply struct {
	Found  bool        `json:"found"`
	Record room.Record `json:"record"`
	// Participants of a live room, so that one that is full refuses at the door.
	Participants int `json:"participants,omitempty"`
}

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
	if _, err := n.gate().Bundle().Policy(q.Spec.Policy); err != nil {
		return resolveReply{}, &Refusal{Code: CodeInvalid, Message: err.Error()}
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

// agrees refuses a room whose policy is another than the one asked for: a
// token that promises a policy must not open a room with a different one.
func (q resolveRequest) agrees(rec room.Record) error {
	if q.Spec.Policy == "" || q.Spec.Policy == rec.Policy {
		return nil
	}
	return &Refusal{Code: CodeRefused, Rule: rulePolicyMismatch, Policy: rec.Policy,
		Message: fmt.Sprintf("room %q has policy %q, not %q as this token asks", rec.Name, rec.Policy, q.Spec.Policy),
		Hint:    "use another room, or a token whose roomPreset is the room's policy"}
}

// find looks for an existing room: here, then on every origin.
func (n *Node) find(ctx context.Context, q resolveRequest) (resolveReply, error) {
	if rec, ok, err := n.known(ctx, q.Spec.Name); ok || err != nil {
		return resolveReply{Found: ok, Record: rec, Participants: n.participants(q.Spec.Name)}, err
	}
	look := q
	look.Create = false
	for _, c := range n.candidates() {
		if c.Local || !c.Node.Has(residency.RoleOrigin) {
			continue
		}
		reply, err := n.askOrigin(ctx, c.Node, look)
		if err != nil {
			return resolveReply{}, err
		}
		if reply.Found {
			return reply, nil
		}
	}
	return resolveReply{}, nil
}

// participants is how many are in a room, as far as this node knows.
func (n *Node) participants(name string) int {
	if r := n.rooms.get(name); r != nil {
		return len(r.Snapshot().Participants)
	}
	return 0
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
	if err := n.allAsked(); err != nil {
		return room.Record{}, err
	}
	policy := n.policyName(q.Spec.Policy)
	home := router.Home(n.gate(), q.Spec.Name, policy, n.homes(), n.now())
	if home.Chosen == nil {
		return room.Record{}, &Refusal{Code: CodeRefused, Rule: home.Rule, Policy: policy, Message: home.Reason, Hint: home.Hint}
	}
	if home.Chosen.Node == n.cfg.Self.Name {
		return n.create(q.Spec, policy)
	}
	peer, _, ok := n.peer(home.Chosen.Node)
	if !ok {
		return room.Record{}, &Refusal{Code: CodeUnavailable, Message: fmt.Sprintf("node %s has just left the mesh", home.Chosen.Node)}
	}
	q.Spec.Policy = policy
	reply, err := n.askOrigin(ctx, peer, q)
	return reply.Record, err
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
	if err := n.allAsked(); err != nil { // the home may know of more than who asks it
		return room.Record{}, err
	}
	rec := spec.WithDefaults()
	rec.Policy, rec.SID, rec.CreatedMS = policy, room.NewID("RM_"), n.now().UnixMilli()
	rec.Recording, rec.RecordingProblem = nil, ""
	if n.store != nil {
		if err := n.store.save(rec); err != nil {
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
	permit, v := n.permit(q.Spec.Name, q.Spec.Policy, residency.ClassSignalling, origin.Name, false)
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
	if err != nil {
		return fmt.Errorf("ask node %s: %w", permit.Peer(), decodeRefusal(err.Error()))
	}
	if err := json.Unmarshal(b, reply); err != nil {
		return fmt.Errorf("ask node %s: its answer: %w", permit.Peer(), err)
	}
	return nil
}

// doResolve answers another node's question about a room.
func (n *Node) doResolve(ctx context.Context, from residency.NodeName, body []byte) ([]byte, residency.Permit, error) {
	var q resolveRequest
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("resolve: %v", err)}
	}
	if err := control.ValidRoomName(q.Spec.Name); err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	rec, found, err := n.known(ctx, q.Spec.Name)
	if err != nil {
		return nil, residency.Permit{}, err
	}
	policy := q.Spec.Policy
	if found {
		policy = rec.Policy
	}
	permit, v := n.permit(q.Spec.Name, policy, residency.ClassSignalling, from, n.outside(policy, q.Country))
	if !v.Allow {
		return nil, residency.Permit{}, refused(v)
	}
	if !found && q.Create {
		if n.home(q.Spec.Name, policy) != n.cfg.Self.Name {
			return nil, residency.Permit{}, &Refusal{Code: CodeUnavailable, Hint: "try again in a moment",
				Message: fmt.Sprintf("nodes %s and %s do not agree which of them is home of the room", from, n.cfg.Self.Name)}
		}
		if rec, err = n.create(q.Spec, n.policyName(policy)); err != nil {
			return nil, residency.Permit{}, err
		}
		found = true
	}
	b, err := json.Marshal(resolveReply{Found: found, Record: rec, Participants: n.participants(q.Spec.Name)})
	return b, permit, err
}

// outside reports whether a country is known to lie outside a policy's media zone.
func (n *Node) outside(policy string, c residency.Country) bool {
	p, err := n.gate().Bundle().Policy(policy)
	return err == nil && c != "" && !p.Zone(residency.ClassMedia).Contains(c)
}

// permit asks the gate about a room that need not live on this node.
func (n *Node) permit(name, policy string, c residency.Class, to residency.NodeName, outside bool) (residency.Permit, residency.Verdict) {
	peer, epoch, ok := n.peer(to)
	if !ok {
		return residency.Permit{}, residency.Verdict{Policy: policy, Class: c, Peer: to, Rule: residency.RuleCertificate,
			Reason: fmt.Sprintf("node %s is not a verified member of the mesh", to)}
	}
	return n.gate().Permit(residency.Request{Room: name, Policy: policy, Class: c, Peer: peer,
		PeerEpoch: epoch, OutsideParticipant: outside, Now: n.now()})
}

func (n *Node) policyName(name string) string {
	p, err := n.gate().Bundle().Policy(name)
	if err != nil {
		return name
	}
	return p.Name
}
