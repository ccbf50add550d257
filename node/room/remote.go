package room

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
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
	participants map[string]*remoteParticipant // by sid
	lostAt       time.Time                     // its link went down then
	speaking     map[string]float32            // levels by sid of those who speak, as it said last
	spokeAt      time.Time                     // when that was
	refused      string                        // last refusal, so that it is logged once
}

type remoteParticipant struct {
	version uint64
	info    *livekit.ParticipantInfo
	order   reliable.Order // of its reliable data
	quality Quality        // as its node stated it last
}

// outside reports whether the node serves somebody from outside the media zone.
// Its own word is not enough once it has spoken: it has to name participants.
func (m *remote) outside() bool {
	if m.heard {
		return m.presence.Outside && len(m.participants) > 0
	}
	return m.presence.Outside && m.presence.Participants > 0
}

// permit asks the gate whether a class of this room may go to (or come from) a node.
func (r *Room) permit(to residency.NodeName, c residency.Class) (residency.Permit, residency.Verdict) {
	m := r.remotes[to]
	return r.ask(to, c, m != nil && m.outside())
}

// admits asks the gate whether a node with this presence may be in the room.
func (r *Room) admits(node residency.NodeName, p Presence) bool {
	_, v := r.ask(node, residency.ClassSignalling, p.Outside && p.Participants > 0)
	if !v.Allow && p.Present() {
		r.noteRefusal(node, v)
	}
	return v.Allow
}

func (r *Room) ask(to residency.NodeName, c residency.Class, outside bool) (residency.Permit, residency.Verdict) {
	peer, epoch, ok := r.deps.Peer(to)
	if !ok {
		return residency.Permit{}, residency.Verdict{Peer: to, Class: c, Rule: residency.RuleCertificate,
			Reason: fmt.Sprintf("node %s is not a verified member of the mesh", to)}
	}
	return r.deps.Gate().Permit(residency.Request{
		Room: r.name, Policy: r.record.Policy, Class: c, Peer: peer, PeerEpoch: epoch,
		OutsideParticipant: outside, Now: r.deps.Now(),
	})
}

// sendTo sends a message of the room to a node if the gate permits it.
func (r *Room) sendTo(to residency.NodeName, kind relay.Kind, body []byte) error {
	if to == "" || to == r.deps.Self.Name {
		return fmt.Errorf("send to %q: not another node", to)
	}
	permit, verdict := r.permit(to, class(kind))
	if !verdict.Allow {
		r.noteRefusal(to, verdict)
		return fmt.Errorf("send to %q: %s", to, verdict.Reason)
	}
	link := r.deps.Link(to)
	if link == nil {
		return fmt.Errorf("send to %q: no link", to)
	}
	return link.Send(permit, kind, body)
}

// noteRefusal logs a refusal when it is new.
func (r *Room) noteRefusal(to residency.NodeName, v residency.Verdict) {
	m := r.remotes[to]
	if m == nil || m.refused == v.Reason {
		return
	}
	m.refused = v.Reason
	level := slog.LevelWarn
	if v.Rule == residency.RuleEdgeEmpty {
		level = slog.LevelInfo // an edge outside the zone has lost its last outside participant
	}
	r.log.Log(context.Background(), level, "residency refuses", "node", to, "class", v.Class, "rule", v.Rule, "reason", v.Reason)
}

// meet adds a node to the room and tells it who is here.
func (r *Room) meet(p Presence) {
	r.remotes[p.Node] = &remote{name: p.Node, presence: p, participants: map[string]*remoteParticipant{}}
	r.introduce(p.Node, true)
}

