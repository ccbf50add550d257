package node

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// A room's home gives the key of its pseudonym to the other origins that could become
// its home: when this one is lost, what comes after stands under the same pseudonym,
// and can be exported by whoever has it. The key goes where the room's record may be
// kept and nowhere else.

// sharedKey is what the home sends: the key, and the terms by which the other's own
// gate judges whether it may keep it.
type sharedKey struct {
	roomKey
	Tenant string `json:"tenant,omitempty"`
	Policy string `json:"policy"`
}

// pseudonymise gives a room its pseudonym: this node is its home and keeps the key.
func (n *Node) pseudonymise(rec *room.Record) error {
	if n.testimony.keys == nil || rec.SID == "" || rec.Pseudonym != "" {
		return nil
	}
	// Asked without NoEvidence: without a pseudonym there never will be any.
	permit, _ := n.keep(keeping(*rec, residency.ClassMetadata))
	rk, err := n.testimony.keys.ensure(permit, *rec)
	if err == nil {
		rec.Pseudonym = string(rk.Pseudonym)
	}
	return err
}

// keepPseudonym notes the pseudonym of a room that this node has taken over, so that
// it stays the same when the node is started anew, whether it has the key or not.
func (n *Node) keepPseudonym(permit residency.Permit, rec room.Record) error {
	p, err := evidence.ParsePseudonym(rec.Pseudonym)
	if n.testimony.keys == nil || err != nil {
		return nil // a room without one
	}
	return n.testimony.keys.put(permit, roomKey{SID: rec.SID, Name: rec.Name, Pseudonym: p, CreatedMS: rec.CreatedMS, Tenant: rec.Tenant, Policy: rec.Policy})
}

// shareKeys gives the keys of the rooms whose home this node is to the origins that do
// not have them. Who cannot be reached is asked again with the next tick.
func (n *Node) shareKeys(ctx context.Context) {
	p := &n.testimony
	if p.keys == nil {
		return
	}
	live := map[string]bool{}
	for _, r := range n.rooms.all() {
		rec := r.Snapshot().Record
		if r.Snapshot().Ended || n.home(rec) != n.self().Name {
			continue
		}
		live[rec.SID] = true
		for _, l := range n.fabric.Links() {
			peer := l.Peer()
			if !peer.Has(residency.RoleOrigin) || p.shared[rec.SID][peer.Name] {
				continue
			}
			if err := n.shareKey(ctx, rec, peer.Name); err != nil {
				n.log.Debug("a room's key is not shared", "room", rec.SID, "peer", peer.Name, "error", err)
			}
		}
	}
	for sid := range p.shared {
		if !live[sid] {
			delete(p.shared, sid)
		}
	}
}

// shareKey gives a room's key to an origin, if the gate lets it keep it.
func (n *Node) shareKey(ctx context.Context, rec room.Record, to residency.NodeName) error {
	permit, v := n.storePermit(rec, to)
	if !v.Allow {
		return nil // it could not become the home either
	}
	rk, ok := n.testimony.keys.get(rec.SID)
	if !ok {
		return fmt.Errorf("node %s has taken the room over without its key", n.self().Name)
	}
	link := n.link(to)
	if link == nil {
		return fmt.Errorf("node %s cannot be reached", to)
	}
	body, err := json.Marshal(sharedKey{roomKey: rk, Tenant: rec.Tenant, Policy: rec.Policy})
	if err != nil {
		return fmt.Errorf("share room key: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := link.Request(ctx, permit, kindRoomKey, body); err != nil {
		return decodeRefusal(err.Error())
	}
	if n.testimony.shared[rec.SID] == nil {
		n.testimony.shared[rec.SID] = map[residency.NodeName]bool{}
	}
	n.testimony.shared[rec.SID][to] = true
	return nil
}

// doRoomKey takes a room's key from its home, if this node's own gate lets it keep
// metadata of the room, and the other be its home. Its answer is empty.
func (n *Node) doRoomKey(_ context.Context, q question) ([]byte, residency.Permit, error) {
	if err := q.about("", residency.ClassMetadata); err != nil {
		return nil, residency.Permit{}, err
	}
	var s sharedKey
	err := json.Unmarshal(q.body, &s)
	if err == nil {
		err = control.ValidRoomName(s.Name)
	}
	if err == nil {
		err = s.valid()
	}
	if err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("room key: %v", err)}
	}
	rec := room.Record{Name: s.Name, Tenant: s.Tenant, Policy: s.Policy}
	if _, v := n.storePermit(rec, q.from); !v.Allow {
		return nil, residency.Permit{}, refused(v)
	}
	permit, v := n.keep(keeping(rec, residency.ClassMetadata))
	if !v.Allow || n.testimony.keys == nil {
		return nil, residency.Permit{}, refused(v)
	}
	s.roomKey.Tenant, s.roomKey.Policy = s.Tenant, s.Policy
	if err := n.testimony.keys.put(permit, s.roomKey); err != nil {
		n.log.Error("a room's key is not kept", "room", s.SID, "peer", q.from, "error", err)
		return nil, residency.Permit{}, err
	}
	return nil, residency.Permit{}, nil
}
