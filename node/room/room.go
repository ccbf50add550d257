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
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
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
	Link func(residency.NodeName) *relay.Link
	// Home names the node that writes the room's record now; empty if none may.
	Home func(room, policy string) residency.NodeName
	// Save and Forget keep the record on the home; the room waits for them.
	Save   func(Record) error
	Forget func(name string) error
	// Vault stores recordings; nil on nodes that are no origin.
	Vault      *vault.Vault
	Engine     *rtc.Engine
	ICEServers func(room, sid string) []*livekit.ICEServer // for a participant
	// RemoteUnmute lets a moderator unmute somebody else's track.
	RemoteUnmute bool
	// MaxSpeakers is how many of the room's open microphones are forwarded at once:
	// the loudest. 0: DefaultMaxSpeakers.
	MaxSpeakers int
	// Mint makes a token for who is here already; nil: tokens are not renewed.
	Mint func(g control.Grants, ttl time.Duration) (string, error)
	Now  func() time.Time
	Log  *slog.Logger
}

// Room is a meeting on this node.
type Room struct {
	// Static after construction.
	deps  Deps
	log   *slog.Logger
	name  string
	inbox chan func()
	wake  chan struct{} // capacity 1: some track needs reconcile
	done  chan struct{}

	// snapshot is written by run, read by anyone.
	snapshot atomic.Pointer[Snapshot]

	// Owned by run.
	record      Record
	locals      map[string]*Participant // by identity
	remotes     map[residency.NodeName]*remote
	tracks      map[sfu.TrackID]*track
	selection   selection
	data        stream
	board       quality.Board[string] // levels told, by sid
	verdicts    []Quality             // changed since the last tick
	judged      time.Time             // when verdicts were asked for last
	qualitySaid time.Time             // when the other nodes were told all
	epoch       residency.Epoch       // of the policies under which tracks were opened
	recorder    *recorder
	home        homeState
	departed    []departure    // lately, oldest first
	askedCodecs time.Time      // other nodes, for codecs that are not published yet
	served      bool           // a participant has been here
	writing     sync.WaitGroup // recordings being completed
	ended       bool

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
	r := &Room{
		deps:      deps,
		log:       deps.Log.With("room", record.SID),
		name:      record.Name,
		inbox:     make(chan func(), inboxSize),
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		record:    record,
		locals:    map[string]*Participant{},
		remotes:   map[residency.NodeName]*remote{},
		tracks:    map[sfu.TrackID]*track{},
		followers: map[followKey]*follower{},
		epoch:     deps.Gate().Epoch(),
		data:      stream{log: reliable.NewLog(reliable.DefaultLimits)},
		herald:    newHerald(),
		selection: newSelection(cmp.Or(deps.MaxSpeakers, DefaultMaxSpeakers)),
	}
	r.home.init(deps.Now())
	r.publish()
	return r
}

// Run handles events until the room ends or ctx is cancelled. It sees every
// participant off, and returns when its recordings are written.
func (r *Room) Run(ctx context.Context) {
	defer r.writing.Wait()
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
		r.doEmptyRecording(now)
	}
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
	r.tellHeld(now)
	r.doMoveFollowers(now)
	r.doHome(now)
	r.doSelect(now)
	r.doOrders(now)
	r.doQuality(now)
	r.doReconcile()
	if now.Sub(r.askedCodecs) >= askAgain {
		r.askedCodecs = now
		r.askCodecs(now)
	}
	r.doExpire(now)
}

// doEnd sends every participant away and ends the actor.
func (r *Room) doEnd(reason livekit.DisconnectReason) {
	if r.ended {
		return
	}
	r.ended = true
	for _, p := range r.locals {
		p.kick(reason)
		r.dropTracksOf(r.deps.Self.Name, p.sid)
	}
	clear(r.locals)
	if r.recorder != nil {
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
	if len(r.locals) > 0 || r.recorder != nil {
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
	if b := r.deps.Gate().Bundle(); b != nil && b.Default == r.record.Policy {
		if err := r.deps.Forget(r.name); err != nil {
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