// introduce sends a node everything about the participants here, and asks it
// to do the same where this node knows nothing of its own.
func (r *Room) introduce(to residency.NodeName, tell bool) {
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
	part.Whole, part.Here, part.Tell = true, here, tell
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
		r.forgetAsked(from)
		defer r.introduce(from, false)
	}
	m.presence, m.heard, m.heardAt, m.lostAt = msg.Presence, true, r.deps.Now(), time.Time{}
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
		changed = append(changed, r.loseParticipant(m, sid, livekit.DisconnectReason_CLIENT_INITIATED)...)
	}
	if msg.Whole {
		here := map[string]bool{}
		for _, sid := range msg.Here {
			here[sid] = true
		}
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

// forgetAsked asks anew for the tracks of a node that has forgotten this one,
// and with it what it was asked for.
func (r *Room) forgetAsked(node residency.NodeName) {
	for _, t := range r.tracks {
		if t.node == node {
			t.unbind()
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
	old := m.participants[info.Sid]
	if old != nil && old.version >= rec.Version {
		return nil
	}
	if old == nil && (r.claimed(m, info.Sid) || len(m.participants) >= maxRemote) {
		r.log.Warn("a node states a participant of another node, or too many", "node", m.name, "participant", info.Sid)
		return nil
	}
	info.Region = string(m.name) // not what it states, but who states it
	if l := r.byIdentity(info.Identity); l != nil {
		if !later(info, l.info) {
			return nil // its own node sends it away when it hears of ours
		}
		r.removeLocal(l, livekit.DisconnectReason_DUPLICATE_IDENTITY) // the later one wins, on every node alike
	}
	tell, latest := r.supersede(info)
	if !latest {
		return tell
	}
	if old == nil {
		old = &remoteParticipant{}
		m.participants[info.Sid] = old
	}
	old.version, old.info = rec.Version, info
	return append(tell, info)
}

// supersede takes the earlier connections of a participant's identity on other
// nodes out of the room, and returns their last records. Clients know people by
// their identity: told of the new connection first and of the old one's end
// later, they would take the person for gone. It reports false if a later
// connection is known.
func (r *Room) supersede(info *livekit.ParticipantInfo) (gone []*livekit.ParticipantInfo, latest bool) {
	for _, m := range r.remotes {
		for sid, p := range m.participants {
			switch {
			case p.info.Identity != info.Identity || sid == info.Sid:
			case !later(info, p.info):
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

// later reports whether a joined after b; both nodes of a pair decide alike.
func later(a, b *livekit.ParticipantInfo) bool {
	if a.JoinedAtMs != b.JoinedAtMs {
		return a.JoinedAtMs > b.JoinedAtMs
	}
	return a.Sid > b.Sid
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
	for _, t := range r.tracks {
		t.stopServing(name, "node left the room")
	}
	delete(r.remotes, name)
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
			r.home.toldAt = time.Time{} // say hello at once
			r.doHome(r.deps.Now())
		}
		r.doReconcile()
	})
}

// LinkDown tells the room that a node cannot be reached now.
func (r *Room) LinkDown(peer residency.NodeName) {
	r.post(func() {
		if m := r.remotes[peer]; m != nil {
			m.lostAt = r.deps.Now()
		}
		for _, t := range r.tracks {
			t.stopServing(peer, "link is down")
			if t.node == peer {
				t.unbind()
			}
		}
	})
}

// PolicyChanged makes the room ask the gate again about everything it sends,
// receives, keeps and serves.
func (r *Room) PolicyChanged() { r.post(r.doPolicyChanged) }

func (r *Room) doPolicyChanged() {
	if r.ended {
		return
	}
	if v := r.here(); !v.Allow {
		r.log.Warn("this node may not serve the room any more", "rule", v.Rule, "reason", v.Reason)
		r.doEnd(livekit.DisconnectReason_STATE_MISMATCH) // clients come again and are told where to go
		return
	}
	if r.recorder != nil {
		if _, err := r.mayRecord(); err != nil {
			r.doStopRecording("the recording stopped: the policy does not allow it any more")
		}
	}
	// Under another epoch no track goes on as it was opened. Both ends start
	// over by themselves, because neither can be sure to reach the other now.
	if e := r.deps.Gate().Epoch(); e != r.epoch {
		r.epoch = e
		for _, t := range r.tracks {
			t.stopAll("the policies changed")
			t.unbind()
		}
	}
	for name := range r.remotes {
		r.recheck(name)
	}
	r.doHome(r.deps.Now())
	r.doReconcile()
}

// here asks the gate whether this node may serve those who are in the room here.
func (r *Room) here() residency.Verdict {
	p := r.presence()
	v := residency.Verdict{Allow: true}
	for _, c := range []residency.Class{residency.ClassMedia, residency.ClassSignalling} {
		if v.Allow && p.Participants > 0 {
			_, v = r.ask(p.Node, c, p.Outside)
		}
	}
	return v
}

// recheck asks the gate again whether media may go to a node and come from it,
// and stops it if not.
func (r *Room) recheck(peer residency.NodeName) {
	if _, v := r.permit(peer, residency.ClassMedia); !v.Allow {
		for _, t := range r.tracks {
			t.stopServing(peer, v.Reason)
			if t.node == peer {
				t.unbind()
			}
		}
	}
	m := r.remotes[peer]
	switch _, v := r.permit(peer, residency.ClassSignalling); {
	case !v.Allow && m != nil && !m.presence.Present():
		// it is leaving, as it should
	case !v.Allow:
		r.noteRefusal(peer, v)
	case m != nil && m.refused != "":
		m.refused = ""
		r.introduce(peer, true) // both may have missed what changed meanwhile
	}
}
