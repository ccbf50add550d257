package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router"
)

// claim is what this node announces now; the certificate's facts are added by membership.
func (n *Node) claim() identity.Claim {
	relayAddr, gossipAddr := n.cfg.Advertise.Relay, n.gossipAddr()
	if !relayAddr.IsValid() {
		relayAddr = n.fabric.Addr()
	}
	return identity.Claim{
		Epoch: n.gate().Epoch(), Load: n.claimedLoad(), Attendees: uint32(n.attendees.Load()),
		Latitude: n.cfg.At.Lat, Longitude: n.cfg.At.Lon,
		RelayAddr: relayAddr, GossipAddr: gossipAddr, URL: n.cfg.PublicURL,
	}
}

func (n *Node) gossipAddr() netip.AddrPort {
	if n.cfg.Advertise.Gossip.IsValid() {
		return n.cfg.Advertise.Gossip
	}
	return n.cfg.Listen.Gossip
}

// claimedLoad is what other nodes are told: one that drains is full for them.
func (n *Node) claimedLoad() float64 {
	switch {
	case n.draining.Load():
		return drainingLoad
	case n.leaving.Load():
		return fullLoad
	}
	return min(n.load(), fullLoad)
}

// load is the share of the node's capacity in use, 0 to 1.
func (n *Node) load() float64 {
	if n.cfg.Capacity == 0 {
		return 0
	}
	return min(1, float64(n.attendees.Load())/float64(n.cfg.Capacity))
}

// followMesh holds a link to every member and tells the rooms of changes.
func (n *Node) followMesh(ctx context.Context) error {
	for {
		var peers []relay.Peer
		members := n.mesh.Snapshot().Members
		n.origins.see(members, n.self().Name)
		for _, m := range members {
			if m.Node.Name != n.self().Name {
				peers = append(peers, relay.Peer{Name: m.Node.Name, Addr: m.RelayAddr})
			}
		}
		n.fabric.SetPeers(peers)
		for _, r := range n.rooms.all() {
			r.PolicyChanged() // a member's epoch or certificate may have changed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.mesh.Changes():
		}
	}
}

// peer returns a verified member of the mesh, or this node.
func (n *Node) peer(name residency.NodeName) (residency.Node, residency.Epoch, bool) {
	return n.peerBy(n.gate(), name)
}

// peerBy is a node as that gate is asked about it: this one decides by that very gate,
// whichever is in force a moment later.
func (n *Node) peerBy(gate *residency.Gate, name residency.NodeName) (residency.Node, residency.Epoch, bool) {
	if name == n.self().Name {
		return n.self(), gate.Epoch(), true
	}
	if n.mesh == nil {
		return residency.Node{}, 0, false
	}
	m, ok := n.mesh.Snapshot().Member(name)
	return m.Node, n.peerEpoch(name, m.Epoch), ok
}

func (n *Node) link(name residency.NodeName) *relay.Link {
	if n.fabric == nil {
		return nil
	}
	return n.fabric.Link(name)
}

// roomLink is a link as rooms see it.
func (n *Node) roomLink(name residency.NodeName) room.Link { return room.LinkOf(n.link(name)) }

// candidates are the nodes that might serve, as this node sees them now.
func (n *Node) candidates() []router.Candidate { return n.candidatesUp(false) }

// candidatesUp counts nodes that drain as up, or not.
func (n *Node) candidatesUp(drains bool) []router.Candidate {
	list := []router.Candidate{{
		Node: n.self(), At: n.cfg.At, Load: n.load(), Attendees: int(n.attendees.Load()),
		Capacity: n.cfg.Capacity, URL: n.cfg.PublicURL, Epoch: n.gate().Epoch(), Local: true, Up: drains || !n.draining.Load(),
	}}
	if n.mesh == nil {
		return list
	}
	for _, c := range n.mesh.Snapshot().Candidates() {
		if !c.Local {
			c.Epoch = n.peerEpoch(c.Node.Name, c.Epoch)
			c.Up = c.Up && (drains || c.Load < drainingLoad)
			list = append(list, c)
		}
	}
	return n.contradicted(list)
}

// homes are the candidates with nothing but what every node knows of them
// alike: two nodes that weigh them differently would each think itself home.
// Capacity is known of this node alone.
func (n *Node) homes() []router.Candidate { return n.homesUp(false) }

func (n *Node) homesUp(drains bool) []router.Candidate {
	list := n.candidatesUp(drains)
	for i := range list {
		list[i].Capacity = 0
	}
	return list
}

// home names the node that writes a room's record now, "" if none may. What no other may
// keep stays with a node that drains: who can go nowhere else meets on until it stops.
func (n *Node) home(rec room.Record) residency.NodeName {
	home := router.Home(n.gate(), routed(rec), n.homes(), n.now()).Node()
	if home == "" {
		home = router.Home(n.gate(), routed(rec), n.homesUp(true), n.now()).Node()
	}
	return home
}

