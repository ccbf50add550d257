// Package room is one meeting on one node: the participants this node serves,
// what it knows of those that other nodes serve, their tracks, and the room's
// record with its home.
//
// A Room is an actor. One goroutine owns its state and handles one event after
// the other; participants, links and the node post events to it. It asks the
// residency gate before anything of the room leaves for another node, and again
// when something arrives from one. It does not choose nodes (router), place
// bytes on a wire (relay), or handle RTP (sfu).
package room

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room/reliable"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/quality"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/vault"
)

const (
	maxTracks     = 64       // published tracks of one participant
	maxDataPacket = 64 << 10 // bytes; LiveKit clients cut data into 15 KB packets
	inboxSize     = 1024     // events waiting for the room; participants block when it is full

	tickEvery = 100 * time.Millisecond
	// helloEvery refreshes the home's view, so that a lost or late hello heals.
	helloEvery = 5 * time.Second
	// helloRetry is how soon a hello is repeated that the home has not answered:
	// a new one may not know yet that it is the home.
	helloRetry = 500 * time.Millisecond
	// linkGrace is how long the participants behind a lost link stay in the
	// room: shorter than an attendee's patience, longer than a redial.
	linkGrace = 3 * time.Second
	// firstJoinWait is how long a room that is not at home here waits for the
	// participant for whom it was made.
	firstJoinWait = 10 * time.Second

	// DefaultMaxSpeakers leaves every usual meeting as it is; of the voices of a hall
	// nobody follows more than a few.
	DefaultMaxSpeakers = 16

	deleted = livekit.DisconnectReason_ROOM_DELETED

	defaultEmptyTimeout     = 300 // seconds without anybody ever joining, as LiveKit
	defaultDepartureTimeout = 20  // seconds after the last one left, as LiveKit
)

// ErrClosed is returned by calls on a room that has ended.
var ErrClosed = errors.New("room has ended")

// Deps is what a room needs from its node. All functions are safe for
// concurrent use and return at once.
type Deps struct {
	Self residency.Node
	City string
	Gate func() *residency.Gate
	// Peer returns a verified member of the mesh and its policy epoch.
	Peer func(residency.NodeName) (residency.Node, residency.Epoch, bool)
	Link func(residency.NodeName) Link
	// Contradiction says why a node is not believed to be where its certificate
	// says, empty if it is. Nil: everybody is believed.
	Contradiction func(residency.NodeName) string
	// NoEvidence says why what happens now in a room could not be proved afterwards, ""
	// if it could; nil: nothing has to be.
	NoEvidence func(room string) string
	// Kept counts what was stored or recorded here; nil: nobody counts.
	Kept func(room string, side evidence.Side, class residency.Class, packets, bytes int)
	// Withdrawn is told that a participant who is recorded here has taken the consent
	// back, where the policy has what was recorded of them erased; nil: nobody is.
	Withdrawn func(rec Record, identity string)
	// Consent is told what people were told and answered about the recording under way
	// here, where the policy has that kept. It returns at once; nil: nobody is.
	Consent func(rec Record, line ConsentLine)
	// Refused counts that the gate kept a class of the room from a node; nil: nobody
	// counts.
	Refused func(room string, v residency.Verdict)
	// TurnedAway counts a message that is dropped because the gate refuses its
	// sender; nil: nobody counts.
	TurnedAway func(from residency.NodeName, class residency.Class, rule string)
	// Places are where this node keeps classes that do not lie on its own disk.
	Places map[residency.Class]residency.Place
	// Home names the node that writes the room's record now; empty if none may.
	Home func(Record) residency.NodeName
	// Save and Forget keep the record on the home. They return at once: what cannot be
	// written is told by NotSaved.
	Save   func(residency.Permit, Record) error
	Forget func(Record) error
	// KeepChat has a message of the room stored; nil: nothing is.
	KeepChat func(Record, ChatLine)
	// Continue has the recording go on at another node than the one that is lost. It
	// returns at once; NotContinued says that it does not. Nil: none does.
	Continue func(Record, vault.After)
	// Begin has the recording begin that the room's policy asks for. It returns at once;
	// NotBegun says that it does not. Nil: none does.
	Begin func(Record)
	// Event is told what happens in the room, by its home. It returns at once; nil:
	// nobody is.
	Event func(Record, Event)
	// Egress is told what becomes of egresses that are recorded here. It returns at
	// once; nil: nobody is.
	Egress func(Record, EgressChange)
	// SentAway is told why somebody may not be served here any more; nil: nobody is.
	SentAway func(room, identity string, v residency.Verdict)
	// Vault stores recordings; nil on nodes that are no origin.
	Vault      *vault.Vault
	Engine     *rtc.Engine
	ICEServers func(room, sid string) []*livekit.ICEServer // for a participant
	// Owner names a participant's connections for TURN; nil: TURN reaches none.
	Owner func(room, sid string) string
	// RemoteUnmute lets a moderator unmute somebody else's track.
	RemoteUnmute bool
	// MaxSpeakers is how many of the room's open microphones are forwarded at once:
	// the loudest. 0: DefaultMaxSpeakers.
	MaxSpeakers int
	// FanOut is to how many other nodes a track goes from one. 0: cascade.DefaultFanOut.
	FanOut int
	// RoundTrip is how far two nodes are from each other, measured or estimated; nil:
	// nobody knows.
	RoundTrip func(a, b residency.NodeName) (time.Duration, bool)
	// Trees counts plans and what becomes of them; nil: nobody looks.
	Trees *Trees
	// Load is the share of a node's capacity in use, 0 to 1; nil: nobody knows.
	Load func(residency.NodeName) float64
	// Mint makes a token for who is here already; nil: tokens are not renewed.
	Mint func(g control.Grants, ttl time.Duration) (string, error)
	Now  func() time.Time
	// Date is the time of day, by which certificates are judged; what happens here
	// is timed by Now alone, which no change of the clock moves. nil: Now.
	Date func() time.Time
	Log  *slog.Logger
}

