package room

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
)

// A participant outlives its signalling connection. When the WebSocket is lost,
// or media fails, the client has a while to come back with reconnect=1 and its
// sid, and nobody else notices:
//
//	client                             node
//	   │  /rtc?reconnect=1&sid=PA_x     │  same identity, same sid, same place
//	   ├───────────────────────────────►│
//	   │      ReconnectResponse         │  ICE servers, last reliable sequence
//	   │◄───────────────────────────────┤
//	   │   update (everybody), room     │  what was missed, and who left meanwhile
//	   │◄───────────────────────────────┤
//	   │   offer with new credentials   │  v0; a v1 client offers by itself
//	   │◄───────────────────────────────┤
//	   │          sync_state            │  what it wants, what data it has
//	   ├───────────────────────────────►│
//
// Sessions are not carried from node to node: a resume that finds none is told
// to join anew.
const (
	// resumeWait is how long a participant without a signalling connection, or
	// without media, stays. A client that changes networks notices within a
	// second or two and tries five times in its first 16 s (livekit-client waits
	// 0, 0.3, 1.2, 2.7, 4.8 and 7 s); later ones find nothing and join anew.
	// Longer, and the others look at a frozen picture for longer.
	resumeWait = 20 * time.Second
	// missable is how long ago something may have been sent that a client which
	// comes back has not received: a dead socket is noticed after pingTimeout.
	missable = pingTimeout + resumeWait
	// maxDeparted bounds the departures remembered for those who come back.
	maxDeparted = 4096
	// resumeProtocol is the first version of the client protocol that knows
	// Leave with the action RESUME.
	resumeProtocol = 13
)

// ErrNoSession is returned to a client that wants a session back which is not here.
var ErrNoSession = errors.New("session is unknown: join again")

// errLost ends a participant that did not come back.
var errLost = errors.New("connection lost")

// Resume gives a participant that is here a new signalling connection, and
// returns when that connection is not needed any more; the caller closes it.
// The newest connection wins. ErrNoSession: there is no such participant, it is
// of another connection of that identity, or it came from another country and
// has to be placed anew.
func (r *Room) Resume(ctx context.Context, c conn, join signal.Join, country residency.Country) error {
	l := newLine(c, r.deps.Now)
	var p *Participant
	err := r.call(ctx, func() (err error) {
		p, err = r.doResume(l, join, country)
		return err
	})
	if err != nil {
		return ErrNoSession // whatever the reason, the mend is the same
	}
	select {
	case <-l.stop:
	case <-p.done:
		l.end("")
	}
	l.wait()
	return nil
}

// doResume greets a client that comes back, before anybody else can send it
// something: it gives up on a connection whose first message is another.
func (r *Room) doResume(l *line, join signal.Join, country residency.Country) (*Participant, error) {
	p := r.locals[join.Identity]
	if r.ended || p == nil || p.sid != join.SID || p.join.Single != join.Single || p.country != country {
		return nil, ErrNoSession
	}
	if p.simulated.cutSilently(r.deps.Now()) {
		l.end("simulated")
		return p, nil
	}
	for _, m := range slices.Insert(r.reunion(p), 1, p.untold(r.deps.Now())...) {
		if err := l.conn.Send(m); err != nil {
			return nil, err
		}
	}
	if p.simulated.cut(r.deps.Now()) {
		l.end("simulated")
		return p, nil
	}
	r.knows(p)
	p.line.Store(l)
	first := signal.First{Offer: join.First.Offer, Tracks: join.First.Tracks}
	p.post(func() { p.doAttach(l, first) })
	r.retell(p)
	if join.First.Sync != nil {
		r.doSync(p, join.First.Sync)
	}
	r.log.Info("participant is back", "participant", p.sid, "reason", join.ReconnectReason.String())
	return p, nil
}