// routed is what placement is told of a room.
func routed(rec room.Record) router.Room {
	return router.Room{Name: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy}
}

// attendee finds out where an attendee is. A claimed address is believed only
// where the configuration says so (demonstrations and tests).
func (n *Node) attendee(addr netip.Addr, claimed string) (router.Attendee, error) {
	if claimed != "" {
		if !n.cfg.Geo.AcceptClaimed {
			return router.Attendee{}, &Refusal{Code: CodeInvalid,
				Message: "this node does not accept a claimed address", Hint: "leave out \"from\"; only a demo mesh takes it"}
		}
		a, err := netip.ParseAddr(claimed)
		if err != nil {
			return router.Attendee{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("address %q: want an IP address such as 192.0.2.10", claimed)}
		}
		return n.geo.Attendee(a), nil
	}
	return n.remembered(n.geo.Attendee(addr)), nil
}

// whereabouts is the country an attendee is taken to be in, "" if unknown.
func (n *Node) whereabouts(a router.Attendee) residency.Country {
	if !a.Known && n.cfg.Geo.Unknown == router.FallbackLocal {
		return n.self().Country
	}
	return a.Country
}

// links takes what other nodes send.
type links struct{ n *Node }

// LinkUp implements relay.Handler.
func (h links) LinkUp(l *relay.Link) {
	h.n.consider(func(a *bundles.Agreement) { a.Join(l.Peer().Name) })
	for _, r := range h.n.rooms.all() {
		r.LinkUp(l.Peer().Name)
	}
}

// LinkDown implements relay.Handler.
func (h links) LinkDown(l *relay.Link, _ error) {
	h.n.consider(func(a *bundles.Agreement) { a.Leave(l.Peer().Name) })
	h.n.mesh.Announce() // who was kept a member by its link alone is none any more
	for _, r := range h.n.rooms.all() {
		r.LinkDown(l.Peer().Name)
	}
}

// suspected is told that nothing arrives from a peer, or that something does again.
func (n *Node) suspected(l *relay.Link, suspect bool) {
	for _, r := range n.rooms.all() {
		r.Suspect(l.Peer().Name, suspect)
	}
}

// suspects reports whether a node may be dead, as far as the link to it tells.
func (n *Node) suspects(name residency.NodeName) bool {
	l := n.link(name)
	return l != nil && l.Suspect()
}

// Message implements relay.Handler.
func (h links) Message(l *relay.Link, kind relay.Kind, name string, class residency.Class, body []byte) {
	if !h.n.ofClass(l.Peer().Name, kind, class) {
		return
	}
	r := h.n.rooms.get(name)
	if r == nil && kind == room.KindHello {
		r = h.n.revive(l, name, body)
	}
	if r == nil {
		h.n.log.Debug("message for a room that does not live here", "peer", l.Peer().Name, "kind", int(kind))
		return
	}
	r.Message(l.Peer().Name, kind, body)
}

// revive starts a room on its home when one of its nodes says hello: after a
// restart, or when this node has just become the home. Only a node that may be
// in such a room is listened to.
func (n *Node) revive(l *relay.Link, name string, body []byte) *room.Room {
	rec, p, err := room.ReadHello(body)
	from := l.Peer().Name
	if err != nil || rec.Name != name || !p.Present() || n.home(rec) != n.self().Name {
		return nil
	}
	permit, v := n.permit(rec, residency.ClassSignalling, from, p.Outside && p.Participants > 0)
	if !v.Allow {
		n.turned.add(from, v.Class, v.Rule)
		return nil
	}
	if n.deleted.has(rec.SID, rec.Term) {
		l.Send(permit, room.KindRoster, room.Over(n.self().Name, rec)) //nolint:errcheck // it says hello again
		return nil
	}
	n.creating.Lock()
	defer n.creating.Unlock()
	if own, ok, err := n.known(n.ctx, name); err == nil && ok {
		rec = own // what this node wrote itself outranks what it is told
	}
	r, err := n.rooms.ensure(rec)
	if err != nil {
		return nil
	}
	return r
}

// Request implements relay.Handler.
func (h links) Request(ctx context.Context, l *relay.Link, kind relay.Kind, name string, class residency.Class, body []byte) ([]byte, residency.Permit, error) {
	var answer answerer
	switch kind {
	case kindResolve:
		answer = h.n.doResolve
	case kindCommand:
		answer = h.n.doCommand
	case kindReceipts:
		answer = h.n.doReceipts
	case kindHead:
		answer = h.n.doHead
	case kindRoomKey:
		answer = h.n.doRoomKey
	case kindRecord:
		answer = h.n.doRecord
	case kindCopy:
		answer = h.n.doCopy
	case kindOrders:
		answer = h.n.doOrders
	default:
		return nil, residency.Permit{}, encodeRefusal(&Refusal{Code: CodeInvalid,
			Message: fmt.Sprintf("request kind %d is unknown to this version", kind)})
	}
	reply, permit, err := answer(ctx, question{l.Peer().Name, name, class, bytes.Clone(body)})
	if err != nil {
		if ref := asRefusal(err); ref.Rule != "" {
			h.n.turned.add(l.Peer().Name, class, ref.Rule)
		}
		return nil, residency.Permit{}, encodeRefusal(err)
	}
	return reply, permit, nil
}

