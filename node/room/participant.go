package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/livekit"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room/reliable"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
)

const (
	// LiveKit clients ping every pingInterval and resume after pongTimeout without
	// an answer: after a change of networks, that long the media stands still. The
	// node gives up on a silent client later, because a page in the background may
	// be held up.
	pingInterval = 3 * time.Second
	pongTimeout  = 7 * time.Second
	pingTimeout  = 15 * time.Second

	requestQueue = 64   // signalling requests read ahead of their handling
	participantQ = 4096 // events from the room; a participant that is stuck is sent away
	patienceTick = 500 * time.Millisecond
	publishWait  = 5 * time.Second // media may arrive before its add_track

	// What one client may ask of the room and of the links to its other nodes,
	// per second and at once. A client of a large meeting sends bursts of
	// candidates and settings; more than that only a broken or hostile one does.
	requestRate, requestBurst = 100, 1000
	updateRate, updateBurst   = 2, 20            // changes of its own metadata, up to 64 KiB each
	dataRate, dataBurst       = 1 << 20, 4 << 20 // bytes of data packets

	compatVersion = "1.9.0" // the LiveKit server version whose protocol this node speaks
	compatProto   = 16
)

// Attendee is what the node found out about a joining participant.
type Attendee struct {
	Sid     string
	Country residency.Country // where they are taken to be, "" if unknown
	Kind    livekit.ParticipantInfo_Kind
	Plain   bool // came without TLS
}

// Participant is one attendee's connection. Its own goroutine (Serve) owns the
// session and the subscriptions; the room owns its record.
type Participant struct {
	// Static after construction, but for what it points to.
	room     *Room
	log      *slog.Logger
	sid      string
	identity string
	join     signal.Join
	country  residency.Country
	plain    bool // came without TLS
	direct   bool // has no signalling
	inbox    chan func()
	due      chan struct{} // the room says that it is time to look at deadlines
	gone     chan struct{} // closed when Serve is about to return
	done     chan struct{} // closed when its last signalling connection is told to close
	stop     context.CancelCauseFunc
	pending  *pendingTracks

	// Owned by Room.run.
	info        *livekit.ParticipantInfo // replaced, never changed in place
	version     uint64
	number      uint64               // of the connection; see joined
	joinedAt    time.Time            // zero: another node has handed it over
	moves       uint32               // how often another node has taken it over
	arrived     bool                 // its media comes to this node, which took it over
	origin      origin               // of one that was taken over; not changed
	spoken      uint32               // number of the last reliable message that was passed on
	toldTo      uint64               // the newest notice of the herald that its greeting covers
	wanted      map[sfu.TrackID]bool // explicit subscription choices
	muted       map[sfu.TrackID]bool // tracks whose media is about to come
	renamed     *rate.Limiter        // changes of its own metadata
	simulated   simulation
	quality     Quality                   // as everybody was told last
	allow       *Permissions              // who may receive its tracks
	unannounced bool                      // the other nodes have not heard of its last change
	refused     map[sfu.TrackID]bool      // tracks that it wants and may not have, as it was told
	starved     map[sfu.TrackID]bool      // whether a track is paused for want of bandwidth, as it was told
	cannot      map[string]bool           // codecs that its client cannot decode, by MIME type
	lacking     map[sfu.TrackID]bool      // tracks that it waits for in another codec
	hopeless    map[sfu.TrackID]bool      // tracks that it cannot decode in any codec, as it was told
	silenced    map[sfu.TrackID]time.Time // muted by a moderator: when the client was told, zero if it was not

	// line is where messages for the client go, nil while there is no connection.
	// Set by Room.run, so that a client that comes back misses nothing; cleared
	// by Serve.
	line atomic.Pointer[line]

	// Owned by Serve.
	tokenEnds   time.Time    // of the newest that the client has
	attached    *line        // whose requests are handled, nil while there is no connection
	lostAt      time.Time    // when the last one was lost
	failedAt    [2]time.Time // when media failed, by rtc.Target; zero while it has not
	mediaClosed bool         // the client has closed its media: it does not come back
	session     *rtc.Session
	subs        map[sfu.TrackID]*sfu.DownTrack
	settings    map[sfu.TrackID]*livekit.UpdateTrackSettings
	layers      map[sfu.TrackID][]*livekit.VideoLayer // of what it is subscribed to
	heardAt     time.Time
	active      bool
	moving      bool            // taken over from another node, its media is not here yet
	answered    bool            // … but the client has our answer
	profile     rtc.Profile     // of SRTP, at the node before that prepared this one
	released    bool            // taken over by another node
	source      reliable.Source // of the reliable data that the client sends
	judge       *judge          // of its connection
	streams     uint64          // how many changes of its streams the room was told
	absent      bool            // neither signalling nor media is heard of: nothing is sent to it
	mediaDown   bool            // nothing is heard of its media now

	token        atomic.Pointer[control.Grants] // what it may do now; replaced by Room.run
	lastReliable atomic.Uint32                  // highest reliable data sequence handled; written by Serve
	data         *rate.Limiter                  // bytes of data packets; safe for concurrent use, as the next
	requests     *rate.Limiter                  // signalling requests
}