// Room is a meeting on this node.
type Room struct {
	// Static after construction.
	deps     Deps
	log      *slog.Logger
	name     string
	inbox    chan func()
	wake     chan struct{} // capacity 1: some track needs reconcile
	rules    chan struct{} // capacity 1: the policies or what is known of a node changed
	done     chan struct{}
	planHere int                     // of more nodes trees are made beside the room
	aside    func(work, then func()) // has work done there, then something by the room

	// snapshot is written by run, read by anyone.
	snapshot atomic.Pointer[Snapshot]

	// Owned by run.
	record      Record
	locals      map[string]*Participant // by identity
	remotes     map[residency.NodeName]*remote
	strangers   map[residency.NodeName]string // rules by which nodes outside the room were refused
	tracks      map[sfu.TrackID]*track
	selection   selection
	trips       *trips
	draft       *draft    // of some track's plan, that is being made
	rests       time.Time // until when none is begun
	data        stream
	transcript  transcript
	board       quality.Board[string] // levels told, by sid
	verdicts    []Quality             // changed since the last tick
	judged      time.Time             // when verdicts were asked for last
	qualitySaid time.Time             // when the other nodes were told all
	epoch       residency.Epoch       // of the policies under which tracks were opened
	recorder    *recorder
	handOver    bool   // what was recorded here is to go on elsewhere
	numbers     uint64 // of connections, the highest that is known
	told        string // id of the recording of which everybody here has been told
	problem     string // of a recording of which everybody here has been told
	home        homeState
	departed    []departure                  // lately, oldest first
	ghosts      []ghost                      // whom another node serves now, until their media is there
	expected    map[string]residency.Country // who asks to be taken over, by sid
	prepared    map[string]Handover          // what the node before said of them
	askedCodecs time.Time                    // other nodes, for codecs that are not published yet
	looked      time.Time                    // at the participants' deadlines
	unsaved     bool                         // the record on this home's disk is not the room's
	savedAt     time.Time                    // when that was tried last
	reasked     time.Time                    // when the gate was asked again last without a cause
	served      bool                         // a participant has been here
	writing     sync.WaitGroup               // recordings being completed
	drafting    sync.WaitGroup               // the draft
	ended       bool

	chronicle  chronicle
	chronicled *Snapshot // as the chronicle knows the room

	followers map[followKey]*follower // for players over WHEP
	herald    herald
	spoke     spoke
}

// Snapshot is what others may see of a room without asking its actor.
type Snapshot struct {
	Record       Record
	Home         residency.NodeName
	Nodes        []Presence
	Participants []*livekit.ParticipantInfo // never changed after publication
	Ended        bool                       // nothing joins it any more
}

