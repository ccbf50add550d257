package room

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// track is a published track of the room, here or on another node.
type track struct {
	// Static after construction.
	id            sfu.TrackID
	base          sfu.TrackID        // of a track in another codec: the track; see codecs.go
	node          residency.NodeName // that serves the publisher
	ownerSID      string
	ownerIdentity string
	poke          func()

	// Owned by Room.run.
	info       *livekit.TrackInfo
	media      TrackRecord
	up         *sfu.UpTrack // nil for a track elsewhere that nobody here watches
	voice      *voice       // of audio: what stands between up and those who hear it
	serving    map[residency.NodeName]*outgoing
	way        way          // by which it comes, for a track elsewhere
	plan       plan         // by which it goes to other nodes, for a track of this node
	announced  sfu.LayerSet // the layers last announced to the nodes served
	rates      sfu.Rates    // what they were told that these take
	toldAt     time.Time
	allow      *Permissions         // who may have it
	varied     bool                 // has, or had, other codecs
	lacked     map[string]time.Time // codecs that somebody waits for, and when they said so last
	dynacast   map[string]*dynacast // what the publisher here was told, by codec
	subscribed bool                 // the publisher here knows that somebody receives it
	refresh    bool                 // those who receive it need a keyframe: packets were lost on its way here

	// Written by the media plane, read by run.
	keyframes atomic.Uint32 // layers whose decoders wait for a keyframe, as a LayerSet
}

// outgoing is a track on its way to another node: a sink of its UpTrack.
type outgoing struct {
	track  OutTrack
	layers atomic.Uint32 // sfu.LayerSet
	held   uint8         // layers that the node was told not to expect; owned by Room.run
	thin   *sfu.Thinner  // of a stream with several layers: leaves out what is not wanted; nil for others
}

// Wants implements sfu.Sink.
func (o *outgoing) Wants() sfu.LayerSet { return sfu.LayerSet(o.layers.Load()) }

// Offer implements sfu.Sink.
func (o *outgoing) Offer(burst []sfu.Packet, _ sfu.Out) {
	for i := range burst {
		p := &burst[i]
		if o.thin == nil {
			o.track.Offer(uint8(p.Layer), p.Marker, p.Raw)
		} else {
			raw, marker := o.thin.Take(p, o.Wants())
			o.track.Offer(uint8(p.Layer), marker, raw)
		}
	}
}

// Report implements sfu.Sink.
func (o *outgoing) Report(l sfu.Layer, sr sfu.SenderReport) {
	o.track.Report(uint8(l), wire.SenderReport{NTP: sr.NTP, RTP: sr.RTP, Packets: sr.Packets, Octets: sr.Octets})
}

// incoming feeds the packets of a link into an UpTrack: the same Ingest as for a
// publisher's packets.
type incoming struct {
	up     *sfu.UpTrack
	engine *rtc.Engine
	came   *atomic.Uint32 // counts the bursts
}

// bursts holds what a goroutine that reads a link hands over at a time.
var bursts = sync.Pool{New: func() any { return new([]sfu.Inbound) }}

// Media implements relay.MediaSink.
func (i incoming) Media(layer uint8, rtp [][]byte, arrival time.Time) {
	if layer >= sfu.MaxLayers {
		return
	}
	i.came.Add(1)
	burst := bursts.Get().(*[]sfu.Inbound)
	for _, raw := range rtp {
		*burst = append(*burst, sfu.Inbound{Raw: raw, Arrival: arrival})
	}
	out := i.engine.Out()
	i.up.Ingest(sfu.Layer(layer), *burst, out)
	i.engine.Return(out)
	clear(*burst)
	*burst = (*burst)[:0]
	bursts.Put(burst)
}

// Report implements relay.MediaSink.
func (i incoming) Report(layer uint8, sr wire.SenderReport, arrival time.Time) {
	if layer < sfu.MaxLayers {
		i.up.Report(sfu.Layer(layer), sfu.SenderReport{
			NTP: sr.NTP, RTP: sr.RTP, Packets: sr.Packets, Octets: sr.Octets, Arrival: arrival})
	}
}

func (t *track) kind() sfu.Kind {
	if t.info.Type == livekit.TrackType_AUDIO {
		return sfu.Audio
	}
	return sfu.Video
}

// watch makes the media plane's wishes reach the room.
func (t *track) watch() {
	t.up.OnWanted(func(sfu.LayerSet) { t.poke() })
	t.up.OnAvailable(func(sfu.LayerSet) { t.poke() })
}

// watchRemote adds, for a track elsewhere, the way of keyframe requests upstream.
func (t *track) watchRemote() {
	t.watch()
	t.up.OnKeyframeRequest(func(l sfu.Layer) {
		t.keyframes.Or(uint32(sfu.LayerSet(0).With(l)))
		t.poke()
	})
}

