package room

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/room/reliable"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
)

// A client that wants its session back may come to another node than the one that
// served it: that one drains, or is dead, or the name led elsewhere. The node that it
// comes to takes the participant over, with its sid and its tracks' ids, from what
// every node of the room knows; the others see a changed record and nothing else.
//
//	node before (A)           this node (B)                  other nodes (C)
//	                            ◄─ resume, sid                  media A → C
//	   ◄─ record, moves+1 ───────┼─ record, moves+1 ─►
//	   keeps its session,        │  subscribe ◄────────────────  and A → B → C
//	   says nothing              │ ◄─ sync_state, offer
//	                             │ ◄─ ICE, DTLS: media           B → C
//	   ◄─ arrived ───────────────┤
//	   closes the session
//
// A track goes on: the UpTrack that each node has of it is fed by another way, and
// what comes by both ways is a duplicate. So nothing is broken before the new way
// stands but the client's own connection, for as long as ICE and DTLS take.
//
// Two nodes that both take somebody over, because a client went to both, are told
// apart by the number of moves, and then by name; the loser lets go.
const (
	// ghostLife is how long a session is kept whose participant another node has taken
	// over and has not answered yet.
	ghostLife = 10 * time.Second
	// ghostTail is how long it is kept after the new node has answered the client: the
	// answer is there by then, and what is on its way over the mesh from here.
	ghostTail = 1500 * time.Millisecond
	// departAfter is how long after that answer the client's checks are refused here: it
	// has the answer by then.
	departAfter = 150 * time.Millisecond
)

// ghost is a participant whom another node has taken over and whose session still
// carries what the client sends here. Owned by Room.run.
type ghost struct {
	p        *Participant
	to       residency.NodeName // who serves it
	until    time.Time
	answered time.Time // by the new node
}

// errMoved ends a ghost.
var errMoved = errors.New("served by another node")

// What is wrong with what a node says of somebody whom it hands over.
var (
	errTooLong  = errors.New("handover: it is too long")
	errHandover = errors.New("handover: it is malformed")
)