// Where names the node that serves a participant.
func (s *Snapshot) Where(identity string) (node residency.NodeName, known bool) {
	for _, p := range s.Participants {
		if p.Identity == identity {
			return residency.NodeName(p.Region), true
		}
	}
	return "", false
}

// New returns a room that knows its record; it starts nothing.
func New(record Record, deps Deps) *Room {
	if deps.Date == nil {
		deps.Date = deps.Now
	}
	if deps.Trees == nil {
		deps.Trees = &Trees{}
	}
	r := &Room{
		deps:      deps,
		log:       deps.Log.With("room", record.SID),
		name:      record.Name,
		inbox:     make(chan func(), inboxSize),
		wake:      make(chan struct{}, 1),
		rules:     make(chan struct{}, 1),
		done:      make(chan struct{}),
		record:    record,
		locals:    map[string]*Participant{},
		remotes:   map[residency.NodeName]*remote{},
		strangers: map[residency.NodeName]string{},
		tracks:    map[sfu.TrackID]*track{},
		followers: map[followKey]*follower{},
		expected:  map[string]residency.Country{},
		prepared:  map[string]Handover{},
		epoch:     deps.Gate().Epoch(),
		told:      record.recordingID(),
		data:      stream{log: reliable.NewLog(reliable.DefaultLimits)},
		herald:    newHerald(),
		selection: newSelection(cmp.Or(deps.MaxSpeakers, DefaultMaxSpeakers)),
	}
	r.planHere, r.aside = planHere, r.spawn
	r.home.init(deps.Now())
	r.publish()
	return r
}

// Run handles events until the room ends or ctx is cancelled. It sees every
// participant off, and returns when its recordings are written.
func (r *Room) Run(ctx context.Context) {
	defer r.writing.Wait()
	defer r.drafting.Wait()
	defer close(r.done) // nobody who waits for the room's answer waits for the disk
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	r.doHome(r.deps.Now())
	for !r.ended {
		select {
		case <-ctx.Done():
			r.doEnd(livekit.DisconnectReason_SERVER_SHUTDOWN)
			return
		case f := <-r.inbox:
			f()
		case <-r.wake:
			r.doReconcile()
		case <-r.rules:
			r.doPolicyChanged()
		case <-tick.C:
			r.doTick(r.deps.Now())
		}
	}
}

// Name returns the room's name.
func (r *Room) Name() string { return r.name }

// Done is closed when the room has ended.
func (r *Room) Done() <-chan struct{} { return r.done }

// Snapshot returns the latest published view of the room.
func (r *Room) Snapshot() *Snapshot { return r.snapshot.Load() }

// post hands an event to the room; it waits while the inbox is full and gives
// up when the room has ended. Never call it from the room's own goroutine.
func (r *Room) post(f func()) bool {
	select {
	case r.inbox <- f:
		return true
	case <-r.done:
		return false
	}
}

// call runs f in the room's goroutine and returns its error.
func (r *Room) call(ctx context.Context, f func() error) error {
	reply := make(chan error, 1)
	select {
	case r.inbox <- func() { reply <- f() }:
	case <-r.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-r.done:
		select { // the room may have answered as its last act
		case err := <-reply:
			return err
		default:
			return ErrClosed
		}
	}
}

// poke asks for a reconcile; it never blocks and may be called from anywhere.
func (r *Room) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Room) doTick(now time.Time) {
	for _, t := range r.tracks {
		if t.up != nil {
			t.up.Tick(now)
		}
	}
	if r.recorder != nil {
		r.recorder.tick(now)
		r.noteGaps()
		if r.doEmptyRecording(now); r.recorder != nil {
			r.doSlowDisk(now)
			r.doEgress(now)
		}
	}
	r.doGhosts(now)
	for _, p := range r.locals {
		p.doSpoken(now)
		r.announceDue(p, now)
	}
	for _, m := range r.remotes {
		if !m.lostAt.IsZero() && now.Sub(m.lostAt) > linkGrace {
			r.log.Warn("node is gone, its participants leave", "node", m.name)
			r.dropRemote(m.name)
		}
	}
	if r.doReask(now); r.ended {
		return
	}
	r.tellHeld(now)
	r.doChronicle()
	r.doMoveFollowers(now)
	r.doHome(now)
	r.doLostRecording(now)
	r.doAlways(now)
	r.doSelect(now)
	r.doOrders(now)
	r.doRevoked()
	r.doQuality(now)
	r.doReconcile()
	if now.Sub(r.askedCodecs) >= askAgain {
		r.askedCodecs = now
		r.askCodecs(now)
	}
	if now.Sub(r.looked) >= patienceTick {
		r.looked = now
		r.tellDue()
	}
	r.doExpire(now)
}

