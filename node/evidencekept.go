package node

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/witness"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// What this node does with a room's data by itself is counted where it is done, by
// act: what it stored and recorded, and what its gate kept from others. Once a second
// the counts go into the book of the node's stay in the room.

// act is one thing that is done to a room's data, again and again.
type act struct {
	side  evidence.Side
	peer  residency.NodeName // from which it was kept; this node if it was stored
	class residency.Class
	qa    bool
	rule  string
	epoch residency.Epoch
}

// figures are how often, and how many bytes.
type figures struct{ packets, bytes uint64 }

// acts is what was done to one room since the last look at it.
type acts struct {
	rec   room.Record // zero if whoever counted did not know it: then the room lives here
	since time.Time
	done  map[act]figures
}

const (
	// maxActs bounds what is counted of one room, between two looks and during a stay:
	// refusals for each of 250 nodes and some classes. What comes on top is not told.
	maxActs = 1024
	// maxActRooms bounds the rooms in which something is done between two looks.
	maxActRooms = 10_000
	// actsWait is how long counts wait for the room's book: one that was stored for
	// without being in it gets one with the next look, unless its policy wants none.
	actsWait = time.Minute
)

// keepRecord stores the record of a room that does not live here.
func (n *Node) keepRecord(rec room.Record) error {
	q := keeping(rec, residency.ClassMetadata)
	q.NoEvidence = n.noEvidenceOf(rec.Name)
	permit, v := n.keep(q)
	if !v.Allow {
		return refused(v)
	}
	return n.saveRecord(permit, rec)
}

// saveRecord stores a room's record by a permit to keep it, and waits until it is on
// the disk.
func (n *Node) saveRecord(p residency.Permit, rec room.Record) error {
	return n.store.writer.write(p, rec)
}

// writeRecord writes a room's record to the disk, and counts it as every other byte of
// the room. The other origins hear of it from the room's home.
func (n *Node) writeRecord(p residency.Permit, rec room.Record) error {
	// First, for whoever reads a record without one makes one.
	if err := n.keepPseudonym(p, rec); err != nil {
		return err
	}
	if err := n.store.save(p, rec); err != nil {
		return err
	}
	size := len(rec.Name) + len(rec.SID) + len(rec.Tenant) + len(rec.Policy) + len(rec.Metadata)
	n.noteStored(rec, residency.ClassMetadata, false, size)
	if n.mesh != nil && n.home(rec) == n.self().Name {
		n.replicas.touch(rec.Name)
	}
	return nil
}

// notSaved tells a room that its record is not on the disk.
func (n *Node) notSaved(name string, err error) {
	n.log.Error("a room's record is not saved", "error", err)
	if r := n.rooms.get(name); r != nil {
		r.NotSaved()
	}
}

// forgetRoom has the record of a room erased that has expired, here and on the other
// origins. The room does not wait for it.
func (n *Node) forgetRoom(rec room.Record) error {
	n.replicas.bury(rec)
	return n.store.writer.drop(rec)
}

// noteStored counts what this node has stored of a room.
func (n *Node) noteStored(rec room.Record, class residency.Class, qa bool, bytes int) {
	n.noteAct(rec.Name, rec, act{side: evidence.Stored, class: class, qa: qa, rule: residency.RuleZone, epoch: n.gate().Epoch()}, 1, bytes)
}

// noteKept counts what this node has stored or recorded of a room that lives here.
func (n *Node) noteKept(name string, side evidence.Side, class residency.Class, packets, bytes int) {
	n.noteAct(name, room.Record{}, act{side: side, class: class, rule: residency.RuleZone, epoch: n.gate().Epoch()}, packets, bytes)
}

// noteRefused counts that the gate kept a class of a room from a node.
func (n *Node) noteRefused(name string, v residency.Verdict) {
	if v.Allow || v.Epoch == 0 || v.Peer == "" || v.Peer == n.self().Name {
		return
	}
	n.noteAct(name, room.Record{}, act{side: evidence.Refused, peer: v.Peer, class: v.Class, rule: v.Rule, epoch: v.Epoch}, 1, 0)
}

func (n *Node) noteAct(name string, rec room.Record, what act, packets, bytes int) {
	if !n.proves() {
		return
	}
	p := &n.testimony
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.acts[name]
	if a == nil {
		if len(p.acts) >= maxActRooms {
			return
		}
		a = &acts{since: n.now(), done: map[act]figures{}}
		p.acts[name] = a
	}
	if rec.Name != "" {
		a.rec = rec
	}
	if _, known := a.done[what]; !known && len(a.done) >= maxActs {
		return
	}
	f := a.done[what]
	a.done[what] = figures{f.packets + uint64(packets), f.bytes + uint64(bytes)}
}

// takeActs moves what was counted of a room into its book and shows it to the ledger.
func (n *Node) takeActs(name string, b *book, now time.Time) {
	p := &n.testimony
	p.mu.Lock()
	if a := p.acts[name]; a != nil && (a.rec.SID == "" || a.rec.SID == b.rec.SID) { // else of another room of that name
		for what, f := range a.done {
			b.add(what, f)
		}
		delete(p.acts, name)
	}
	p.mu.Unlock()
	for what, s := range b.acts {
		id := witness.ID{Side: what.side, Peer: cmp.Or(what.peer, n.self().Name), Number: what.number()}
		b.ledger.Take(now, id, n.aboutAct(b, what, s.rule), witness.Count{Packets: s.packets, Bytes: s.bytes})
	}
}

// sum is what was done by one act since the stay began, and the rule of the last time.
type sum struct {
	figures
	rule string
}

// add counts an act. There is one receipt for each peer, class and epoch, whatever the
// rule was each time.
func (b *book) add(what act, f figures) {
	rule := what.rule
	what.rule = ""
	if b.acts[what] == nil {
		if len(b.acts) >= maxActs {
			return
		}
		b.acts[what] = &sum{}
	}
	s := b.acts[what]
	s.packets, s.bytes, s.rule = s.packets+f.packets, s.bytes+f.bytes, rule
}

// number tells the acts of one side and peer apart in a ledger.
func (a act) number() uint64 {
	qa := uint64(0)
	if a.qa {
		qa = 1
	}
	return uint64(a.epoch)<<8 | uint64(slices.Index(residency.Classes(), a.class))<<1 | qa
}

// aboutAct is what a receipt says of an act beside its figures.
func (n *Node) aboutAct(b *book, what act, rule string) witness.About {
	about := witness.About{Class: what.class, QA: what.qa, Policy: n.policyName(b.rec), Tenant: b.rec.Tenant, Rule: rule, Epoch: what.epoch}
	if what.side != evidence.Refused {
		return about // the chain fills in this node's own certificate
	}
	if peer, _, ok := n.peer(what.peer); ok {
		about.PeerCertificate = n.fingerprintOf(what.peer, peer.Serial)
	}
	return about
}

// dropActs forgets what belongs to no book: of rooms whose policies want no evidence,
// or in which this node has no part.
func (n *Node) dropActs(now time.Time) {
	p := &n.testimony
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.acts, func(_ string, a *acts) bool { return now.Sub(a.since) >= actsWait })
}