// ErrFull is returned to a participant for whom there is no place.
var ErrFull = errors.New("the room is full")

// Ending names why Serve returned, without what may be personal in the cause,
// such as addresses.
func Ending(err error) string {
	var k kicked
	switch {
	case err == nil, errors.Is(err, errLeft):
		return "left"
	case errors.As(err, &k):
		return k.Error()
	case errors.Is(err, context.Canceled):
		return "node stops"
	}
	for _, known := range []error{ErrFull, ErrClosed, ErrEncrypted, errOffer, errAnswer} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return errLost.Error()
}

// What a client does that ends it.
var (
	errOffer  = errors.New("the client's offer (SDP) cannot be used")
	errAnswer = errors.New("the client's answer (SDP) cannot be used")
)

// errLeft ends a participant that said goodbye.
var errLeft = errors.New("client left")

// kicked ends a participant that the room sends away.
type kicked struct {
	reason livekit.DisconnectReason
	action livekit.LeaveRequest_Action // what the client is to do
	silent bool                        // it is not told
}

func (k kicked) Error() string { return "sent away: " + k.reason.String() }

// Serve runs a participant until it leaves or is lost, over this signalling
// connection first and over those that Resume gives it. It returns why it ended.
func (r *Room) Serve(ctx context.Context, c conn, join signal.Join, att Attendee) error {
	if err := r.admitsClient(c); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	first := join.First
	p, err := r.newParticipant(stop, c, join, att)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := r.call(ctx, func() error { return r.doAdmit(p, att) }); err != nil {
		p.session.Close()
		return fmt.Errorf("join: %w", err)
	}
	return p.serve(ctx, first)
}

// newParticipant makes a participant with its session; it is not in the room yet.
func (r *Room) newParticipant(stop context.CancelCauseFunc, c conn, join signal.Join, att Attendee) (*Participant, error) {
	join.First = signal.First{} // large, and of no further use
	p := &Participant{
		room: r, log: r.log.With("participant", att.Sid), sid: att.Sid, identity: join.Identity, join: join, country: att.Country, plain: att.Plain, direct: isDirect(c),
		inbox: make(chan func(), participantQ), due: make(chan struct{}, 1), gone: make(chan struct{}), done: make(chan struct{}), stop: stop, pending: newPendingTracks(),
		wanted: map[sfu.TrackID]bool{}, muted: map[sfu.TrackID]bool{}, refused: map[sfu.TrackID]bool{},
		cannot: map[string]bool{}, starved: map[sfu.TrackID]bool{}, lacking: map[sfu.TrackID]bool{}, hopeless: map[sfu.TrackID]bool{}, renamed: rate.NewLimiter(updateRate, updateBurst),
		data: rate.NewLimiter(dataRate, dataBurst), subs: map[sfu.TrackID]*sfu.DownTrack{},
		layers: map[sfu.TrackID][]*livekit.VideoLayer{}, settings: map[sfu.TrackID]*livekit.UpdateTrackSettings{}, heardAt: r.deps.Now(),
		judge: newJudge(), requests: rate.NewLimiter(requestRate, requestBurst), tokenEnds: join.Token.Expires,
	}
	p.token.Store(join.Token)
	p.attached = newLine(c, r.deps.Now)
	p.line.Store(p.attached)
	session, err := r.deps.Engine.NewSession(events{p}, rtc.SessionConfig{Owner: r.owner(att.Sid),
		MaxTracks: maxTracks, PionClient: join.SDK == "go", Single: join.Single, NoPause: join.NoPause, NoData: isDirect(c)})
	p.session = session
	return p, err
}