// TakeOver serves a participant whom another node served until now, as Serve does.
// ErrNoSession: nobody of this sid is known here.
func (r *Room) TakeOver(ctx context.Context, c conn, join signal.Join, att Attendee) error {
	if r.admitsClient(c) != nil || !join.Single {
		return ErrNoSession
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	sync := join.First.Sync
	att.Sid = join.SID
	p, err := r.newParticipant(stop, c, join, att)
	if err != nil {
		return ErrNoSession
	}
	p.active, p.moving = true, true
	if err := r.call(ctx, func() error { return r.doTakeOver(p) }); err != nil {
		p.session.Close()
		return ErrNoSession
	}
	if sync != nil {
		p.post(func() { p.doSettle(sync) }) //nolint:errcheck // it ends the participant only with the room
	}
	return p.serve(ctx, signal.First{})
}

// Expect says that somebody is connected here who asks to be taken over: for them the
// node is in the room, as for those whom it serves, and hears who is. TakeOver or
// unexpect ends that.
func (r *Room) Expect(sid string, country residency.Country) (unexpect func()) {
	r.post(func() {
		if len(r.expected) < maxRemote {
			r.expected[sid] = country
		}
		r.doHome(r.deps.Now())
	})
	return func() {
		r.post(func() {
			if _, still := r.expected[sid]; still {
				delete(r.expected, sid)
				r.doHome(r.deps.Now())
			}
		})
	}
}

// Knows reports whether a participant of this sid is in the room, on any node.
func (s *Snapshot) Knows(sid string) bool {
	return slices.ContainsFunc(s.Participants, func(p *livekit.ParticipantInfo) bool { return p.Sid == sid })
}

// doTakeOver makes a participant of another node one of this.
func (r *Room) doTakeOver(p *Participant) error {
	m, was := r.elsewhere(p.sid)
	if r.ended || was == nil || was.info.Identity != p.identity {
		return ErrNoSession
	}
	delete(m.participants, p.sid)
	delete(r.expected, p.sid)
	p.info = proto.CloneOf(was.info)
	if p.info.Attributes == nil {
		p.info.Attributes = map[string]string{}
	}
	r.stateWhere(p.info.Attributes)
	p.info.Region, p.info.State = string(r.deps.Self.Name), livekit.ParticipantInfo_ACTIVE
	p.info.Version++
	p.version, p.number, p.moves, p.allow, p.quality = was.version+1, was.number, was.moves+1, was.allow, was.quality
	p.holdRights()
	if last := max(was.order.Last(), r.takePrepared(p)); last > 0 {
		p.source = reliable.NewSource(last)
		p.lastReliable.Store(last)
		p.spoken = last
	}
	p.origin.node, p.origin.left = m.name, r.deps.Now()
	r.locals[p.identity] = p
	for _, m := range r.reunion(p) {
		p.send(m)
	}
	r.knows(p)
	r.data.log.Come(p.identity)
	r.data.log.Hold(p.identity)
	r.served = true
	r.home.emptySince = time.Time{}
	r.settleHere(p, m.name)
	r.doHome(r.deps.Now())
	r.doUpdated(p)
	var offered []subscription
	for _, t := range r.tracks {
		if t.base != "" {
			continue
		}
		if s, ok := r.subscription(t, p); ok {
			offered = append(offered, s)
		}
	}
	p.subscribe(offered...)
	r.retell(p)
	r.poke()
	r.log.Info("participant is taken over", "participant", p.sid, "from", m.name, "reason", p.join.ReconnectReason.String())
	return nil
}

// elsewhere finds a participant of another node.
func (r *Room) elsewhere(sid string) (*remote, *remoteParticipant) {
	for _, m := range r.remotes {
		if p := m.participants[sid]; p != nil {
			return m, p
		}
	}
	return nil, nil
}

// holdRights lets somebody who comes with an old token do what they may do now: a
// moderator may have changed it since.
func (p *Participant) holdRights() {
	if p.info.Permission == nil {
		return
	}
	token := *p.token.Load()
	video := *token.Video
	token.Video = &video
	token.Video.UpdateFromPermission(p.info.Permission)
	p.token.Store(&token)
}

// settleHere makes the tracks of a participant who is served here now tracks of this
// node. They are still fed by the node before.
func (r *Room) settleHere(p *Participant, before residency.NodeName) {
	for id, t := range r.tracks {
		if t.node != before || t.ownerSID != p.sid {
			continue
		}
		if t.base != "" {
			r.dropTrack(id) // the client publishes it again if it is wanted
			continue
		}
		r.ensureUp(t)
		r.arrive(t)
		t.allow = p.allow
		if t.voice != nil {
			r.revoice(t)
		}
	}
}

// doSettle takes what a client that was taken over says of its session, before it
// offers: which tracks it sends, what it got in which section, which channels it has.
func (p *Participant) doSettle(s *livekit.SyncState) error {
	if len(s.GetPublishTracks()) > maxTracks {
		return errOffer
	}
	from := rtc.Adopted{Description: s.GetAnswer().GetSdp(), Streams: map[string][]rtc.Stream{}}
	err := p.room.call(context.Background(), func() error {
		for _, t := range s.GetPublishTracks() {
			p.room.expect(p, t, from.Streams)
		}
		p.room.doSync(p, s)
		return nil
	})
	if err != nil {
		return err
	}
	for len(p.inbox) > 0 {
		(<-p.inbox)()
	}
	for _, ch := range s.GetDataChannels() {
		if ch.GetTarget() == livekit.SignalTarget_PUBLISHER && ch.GetId() <= maxChannelID {
			from.Channels = append(from.Channels, rtc.Resumed{Label: ch.GetLabel(), ID: uint16(ch.GetId())})
		}
	}
	if p.turns(s.GetOffer().GetSdp()) {
		from.Profile = p.profile
	}
	if err := p.session.Adopt(from); err != nil {
		p.log.Warn("the client's account of its session cannot be used: it gets its tracks as if they were new", "error", err)
	}
	return nil
}

// maxChannelID is the highest stream of SCTP that a data channel may have (RFC 8832
// section 6).
const maxChannelID = 65534

// expect awaits the media of a track that was published at another node.
func (r *Room) expect(p *Participant, pub *livekit.TrackPublishedResponse, streams map[string][]rtc.Stream) {
	t := r.tracks[sfu.TrackID(pub.GetTrack().GetSid())]
	if r.locals[p.identity] != p || t == nil || t.ownerSID != p.sid || t.base != "" || len(pub.GetCid()) > 256 {
		return
	}
	p.pending.put(&pendingTrack{cid: pub.GetCid(), info: t.info, up: t.up})
	streams[pub.GetCid()] = t.media.Streams
}

// doStreams tells the room, and so the other nodes, by which SSRCs the client sends
// its tracks: a node that takes it over could not find them out.
func (p *Participant) doStreams() {
	streams, changes := p.session.Streams(p.streams)
	if changes == p.streams || p.released || p.moving {
		return
	}
	p.streams = changes
	p.room.post(func() { p.room.doStreams(p, streams) })
}

func (r *Room) doStreams(p *Participant, streams map[sfu.TrackID][]rtc.Stream) {
	if r.locals[p.identity] != p {
		return
	}
	for id, list := range streams {
		t := r.tracks[id]
		if t == nil || t.ownerSID != p.sid || len(list) > maxStreams || slices.Equal(t.media.Streams, list) {
			continue
		}
		t.media.Streams = list
		p.unannounced = true
	}
	r.announceDue(p, r.deps.Now())
}

// doComes lets a track be fed by its publisher, whose media is here now.
func (r *Room) doComes(p *Participant, up *sfu.UpTrack) {
	t := r.tracks[up.ID()]
	if r.locals[p.identity] != p || t == nil || t.up != up || t.node != r.deps.Self.Name {
		return
	}
	up.SetRelayed(false)
	r.loseAllWays(t)
	t.refresh = t.kind() == sfu.Video // with the next tick: the session is told of the track only now
	r.log.Info("track goes on here", "participant", p.sid, "track", t.id)
}

// doArrived tells the node before that it may let go: the client has our answer, and
// with it gives up its keys for the other. As long as that one answers its checks a
// browser may stay on the old way, and send its handshake there.
func (r *Room) doArrived(p *Participant) {
	if r.locals[p.identity] != p || p.arrived {
		return
	}
	p.arrived = true
	p.version++
	r.log.Info("participant has arrived", "participant", p.sid)
	r.announce(Participants{Presence: r.presence(), Changed: []ParticipantRecord{r.localRecord(p)}})
}

// moved judges a node's word that it serves somebody whom another node, or this one,
// serves as far as is known here. It is stale if the other did so later. Otherwise the
// participant is the node's, with its tracks, and what is known of it is returned.
func (r *Room) moved(to *remote, info *livekit.ParticipantInfo, rec *ParticipantRecord) (was *remoteParticipant, stale bool) {
	if p := r.locals[info.Identity]; p != nil && p.sid == info.Sid {
		if !outmoves(rec.Moves, to.name, p.moves, r.deps.Self.Name) {
			return nil, true
		}
		r.release(p, to.name)
		return &remoteParticipant{order: reliable.NewOrder(p.spoken)}, false
	}
	from, was := r.elsewhere(info.Sid)
	if was == nil || rec.Moves == 0 {
		return nil, false
	}
	if !outmoves(rec.Moves, to.name, was.moves, from.name) {
		return nil, true
	}
	was.origin = origin{node: from.name, left: r.deps.Now()}
	delete(from.participants, info.Sid)
	delete(from.speaking, info.Sid)
	for _, t := range r.tracks {
		if t.node == from.name && t.ownerSID == info.Sid {
			r.redirect(t, to.name)
		}
	}
	return was, false
}

// outmoves reports whether the node a, with so many moves, took somebody over after b.
func outmoves(moves uint32, a residency.NodeName, before uint32, b residency.NodeName) bool {
	return moves > before || moves == before && moves > 0 && a > b
}

// release gives a participant up to another node. Its session goes on until the media
// is there: the tracks are fed from here, and the client gets what it got.
func (r *Room) release(p *Participant, to residency.NodeName) {
	delete(r.locals, p.identity)
	r.data.log.Leave(p.identity)
	r.data.feed.ForgetPublisher(p.sid)
	r.board.Remove(p.sid)
	r.ghosts = append(r.ghosts, ghost{p: p, to: to, until: r.deps.Now().Add(ghostLife)})
	for _, t := range r.tracks {
		if t.node == r.deps.Self.Name && t.ownerSID == p.sid {
			r.redirect(t, to)
		}
	}
	p.post(p.doReleased)
	r.doHome(r.deps.Now())
	r.log.Info("participant is served by another node now", "participant", p.sid, "node", to)
}

// doReleased ends the signalling; the session stays.
func (p *Participant) doReleased() {
	p.released = true
	if l := p.attached; l != nil {
		p.attached = nil
		p.line.CompareAndSwap(l, nil)
		l.end(errMoved.Error())
	}
}

// noteArrived lets a ghost go soon.
func (r *Room) noteArrived(sid string) {
	for i := range r.ghosts {
		if g := &r.ghosts[i]; g.p.sid == sid && g.answered.IsZero() {
			g.answered = r.deps.Now()
			g.until = g.answered.Add(ghostTail)
		}
	}
}

func (r *Room) doGhosts(now time.Time) {
	for _, g := range r.ghosts {
		if !g.answered.IsZero() && now.Sub(g.answered) >= departAfter {
			g.p.session.Depart()
		}
	}
	r.letGo(func(g ghost) bool { return !now.Before(g.until) })
}

// letGo ends the sessions of some ghosts. The other nodes are told that they have left
// this node: one that does not know of moves has them here still.
func (r *Room) letGo(which func(ghost) bool) {
	var left []string
	before := len(r.ghosts)
	r.ghosts = slices.DeleteFunc(r.ghosts, func(g ghost) bool {
		if !which(g) {
			return false
		}
		if now := r.locals[g.p.identity]; now == nil || now.sid != g.p.sid { // it may have come back
			left = append(left, g.p.sid)
		}
		g.p.stop(kicked{silent: true})
		return true
	})
	if len(r.ghosts) == before {
		return
	}
	for _, t := range r.tracks {
		if slices.Contains(left, t.ownerSID) && t.node != r.deps.Self.Name {
			r.comesFromElsewhere(t)
		}
	}
	if len(left) > 0 {
		r.announce(Participants{Presence: r.presence(), Left: left})
	}
	r.doHome(r.deps.Now())
	r.publish()
}

// comesFromElsewhere ends what a track was to other nodes while it was fed from here.
func (r *Room) comesFromElsewhere(t *track) {
	t.stopAll("the publisher is served by another node")
	if t.up == nil {
		return
	}
	t.up.SetRelayed(true)
	if t.voice != nil {
		r.revoice(t)
	}
	maps.DeleteFunc(t.dynacast, func(string, *dynacast) bool { return true })
	t.watchRemote()
	r.poke()
}

// revoice puts a voice for the publisher's place as it is now in the place of the one
// before. Those who hear it stay.
func (r *Room) revoice(t *track) {
	before := t.voice
	v := &voice{source: t.up, heard: before.heard, here: before.here}
	v.nodes.Store(new([]sfu.Sink))
	v.on.Store(before.on.Load())
	if t.node == r.deps.Self.Name {
		r.measure(v, t)
	}
	t.voice = v
	v.source.AddSink(v)
	v.source.RemoveSink(before)
	if before.away != nil {
		r.selection.away.Remove(before.away)
		r.selection.active.Remove(before.meter)
	}
	r.mute(v, t.info.Muted)
}
