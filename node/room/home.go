package room

import (
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// homeState is the room's relation to its home: who it is, and, on the home
// itself, which nodes take part. Owned by Room.run.
type homeState struct {
	name       residency.NodeName
	term       uint64 // of the last roster
	seq        uint64 // of the last roster sent (home) or accepted (others)
	nodes      map[residency.NodeName]Presence
	heard      map[residency.NodeName]time.Time // when a node said hello last (home)
	told       Presence                         // what the home was told last
	toldAt     time.Time
	movedAt    time.Time // to this home, or since it can be reached again
	emptySince time.Time
	lost       time.Time     // since then the node that records is away
	unseen     time.Duration // it may have been away for so long before that
	recorded   *Recording    // of the home that was lost: the next one has it go on
	begun      time.Time     // when a recording was last asked for, or asked to go on elsewhere
	joined     bool          // somebody has been in the room
	deleted    bool
}

func (h *homeState) init(now time.Time) {
	h.nodes = map[residency.NodeName]Presence{}
	h.heard = map[residency.NodeName]time.Time{}
	h.emptySince = now
}

// helloLost is how long a node that says nothing counts as present: a goodbye
// can be lost with its link, and would leave a room that never ends.
const helloLost = 3 * helloEvery

// presence is this node's part in the room.
func (r *Room) presence() Presence { return r.presenceBy(r.deps.Gate()) }

// presenceBy has who is outside as the policies of one gate say.
func (r *Room) presenceBy(gate *residency.Gate) Presence {
	p := Presence{Node: r.deps.Self.Name, Participants: len(r.locals) + len(r.ghosts) + len(r.expected), Recorder: r.recorder != nil, Told: r.told}
	for _, l := range r.locals {
		p.Who += digest(l.sid)
	}
	policy, err := gate.Bundle().PolicyFor(r.record.Tenant, r.record.Policy)
	if err != nil {
		return p
	}
	zone := policy.Zone(residency.ClassMedia)
	for _, l := range r.locals {
		p.Outside = p.Outside || l.country != "" && !zone.Contains(l.country)
	}
	for _, country := range r.expected {
		p.Outside = p.Outside || country != "" && !zone.Contains(country)
	}
	return p
}

// doHome follows the home as the mesh changes and keeps it informed.
func (r *Room) doHome(now time.Time) {
	home := r.deps.Home(r.record)
	if home == "" {
		home = r.home.name // nobody may be home now: the nodes that meet go on meeting
	}
	if home != r.home.name {
		r.moveHome(home)
	}
	p := r.presence()
	if r.home.name == r.deps.Self.Name {
		r.doPresence(p)
		r.forgetSilent(now)
		return
	}
	every := helloEvery
	if r.home.seq == 0 {
		every = helloRetry
	}
	if p != r.home.told || now.Sub(r.home.toldAt) >= every {
		r.sayHello(p, now)
	}
}

// sayHello tells the home of this node's part in the room.
func (r *Room) sayHello(p Presence, now time.Time) {
	if r.home.name == "" || r.home.name == r.deps.Self.Name {
		return
	}
	if r.sendTo(r.home.name, KindHello, encode(Hello{Presence: p, Record: r.record, HandOver: r.handOver})) == nil {
		r.home.told, r.home.toldAt = p, now
	}
}

// forgetSilent takes nodes off the roster that have not said hello for long.
func (r *Room) forgetSilent(now time.Time) {
	for name, p := range r.home.nodes {
		silent := now.Sub(r.home.heard[name])
		if m := r.remotes[name]; m != nil && silent > helloEvery+doubtWait {
			m.doubt(now)
		}
		if name != r.deps.Self.Name && silent > helloLost {
			r.doPresence(Presence{Node: p.Node})
			r.dropLostRecording(name)
		}
	}
}

// moveHome starts over with another home. A node that becomes the home itself
// rebuilds the roster from the nodes it knows.
func (r *Room) moveHome(home residency.NodeName) {
	if r.home.name != "" {
		r.log.Info("room moves to another home", "from", r.home.name, "to", home)
	}
	r.home.name, r.home.term, r.home.seq = home, 0, 0
	r.home.told, r.home.toldAt, r.home.movedAt = Presence{}, time.Time{}, r.deps.Now()
	clear(r.home.nodes)
	clear(r.home.heard)
	if home != r.deps.Self.Name {
		return
	}
	if r.record.Recording == nil && r.home.recorded != nil {
		r.record.Recording = r.home.recorded
	}
	r.home.recorded = nil
	r.record.succeed(home)
	for name, m := range r.remotes {
		if m.presence.Present() {
			r.home.nodes[name], r.home.heard[name] = m.presence, r.deps.Now()
		}
	}
	r.save()
	r.sendRoster()
}

// doHello handles a node's statement of its presence; only the home listens.
func (r *Room) doHello(from residency.NodeName, h Hello) {
	if r.home.name != r.deps.Self.Name || h.Presence.Node != from {
		return
	}
	r.noteOutside(from, h.Presence)
	if !r.admits(from, h.Presence) || !h.Record.SameTerms(r.record) {
		r.doPresence(Presence{Node: from})
		// A node with another policy learns from the roster that it has to leave.
		r.sendTo(from, KindRoster, encode(r.roster()))
		return
	}
	r.hearRecord(from, h.Record)
	r.home.heard[from] = r.deps.Now()
	if m := r.remotes[from]; m != nil {
		m.doubted = time.Time{}
	}
	r.doPresence(h.Presence)
	r.compare(h.Presence)
	r.takeRecording(from, h)
	if h.Presence.Present() {
		r.sendTo(from, KindRoster, encode(r.roster())) // its answer, and the repair of a lost one
	}
}

// hearRecord takes over, at home, what a node has that is newer: it followed another
// home while this one was cut off, or was that home. Fields are taken from nodes alone
// that may keep them, and so be home; of the others only how far the terms have come.
func (r *Room) hearRecord(from residency.NodeName, rec Record) {
	if rec.SID != r.record.SID {
		return
	}
	old := r.record
	higher := r.record.follows(rec.Term)
	if r.mayBeHome(from) && old.Versions.Metadata.compare(rec.Versions.Metadata) < 0 {
		r.record.Metadata, r.record.Versions.Metadata = rec.Metadata, rec.Versions.Metadata
	}
	if r.record == old {
		return
	}
	if higher { // which of two recordings goes on is this home's word now
		r.record.Versions.Recording = r.record.stamp(r.deps.Self.Name)
	}
	r.log.Info("the room's record is newer elsewhere", "node", from, "term", r.record.Term)
	r.save()
	if r.record.Metadata != old.Metadata {
		r.tellRoom()
	}
	r.sendRoster()
}

// mayBeHome reports whether a node may keep the room's record.
func (r *Room) mayBeHome(node residency.NodeName) bool {
	peer, epoch, ok := r.deps.Peer(node)
	if !ok || !peer.Has(residency.RoleOrigin) {
		return false
	}
	q := r.asking(peer, epoch, residency.ClassMetadata, false)
	q.Store = true
	return r.deps.Gate().Decide(q).Allow
}

// doPresence notes a node's part in the room and tells everybody when it changed.
func (r *Room) doPresence(p Presence) {
	old, known := r.home.nodes[p.Node]
	r.home.joined = r.home.joined || p.Participants > 0
	switch {
	case p.Present():
		r.home.nodes[p.Node] = p
	default:
		delete(r.home.nodes, p.Node)
		delete(r.home.heard, p.Node)
	}
	if known && old == p || !known && !p.Present() {
		return
	}
	r.sendRoster()
}

func (r *Room) roster() Roster {
	return Roster{Home: r.deps.Self.Name, Seq: r.home.seq, Record: r.record, Nodes: r.nodes(), Deleted: r.home.deleted}
}

// nodes lists the room's nodes in order of their names.
func (r *Room) nodes() []Presence {
	list := make([]Presence, 0, len(r.home.nodes))
	for _, p := range r.home.nodes {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Presence) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return list
}

// sendRoster publishes the home's view to every node of the room and applies it here.
func (r *Room) sendRoster() {
	r.home.seq++
	ros := r.roster()
	for name := range r.home.nodes {
		if name != r.deps.Self.Name {
			r.noteOutside(name, r.home.nodes[name])
			r.sendTo(name, KindRoster, encode(ros))
		}
	}
	r.applyRoster(ros)
}

// doRoster accepts the view of the home, of nobody else, and nothing older.
func (r *Room) doRoster(from residency.NodeName, ros Roster) {
	if from != r.home.name || ros.Home != from || ros.Record.Name != r.name {
		return
	}
	if ros.Deleted {
		r.doEnd(deleted)
		return
	}
	if !r.home.accepts(ros, r.record.Term) {
		if ros.Record.Term != 0 && ros.Record.Term < r.record.Term { // it was cut off, and has to hear so
			r.home.toldAt = r.deps.Now().Add(helloRetry - helloEvery)
		}
		return
	}
	r.home.term, r.home.seq, r.home.recorded = ros.Record.Term, ros.Seq, nil
	clear(r.home.nodes)
	for _, p := range ros.Nodes {
		r.home.nodes[p.Node] = p
	}
	// The policy of a live room is never widened by a message: it is what this
	// node admitted its participants under.
	if !ros.Record.SameTerms(r.record) {
		r.log.Error("the home states another policy or tenant, this node leaves the room",
			"policy", r.record.Policy, "home_policy", ros.Record.Policy, "tenant", r.record.Tenant, "home_tenant", ros.Record.Tenant)
		r.doEnd(livekit.DisconnectReason_STATE_MISMATCH)
		return
	}
	old := r.record
	r.record = r.record.Merge(ros.Record)
	if ros.Record.Term == 0 { // its home keeps no versions
		r.record = ros.Record
	}
	if ros.Record.Versions.Recording.compare(old.Versions.Recording) >= 0 { // also over what was only presumed here
		r.record.Recording, r.record.RecordingProblem = ros.Record.Recording, ros.Record.RecordingProblem
	}
	r.keepRecording()
	changed := r.record.Metadata != old.Metadata || r.record.recordingID() != old.recordingID() || r.record.RecordingProblem != old.RecordingProblem
	if changed {
		r.tellRoom()
	}
	r.applyRoster(ros)
}

// accepts reports whether a roster is not older than what is known: of a term before
// the room's, which its home began before it was cut off, or overtaken on its way. A
// home of a version that knows no terms is believed.
func (h *homeState) accepts(ros Roster, term uint64) bool {
	switch said := ros.Record.Term; {
	case said == 0:
		return ros.Seq >= h.seq
	case said < term:
		return false
	case said > h.term:
		return true
	}
	return ros.Seq >= h.seq
}

// applyRoster meets the nodes that joined and parts from those that left.
func (r *Room) applyRoster(ros Roster) {
	for _, p := range ros.Nodes {
		if p.Node == r.deps.Self.Name {
			continue
		}
		if _, known := r.remotes[p.Node]; !known {
			r.meet(p)
		} else {
			r.noteOutside(p.Node, p)
			r.compare(p)
		}
	}
	r.dropUnlisted()
	// The home keeps the list of participants even where it serves none.
	if h := r.home.name; h != r.deps.Self.Name && h != "" && r.remotes[h] == nil {
		r.meet(Presence{Node: h})
	}
	r.publish()
}

// dropUnlisted parts from the nodes that are not on the roster. Some are given
// time: it is asked again with every tick.
func (r *Room) dropUnlisted() {
	if r.home.seq == 0 && r.home.name != r.deps.Self.Name {
		return // nothing is known of this home's roster yet
	}
	for name, m := range r.remotes {
		// A node that has just spoken for itself may be newer than this roster.
		fresh := m.presence.Present() && r.deps.Now().Sub(m.heardAt) < linkGrace
		// A new home, or one that was started anew, learns of the nodes one hello after the other.
		settling := r.deps.Now().Sub(r.home.movedAt) < linkGrace
		if _, ok := r.home.nodes[name]; !ok && name != r.home.name && !fresh && !settling {
			r.dropRemote(name)
		}
	}
}

// tellRoom sends the room's state to every participant here.
func (r *Room) tellRoom() {
	r.tellAll(&livekit.SignalResponse{Message: &livekit.SignalResponse_RoomUpdate{
		RoomUpdate: &livekit.RoomUpdate{Room: r.record.Info(r.count())}}})
	r.tellProblem()
	r.noteTold()
}

// setRecord changes the record; only the home does so.
func (r *Room) setRecord(change func(*Record)) {
	old := r.record
	change(&r.record)
	r.record.wrote(old, r.deps.Self.Name)
	r.save()
	r.tellRoom()
	r.sendRoster()
}

// saveAgain is how soon a record that could not be written is tried again.
const saveAgain = 5 * time.Second

// NotSaved tells the room that its record is not on the disk. It never waits for the
// room: what is lost here is found by the next change.
func (r *Room) NotSaved() {
	select {
	case r.inbox <- func() { r.unsaved = true }:
	default:
	}
}

// Learn takes what another origin has of the room's record.
func (r *Room) Learn(from residency.NodeName, rec Record) { r.post(func() { r.doLearn(from, rec) }) }

func (r *Room) doLearn(from residency.NodeName, rec Record) {
	switch {
	case r.ended || rec.SID != r.record.SID || !rec.SameTerms(r.record):
	case r.home.name == r.deps.Self.Name:
		r.hearRecord(from, rec)
	case r.record.Versions.Metadata.compare(rec.Versions.Metadata) < 0:
		r.record.Metadata, r.record.Versions.Metadata = rec.Metadata, rec.Versions.Metadata
		r.record.Term = max(r.record.Term, rec.Term)
		r.tellRoom()
		r.publish()
	}
}

// save has the record written to this node's disk, if that may still keep it: a home
// that no other node can take over from goes on without, and tries again when
// something changes.
func (r *Room) save() {
	r.unsaved, r.savedAt = true, r.deps.Now()
	permit, v := r.keep(residency.ClassMetadata)
	if !v.Allow {
		r.log.Warn("the room's record is not written here", "rule", v.Rule, "reason", v.Reason)
		return
	}
	if err := r.deps.Save(permit, r.record); err != nil {
		r.log.Error("saving the room's record", "error", err)
		return
	}
	r.unsaved = false
}

// keep asks the gate whether this node may keep a class of the room.
func (r *Room) keep(c residency.Class) (residency.Permit, residency.Verdict) {
	gate := r.deps.Gate()
	self, epoch, _ := r.peer(gate, r.deps.Self.Name) // not Deps.Self: its certificate may have been renewed
	return gate.Permit(residency.Request{Room: r.name, Tenant: r.record.Tenant, Policy: r.record.Policy, Class: c,
		Peer: self, PeerEpoch: epoch, Contradiction: r.contradiction(self.Name), NoEvidence: r.noEvidence(), Store: true, Place: r.deps.Places[c], Now: r.deps.Date()})
}

// others is the number of participants beside those of an identity, who would
// be replaced by their own return.
func (r *Room) others(identity string) int {
	n := 0
	for _, p := range r.participants() {
		if p.Identity != identity {
			n++
		}
	}
	return n
}

// count is the number of participants in the whole room.
func (r *Room) count() int {
	n := len(r.locals)
	for _, m := range r.remotes {
		n += len(m.participants)
	}
	return n
}