// reunion is what a client that comes back is told, in this order.
func (r *Room) reunion(p *Participant) []*livekit.SignalResponse {
	everybody := r.missedDepartures()
	for _, o := range r.participants() {
		if o.Sid == p.sid || !o.GetPermission().GetHidden() {
			everybody = append(everybody, o)
		}
	}
	return []*livekit.SignalResponse{
		{Message: &livekit.SignalResponse_Reconnect{Reconnect: &livekit.ReconnectResponse{
			IceServers: r.deps.ICEServers(r.name, p.sid), ServerInfo: r.serverInfo(),
			ClientConfiguration: clientConfiguration(), LastMessageSeq: p.lastReliable.Load()}}},
		{Message: &livekit.SignalResponse_Update{Update: &livekit.ParticipantUpdate{Participants: everybody}}},
		{Message: &livekit.SignalResponse_RoomUpdate{RoomUpdate: &livekit.RoomUpdate{Room: r.record.Info(r.count())}}},
	}
}

// retell repeats what a client may have missed that its record does not say.
func (r *Room) retell(p *Participant) {
	r.tellWhoSpeaks(p)
	r.tellQualitiesTo(p)
	if len(p.starved) > 0 {
		p.send(r.streamStates(p, slices.Collect(maps.Keys(p.starved))...))
	}
	for _, ti := range p.info.Tracks {
		if t := r.tracks[sfu.TrackID(ti.Sid)]; t != nil {
			r.tellQualities(t)
		}
	}
}

// departure is somebody's last record, for those who may have missed it.
type departure struct {
	info *livekit.ParticipantInfo
	at   time.Time
}

// noteDeparted remembers who left.
func (r *Room) noteDeparted(infos []*livekit.ParticipantInfo) {
	now := r.deps.Now()
	for _, i := range infos {
		if i.State == livekit.ParticipantInfo_DISCONNECTED {
			r.departed = append(r.departed, departure{info: i, at: now})
		}
	}
	drop := max(0, len(r.departed)-maxDeparted)
	for drop < len(r.departed) && now.Sub(r.departed[drop].at) > missable {
		drop++
	}
	if drop > 0 {
		r.departed = append([]departure(nil), r.departed[drop:]...)
	}
}

// missedDepartures are the last records of those who left lately and are not
// here again. Clients know people by their identity: told of an old connection's
// end, they would drop the new one.
func (r *Room) missedDepartures() []*livekit.ParticipantInfo {
	here := map[string]bool{}
	for _, o := range r.participants() {
		here[o.Identity] = true
	}
	var list []*livekit.ParticipantInfo
	for i := len(r.departed) - 1; i >= 0; i-- { // the last departure of each
		d := r.departed[i]
		if !here[d.info.Identity] && r.deps.Now().Sub(d.at) <= missable {
			here[d.info.Identity] = true
			list = append(list, d.info)
		}
	}
	return list
}

// doAttach makes a new connection the participant's. The subscriber's
// credentials are renewed: the client may have another address now.
func (p *Participant) doAttach(l *line, sent signal.First) {
	if p.line.Load() != l {
		l.end("resumed on another connection") // an even newer one waits behind this event
		return
	}
	if old := p.attached; old != nil {
		old.end("resumed on another connection")
	}
	p.attached = l
	l.start(p.requests)
	p.heardAt, p.lostAt = p.room.deps.Now(), time.Time{}
	p.doAbsent()
	if p.join.Single { // the client offers
		if err := p.doFirst(sent); err != nil {
			p.stop(err)
		}
		return
	}
	if err := p.session.RestartICE(rtc.TargetSubscriber); err != nil {
		p.log.Warn("restarting ICE", "error", err)
	}
}

// doLost takes note that the signalling connection is gone. Who has never been
// connected, or has closed its media, is not coming back to this session.
func (p *Participant) doLost() error {
	l := p.attached
	p.attached, p.lostAt = nil, p.room.deps.Now()
	p.line.CompareAndSwap(l, nil)
	l.end(errLost.Error())
	if !p.released && (l.gone.Load() || !p.active || p.mediaClosed) {
		return errLost
	}
	p.log.Info("signalling is lost, the participant may come back")
	p.doAbsent()
	return nil
}