// takeTracks notes what a participant elsewhere publishes, in all its codecs.
func (r *Room) takeTracks(node residency.NodeName, owner *livekit.ParticipantInfo, rec *ParticipantRecord) {
	keep := map[sfu.TrackID]bool{}
	for _, info := range owner.Tracks {
		id := sfu.TrackID(info.Sid)
		keep[id] = true
		r.takeTrack(node, owner, info, id, rec)
		for _, c := range videoCodecs {
			if v := id + variantMark + sfu.TrackID(c.short); rec.Media[v].Codec.MimeType == c.mime {
				keep[v] = true
				r.takeTrack(node, owner, info, v, rec)
			}
		}
	}
	for id, t := range r.tracks {
		if t.node == node && t.ownerSID == owner.Sid && !keep[id] {
			r.dropTrack(id)
		}
	}
}

// takeTrack notes a track of a participant elsewhere.
func (r *Room) takeTrack(node residency.NodeName, owner *livekit.ParticipantInfo, info *livekit.TrackInfo, id sfu.TrackID, rec *ParticipantRecord) {
	media := rec.Media[id]
	t := r.tracks[id]
	if t == nil {
		if media.Codec.MimeType == "" {
			return // announced, but its media has not arrived at its node yet
		}
		t = &track{id: id, node: node, ownerSID: owner.Sid, ownerIdentity: owner.Identity,
			poke: r.poke, serving: map[residency.NodeName]*outgoing{}}
		if base := sfu.TrackID(info.Sid); base != id {
			first := r.tracks[base]
			if first == nil || first.node != node || first.ownerSID != owner.Sid {
				return
			}
			t.base, first.varied = base, true
		}
		t.way.at = feed{from: node}
		r.tracks[id] = t
	}
	if t.node != node || t.ownerSID != owner.Sid {
		return // a track id is written only by the node that made it
	}
	t.info, t.media, t.allow = info, media, rec.Allow
	if t.up != nil {
		t.up.SetAvailable(media.Available)
		// What is under way, or asked for again, is not forwarded either (R13).
		r.setMuted(t, info.Muted)
	}
	r.keepServing(t)
	r.offerTrack(t)
}

// offerTrack lets everybody here subscribe to a track. One in another codec is
// given to those who wait for it (giveCodecs), and not recorded.
func (r *Room) offerTrack(t *track) {
	if t.base != "" {
		r.poke()
		return
	}
	for _, p := range r.locals {
		r.offerTo(t, p)
	}
	switch {
	case r.recorder == nil:
	case t.info.Encryption != livekit.Encryption_NONE:
		r.doStopRecording("the recording stopped: the meeting is end-to-end encrypted now")
	default:
		r.recordTrack(t)
	}
}

func (r *Room) offerTo(t *track, p *Participant) {
	r.introduced(t.ownerSID)
	if s, ok := r.subscription(t, p); ok {
		p.subscribe(s)
	}
}

// subscription is what a participant gets of a track, if it wants it, may have
// it and can decode it.
func (r *Room) subscription(t *track, p *Participant) (subscription, bool) {
	if !p.desires(t) || !r.permitted(t, p) {
		return subscription{}, false
	}
	v := r.decodable(t, p)
	if v == nil {
		return subscription{}, false
	}
	r.ensureUp(v)
	return subscription{up: v.heard(), id: t.id, stream: p.streamID(t), layers: t.info.Layers, screen: t.info.Source == livekit.TrackSource_SCREEN_SHARE, stereo: t.info.Stereo}, true
}

// ensureUp makes the UpTrack of a track elsewhere once somebody here wants it.
func (r *Room) ensureUp(t *track) {
	if t.up != nil {
		return
	}
	t.up = newUp(t.id, t.kind(), t.info, t.media, true)
	t.up.SetAvailable(t.media.Available)
	t.up.SetMuted(t.info.Muted)
	t.watchRemote()
	r.giveVoice(t)
}

// giveVoice puts what audio needs behind a new UpTrack.
func (r *Room) giveVoice(t *track) {
	if t.kind() == sfu.Audio {
		t.voice = r.newVoice(t)
	}
}

// heard is the UpTrack that attendees here receive.
func (t *track) heard() *sfu.UpTrack {
	if t.voice != nil {
		return t.voice.heard
	}
	return t.up
}

// watched reports whether somebody receives the track.
func (t *track) watched() bool {
	if t.voice != nil {
		return t.voice.wanted()
	}
	return t.up.Wanted() != 0
}

