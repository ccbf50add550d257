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
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

// claim is what this node announces now; the certificate's facts are added by membership.
func (n *Node) claim() identity.Claim {
	relayAddr, gossipAddr := n.cfg.Advertise.Relay, n.gossipAddr()
	if !relayAddr.IsValid() {
		relayAddr = n.fabric.Addr()
	}
	return identity.Claim{
		Epoch: n.gate().Epoch(), Load: n.load(), Attendees: uint32(n.attendees.Load()),
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
		n.origins.see(members, n.cfg.Self.Name)
		for _, m := range members {
			if m.Node.Name != n.cfg.Self.Name {
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
	if name == n.cfg.Self.Name {
		return n.cfg.Self, n.gate().Epoch(), true
	}
	if n.mesh == nil {
		return residency.Node{}, 0, false
	}
	m, ok := n.mesh.Snapshot().Member(name)
	return m.Node, m.Epoch, ok
}

func (n *Node) link(name residency.NodeName) *relay.Link {
	if n.fabric == nil {
		return nil
	}
	return n.fabric.Link(name)
}

// candidates are the nodes that might serve, as this node sees them now.
func (n *Node) candidates() []router.Candidate {
	list := []router.Candidate{{
		Node: n.cfg.Self, At: n.cfg.At, Load: n.load(), Attendees: int(n.attendees.Load()),
		Capacity: n.cfg.Capacity, URL: n.cfg.PublicURL, Epoch: n.gate().Epoch(), Local: true, Up: true,
	}}
	if n.mesh == nil {
		return list
	}
	for _, c := range n.mesh.Snapshot().Candidates() {
		if !c.Local {
			list = append(list, c)
		}
	}
	return list
}

// homes are the candidates with nothing but what every node knows of them
// alike: two nodes that weigh them differently would each think itself home.
// Capacity is known of this node alone.
func (n *Node) homes() []router.Candidate {
	list := n.candidates()
	for i := range list {
		list[i].Capacity = 0
	}
	return list
}

// home names the node that writes a room's record now, "" if none may.
func (n *Node) home(name, policy string) residency.NodeName {
	return router.Home(n.gate(), name, policy, n.homes(), n.now()).Node()
}

// place ranks the nodes for an attendee of a room.
func (n *Node) place(name, policy string, a router.Attendee) router.Placement {
	return router.Place(n.gate(), router.Question{Room: name, Policy: policy, Attendee: a,
		Candidates: n.candidates(), Unknown: n.cfg.Geo.Unknown, Now: n.now()})
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
		addr = a
	}
	return n.geo.Attendee(addr), nil
}

// whereabouts is the country an attendee is taken to be in, "" if unknown.
func (n *Node) whereabouts(a router.Attendee) residency.Country {
	if !a.Known && n.cfg.Geo.Unknown == router.FallbackLocal {
		return n.cfg.Self.Country
	}
	return a.Country
}

// links takes what other nodes send.
type links struct{ n *Node }

// LinkUp implements relay.Handler.
func (h links) LinkUp(l *relay.Link) {
	for _, r := range h.n.rooms.all() {
		r.LinkUp(l.Peer().Name)
	}
}

// LinkDown implements relay.Handler.
func (h links) LinkDown(l *relay.Link, _ error) {
	for _, r := range h.n.rooms.all() {
		r.LinkDown(l.Peer().Name)
	}
}

// Message implements relay.Handler.
func (h links) Message(l *relay.Link, kind relay.Kind, name string, class residency.Class, body []byte) {
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
	if err != nil || rec.Name != name || !p.Present() || n.home(name, rec.Policy) != n.cfg.Self.Name {
		return nil
	}
	permit, v := n.permit(name, rec.Policy, residency.ClassSignalling, from, p.Outside && p.Participants > 0)
	if !v.Allow {
		return nil
	}
	if n.deleted.has(rec.SID) {
		l.Send(permit, room.KindRoster, room.Over(n.cfg.Self.Name, rec)) //nolint:errcheck // it says hello again
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
	var answer func(context.Context, residency.NodeName, []byte) ([]byte, residency.Permit, error)
	switch kind {
	case kindResolve:
		answer = h.n.doResolve
	case kindCommand:
		answer = h.n.doCommand
	default:
		return nil, residency.Permit{}, encodeRefusal(&Refusal{Code: CodeInvalid,
			Message: fmt.Sprintf("request kind %d is unknown to this version", kind)})
	}
	reply, permit, err := answer(ctx, l.Peer().Name, bytes.Clone(body))
	if err != nil {
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
	Passed   bool   `json:"passed,omitempty"`  // passed on by the home already
	Request  []byte `json:"request,omitempty"` // of the API, protobuf; see moderate.go
}

// The operations of commands.
const (
	opDelete       = "delete"       // end the room everywhere and forget it (home)
	opParticipants = "participants" // list them (home, or any node of the room)
	opRemove       = "remove"       // send a participant away (its node, or home)
	opRecord       = "record"       // start recording (an origin in the recording zone)
	opStopRecord   = "stop-record"  // stop recording (the origin that records)
	opRooms        = "rooms"        // list the rooms that the asker may know of (origins)
)

// doCommand carries out another node's command, if the gate lets the room's
// signalling go to that node.
func (n *Node) doCommand(ctx context.Context, from residency.NodeName, body []byte) ([]byte, residency.Permit, error) {
	var c command
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("command: %v", err)}
	}
	if c.Op == opRooms {
		list, permit, err := n.doRooms(ctx, from, c.Policy)
		if err != nil {
			return nil, residency.Permit{}, err
		}
		b, err := json.Marshal(list)
		return b, permit, err
	}
	rec, ok, err := n.known(ctx, c.Room)
	if !ok && err == nil && c.Op == opRecord { // an origin that has not met the room yet
		rec, err = n.resolve(ctx, resolveRequest{Spec: room.Record{Name: c.Room, Policy: c.Policy}})
		ok = err == nil
	}
	if err != nil {
		return nil, residency.Permit{}, err
	}
	if !ok {
		return nil, residency.Permit{}, notFound(c.Room)
	}
	permit, v := n.permit(c.Room, rec.Policy, c.class(), from, n.servesOutside(c.Room, from))
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
