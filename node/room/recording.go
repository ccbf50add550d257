package room

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/vault"
)

// ErrRefused is returned when the room's policy does not let it be recorded here.
var ErrRefused = errors.New("recording is refused")

// recorder writes the room's tracks to the vault. Its map is owned by Room.run;
// each track has a goroutine of its own, so that nothing waits for the disk.
type recorder struct {
	rec    tape
	state  *Recording // as the room knows it
	ctx    context.Context
	stop   context.CancelFunc
	tracks map[sfu.TrackID]*recording

	withheld  map[sfu.TrackID]bool // not recorded until their participants may be
	withdrawn map[string]bool      // identities that have taken their consent back
	answers   map[string]*answer   // by sid: what was written down of their consent
	stopped   map[sfu.TrackID]bool // tracks whose recording has ended

	seen map[string]time.Time // when something of an egress was there last

	alone time.Time // since then nobody is in the room
	slow  time.Time // when the disk was behind last
	told  bool      // that people know of it
	wg    sync.WaitGroup
	done  chan struct{} // closed when everything is written
}

// tape is what a recording is written to: a recording of the vault.
type tape interface {
	ID() vault.ID
	Started() time.Time
	Track(vault.TrackMeta) (record.ClusterWriter, error)
	Renew(residency.Permit) error // the recording goes on under another permit
	Revoke()                      // nothing more is written
	Finish(now time.Time) error
}

// vaulted is a recording of the vault as a tape.
type vaulted struct{ *vault.Recording }

