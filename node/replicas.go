package node

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// A room's record lies on every origin that may keep it, and so become its home: when
// the home is lost, nothing of the room is. The home sends each change; two origins that
// meet show each other all that they have, and each keeps what is newer, field by
// field. A record goes where its policy lets the room's metadata be kept, and nowhere
// else.

// replicaMessage is what one origin shows another, and its answer.
type replicaMessage struct {
	Record room.Record `json:"record"`
	Gone   bool        `json:"gone,omitempty"` // the room is over; of the record nothing but name, sid, terms is needed
	None   bool        `json:"none,omitempty"` // in an answer: there is nothing to add
}

// replicas is what other origins are still to be told.
type replicas struct {
	wake chan struct{} // capacity 1
	over graveyard     // rooms that expired or were deleted, so that no old record brings them back

	mu   sync.Mutex
	met  map[residency.NodeName]*relay.Link         // who was shown everything on which link
	due  map[residency.NodeName]map[string]struct{} // rooms by name, at most those that are stored
	gone map[string]room.Record                     // by name, lately
}

const (
	// replicaRetry is how soon an origin that did not answer is asked again.
	replicaRetry = time.Second
	// wakeRounds is after how many rounds, of a second or less, rooms are looked for
	// whose home this node has become while nobody is in them: their time runs out, too.
	wakeRounds = 30
	// maxGone bounds the ended rooms that others are still to be told of; of more they
	// hear when they show theirs.
	maxGone = 1024
)

func (p *replicas) init() {
	p.wake = make(chan struct{}, 1)
	p.met, p.due, p.gone = map[residency.NodeName]*relay.Link{}, map[residency.NodeName]map[string]struct{}{}, map[string]room.Record{}
}