// setMuted stops or resumes a track. When it returns, nothing of a muted one is
// on its way to anybody.
func (r *Room) setMuted(t *track, muted bool) {
	changed := t.up.Muted() != muted
	t.up.SetMuted(muted)
	if t.voice != nil {
		r.mute(t.voice, muted)
	}
	if changed && muted && r.deps.Engine != nil {
		r.deps.Engine.Settle() // what waits to be sent has left before anybody is told
	}
}

// dropTrack ends a track: its receivers here, the nodes it is sent to, its source.
func (r *Room) dropTrack(id sfu.TrackID) {
	t := r.tracks[id]
	if t == nil {
		return
	}
	delete(r.tracks, id)
	for _, v := range r.variants(t) {
		r.dropTrack(v.id)
	}
	for _, p := range r.locals {
		p.unsubscribeFrom(t)
		delete(p.refused, id)
		delete(p.lacking, id)
		delete(p.hopeless, id)
		delete(p.starved, id)
	}
	if r.recorder != nil {
		r.recorder.leave(id, r.deps.Now())
	}
	t.stopAll("track ended")
	if t.voice != nil {
		r.dropVoice(t.voice)
	}
	r.quit(t)
}

// dropTracksOf ends the tracks of a participant as its own node states it.
func (r *Room) dropTracksOf(node residency.NodeName, sid string) {
	for id, t := range r.tracks {
		if t.node == node && t.ownerSID == sid {
			r.dropTrack(id)
		}
	}
}

// doReconcile brings what this node asks of others, and what it tells them, in
// line with what the media plane wants. It is level-triggered: a lost message
// or link is made good by the next run.
func (r *Room) doReconcile() {
	now := r.deps.Now()
	r.giveCodecs()
	for _, t := range r.tracks {
		if t.up == nil {
			continue
		}
		if t.node == r.deps.Self.Name {
			r.tellLayers(t, now)
			t.renew(now)
			continue
		}
		r.askLayers(t, now)
		r.askKeyframes(t)
		if len(t.serving) > 0 {
			r.tellLayers(t, now)
		}
	}
	r.doPlans(now)
	r.doDynacast(now)
	r.reviewRecording()
}

// renew asks a publisher who has come from another node for keyframes: decoders wait
// for seconds before they ask.
func (t *track) renew(now time.Time) {
	if !t.refresh {
		return
	}
	t.refresh = false
	for l := sfu.Layer(0); l < sfu.MaxLayers; l++ {
		if t.up.Wanted().Has(l) {
			t.up.RequestKeyframe(l, now)
		}
	}
}

func (r *Room) askKeyframes(t *track) {
	if t.way.at.link == nil {
		return // asked again by the decoders when packets come
	}
	set := sfu.LayerSet(t.keyframes.Swap(0))
	for l := sfu.Layer(0); l < sfu.MaxLayers; l++ {
		if set.Has(l) {
			r.sendTo(t.way.at.from, KindKeyframe, encode(Keyframe{Track: t.id, Layer: l}))
		}
	}
}

// ratesEvery is how often other nodes hear what layers take, when that changed by
// a part of ratesDiffer: what an encoder varies by from second to second is no news.
const (
	ratesEvery  = time.Second
	ratesDiffer = 0.15
)

// tellLayers announces the layers that carry packets to the nodes that are served,
// and what each takes: who is not sent a layer cannot measure it.
func (r *Room) tellLayers(t *track, now time.Time) {
	have, rates := t.up.Available(), t.up.Rates(now)
	r.tellCarried(t, have, rates)
	if have == t.announced && (now.Sub(t.toldAt) < ratesEvery || !differ(rates, t.rates)) {
		return
	}
	t.announced, t.media.Available, t.rates, t.toldAt = have, have, rates, now
	for name, o := range t.serving {
		r.sendTo(name, KindLayers, encode(Layers{Track: t.id, Available: o.carried(have), Rates: rates}))
	}
}

// tellCarried tells a node of a change in what the path to it carries, so that people
// there watch a smaller layer instead of none.
func (r *Room) tellCarried(t *track, have sfu.LayerSet, rates sfu.Rates) {
	for name, o := range t.serving {
		if held := o.track.Held(); held != o.held && r.sendTo(name, KindLayers, encode(Layers{Track: t.id, Available: o.carried(have), Rates: rates})) == nil {
			o.held = held
		}
	}
}

// carried are those of the layers that the path to the node carries. A stream with
// several layers is made smaller before it is given up.
func (o *outgoing) carried(have sfu.LayerSet) sfu.LayerSet {
	held := sfu.LayerSet(o.track.Held())
	if o.thin != nil && held != 0 {
		return have & 1
	}
	return have &^ held
}

func differ(a, b sfu.Rates) bool {
	for s := range a {
		for k := range a[s] {
			if d := a[s][k] - b[s][k]; max(d, -d) > ratesDiffer*max(a[s][k], b[s][k]) {
				return true
			}
		}
	}
	return false
}