// owner names a participant's connections for the relay, which reaches no others.
func (r *Room) owner(sid string) string {
	if r.deps.Owner == nil {
		return ""
	}
	return r.deps.Owner(r.name, sid)
}

// serve is the life of a participant who is in the room. At its end the media
// stops first, then the signalling.
func (p *Participant) serve(ctx context.Context, sent signal.First) (err error) {
	first := p.attached
	first.start(p.requests)
	defer first.wait()
	defer close(p.done)
	defer func() {
		first.end(Ending(err))
		if l := p.line.Load(); l != nil {
			l.end(Ending(err))
		}
	}()
	defer p.session.Close()
	defer p.room.post(func() { p.room.doDepart(p) })
	defer p.pending.close()
	defer close(p.gone)
	p.session.Together(func() { err = p.begin(sent) })
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return p.run(ctx)
}

// begin makes the connection that sends to the client, with what the room has for
// it so far, and answers what the client has sent with its join.
func (p *Participant) begin(sent signal.First) error {
	if err := p.session.StartSubscriber(); err != nil {
		return err
	}
	for {
		select {
		case f := <-p.inbox:
			f()
		default:
			return p.doFirst(sent)
		}
	}
}

// doFirst handles what a client has sent with its join as if it came after it.
func (p *Participant) doFirst(sent signal.First) error {
	for _, req := range sent.Tracks {
		p.doAddTrack(req)
	}
	if sent.Offer == nil {
		return nil
	}
	return p.doOffer(sent.Offer)
}

func (p *Participant) run(ctx context.Context) error {
	var err error
	for err == nil {
		var requests <-chan *livekit.SignalRequest
		if p.attached != nil {
			requests = p.attached.requests
		}
		select {
		case <-ctx.Done():
			err = p.farewell(context.Cause(ctx))
		case req, ok := <-requests:
			if ok {
				err = p.doRequest(req)
			} else {
				err = p.doLost()
			}
		case f := <-p.inbox:
			f()
		case <-p.due:
			now := p.room.deps.Now()
			p.doToken(now)
			p.doStreams()
			err = p.doPatience(now)
		}
	}
	return err
}

// farewell tells the client why it is sent away.
func (p *Participant) farewell(cause error) error {
	k := kicked{reason: livekit.DisconnectReason_SERVER_SHUTDOWN, action: livekit.LeaveRequest_RECONNECT}
	errors.As(cause, &k)
	if !k.silent {
		p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Leave{Leave: &livekit.LeaveRequest{
			Reason: k.reason, Action: k.action, CanReconnect: k.action == livekit.LeaveRequest_RECONNECT}}})
	}
	return cause
}

// kick ends the participant from outside its goroutine. A client that can do
// better elsewhere or from the start is told to join again.
func (p *Participant) kick(reason livekit.DisconnectReason) {
	k := kicked{reason: reason}
	if reason == livekit.DisconnectReason_SERVER_SHUTDOWN || reason == livekit.DisconnectReason_STATE_MISMATCH {
		k.action = livekit.LeaveRequest_RECONNECT
	}
	p.stop(k)
}

// post hands an event to the participant; one that does not keep up is sent away.
func (p *Participant) post(f func()) {
	select {
	case p.inbox <- f:
	default:
		p.log.Warn("participant does not keep up with its room and is sent away")
		p.kick(livekit.DisconnectReason_STATE_MISMATCH)
	}
}

// send queues a message for the client. One that has no connection now is told
// everything that matters when it comes back; a connection that cannot take the
// message ends by itself, and the reader sees it.
func (p *Participant) send(m *livekit.SignalResponse) {
	if l := p.line.Load(); l != nil {
		l.conn.Send(m) //nolint:errcheck // see above
	}
}