// doAbsent sends nothing to a client of which nothing is heard, on either way: its
// node has no use for the room's media then, and does not ask for it.
func (p *Participant) doAbsent() {
	absent := p.attached == nil && p.mediaDown
	if absent == p.absent {
		return
	}
	p.absent = absent
	for id, d := range p.subs {
		d.SetPaused(p.pauses(id))
	}
}

// doPatience ends a participant that was waited for long enough, and takes a
// client that says nothing for one that has lost its connection.
func (p *Participant) doPatience(now time.Time) error {
	switch {
	case p.released:
		return nil // the room ends it
	case p.attached != nil && now.Sub(p.heardAt) > pingTimeout:
		return p.doLost()
	case p.attached == nil && now.Sub(p.lostAt) > resumeWait:
		return errLost
	}
	for _, since := range p.failedAt {
		if !since.IsZero() && now.Sub(since) > resumeWait {
			p.kick(livekit.DisconnectReason_STATE_MISMATCH)
		}
	}
	return nil
}

// doMedia follows the state of the session's connections. A client that hears
// of a failure, or notices it by itself, resumes and restarts ICE.
func (p *Participant) doMedia(t rtc.Target, state string) {
	if p.released {
		return // it is going to another node
	}
	p.attached.noteMedia(state)
	if t == p.dataTarget() {
		p.mediaDown = state == "disconnected" || state == "failed"
		p.doAbsent()
	}
	switch state {
	case "connected":
		p.failedAt[t] = time.Time{}
		p.doConnected()
		if t == p.dataTarget() {
			p.room.post(func() { p.room.resumeData(p, nil) })
		}
	case "disconnected", "failed":
		if t == p.dataTarget() {
			p.room.post(func() { p.room.holdData(p) })
		}
		if state == "failed" {
			p.doFailed(t)
		}
	case "closed":
		p.mediaClosed = true
		if p.attached == nil && !p.released {
			p.stop(errLost)
		}
	}
}

// dataTarget is the connection on which the node sends data.
func (p *Participant) dataTarget() rtc.Target {
	if p.join.Single {
		return rtc.TargetPublisher
	}
	return rtc.TargetSubscriber
}

func (p *Participant) doFailed(t rtc.Target) {
	p.log.Info("media connection failed", "target", t.String())
	if !p.active || p.join.Protocol < resumeProtocol {
		p.kick(livekit.DisconnectReason_STATE_MISMATCH)
		return
	}
	if p.failedAt[t].IsZero() {
		p.failedAt[t] = p.room.deps.Now()
	}
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Leave{Leave: &livekit.LeaveRequest{
		Reason: livekit.DisconnectReason_STATE_MISMATCH, Action: livekit.LeaveRequest_RESUME}}})
}

// doSync brings a participant's subscriptions in line with what its client
// states on coming back, and sends the reliable data that it has not got. Its
// descriptions are not needed: this session is the one it had.
func (r *Room) doSync(p *Participant, s *livekit.SyncState) {
	if r.locals[p.identity] != p {
		return
	}
	sids := wantedSIDs(s.GetSubscription())
	if len(sids) > maxChoices || len(s.GetTrackSidsDisabled()) > maxChoices {
		return
	}
	clear(p.wanted)
	for _, sid := range sids {
		p.wanted[sfu.TrackID(sid)] = s.GetSubscription().GetSubscribe()
	}
	r.doResubscribe(p)
	disabled := map[sfu.TrackID]bool{}
	for _, sid := range s.GetTrackSidsDisabled() {
		disabled[sfu.TrackID(sid)] = true
	}
	p.post(func() { p.doDisabled(disabled) })
	r.resumeData(p, received(p, s))
}

// doDisabled replaces what the client has switched off.
func (p *Participant) doDisabled(disabled map[sfu.TrackID]bool) {
	for id := range disabled {
		if p.settings[id] == nil && len(p.settings) < maxChoices {
			p.settings[id] = &livekit.UpdateTrackSettings{Quality: livekit.VideoQuality_HIGH}
		}
	}
	for id, s := range p.settings {
		if s.GetDisabled() != disabled[id] {
			s = proto.CloneOf(s)
			s.Disabled = disabled[id]
			p.settings[id] = s
			p.applySetting(id)
		}
	}
}