// doSubscribe serves a track to another node, or ends that.
func (r *Room) doSubscribe(from residency.NodeName, s Subscribe) {
	t := r.tracks[s.Track]
	ours := t != nil && t.node == r.deps.Self.Name && t.up != nil
	switch {
	case s.Layers == 0 && t != nil:
		t.plan.forget(from)
		t.stopServing(from, "not wanted")
		return
	case s.Layers == 0:
		return
	case !ours && r.passesOn(t, from):
	case !ours || r.remotes[from] == nil:
		r.doLacked(from, s.Track)
		r.sendTo(from, KindTrackClosed, encode(TrackClosed{Track: s.Track, Reason: "no such track here"}))
		return
	}
	if !r.mayServe(t, from) {
		t.plan.forget(from)
		r.sendTo(from, KindTrackClosed, encode(TrackClosed{Track: s.Track, Reason: "the publisher does not permit it"}))
		return
	}
	if ours && !r.doDemand(t, from, s) {
		return // it gets the track from another node
	}
	r.provide(t, from, s.Layers)
}

// provide has the track go to another node in these layers.
func (r *Room) provide(t *track, to residency.NodeName, layers sfu.LayerSet) {
	if o := t.serving[to]; o != nil && o.track.Revoked() != "" {
		t.stopServing(to, "starts over")
	}
	if o := t.serving[to]; o != nil {
		o.layers.Store(uint32(layers))
		t.up.WantsChanged()
		r.tellOpen(t, to, o)
		return
	}
	if err := r.serve(t, to, layers); err != nil {
		r.sendTo(to, KindTrackClosed, encode(TrackClosed{Track: t.id, Reason: err.Error()}))
	}
}

// tellOpen says under which alias the track comes, and by which way.
func (r *Room) tellOpen(t *track, to residency.NodeName, o *outgoing) {
	r.sendTo(to, KindTrackOpen, encode(TrackOpen{Track: t.id, Alias: o.track.Alias(), Available: o.carried(t.up.Available()),
		Rates: t.up.Rates(r.deps.Now()), Path: r.pathOf(t)}))
}

// serve opens the track towards a node: the one place where media leaves for
// another node, and only with the gate's permit.
func (r *Room) serve(t *track, to residency.NodeName, layers sfu.LayerSet) error {
	permit, verdict := r.permit(to, residency.ClassMedia)
	if !verdict.Allow {
		r.noteRefusal(to, verdict)
		r.keptFrom(verdict)
		return refusal(verdict)
	}
	link := r.deps.Link(to)
	if link == nil {
		return errNoLink
	}
	out, err := link.OpenTrack(permit, t.kind() == sfu.Video)
	if err != nil {
		return err
	}
	o := &outgoing{track: out}
	if t.up.SVC() {
		o.thin = new(sfu.Thinner)
	}
	o.layers.Store(uint32(layers))
	t.serving[to] = o
	r.tellOpen(t, to, o)
	if t.selects() {
		t.voice.feed(o)
	} else {
		t.up.AddSink(o)
	}
	// Who waits there will ask for a keyframe; by then it can be on its way.
	for l := sfu.Layer(0); t.kind() == sfu.Video && l < sfu.MaxLayers; l++ {
		if layers.Has(l) {
			t.up.RequestKeyframe(l, r.deps.Now())
		}
	}
	return nil
}

// selects reports whether other nodes get what is selected here of the voices; what
// came from another node was selected there.
func (t *track) selects() bool { return t.voice != nil && t.voice.away != nil }

// stopAll ends the flow of a track to every node.
func (t *track) stopAll(reason string) {
	for name := range t.serving {
		t.stopServing(name, reason)
	}
}

// stopServing ends the flow of a track to a node at once, queued packets included.
func (t *track) stopServing(to residency.NodeName, reason string) {
	o := t.serving[to]
	if o == nil {
		return
	}
	delete(t.serving, to)
	o.track.Revoke(reason)
	if t.selects() {
		t.voice.starve(o)
	} else {
		t.up.RemoveSink(o)
	}
	o.track.Close()
}

func (r *Room) doKeyframe(from residency.NodeName, k Keyframe) {
	t := r.tracks[k.Track]
	if t != nil && t.serving[from] != nil && k.Layer < sfu.MaxLayers {
		t.up.RequestKeyframe(k.Layer, r.deps.Now())
	}
}

func (r *Room) doLayers(from residency.NodeName, l Layers) {
	if t := r.tracks[l.Track]; t != nil && t.way.at.from == from && t.up != nil {
		t.media.Available = l.Available
		t.up.SetAvailable(l.Available)
		t.up.SetRates(l.Rates)
	}
}