// doAdmit takes a participant into the room and greets it.
func (r *Room) doAdmit(p *Participant, att Attendee) error {
	if r.ended {
		return ErrClosed
	}
	if old := r.byIdentity(p.identity); old != nil {
		r.removeLocal(old, livekit.DisconnectReason_DUPLICATE_IDENTITY)
	}
	if limit := r.record.MaxParticipants; limit > 0 && r.others(p.identity) >= int(limit) {
		return fmt.Errorf("%w: %d participants at most", ErrFull, limit)
	}
	p.info = r.newInfo(p, att)
	p.joinedAt = r.deps.Now()
	r.number(p)
	gone, _ := r.supersede(p.info, p.number)
	r.tellParticipants(gone)
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Join{Join: r.greeting(p)}})
	r.knows(p)
	r.locals[p.identity] = p
	r.data.log.Join(p.identity)
	r.served = true
	r.home.emptySince = time.Time{}
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
	r.tellWhoSpeaks(p)
	r.tellQualitiesTo(p)
	r.log.Info("participant joined", "participant", p.info.Sid, "participants", r.count())
	return nil
}

func (r *Room) newInfo(p *Participant, att Attendee) *livekit.ParticipantInfo {
	now, tok := r.deps.Now(), p.join.Token
	attrs := map[string]string{}
	for k, v := range p.join.Attributes {
		setAttribute(attrs, k, v)
	}
	agree(attrs, p.join.Attributes, "")
	if tok.Attributes[ConsentAttribute] == ConsentGiven {
		attrs[ConsentAttribute] = ConsentGiven
	}
	r.stateWhere(attrs)
	return &livekit.ParticipantInfo{
		Sid: att.Sid, Identity: p.identity, Name: tok.Name, Metadata: tok.Metadata,
		State: livekit.ParticipantInfo_JOINED, JoinedAt: now.Unix(), JoinedAtMs: now.UnixMilli(),
		Version: 1, Permission: permission(tok), Region: string(r.deps.Self.Name),
		Attributes: attrs, Kind: att.Kind, ClientProtocol: int32(p.join.ClientProtocol),
	}
}

// stateWhere says in a participant's attributes which node serves them.
func (r *Room) stateWhere(attrs map[string]string) {
	attrs["domicile.node"] = string(r.deps.Self.Name)
	attrs["domicile.country"] = string(r.deps.Self.Country)
	attrs["domicile.city"] = r.deps.City
}

func (r *Room) greeting(p *Participant) *livekit.JoinResponse {
	var others []*livekit.ParticipantInfo
	for _, o := range r.participants() {
		if o.Sid != p.info.Sid && !o.GetPermission().GetHidden() {
			others = append(others, o)
		}
	}
	return &livekit.JoinResponse{
		Room: r.record.Info(r.count() + 1), Participant: p.info, OtherParticipants: others,
		ServerVersion:     compatVersion,
		ServerInfo:        r.serverInfo(),
		IceServers:        r.deps.ICEServers(r.name, p.sid),
		SubscriberPrimary: !p.join.Single, FastPublish: p.info.Permission.CanPublish,
		PingInterval: int32(pingInterval / time.Second), PingTimeout: int32(pongTimeout / time.Second),
		ClientConfiguration:  clientConfiguration(),
		EnabledPublishCodecs: publishCodecs(),
	}
}

func (r *Room) serverInfo() *livekit.ServerInfo {
	return &livekit.ServerInfo{Edition: livekit.ServerInfo_Standard, Version: compatVersion,
		Protocol: compatProto, Region: string(r.deps.Self.Country), NodeId: string(r.deps.Self.Name)}
}

// clientConfiguration lets clients resume; without it some join anew at once.
func clientConfiguration() *livekit.ClientConfiguration {
	return &livekit.ClientConfiguration{ResumeConnection: livekit.ClientConfigSetting_ENABLED}
}