// Track implements tape.
func (v vaulted) Track(m vault.TrackMeta) (record.ClusterWriter, error) {
	w, err := v.Recording.Track(m)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// StartRecording begins to record the room on this node. A room that is being
// recorded already goes on; the recording under way is returned.
func (r *Room) StartRecording(ctx context.Context) (*Recording, error) {
	return r.startRecording(ctx, nil)
}

// startRecording takes what the egresses want, and everything if there are none.
func (r *Room) startRecording(ctx context.Context, after *vault.After, list ...Egress) (*Recording, error) {
	var meta vault.Meta
	var permit residency.Permit
	var running *Recording
	err := r.call(ctx, func() (err error) {
		if meta, permit, err = r.mayRecord(); err != nil {
			return err
		}
		meta.After = after
		if after == nil {
			if err := r.checkTracks(list); err != nil {
				return err
			}
			if running, err = r.widen(list); err != nil || running != nil {
				return err
			}
		}
		running = r.under(after)
		return nil
	})
	if err != nil || running != nil {
		return running, err
	}
	rec, err := r.deps.Vault.Create(permit, meta, r.deps.Now()) // touches the disk: not in the room's goroutine
	if err != nil {
		return nil, fmt.Errorf("start recording: %w", err)
	}
	err = r.call(ctx, func() error {
		running, err = r.doStartRecording(vaulted{rec}, after, list...)
		return err
	})
	if err != nil || running.ID != string(rec.ID()) {
		err = errors.Join(err, rec.Finish(r.deps.Now())) // another one was faster, or the room has ended
	}
	return running, err
}

// mayRecord asks the policy and the gate about storing the room's recording here.
func (r *Room) mayRecord() (vault.Meta, residency.Permit, error) {
	refuse := func(format string, a ...any) (vault.Meta, residency.Permit, error) {
		return vault.Meta{}, residency.Permit{}, fmt.Errorf("%w: "+format, append([]any{ErrRefused}, a...)...)
	}
	if r.ended {
		return vault.Meta{}, residency.Permit{}, ErrClosed
	}
	policy, err := r.deps.Gate().Bundle().PolicyFor(r.record.Tenant, r.record.Policy)
	if err != nil {
		return refuse("%w", err)
	}
	if !policy.Recording.Allowed {
		return refuse("policy %q does not allow recordings", policy.Name)
	}
	permit, v := r.keep(residency.ClassRecording)
	if !v.Allow {
		return refuse("%s", v.Reason)
	}
	if r.deps.Vault == nil {
		return refuse("node %s has no vault", v.Peer)
	}
	if err := keepsIn(policy, r.encrypted(), "recording"); err != nil {
		return refuse("%w", err)
	}
	return vault.Meta{Room: r.name, Tenant: r.record.Tenant, Policy: policy.Name, Node: v.Peer, Country: r.deps.Self.Country}, permit, nil
}

// doStartRecording tells the room first and records then (R9).
func (r *Room) doStartRecording(rec tape, after *vault.After, list ...Egress) (*Recording, error) {
	if r.recorder != nil && after == nil {
		return r.widen(list)
	}
	if r.recorder != nil {
		return r.recorder.state, nil
	}
	if cur := r.under(after); cur != nil {
		return cur, nil
	}
	state := &Recording{ID: string(rec.ID()), Node: r.deps.Self.Name, Country: r.deps.Self.Country,
		SinceMS: rec.Started().UnixMilli(), Egress: list}
	if after != nil {
		state.Part = after.Part
	}
	ctx, stop := context.WithCancel(context.Background())
	r.recorder = &recorder{rec: rec, state: state, ctx: ctx, stop: stop, tracks: map[sfu.TrackID]*recording{},
		withheld: map[sfu.TrackID]bool{}, withdrawn: map[string]bool{}, answers: map[string]*answer{}, stopped: map[sfu.TrackID]bool{}, seen: map[string]time.Time{}, done: make(chan struct{})}
	r.noteRecording(state, "")
	for _, t := range r.tracks {
		r.recordTrack(t)
	}
	r.egressesBegin(list)
	r.log.Info("recording started", "recording", state.ID)
	return state, nil
}

// noteRecording changes the room's recording state: directly at home, through
// the next hello elsewhere.
func (r *Room) noteRecording(state *Recording, problem string) {
	if r.home.name == r.deps.Self.Name {
		r.doPresence(r.presence())
		r.setRecord(func(rec *Record) { rec.Recording, rec.RecordingProblem = state, problem })
		return
	}
	r.record.Recording, r.record.RecordingProblem = state, problem
	r.tellRoom()
	r.publish()
	r.home.told = Presence{} // the home hears of it now, also where nothing else is new
	r.doHome(r.deps.Now())
}

// takeRecording lets the home follow the state that a recording node states.
func (r *Room) takeRecording(from residency.NodeName, h Hello) {
	cur, said := r.record.Recording, h.Record.Recording
	switch {
	case cur != nil && said != nil && cur.Node == from && h.Presence.Recorder && cur.ID == said.ID && !cur.sameEgresses(said):
		r.setRecord(func(rec *Record) { rec.Recording = said })
	case cur != nil && said != nil && cur.Node == from && h.Presence.Recorder && cur.ID == said.ID && r.record.RecordingProblem != h.Record.RecordingProblem:
		r.setRecord(func(rec *Record) { rec.RecordingProblem = h.Record.RecordingProblem })
	case cur != nil && cur.Node == from && !h.Presence.Recorder && h.HandOver:
		r.home.lost = r.deps.Now().Add(-recorderGrace) // it goes on elsewhere at once
	case cur == nil && h.Presence.Recorder && said != nil && said.Node == from,
		cur != nil && cur.Node == from && !h.Presence.Recorder:
		r.setRecord(func(rec *Record) {
			rec.RecordingProblem = h.Record.RecordingProblem
			rec.Recording = nil
			if h.Presence.Recorder {
				rec.Recording = said
			}
		})
	}
}

// keepRecording makes the record that the home has sent agree with what this
// node does: the recorder knows better, but two do not record one room.
func (r *Room) keepRecording() {
	if r.recorder == nil {
		return
	}
	if other := r.record.Recording; other != nil && other.Node != r.deps.Self.Name {
		r.doStopRecording("")
		r.record.Recording = other
		return
	}
	r.record.Recording = r.recorder.state
	if r.recorder.told {
		r.record.RecordingProblem = r.slowText()
	}
}

// dropLostRecording takes note that the home, which recorded the room, is gone: each
// node does so for its own attendees. A home that comes back, or the next, states the
// truth with its next roster.
func (r *Room) dropLostRecording(node residency.NodeName) {
	if cur := r.record.Recording; cur == nil || cur.Node != node || r.home.name == r.deps.Self.Name {
		return // the home looks after it in doLostRecording
	}
	r.home.recorded = r.record.Recording
	r.record.Recording, r.record.RecordingProblem = nil, lostText(node, "")
	r.tellRoom()
	r.publish()
}

// recordTrack starts recording a track, if it can be recorded at all: one that
// cannot does not end the recording of the others.
func (r *Room) recordTrack(t *track) {
	rc := r.recorder
	if t.allow != nil {
		rc.drop(t.id, record.Permitted, r.deps.Now()) // its publisher picks who may have it, and a recording is for anybody
		return
	}
	before := rc.tracks[t.id]
	if rc.stopped[t.id] || before != nil && before.left.IsZero() || rc.ctx.Err() != nil || t.base != "" {
		return
	}
	if !rc.state.wants(t) || !r.capturable(t) {
		rc.withhold(t.id)
		return
	}
	_, err := record.NewTrack(nil, t.media.Codec, record.Options{})
	if t.info.Encryption != livekit.Encryption_NONE {
		err = errors.New("it is end-to-end encrypted")
	}
	if err != nil {
		r.log.Warn("track is not recorded", "recording", rc.rec.ID(), "track", t.id, "error", err)
		return
	}
	r.ensureUp(t)
	x := &recording{subject: t.subject(), began: r.deps.Now(), codec: t.media.Codec, files: file(t.id, before)}
	ctx, stop := context.WithCancel(rc.ctx)
	x.stop = stop
	x.down = sfu.NewDownTrack(t.up, sfu.DownConfig{Report: func(sr sfu.SenderReport, _ sfu.Out) {
		if s := x.sink.Load(); s != nil {
			s.Report(sr)
		}
	}})
	rc.tracks[t.id] = x
	meta, opts := r.trackMeta(t, x.files), record.Options{Start: rc.rec.Started()}
	if before != nil {
		opts.Gone = before.left
	}
	rc.wg.Go(func() {
		defer x.down.Close()
		if err := r.writeTrack(ctx, rc.rec, x, meta, opts); err != nil {
			if errors.Is(err, residency.ErrNotKept) && ctx.Err() != nil {
				return // stopped for this very reason, which has been told
			}
			r.log.Error("recording a track", "recording", rc.rec.ID(), "track", meta.TrackID, "error", err)
			select { // not post: at the room's end this goroutine is waited for
			case r.inbox <- func() { r.doRecordingFailed(rc, err) }:
			case <-rc.ctx.Done():
			}
		}
	})
}

// recordWriter hands a DownTrack's packets to the recorder.
type recordWriter struct {
	sink *record.Track
	now  func() time.Time
}

// Write implements sfu.Writer.
func (w recordWriter) Write(_ sfu.Out, rtp []byte, _ int) error {
	w.sink.WriteRTP(rtp, w.now())
	return nil
}

// writeTrack records a track until it ends.
func (r *Room) writeTrack(ctx context.Context, rec tape, x *recording, meta vault.TrackMeta, opts record.Options) error {
	w, err := rec.Track(meta)
	if err != nil {
		return err
	}
	const ssrc = 1 // of a stream that nobody else sees
	now := r.deps.Now
	opts.NeedKeyframe = func() {
		x.down.HandleRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}}, now(), &sfu.Scratch{})
	}
	sink, err := record.NewTrack(w, x.codec, opts)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	x.sink.Store(sink)
	x.down.Bind(sfu.Binding{SSRC: ssrc, Writer: recordWriter{sink, now}})
	return sink.Run(ctx)
}

