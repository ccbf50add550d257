package room

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// ErrRefused is returned when the room's policy does not let it be recorded here.
var ErrRefused = errors.New("recording is refused")

// recorder writes the room's tracks to the vault. Its map is owned by Room.run;
// each track has a goroutine of its own, so that nothing waits for the disk.
type recorder struct {
	rec    *vault.Recording
	state  *Recording // as the room knows it
	ctx    context.Context
	stop   context.CancelFunc
	tracks map[sfu.TrackID]*recording
	alone  time.Time // since then nobody is in the room
	wg     sync.WaitGroup
	done   chan struct{} // closed when everything is written
}

// recording is one track on its way to the vault: a receiver like any other.
type recording struct {
	down *sfu.DownTrack
	stop context.CancelFunc
	sink atomic.Pointer[record.Track]
}

// StartRecording begins to record the room on this node. A room that is being
// recorded already goes on; the recording under way is returned.
func (r *Room) StartRecording(ctx context.Context) (*Recording, error) {
	var meta vault.Meta
	var running *Recording
	err := r.call(ctx, func() (err error) {
		running = r.record.Recording
		meta, err = r.mayRecord()
		return err
	})
	if err != nil || running != nil {
		return running, err
	}
	rec, err := r.deps.Vault.Create(meta, r.deps.Now()) // touches the disk: not in the room's goroutine
	if err != nil {
		return nil, fmt.Errorf("start recording: %w", err)
	}
	err = r.call(ctx, func() error {
		running = r.doStartRecording(rec)
		return nil
	})
	if err != nil || running.ID != string(rec.ID()) {
		err = errors.Join(err, rec.Finish(r.deps.Now())) // another one was faster, or the room has ended
	}
	return running, err
}