// touch notes that a room's record has changed here.
func (p *replicas) touch(name string) {
	p.mu.Lock()
	for peer := range p.met {
		p.owe(peer, name)
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// owe is called with mu held.
func (p *replicas) owe(peer residency.NodeName, name string) {
	if p.due[peer] == nil {
		p.due[peer] = map[string]struct{}{}
	}
	p.due[peer][name] = struct{}{}
}

// bury notes that a room is over.
func (p *replicas) bury(rec room.Record) {
	p.over.addTerm(rec.SID, rec.Term)
	p.mu.Lock()
	if len(p.gone) >= maxGone {
		clear(p.gone)
	}
	p.gone[rec.Name] = rec
	p.mu.Unlock()
	p.touch(rec.Name)
}

// take returns what a peer is to be told, and forgets it.
func (p *replicas) take(peer residency.NodeName) (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.due[peer] {
		names = append(names, name)
	}
	delete(p.due, peer)
	return names
}

// owes puts back what could not be told.
func (p *replicas) owes(peer residency.NodeName, names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		p.owe(peer, name)
	}
}

// meets notes that a peer is shown everything over a link, and reports whether it was not yet.
func (p *replicas) meets(peer residency.NodeName, l *relay.Link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.met[peer] == l {
		return false
	}
	p.met[peer] = l
	return true
}

// runReplicas keeps the records of the other origins up to date.
func (n *Node) runReplicas(ctx context.Context) error {
	if n.store == nil {
		return nil
	}
	tick := time.NewTicker(replicaRetry)
	defer tick.Stop()
	for rounds := 1; ; rounds++ {
		if rounds%wakeRounds == 0 {
			n.wakeRooms((*Node).expires)
		}
		for _, l := range n.fabric.Links() {
			if peer := l.Peer(); peer.Has(residency.RoleOrigin) {
				n.replicateTo(ctx, peer.Name, l)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-n.replicas.wake:
		}
	}
}

// expires reports whether a room's record is forgotten when nobody comes any more.
func (n *Node) expires(rec room.Record) bool {
	p, err := n.gate().Bundle().PolicyFor(rec.Tenant, "")
	return err == nil && p.Name == rec.Policy
}

// replicateTo tells one origin what it is owed; the rest waits after the first failure.
func (n *Node) replicateTo(ctx context.Context, peer residency.NodeName, l *relay.Link) {
	if n.replicas.meets(peer, l) {
		stored, err := n.store.all(ctx)
		if err != nil {
			n.log.Error("reading the stored rooms", "error", err)
		}
		for _, rec := range stored {
			n.replicas.owes(peer, []string{rec.Name})
		}
	}
	names := n.replicas.take(peer)
	for i, name := range names {
		if err := n.replicate(ctx, peer, name); err != nil {
			n.log.Debug("a room's record is not replicated", "peer", peer, "error", err)
			n.replicas.owes(peer, names[i:])
			return
		}
	}
}

// replicate shows one record to one origin, if the gate lets it keep it.
func (n *Node) replicate(ctx context.Context, peer residency.NodeName, name string) error {
	m, ok := n.replica(ctx, name)
	if !ok {
		return nil
	}
	permit, v := n.recordPermit(m.Record, peer)
	if !v.Allow {
		return nil // it could not become the home either
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var answer replicaMessage
	if err := n.ask(ctx, permit, kindRecord, m, &answer); err != nil || answer.None || m.Gone {
		return err
	}
	if answer.Record.Name != name || answer.Record.SID == "" {
		return fmt.Errorf("node %s answers with another room", peer)
	}
	_, err := n.takeReplica(ctx, peer, answer)
	return err
}

// replica is what this node has of a room.
func (n *Node) replica(ctx context.Context, name string) (replicaMessage, bool) {
	if rec, ok, err := n.known(ctx, name); ok && err == nil {
		return replicaMessage{Record: rec}, true
	}
	n.replicas.mu.Lock()
	defer n.replicas.mu.Unlock()
	rec, ok := n.replicas.gone[name]
	return replicaMessage{Record: rec, Gone: true}, ok
}

// recordPermit lets a room's record be kept by another origin.
func (n *Node) recordPermit(rec room.Record, at residency.NodeName) (residency.Permit, residency.Verdict) {
	return n.originPermit(rec, residency.ClassMetadata, at)
}

// originPermit lets a class of a room be kept by another origin.
func (n *Node) originPermit(rec room.Record, c residency.Class, at residency.NodeName) (residency.Permit, residency.Verdict) {
	gate := n.gate()
	peer, epoch, ok := n.peerBy(gate, at)
	if !ok || !peer.Has(residency.RoleOrigin) {
		return residency.Permit{}, residency.Verdict{Peer: at, Class: c, Rule: residency.RuleCertificate,
			Reason: fmt.Sprintf("node %s is not a verified origin of the mesh", at)}
	}
	q := keeping(rec, c)
	q.Store, q.Peer, q.PeerEpoch, q.Contradiction = true, peer, epoch, n.contradiction(at)
	q.NoEvidence, q.Now = n.noEvidenceOf(rec.Name), n.now()
	return gate.Permit(q)
}

// doRecord takes what another origin shows, and answers with what it lacks itself.
func (n *Node) doRecord(ctx context.Context, q question) ([]byte, residency.Permit, error) {
	var m replicaMessage
	err := json.Unmarshal(q.body, &m)
	if err == nil {
		err = m.Record.Check()
	}
	if err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("record: %v", err)}
	}
	if err := q.about(m.Record.Name, residency.ClassMetadata); err != nil {
		return nil, residency.Permit{}, err
	}
	// Both ask: it may be the room's home, and this node may keep the record.
	permit, v := n.recordPermit(m.Record, q.from)
	if !v.Allow {
		return nil, residency.Permit{}, refused(v)
	}
	answer, err := n.takeReplica(ctx, q.from, m)
	if err != nil {
		return nil, residency.Permit{}, err
	}
	b, err := json.Marshal(answer)
	return b, permit, err
}

// takeReplica keeps what is newer of a record than what this node has, and returns what
// is newer here.
func (n *Node) takeReplica(ctx context.Context, from residency.NodeName, m replicaMessage) (replicaMessage, error) {
	n.creating.Lock()
	defer n.creating.Unlock()
	own, ok, err := n.known(ctx, m.Record.Name)
	if err != nil {
		return replicaMessage{}, err
	}
	live := n.rooms.get(m.Record.Name)
	switch {
	case m.Gone:
		// Who is still in it here hears so from its home; one that goes on has a later term.
		if ok && own.SID == m.Record.SID && own.Term <= m.Record.Term {
			n.replicas.over.addTerm(own.SID, m.Record.Term)
			err = n.store.writer.erase(own)
		}
		return replicaMessage{None: true}, err
	case n.replicas.over.has(m.Record.SID, m.Record.Term), n.erasedRoom(m.Record):
		return replicaMessage{Record: m.Record, Gone: true}, nil
	case ok && !own.SameTerms(m.Record):
		return replicaMessage{}, &Refusal{Code: CodeRefused, Rule: rulePolicyMismatch, Policy: own.Policy,
			Message: "the room has another policy or tenant here"}
	case !ok:
		own = m.Record
	}
	merged := own.Merge(m.Record)
	if live != nil {
		live.Learn(from, m.Record)
	}
	if !ok || own.Lacks(m.Record) {
		if err := n.keepRecord(merged); err != nil {
			return replicaMessage{}, err
		}
	}
	return replicaMessage{Record: merged, None: !m.Record.Lacks(merged)}, nil
}