func (r *Room) trackMeta(t *track, files []vault.TrackID) vault.TrackMeta {
	name := t.ownerIdentity
	for _, p := range r.participants() {
		if p.Sid == t.ownerSID && p.Name != "" {
			name = p.Name
		}
	}
	part := 0
	if len(files) > 1 {
		part = len(files)
	}
	return vault.TrackMeta{
		TrackID: files[len(files)-1], Part: part, Participant: t.ownerIdentity, Name: name,
		Source: strings.ToLower(t.info.Source.String()), Kind: t.kind().String(),
		MimeType: t.media.Codec.MimeType, ClockRate: t.media.Codec.ClockRate, Channels: t.media.Codec.Channels,
		FmtpLine: t.media.Codec.SDPFmtpLine, Start: r.deps.Now().Sub(r.recorder.rec.Started()),
	}
}

// doEmptyRecording ends a recording of nobody once everybody may be taken to
// have left for good.
func (r *Room) doEmptyRecording(now time.Time) {
	rc := r.recorder
	if r.count() > 0 {
		rc.alone = time.Time{}
		return
	}
	if rc.alone.IsZero() {
		rc.alone = now
	}
	if now.Sub(rc.alone) >= time.Duration(r.record.DepartureTimeout)*time.Second {
		r.doStopRecording("")
	}
}