// mayRecord asks the policy and the gate about storing the room's recording here.
func (r *Room) mayRecord() (vault.Meta, error) {
	if r.ended {
		return vault.Meta{}, ErrClosed
	}
	gate, self := r.deps.Gate(), r.deps.Self
	policy, err := gate.Bundle().Policy(r.record.Policy)
	if err != nil {
		return vault.Meta{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if !policy.Recording.Allowed {
		return vault.Meta{}, fmt.Errorf("%w: policy %q does not allow recordings", ErrRefused, policy.Name)
	}
	if policy.Recording.Consent {
		return vault.Meta{}, fmt.Errorf("%w: policy %q demands the consent of every participant, which this version cannot collect", ErrRefused, policy.Name)
	}
	v := gate.Decide(residency.Request{Room: r.name, Policy: policy.Name, Class: residency.ClassRecording,
		Peer: self, PeerEpoch: gate.Epoch(), Store: true, Now: r.deps.Now()})
	if !v.Allow {
		return vault.Meta{}, fmt.Errorf("%w: %s", ErrRefused, v.Reason)
	}
	if r.deps.Vault == nil {
		return vault.Meta{}, fmt.Errorf("%w: node %s has no vault", ErrRefused, self.Name)
	}
	for _, t := range r.tracks {
		if t.info.Encryption != 0 {
			return vault.Meta{}, fmt.Errorf("%w: the room is end-to-end encrypted", ErrRefused)
		}
	}
	return vault.Meta{Room: r.name, Policy: policy.Name, Node: self.Name, Country: self.Country}, nil
}

// doStartRecording tells the room first and records then (R9).
func (r *Room) doStartRecording(rec *vault.Recording) *Recording {
	if r.recorder != nil {
		return r.recorder.state
	}
	if r.record.Recording != nil {
		return r.record.Recording
	}
	state := &Recording{ID: string(rec.ID()), Node: r.deps.Self.Name, Country: r.deps.Self.Country,
		SinceMS: rec.Started().UnixMilli()}
	ctx, stop := context.WithCancel(context.Background())
	r.recorder = &recorder{rec: rec, state: state, ctx: ctx, stop: stop, tracks: map[sfu.TrackID]*recording{}, done: make(chan struct{})}
	r.noteRecording(state, "")
	for _, t := range r.tracks {
		r.recordTrack(t)
	}
	r.log.Info("recording started", "recording", state.ID)
	return state
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
	r.doHome(r.deps.Now())
}

// takeRecording lets the home follow the state that a recording node states.
func (r *Room) takeRecording(from residency.NodeName, h Hello) {
	cur, said := r.record.Recording, h.Record.Recording
	switch {
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
}

// dropLostRecording takes note, on the home, that the node that recorded the
// room is gone. Where that was the home itself, each node does so for its own
// attendees; a home that comes back states the truth with its next roster.
func (r *Room) dropLostRecording(node residency.NodeName) {
	if cur := r.record.Recording; cur == nil || cur.Node != node {
		return
	}
	lost := func(rec *Record) {
		rec.Recording = nil
		rec.RecordingProblem = "the recording stopped: node " + string(node) + " is gone; what was recorded is kept there"
	}
	if r.home.name == r.deps.Self.Name {
		r.setRecord(lost)
		return
	}
	lost(&r.record)
	r.tellRoom()
	r.publish()
}

// recordTrack starts recording a track, if it can be recorded at all: one that
// cannot does not end the recording of the others.
func (r *Room) recordTrack(t *track) {
	rc := r.recorder
	if t.allow != nil {
		rc.drop(t.id) // its publisher picks who may have it, and a recording is for anybody
		return
	}
	if rc.tracks[t.id] != nil || rc.ctx.Err() != nil || t.base != "" {
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
	x := &recording{}
	ctx, stop := context.WithCancel(rc.ctx)
	x.stop = stop
	x.down = sfu.NewDownTrack(t.up, sfu.DownConfig{Report: func(sr sfu.SenderReport, _ sfu.Out) {
		if s := x.sink.Load(); s != nil {
			s.Report(sr)
		}
	}})
	rc.tracks[t.id] = x
	meta := r.trackMeta(t)
	rc.wg.Go(func() {
		defer x.down.Close()
		if err := r.writeTrack(ctx, rc.rec, x, meta, t.media.Codec); err != nil {
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
func (r *Room) writeTrack(ctx context.Context, rec *vault.Recording, x *recording, meta vault.TrackMeta, codec sfu.Codec) error {
	w, err := rec.Track(meta)
	if err != nil {
		return err
	}
	const ssrc = 1 // of a stream that nobody else sees
	now := r.deps.Now
	sink, err := record.NewTrack(w, codec, record.Options{Start: rec.Started(), NeedKeyframe: func() {
		x.down.HandleRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}}, now(), &sfu.Scratch{})
	}})
	if err != nil {
		return errors.Join(err, w.Close())
	}
	x.sink.Store(sink)
	x.down.Bind(sfu.Binding{SSRC: ssrc, Writer: recordWriter{sink, now}})
	return sink.Run(ctx)
}

func (r *Room) trackMeta(t *track) vault.TrackMeta {
	name := t.ownerIdentity
	for _, p := range r.participants() {
		if p.Sid == t.ownerSID && p.Name != "" {
			name = p.Name
		}
	}
	return vault.TrackMeta{
		TrackID: vault.TrackID(t.id), Participant: t.ownerIdentity, Name: name,
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

// drop ends the recording of one track.
func (rc *recorder) drop(id sfu.TrackID) {
	if x := rc.tracks[id]; x != nil {
		x.stop() // it stays in the map: a track that comes back has its file already
	}
}

// doRecordingFailed stops a recording that cannot be written; the meeting goes on.
func (r *Room) doRecordingFailed(rc *recorder, err error) {
	if r.recorder != rc {
		return
	}
	problem := "the recording stopped: it cannot be written"
	if errors.Is(err, vault.ErrDiskFull) {
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
	r.writing.Go(func() {
		defer close(rc.done)
		rc.wg.Wait()
		if err := rc.rec.Finish(r.deps.Now()); err != nil {
			r.log.Error("finishing a recording", "recording", rc.rec.ID(), "error", err)
		}
		r.log.Info("recording is complete", "recording", rc.rec.ID())
	})
	if !r.ended {
		r.noteRecording(nil, problem)
	}
	return rc.done
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