// tellDue has participants look at their deadlines, all while the process is awake:
// timers of their own would wake it twice a second for each.
func (r *Room) tellDue() {
	for _, p := range r.locals {
		select {
		case p.due <- struct{}{}:
		default: // it has not come to the last one yet
		}
	}
}

// doEnd sends every participant away and ends the actor.
func (r *Room) doEnd(reason livekit.DisconnectReason) {
	if r.ended {
		return
	}
	r.ended = true
	r.endChronicle(reason)
	for _, p := range r.locals {
		p.kick(reason)
		r.dropTracksOf(r.deps.Self.Name, p.sid)
	}
	clear(r.locals)
	r.letGo(func(ghost) bool { return true })
	if r.recorder != nil {
		r.handOver = reason == livekit.DisconnectReason_SERVER_SHUTDOWN
		r.doStopRecording("")
		// If the room goes on elsewhere, its home says so with these words.
		r.record.Recording, r.record.RecordingProblem = nil,
			"the recording stopped: node "+string(r.deps.Self.Name)+" has left the room; what was recorded is kept there"
	}
	r.announce(Participants{Presence: r.presence(), Whole: true})
	r.sayHello(r.presence(), r.deps.Now())
	for name := range r.remotes {
		r.dropRemote(name)
	}
	r.publish()
}

// doExpire ends the actor when nobody is left; on the home only after the
// room's timeouts, and then its record goes too, unless it binds the room to a
// policy other than the default: such a binding stays until the room is
// deleted, or a later meeting of that name would fall back to a wider policy.
func (r *Room) doExpire(now time.Time) {
	if len(r.locals) > 0 || len(r.ghosts) > 0 || len(r.expected) > 0 || r.recorder != nil {
		r.home.emptySince = time.Time{}
		return
	}
	if r.home.emptySince.IsZero() {
		r.home.emptySince = now
	}
	if r.home.name != r.deps.Self.Name {
		// An edge leaves at once after its last participant (R3); it only waits
		// for the first one, who is still connecting.
		if r.served || now.Sub(r.home.emptySince) > firstJoinWait {
			r.doEnd(livekit.DisconnectReason_ROOM_CLOSED)
		}
		return
	}
	for _, p := range r.home.nodes {
		if p.Present() {
			r.home.emptySince = now
			return
		}
	}
	if now.Sub(r.home.emptySince) < r.timeout() {
		return
	}
	if p, err := r.deps.Gate().Bundle().PolicyFor(r.record.Tenant, ""); err == nil && p.Name == r.record.Policy {
		if err := r.deps.Forget(r.record); err != nil {
			r.log.Error("forgetting an expired room", "error", err)
		}
	}
	r.log.Info("room expired")
	r.doEnd(livekit.DisconnectReason_ROOM_CLOSED)
}

func (r *Room) timeout() time.Duration {
	secs := r.record.EmptyTimeout
	if r.home.joined {
		secs = r.record.DepartureTimeout
	}
	return time.Duration(secs) * time.Second
}

// WithDefaults fills in the timeouts that a request left out.
func (r Record) WithDefaults() Record {
	if r.EmptyTimeout == 0 {
		r.EmptyTimeout = defaultEmptyTimeout
	}
	if r.DepartureTimeout == 0 {
		r.DepartureTimeout = defaultDepartureTimeout
	}
	return r
}

// Info is the room as LiveKit clients and servers see it.
func (r Record) Info(participants int) *livekit.Room {
	return &livekit.Room{
		Sid: r.SID, Name: r.Name, Metadata: r.Metadata,
		EmptyTimeout: r.EmptyTimeout, DepartureTimeout: r.DepartureTimeout,
		MaxParticipants: r.MaxParticipants,
		CreationTime:    r.CreatedMS / 1000, CreationTimeMs: r.CreatedMS,
		NumParticipants: uint32(participants),
		ActiveRecording: r.Recording != nil,
		EnabledCodecs:   publishCodecs(),
	}
}