// tick lets the recorded tracks follow the layers that come and go.
func (rc *recorder) tick(now time.Time) {
	var out sfu.Scratch
	for _, x := range rc.tracks {
		x.down.Tick(now, &out)
	}
}

const (
	// slowAfter is how long the disk may take for what it is given before people are
	// told: a flush takes so long on a busy disk now and then, and the queue of a track
	// lasts for seconds. With the rooms' tick it is less than a second (G10).
	slowAfter = 700 * time.Millisecond
	// fastAfter is for how long it must have kept up before they are told so.
	fastAfter = 5 * time.Second
)

// behind is for how long the disk has not taken something of a recording.
func (rc *recorder) behind(now time.Time) (d time.Duration) {
	for id, x := range rc.tracks {
		switch s := x.sink.Load(); {
		case s != nil:
			d = max(d, s.Behind(now))
		case !rc.stopped[id] && x.left.IsZero():
			d = max(d, now.Sub(x.began)) // its file is not there yet
		}
	}
	return d
}

func (r *Room) slowText() string {
	return "the disk of node " + string(r.deps.Self.Name) + " does not keep up: parts of the recording may be missing"
}

// doSlowDisk tells people that the disk does not keep up, and that it does again. The
// recording goes on: what is missing in it is marked there.
func (r *Room) doSlowDisk(now time.Time) {
	rc := r.recorder
	if rc == nil {
		return
	}
	slow := rc.behind(now) >= slowAfter
	if slow {
		rc.slow = now
	}
	switch {
	case slow && !rc.told:
		rc.told = true
		r.log.Warn("the disk does not keep up with a recording", "recording", rc.rec.ID())
		r.noteRecording(rc.state, r.slowText())
	case !slow && rc.told && now.Sub(rc.slow) >= fastAfter:
		rc.told = false
		r.noteRecording(rc.state, "")
	}
}

// policyStopped is what people are told of a recording that may not go on.
const policyStopped = "the recording stopped: the policy does not allow it any more"

// doRecordingFailed stops a recording that cannot be written; the meeting goes on.
func (r *Room) doRecordingFailed(rc *recorder, err error) {
	if r.recorder != rc {
		return
	}
	problem := "the recording stopped: it cannot be written"
	switch {
	case errors.Is(err, residency.ErrNotKept):
		problem = policyStopped
	case errors.Is(err, vault.ErrDiskFull):
		problem = "the recording stopped: the disk of node " + string(r.deps.Self.Name) + " is full; what was recorded is kept"
	}
	r.doStopRecording(problem)
}

// doStopRecording ends the recording; problem says why if nobody asked for it.
// The channel is closed when everything is on the disk.
func (r *Room) doStopRecording(problem string) <-chan struct{} {
	rc := r.recorder
	if rc == nil {
		return nil
	}
	r.recorder = nil
	rc.stop()
	ended := r.egressesEnd(rc, problem)
	r.writing.Go(func() {
		defer close(rc.done)
		rc.wg.Wait()
		if err := rc.rec.Finish(r.deps.Now()); err != nil {
			r.log.Error("finishing a recording", "recording", rc.rec.ID(), "error", err)
		}
		r.noteRecorded(rc.rec.ID())
		ended()
		r.log.Info("recording is complete", "recording", rc.rec.ID())
	})
	if !r.ended {
		r.noteRecording(nil, problem)
	}
	return rc.done
}

// noteRecorded counts what a recording has put on the disk.
func (r *Room) noteRecorded(id vault.ID) {
	if r.deps.Kept == nil {
		return
	}
	if info, err := r.deps.Vault.Info(id); err == nil {
		r.deps.Kept(r.name, evidence.Recorded, residency.ClassRecording, len(info.Tracks), int(info.Size()))
	}
}

// StopRecording ends the recording on this node and waits until it is complete.
func (r *Room) StopRecording(ctx context.Context) error {
	var done <-chan struct{}
	if err := r.call(ctx, func() error { done = r.doStopRecording(""); return nil }); err != nil {
		return err
	}
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Delete ends the room on all its nodes; only its home can.
func (r *Room) Delete(ctx context.Context) error {
	err := r.call(ctx, func() error {
		if r.home.name != r.deps.Self.Name {
			return fmt.Errorf("delete room: node %s is its home now", r.home.name)
		}
		r.home.deleted = true
		r.sendRoster()
		r.doEnd(deleted)
		return nil
	})
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
