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
	seq        uint64 // of the last roster sent (home) or accepted (others)
	nodes      map[residency.NodeName]Presence
	heard      map[residency.NodeName]time.Time // when a node said hello last (home)
	told       Presence                         // what the home was told last
	toldAt     time.Time
	movedAt    time.Time // to this home
	emptySince time.Time
	joined     bool // somebody has been in the room
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
func (r *Room) presence() Presence {
	p := Presence{Node: r.deps.Self.Name, Participants: len(r.locals), Recorder: r.recorder != nil}
	policy, err := r.deps.Gate().Bundle().Policy(r.record.Policy)
	if err != nil {
		return p
	}
	zone := policy.Zone(residency.ClassMedia)
	for _, l := range r.locals {
		p.Outside = p.Outside || l.country != "" && !zone.Contains(l.country)
	}
	return p
}

// doHome follows the home as the mesh changes and keeps it informed.
func (r *Room) doHome(now time.Time) {
	home := r.deps.Home(r.name, r.record.Policy)
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
	if r.sendTo(r.home.name, KindHello, encode(Hello{Presence: p, Record: r.record})) == nil {
		r.home.told, r.home.toldAt = p, now
	}
}

// forgetSilent takes nodes off the roster that have not said hello for long.
func (r *Room) forgetSilent(now time.Time) {
	for name, p := range r.home.nodes {
		if name != r.deps.Self.Name && now.Sub(r.home.heard[name]) > helloLost {
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
	r.home.name, r.home.seq = home, 0
	r.home.told, r.home.toldAt, r.home.movedAt = Presence{}, time.Time{}, r.deps.Now()
	clear(r.home.nodes)
	clear(r.home.heard)
	if home != r.deps.Self.Name {
		return
	}
	for name, m := range r.remotes {
		if m.presence.Present() {
			r.home.nodes[name], r.home.heard[name] = m.presence, r.deps.Now()
		}
	}
	if err := r.deps.Save(r.record); err != nil {
		r.log.Error("saving the room's record", "error", err)
	}
	r.sendRoster()
}

// doHello handles a node's statement of its presence; only the home listens.
func (r *Room) doHello(from residency.NodeName, h Hello) {
	if r.home.name != r.deps.Self.Name || h.Presence.Node != from {
		return
	}
	if !r.admits(from, h.Presence) || h.Record.Policy != r.record.Policy {
		r.doPresence(Presence{Node: from})
		// A node with another policy learns from the roster that it has to leave.
		r.sendTo(from, KindRoster, encode(r.roster()))
		return
	}
	r.home.heard[from] = r.deps.Now()
	r.doPresence(h.Presence)
	r.takeRecording(from, h)
	if h.Presence.Present() {
		r.sendTo(from, KindRoster, encode(r.roster())) // its answer, and the repair of a lost one
	}
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
	if from != r.home.name || ros.Home != from || ros.Record.Name != r.name || ros.Seq < r.home.seq {
		return
	}
	if ros.Deleted {
		r.doEnd(deleted)
		return
	}
	r.home.seq = ros.Seq
	clear(r.home.nodes)
	for _, p := range ros.Nodes {
		r.home.nodes[p.Node] = p
	}
	// The policy of a live room is never widened by a message: it is what this
	// node admitted its participants under.
	if ros.Record.Policy != r.record.Policy {
		r.log.Error("the home states another policy, this node leaves the room",
			"policy", r.record.Policy, "home_policy", ros.Record.Policy)
		r.doEnd(livekit.DisconnectReason_STATE_MISMATCH)
		return
	}
	changed := ros.Record.Metadata != r.record.Metadata || (ros.Record.Recording != nil) != (r.record.Recording != nil)
	r.record = ros.Record
	r.keepRecording()
	if changed {
		r.tellRoom()
	}
	r.applyRoster(ros)
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
		}
	}
	for name, m := range r.remotes {
		// A node that has just spoken for itself may be newer than this roster.
		fresh := m.presence.Present() && r.deps.Now().Sub(m.heardAt) < linkGrace
		// A new home learns of the nodes one hello after the other.
		settling := r.deps.Now().Sub(r.home.movedAt) < linkGrace
		if _, ok := r.home.nodes[name]; !ok && name != r.home.name && !fresh && !settling {
			r.dropRemote(name)
		}
	}
	// The home keeps the list of participants even where it serves none.
	if h := r.home.name; h != r.deps.Self.Name && h != "" && r.remotes[h] == nil {
		r.meet(Presence{Node: h})
	}
	r.publish()
}

// tellRoom sends the room's state to every participant here.
func (r *Room) tellRoom() {
	r.tellAll(&livekit.SignalResponse{Message: &livekit.SignalResponse_RoomUpdate{
		RoomUpdate: &livekit.RoomUpdate{Room: r.record.Info(r.count())}}})
}

// setRecord changes the record; only the home does so.
func (r *Room) setRecord(change func(*Record)) {
	change(&r.record)
	if err := r.deps.Save(r.record); err != nil {
		r.log.Error("saving the room's record", "error", err)
	}
	r.tellRoom()
	r.sendRoster()
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
