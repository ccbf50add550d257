package room

import (
	"bytes"
	"fmt"
	"maps"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/room/reliable"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// remote is another node of the room. Owned by Room.run.
type remote struct {
	name         residency.NodeName
	presence     Presence
	heard        bool                          // presence is from the node itself, not from a roster
	heardAt      time.Time                     // when it spoke last
	comparedAt   time.Time                     // when it was asked last for all its participants
	participants map[string]*remoteParticipant // by sid
	rivals       map[string]bool               // sids of earlier connections, as far as is known here; see noteRival
	lostAt       time.Time                     // its link went down then
	suspect      bool                          // nothing arrives from it just now
	speaking     map[string]float32            // levels by sid of those who speak, as it said last
	spokeAt      time.Time                     // when that was
	refused      string                        // last refusal, so that it is logged once

	// doubted says since when its word that it serves somebody from outside may
	// have been taken back without this node hearing of it; zero: it stands.
	doubted time.Time

	apart time.Time // since then it goes by other policies; zero: it does not
}

// followWait is how long media that flows goes on while the other node is at a
// newer version of the policies: within it the mesh has followed, or does not agree.
const followWait = 300 * time.Millisecond

// doubtWait is how long a doubted word still counts: who meant it has repeated it
// by then, and an edge outside gets nothing longer than R3 lets it.
const doubtWait = time.Second

// doubt waits for a node to say again that it serves somebody from outside: its
// goodbye may have been lost with a link, or was refused under other policies.
func (m *remote) doubt(now time.Time) {
	if m.doubted.IsZero() {
		m.doubted = now
	}
}

type remoteParticipant struct {
	version uint64
	number  uint64 // of the connection; see joined
	info    *livekit.ParticipantInfo
	order   reliable.Order // of its reliable data
	quality Quality        // as its node stated it last
	allow   *Permissions   // who may receive its tracks
	moves   uint32         // see ParticipantRecord
	origin  origin         // of one that another node has taken over
}

// forgone reports whether a doubt has lasted too long.
func (m *remote) forgone(now time.Time) bool {
	return !m.doubted.IsZero() && now.Sub(m.doubted) >= doubtWait
}

// outside reports whether the node serves somebody from outside the media zone.
// Its own word is not enough once it has spoken: it has to name participants.
func (m *remote) outside(now time.Time) bool {
	switch {
	case m.forgone(now):
		return false
	case m.heard:
		return m.presence.Outside && len(m.participants)+len(m.rivals) > 0
	}
	return m.presence.Outside && m.presence.Participants > 0
}

// permit asks the gate whether a class of this room may go to (or come from) a node.
func (r *Room) permit(to residency.NodeName, c residency.Class) (residency.Permit, residency.Verdict) {
	m := r.remotes[to]
	return r.ask(to, c, m != nil && m.outside(r.deps.Now()))
}

// admits asks the gate whether a node with this presence may be in the room.
func (r *Room) admits(node residency.NodeName, p Presence) bool {
	_, v := r.ask(node, residency.ClassSignalling, p.Outside && p.Participants > 0)
	if !v.Allow && p.Present() {
		r.turnAway(node, v)
		r.keptFrom(v)
	}
	return v.Allow
}

func (r *Room) ask(to residency.NodeName, c residency.Class, outside bool) (residency.Permit, residency.Verdict) {
	return r.askBy(r.deps.Gate(), to, c, outside)
}

// askBy asks one gate, that another may have taken the place of meanwhile.
func (r *Room) askBy(gate *residency.Gate, to residency.NodeName, c residency.Class, outside bool) (residency.Permit, residency.Verdict) {
	peer, epoch, ok := r.peer(gate, to)
	if !ok {
		return residency.Permit{}, residency.Verdict{Peer: to, Class: c, Rule: residency.RuleCertificate,
			Reason: fmt.Sprintf("node %s is not a verified member of the mesh", to)}
	}
	return gate.Permit(r.asking(peer, epoch, c, outside))
}

// peer is a node as a gate is asked about it. This one decides by that very gate,
// whichever is in force a moment later: it is never behind itself.
func (r *Room) peer(gate *residency.Gate, name residency.NodeName) (residency.Node, residency.Epoch, bool) {
	node, epoch, ok := r.deps.Peer(name)
	if name == r.deps.Self.Name {
		epoch = gate.Epoch()
	}
	return node, epoch, ok
}

// asking is the question whether a class of this room may go to (or come from) a node.
func (r *Room) asking(peer residency.Node, epoch residency.Epoch, c residency.Class, outside bool) residency.Request {
	return residency.Request{
		Room: r.name, Tenant: r.record.Tenant, Policy: r.record.Policy, Class: c, Peer: peer, PeerEpoch: epoch,
		OutsideParticipant: outside, Contradiction: r.contradiction(peer.Name), NoEvidence: r.noEvidence(), Now: r.deps.Date(),
	}
}

// noEvidence says why what happens now could not be proved afterwards.
func (r *Room) noEvidence() string {
	if r.deps.NoEvidence == nil {
		return ""
	}
	return r.deps.NoEvidence(r.name)
}

// contradiction says why a node is not believed to be where its certificate says.
func (r *Room) contradiction(of residency.NodeName) string {
	if r.deps.Contradiction == nil {
		return ""
	}
	return r.deps.Contradiction(of)
}

// sendTo sends a message of the room to a node if the gate permits it.
func (r *Room) sendTo(to residency.NodeName, kind relay.Kind, body []byte) error {
	if to == "" || to == r.deps.Self.Name {
		return fmt.Errorf("send to %q: not another node", to)
	}
	permit, verdict := r.permit(to, Class(kind))
	if !verdict.Allow {
		r.noteRefusal(to, verdict)
		r.keptFrom(verdict)
		return fmt.Errorf("send to %q: %s", to, verdict.Reason)
	}
	link := r.deps.Link(to)
	if link == nil {
		return fmt.Errorf("send to %q: no link", to)
	}
	return link.Send(permit, kind, body)
}

// keptFrom has it counted that a node did not get what it would have got.
func (r *Room) keptFrom(v residency.Verdict) {
	if r.deps.Refused != nil {
		r.deps.Refused(r.name, v)
	}
}

// meet adds a node to the room and tells it who is here. The home has heard of it
// from itself; on other nodes an edge outside has to speak first, because what the
// home says of it may be older than its goodbye.
func (r *Room) meet(p Presence) {
	m := &remote{name: p.Node, presence: p, participants: map[string]*remoteParticipant{}}
	if r.home.name != r.deps.Self.Name {
		m.doubt(time.Time{}.Add(1))
	}
	r.remotes[p.Node] = m
	delete(r.strangers, p.Node)
	r.introduce(p.Node, true)
}

// introduce sends a node everything about the participants here, and asks it
// to do the same where this node knows nothing of its own.
func (r *Room) introduce(to residency.NodeName, tell bool) {
	r.tellWhole(to, Participants{Tell: tell})
}

// inquire does so where what is known here of a node's participants may be wrong. All
// that the two have asked each other for goes on: tracks between them among it.
func (r *Room) inquire(of residency.NodeName) {
	r.tellWhole(of, Participants{Tell: true, Kept: true})
}

// tellWhole sends a node all participants here, the last of them in this message.
func (r *Room) tellWhole(to residency.NodeName, last Participants) {
	var here []string
	part := Participants{Presence: r.presence()}
	size := 0
	for _, p := range r.locals {
		rec := r.localRecord(p)
		if size += len(rec.Info); size > introduceBytes && len(part.Changed) > 0 {
			r.sendTo(to, KindParticipants, encode(part))
			part.Changed, size = nil, len(rec.Info)
		}
		part.Changed = append(part.Changed, rec)
		here = append(here, p.sid)
	}
	part.Whole, part.Here, part.Tell, part.Kept = true, here, last.Tell, last.Kept
	r.sendTo(to, KindParticipants, encode(part))
}

// introduceBytes bounds the participant records in one message; as JSON they
// take a third more, and the codecs of their tracks come on top.
const introduceBytes = 256 << 10

// announce sends a change to every node of the room.
func (r *Room) announce(m Participants) {
	body := encode(m)
	for name := range r.remotes {
		r.sendTo(name, KindParticipants, body)
	}
}

// noteOutside takes over what a roster says of a node until the node spoke itself.
func (r *Room) noteOutside(name residency.NodeName, p Presence) {
	if m := r.remotes[name]; m != nil && !m.heard {
		m.presence = p
	}
}

// Message handles a message of this room from a link, in the order of arrival.
func (r *Room) Message(from residency.NodeName, kind relay.Kind, body []byte) {
	body = bytes.Clone(body) // the link reuses its buffer
	r.post(func() { r.doMessage(from, kind, body) })
}

func (r *Room) doMessage(from residency.NodeName, kind relay.Kind, body []byte) {
	if r.ended {
		return
	}
	if !r.hears(from, kind) {
		return
	}
	var err error
	switch kind {
	case KindHello:
		err = handle(body, func(h Hello) { r.doHello(from, h) })
	case KindRoster:
		err = handle(body, func(ros Roster) { r.doRoster(from, ros) })
	case KindParticipants:
		err = handle(body, func(p Participants) { r.doParticipants(from, p) })
	case KindSubscribe:
		err = handle(body, func(s Subscribe) { r.doSubscribe(from, s) })
	case KindTrackOpen:
		err = handle(body, func(t TrackOpen) { r.doTrackOpen(from, t) })
	case KindTrackClosed:
		err = handle(body, func(t TrackClosed) { r.doTrackClosed(from, t) })
	case KindKeyframe:
		err = handle(body, func(k Keyframe) { r.doKeyframe(from, k) })
	case KindLayers:
		err = handle(body, func(l Layers) { r.doLayers(from, l) })
	case KindSpeaking:
		err = handle(body, func(s Speaking) { r.doSpeaking(from, s) })
	case KindDataAsk:
		err = handle(body, func(d DataAsk) { r.doDataAsk(from, d) })
	case KindDataHead:
		err = handle(body, func(d DataHead) { r.doDataHead(from, d) })
	case KindTrackVia:
		err = handle(body, func(v TrackVia) { r.doTrackVia(from, v) })
	case KindQuality:
		err = handle(body, func(q Qualities) { r.doQualities(from, q) })
	case KindData:
		err = handle(body, func(d Data) { r.doRemoteData(from, d) })
	default:
		err = fmt.Errorf("kind %#x is unknown to this version", kind)
	}
	if err != nil {
		r.log.Warn("bad message of a node is dropped", "node", from, "error", err)
	}
}

func handle[T any](body []byte, do func(T)) error {
	m, err := decode[T](body)
	if err == nil {
		do(m)
	}
	return err
}

// doParticipants takes over what a node says of the participants it serves.
func (r *Room) doParticipants(from residency.NodeName, msg Participants) {
	if msg.Presence.Node != from {
		return
	}
	m := r.remotes[from]
	if m == nil {
		m = &remote{name: from, participants: map[string]*remoteParticipant{}}
		r.remotes[from] = m
		defer r.introduce(from, !msg.Whole)
	} else if msg.Tell {
		if !msg.Kept {
			r.askAnew(from)
		}
		defer r.introduce(from, false)
	}
	m.presence, m.heard, m.heardAt, m.lostAt, m.doubted = msg.Presence, true, r.deps.Now(), time.Time{}, time.Time{}
	// The receiver asks too: a node that may not be in this room has nobody in it.
	admitted := r.admits(from, msg.Presence)
	var changed []*livekit.ParticipantInfo
	infos := make([]*livekit.ParticipantInfo, len(msg.Changed))
	for i := range infos {
		infos[i], _ = msg.Changed[i].info() // checked by decode
		if admitted {
			changed = append(changed, r.takeParticipant(m, &msg.Changed[i], infos[i])...)
		}
	}
	for _, sid := range msg.Left {
		delete(m.rivals, sid)
		changed = append(changed, r.loseParticipant(m, sid, livekit.DisconnectReason_CLIENT_INITIATED)...)
	}
	if msg.Whole {
		here := map[string]bool{}
		for _, sid := range msg.Here {
			here[sid] = true
		}
		maps.DeleteFunc(m.rivals, func(sid string, _ bool) bool { return !here[sid] })
		for sid := range m.participants {
			if !here[sid] {
				changed = append(changed, r.loseParticipant(m, sid, livekit.DisconnectReason_CLIENT_INITIATED)...)
			}
		}
	}
	r.recheck(from) // it may have said that its last participant from outside has left
	r.tellParticipants(changed)
	for i := range infos {
		r.followTracks(m, infos[i], &msg.Changed[i])
		if msg.Changed[i].Arrived {
			r.noteArrived(infos[i].Sid)
		}
	}
	switch {
	case !admitted:
		r.dropRemote(from)
	case r.home.name == r.deps.Self.Name:
		r.home.heard[from] = r.deps.Now()
		r.doPresence(msg.Presence)
	}
	r.publish()
	r.poke()
}

// askAnew asks a node again for the tracks that come from it: it may have forgotten
// this one, and with it what it was asked for. What comes goes on: if the node has
// forgotten, it ends that itself, or sends it under another alias.
func (r *Room) askAnew(node residency.NodeName) {
	for _, t := range r.tracks {
		if t.node == node {
			t.way.plan, t.way.told = 0, Subscribe{}
		}
		if f := t.way.feed(node); f != nil {
			f.anew = true
		}
	}
	r.poke()
}

// followTracks follows the tracks of a participant elsewhere whose record was
// taken over, once attendees here have been told of it.
func (r *Room) followTracks(m *remote, info *livekit.ParticipantInfo, rec *ParticipantRecord) {
	if p := m.participants[info.Sid]; p != nil && p.info == info {
		r.takeTracks(m.name, info, rec)
	}
}

// takeParticipant stores a newer record of a participant elsewhere. It returns
// what attendees here are to be told, in this order.
func (r *Room) takeParticipant(m *remote, rec *ParticipantRecord, info *livekit.ParticipantInfo) []*livekit.ParticipantInfo {
	r.heardNumber(rec.Number)
	old := m.participants[info.Sid]
	if old != nil && old.version >= rec.Version {
		return nil
	}
	var was *remoteParticipant
	if old == nil {
		var stale bool
		if was, stale = r.moved(m, info, rec); stale {
			return nil
		}
	}
	if old == nil && (r.claimed(m, info.Sid) || len(m.participants) >= maxRemote) {
		r.log.Warn("a node states a participant of another node, or too many", "node", m.name, "participant", info.Sid)
		return nil
	}
	info.Region = string(m.name) // not what it states, but who states it
	if l := r.byIdentity(info.Identity); l != nil {
		if !r.outnumbered(l, rec, info) {
			r.noteRival(m, info.Sid)
			return nil
		}
		r.removeLocal(l, livekit.DisconnectReason_DUPLICATE_IDENTITY) // the later one wins, on every node alike
	}
	tell, latest := r.supersede(info, rec.Number)
	if !latest {
		r.noteRival(m, info.Sid)
		return tell
	}
	delete(m.rivals, info.Sid)
	if old == nil {
		old = &remoteParticipant{}
		if was != nil {
			old = was
		}
		m.participants[info.Sid] = old
	}
	old.version, old.number, old.info, old.allow, old.moves = rec.Version, rec.Number, info, rec.Allow, rec.Moves
	return append(tell, info)
}

// noteRival notes that a node serves a connection which counts as the earlier of two
// here. Until it has heard of the other one it may be alone in thinking otherwise, and it
// hears of it only as a node of the room: an edge outside is one by whom it serves.
func (r *Room) noteRival(m *remote, sid string) {
	if m.rivals[sid] || len(m.rivals) >= maxRivals {
		return
	}
	if m.rivals == nil {
		m.rivals = map[string]bool{}
	}
	m.rivals[sid] = true
	r.introduce(m.name, false)
}

// maxRivals bounds the rivals that are known of one node.
const maxRivals = 100

// supersede takes the earlier connections of a participant's identity on other
// nodes out of the room, and returns their last records. Clients know people by
// their identity: told of the new connection first and of the old one's end
// later, they would take the person for gone. It reports false if a later
// connection is known.
func (r *Room) supersede(info *livekit.ParticipantInfo, number uint64) (gone []*livekit.ParticipantInfo, latest bool) {
	for _, m := range r.remotes {
		for sid, p := range m.participants {
			switch {
			case p.info.Identity != info.Identity || sid == info.Sid:
			case !joinedOf(info, number).later(joinedOf(p.info, p.number)):
				return gone, false
			default:
				gone = append(gone, r.loseParticipant(m, sid, livekit.DisconnectReason_DUPLICATE_IDENTITY)...)
			}
		}
	}
	return gone, true
}

// maxRemote bounds the participants that one other node may state.
const maxRemote = 10_000

// claimed reports whether a participant's id is taken here or by another node.
func (r *Room) claimed(by *remote, sid string) bool {
	for _, p := range r.locals {
		if p.sid == sid {
			return true
		}
	}
	for _, m := range r.remotes {
		if m != by && m.participants[sid] != nil {
			return true
		}
	}
	return false
}

// loseParticipant removes a participant elsewhere and returns its last record.
func (r *Room) loseParticipant(m *remote, sid string, why livekit.DisconnectReason) []*livekit.ParticipantInfo {
	p := m.participants[sid]
	if p == nil {
		return nil
	}
	delete(m.participants, sid)
	r.dropTracksOf(m.name, sid)
	gone := proto.CloneOf(p.info)
	gone.State, gone.Tracks, gone.DisconnectReason = livekit.ParticipantInfo_DISCONNECTED, nil, why
	return []*livekit.ParticipantInfo{gone}
}

// dropRemote forgets a node and everybody it serves.
func (r *Room) dropRemote(name residency.NodeName) {
	m := r.remotes[name]
	if m == nil {
		return
	}
	var gone []*livekit.ParticipantInfo
	for sid := range m.participants {
		gone = append(gone, r.loseParticipant(m, sid, livekit.DisconnectReason_UNKNOWN_REASON)...)
	}
	delete(r.remotes, name)
	for _, t := range r.tracks {
		t.stopServing(name, "node left the room")
		t.plan.forget(name)
		r.loseWays(t, name)
	}
	r.data.feed.ForgetNode(string(name))
	r.tellParticipants(gone)
	switch {
	case r.ended:
	case r.home.name == r.deps.Self.Name:
		r.doPresence(Presence{Node: name})
		r.dropLostRecording(name)
	case r.home.name == name: // nobody else is left to say so
		r.dropLostRecording(name)
	}
	r.publish()
	r.poke()
}

// LinkUp tells the room that a node can be reached again.
func (r *Room) LinkUp(peer residency.NodeName) {
	r.post(func() {
		if m := r.remotes[peer]; m != nil {
			m.lostAt = time.Time{}
			r.introduce(peer, false)
			r.tellHeads(peer)
		}
		if peer == r.home.name {
			// It may have been started anew and count its rosters from the
			// beginning; what it sent before has been handled by now.
			r.home.seq = 0
			r.home.toldAt = time.Time{}   // say hello at once
			r.home.movedAt = r.deps.Now() // and its first roster lists who said so first
			r.doHome(r.deps.Now())
		}
		r.doReconcile()
	})
}

// LinkDown tells the room that a node cannot be reached now.
func (r *Room) LinkDown(peer residency.NodeName) {
	r.post(func() {
		if m := r.remotes[peer]; m != nil {
			m.lostAt, m.suspect = r.deps.Now(), false
			m.doubt(m.lostAt)
		}
		for _, t := range r.tracks {
			t.stopServing(peer, "link is down")
			t.plan.forget(peer)
			r.loseWays(t, peer)
		}
	})
}