// A command is something that one node asks another to do with a room.
type command struct {
	Op       string `json:"op"` // see doCommand
	Room     string `json:"room"`
	Identity string `json:"identity,omitempty"`
	Policy   string `json:"policy,omitempty"`  // of opRooms and opRecord
	Tenant   string `json:"tenant,omitempty"`  // likewise
	Passed   bool   `json:"passed,omitempty"`  // passed on by the home already
	Request  []byte `json:"request,omitempty"` // of the API, protobuf; see moderate.go

	Egress []room.Egress `json:"egress,omitempty"` // of opRecord: who wants what; none: everything. Of opStopEgress: which

	After *vault.After `json:"after,omitempty"` // of opRecord: what it goes on from
	Term  uint64       `json:"term,omitempty"`  // likewise: of the home that says so
	From  int          `json:"from,omitempty"`  // of opAttendance, opConsents and opRegistrations: how many lines the asker has
}

// The operations of commands.
const (
	opDelete       = "delete"       // end the room everywhere and forget it (home)
	opParticipants = "participants" // list them (home, or any node of the room)
	opRemove       = "remove"       // send a participant away (its node, or home)
	opRecord       = "record"       // start recording (an origin in the recording zone)
	opStopRecord   = "stop-record"  // stop recording (the origin that records)
	opCensus       = "census"       // count what lives and is stored, by sid (origins)
	opRooms        = "rooms"        // list the rooms that the asker may know of (origins)
)

// doCommand carries out another node's command, if the gate lets the room's
// signalling go to that node.
func (n *Node) doCommand(ctx context.Context, q question) ([]byte, residency.Permit, error) {
	var c command
	if err := json.Unmarshal(q.body, &c); err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("command: %v", err)}
	}
	if err := q.about(c.Room, c.class()); err != nil {
		return nil, residency.Permit{}, err
	}
	from := q.from
	if c.Op == opCensus {
		list, permit, err := n.doCensus(ctx, from, c.Policy)
		if err != nil {
			return nil, residency.Permit{}, err
		}
		b, err := json.Marshal(list)
		return b, permit, err
	}
	if c.Op == opRouting {
		out, permit, err := n.doRouting(from, c)
		if err != nil {
			return nil, residency.Permit{}, err
		}
		b, err := json.Marshal(out)
		return b, permit, err
	}
	if c.Op == opRooms {
		list, permit, err := n.doRooms(ctx, from, room.Record{Tenant: c.Tenant, Policy: c.Policy})
		if err != nil {
			return nil, residency.Permit{}, err
		}
		b, err := json.Marshal(list)
		return b, permit, err
	}
	if c.Op == opEgresses && c.Room == "" {
		out, permit, err := n.doEgresses(from, c)
		if err != nil {
			return nil, residency.Permit{}, err
		}
		b, err := json.Marshal(out)
		return b, permit, err
	}
	rec, ok, err := n.known(ctx, c.Room)
	if !ok && err == nil && (c.Op == opRecord || c.Op == opKeepChat || c.Op == opTake || c.class() == residency.ClassMetadata) { // an origin that has not met the room yet
		rec, err = n.resolve(ctx, resolveRequest{Spec: room.Record{Name: c.Room, Tenant: c.Tenant, Policy: c.Policy}})
		ok = err == nil
	}
	if err != nil {
		return nil, residency.Permit{}, err
	}
	if !ok {
		return nil, residency.Permit{}, notFound(c.Room)
	}
	permit, v := n.permit(rec, c.class(), from, n.servesOutside(c.Room, from))
	if !v.Allow {
		return nil, residency.Permit{}, refused(v)
	}
	reply, err := n.obey(ctx, rec, c)
	if err != nil {
		return nil, residency.Permit{}, err
	}
	b, err := json.Marshal(reply)
	return b, permit, err
}

// servesOutside reports whether a node of the room says that it serves
// somebody from outside the media zone.
func (n *Node) servesOutside(name string, node residency.NodeName) bool {
	r := n.rooms.get(name)
	if r == nil {
		return false
	}
	for _, p := range r.Snapshot().Nodes {
		if p.Node == node {
			return p.Outside
		}
	}
	return false
}

func notFound(name string) *Refusal {
	return &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("room %q does not exist", name)}
}