// doDepart removes a participant that has ended by itself.
func (r *Room) doDepart(p *Participant) {
	if r.locals[p.identity] == p {
		r.removeLocal(p, livekit.DisconnectReason_CLIENT_INITIATED)
	}
}

// removeLocal takes a participant out of the room and tells everybody.
func (r *Room) removeLocal(p *Participant, why livekit.DisconnectReason) {
	delete(r.locals, p.identity)
	r.data.log.Leave(p.identity)
	r.board.Remove(p.sid)
	r.data.feed.ForgetPublisher(p.sid)
	p.kick(why)
	r.dropTracksOf(r.deps.Self.Name, p.sid)
	gone := proto.CloneOf(p.info)
	gone.State, gone.Tracks, gone.DisconnectReason = livekit.ParticipantInfo_DISCONNECTED, nil, why
	gone.Version++
	r.tellParticipants([]*livekit.ParticipantInfo{gone})
	r.announce(Participants{Presence: r.presence(), Left: []string{gone.Sid}})
	r.doHome(r.deps.Now())
	r.publish()
	r.log.Info("participant left", "participant", gone.Sid, "reason", why.String(), "participants", r.count())
}

// doUpdated publishes a participant's changed record here and to the other nodes.
func (r *Room) doUpdated(p *Participant) {
	p.version++
	r.tellParticipants([]*livekit.ParticipantInfo{p.info})
	r.announce(Participants{Presence: r.presence(), Changed: []ParticipantRecord{r.localRecord(p)}})
	r.publish()
}

// change replaces a participant's record by a changed copy.
func (p *Participant) change(f func(*livekit.ParticipantInfo)) {
	info := proto.CloneOf(p.info)
	f(info)
	info.Version++
	p.info = info
}

func (r *Room) byIdentity(identity string) *Participant { return r.locals[identity] }

func (r *Room) localRecord(p *Participant) ParticipantRecord {
	b, err := proto.Marshal(p.info)
	if err != nil {
		panic(fmt.Sprintf("room: encoding a participant: %v", err))
	}
	rec := ParticipantRecord{Version: p.version, Info: b, Media: map[sfu.TrackID]TrackRecord{}, Allow: p.allow, Moves: p.moves, Arrived: p.arrived,
		Number: p.number, AgeMS: r.age(p).Milliseconds()}
	for _, ti := range p.info.Tracks {
		t := r.tracks[sfu.TrackID(ti.Sid)]
		if t == nil {
			continue
		}
		rec.Media[t.id] = t.media
		for _, v := range r.variants(t) {
			rec.Media[v.id] = v.media
		}
	}
	return rec
}

// participants lists everybody in the room, here and elsewhere.
func (r *Room) participants() []*livekit.ParticipantInfo {
	list := make([]*livekit.ParticipantInfo, 0, r.count())
	for _, p := range r.locals {
		list = append(list, p.info)
	}
	for _, m := range r.remotes {
		for _, p := range m.participants {
			list = append(list, p.info)
		}
	}
	return list
}

// publish renews the snapshot for readers outside the actor.
func (r *Room) publish() {
	r.snapshot.Store(&Snapshot{Record: r.record, Home: r.home.name, Nodes: r.allNodes(),
		Participants: r.participants(), Ended: r.ended})
}

// allNodes is the roster as this node sees it, with its own part up to date.
func (r *Room) allNodes() []Presence {
	list := r.nodes()
	for i := range list {
		switch m := r.remotes[list[i].Node]; {
		case list[i].Node == r.deps.Self.Name:
			list[i] = r.presence()
		case m != nil && m.heard:
			list[i] = m.presence
		}
	}
	return list
}

// Remove sends a participant of this node away; it reports whether it was here.
func (r *Room) Remove(ctx context.Context, identity string) (found bool, err error) {
	err = r.call(ctx, func() error {
		if p := r.byIdentity(identity); p != nil {
			found = true
			r.removeLocal(p, livekit.DisconnectReason_PARTICIPANT_REMOVED)
		}
		return nil
	})
	return found, err
}

// Close sends everybody here away and ends the room on this node.
func (r *Room) Close(reason livekit.DisconnectReason) {
	r.post(func() { r.doEnd(reason) })
}
