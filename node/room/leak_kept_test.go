package room

import (
	"fmt"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router"
)

// What is recorded, kept and encrypted in the meetings of TestNoLeak.

// reel is a recording that keeps nothing.
type reel struct {
	s       *station
	id      vault.ID
	started time.Time
}

func (r *reel) ID() vault.ID           { return r.id }
func (r *reel) Started() time.Time     { return r.started }
func (r *reel) Revoke()                {}
func (r *reel) Finish(time.Time) error { return nil }

// Renew implements tape, as the vault does.
func (r *reel) Renew(p residency.Permit) error {
	return r.s.disk(residency.ClassRecording).Admit(p, r.s.w.record.Name)
}

// Track implements tape.
func (r *reel) Track(vault.TrackMeta) (record.ClusterWriter, error) { return blank{}, nil }

type blank struct{}

func (blank) Write([]byte) error { return nil }
func (blank) Sync() error        { return nil }
func (blank) Close() error       { return nil }

// policy is what this node has to make of the room, by the bundle alone.
func (s *station) policy() *residency.Policy {
	return residencytest.PolicyOf(s.bundle, s.w.record.Tenant, s.w.record.Policy)
}

// encrypted reports whether this node knows of a track that is.
func (s *station) encrypted() bool {
	for _, t := range s.room.tracks {
		if t.info.Encryption != livekit.Encryption_NONE {
			return true
		}
	}
	return false
}

// rolls begins a recording, or ends the one under way; the disk may refuse.
func (s *station) rolls() {
	switch {
	case s.room.recorder != nil:
		if s.w.In(3) {
			s.room.doStopRecording("")
		}
	case s.w.In(6):
		s.w.seen["recordings refused by the disk"]++
	default:
		s.w.serial++
		id := fmt.Sprintf("RE_%d", s.w.serial)
		s.tells("records %s", id)
		s.room.doStartRecording(&reel{s, vault.ID(id), s.clock()}, nil)
	}
	s.ends()
}

// answers has somebody agree to the recording under way or to another, or take it back.
func (s *station) answers() {
	if s.room == nil || len(s.people) == 0 {
		return
	}
	v := residencytest.Pick(s.w.Rand, s.people...)
	said := residencytest.Pick(s.w.Rand, s.room.record.recordingID(), s.room.record.recordingID(), "", "RE_0", ConsentGiven)
	s.tells("%s says %q of being recorded", v.identity, said)
	s.room.doMetadata(v.Participant, &livekit.UpdateParticipantMetadata{Attributes: map[string]string{ConsentAttribute: said}})
	s.hears()
}

// hears notes what the people here have been told and have said.
func (s *station) hears() {
	if s.room == nil {
		return
	}
	for _, v := range s.people {
		if id := s.room.record.recordingID(); id != "" {
			v.told[id] = true
		}
		if c := v.info.Attributes[ConsentAttribute]; c != v.consent {
			if v.consent != "" {
				v.withdrew = s.w.now
			}
			v.consent = c
			v.said[c] = true
		}
	}
}

// owner finds whose track it is.
func (w *town) owner(sid string) (*station, *visitor) {
	for _, s := range w.stations {
		for _, v := range s.people {
			if v.sid == sid {
				return s, v
			}
		}
	}
	return nil, nil
}

// listens judges what is recorded here (R9, R15): nobody who has not been told of this
// very recording, nor, where it is asked for, agreed to it. Who takes it back is
// believed as soon as it can be known here.
func (s *station) listens() {
	if s.room.recorder == nil {
		s.unkept = time.Time{}
		return
	}
	f := s.about(s.facts("recording"), s.self.Name)
	f.Store, f.Outside, f.Place = true, false, s.outside.store
	broken := residencytest.Against(f)
	p := s.policy()
	if s.encrypted() || p != nil && p.E2EE == residency.E2EERequired {
		broken = append(broken, "the room is end-to-end encrypted (R15)")
	}
	s.lasts(&s.unkept, "has recorded", broken)
	for id, x := range s.room.recorder.tracks {
		if t := s.room.tracks[id]; t != nil && p != nil && !s.room.recorder.stopped[id] && x.left.IsZero() {
			s.captures(p.Recording, t)
		}
	}
}

func (s *station) captures(rule residency.RecordingRule, t *track) {
	o, v := s.w.owner(t.ownerSID)
	if v == nil {
		return // left, and the news of it is on its way
	}
	s.w.seen["people recorded"]++
	id := s.room.record.recordingID()
	why := ""
	switch {
	case t.info.Encryption != livekit.Encryption_NONE:
		why = "the track is encrypted"
	case (rule.Notice || rule.Consent) && !v.told[id]:
		why = "nobody has told them"
	case rule.Consent && v.consent != id && (v.consent != ConsentGiven || !v.given):
		why = fmt.Sprintf("they have said %q", v.consent)
	}
	known := v.withdrew
	for _, at := range []time.Time{s.told, o.told, s.linked[o.self.Name]} {
		if at.After(known) {
			known = at
		}
	}
	known = known.Add(slowest + patienceOfEdges)
	if heard := s.flowed[o.self.Name]; why != "" && !v.withdrew.IsZero() && (o == s && s.w.now.Before(known) || o != s && !heard.After(known)) {
		return
	}
	if why != "" {
		s.fails("records %s in %s: %s", v.identity, id, why)
	}
}

// lasts fails for what has been broken for longer than a node may need to act on it.
func (s *station) lasts(since *time.Time, what string, broken []string) {
	switch {
	case len(broken) == 0:
		*since = time.Time{}
	case since.IsZero():
		*since = s.w.now
	case s.w.now.Sub(*since) > patienceOfEdges:
		s.fails("%s for %s what it may not: %q", what, s.w.now.Sub(*since), broken)
	}
}

// plain judges that the tracks here are encrypted as the policy has it (R16).
func (s *station) plain() {
	p := s.policy()
	if p == nil {
		return
	}
	var broken []string
	for id, t := range s.room.tracks {
		encrypted := t.info.Encryption != livekit.Encryption_NONE
		if t.node == s.self.Name && (encrypted && p.E2EE == residency.E2EEOff || !encrypted && p.E2EE == residency.E2EERequired) {
			broken = append(broken, fmt.Sprintf("track %s under rule %q", id, p.E2EE))
		}
	}
	s.lasts(&s.unlike, "has had", broken)
}

// mayPublish asks the room about a track as it is announced.
func (s *station) mayPublish(e livekit.Encryption_Type) bool {
	why := s.room.encrypts(&livekit.AddTrackRequest{Encryption: e})
	p := s.policy()
	wrong := p == nil || e == livekit.Encryption_NONE && p.E2EE == residency.E2EERequired || e != livekit.Encryption_NONE && p.E2EE == residency.E2EEOff
	switch {
	case why != "":
		s.w.seen["tracks refused for their encryption"]++
	case wrong:
		s.fails("a track of encryption %s may be published", e)
	}
	return why == ""
}

// written are the ways in which clients send text; none of them may be kept if it
// is for somebody alone.
func (s *station) written(v *visitor) []*livekit.DataPacket {
	text := fmt.Sprintf("canary %d", s.w.serial)
	packet := func() *livekit.DataPacket {
		return &livekit.DataPacket{ParticipantSid: v.sid, ParticipantIdentity: v.identity, Kind: livekit.DataPacket_RELIABLE}
	}
	legacy := packet()
	legacy.Value = &livekit.DataPacket_User{User: &livekit.UserPacket{ParticipantSid: v.sid, ParticipantIdentity: v.identity, Topic: new(string), Payload: []byte(`{"message":"` + text + `"}`)}}
	*legacy.GetUser().Topic = topicLegacy
	if s.w.In(2) {
		return []*livekit.DataPacket{legacy}
	}
	topic := residencytest.Pick(s.w.Rand, topicChat, topicQA)
	begin, piece, end := packet(), packet(), packet()
	begin.Value = &livekit.DataPacket_StreamHeader{StreamHeader: &livekit.DataStream_Header{StreamId: text, Topic: topic,
		ContentHeader: &livekit.DataStream_Header_TextHeader{TextHeader: &livekit.DataStream_TextHeader{}}}}
	piece.Value = &livekit.DataPacket_StreamChunk{StreamChunk: &livekit.DataStream_Chunk{StreamId: text, Content: []byte(text)}}
	end.Value = &livekit.DataPacket_StreamTrailer{StreamTrailer: &livekit.DataStream_Trailer{StreamId: text}}
	return []*livekit.DataPacket{begin, piece, end}
}

// writes down, or says to somebody alone, what a client sends as text.
func (s *station) types() {
	if s.room == nil || len(s.people) == 0 {
		return
	}
	v := residencytest.Pick(s.w.Rand, s.people...)
	s.w.serial++
	s.whispers = s.w.In(4)
	defer func() { s.whispers = false }()
	for _, pkt := range s.written(v) {
		if s.whispers {
			pkt.DestinationIdentities = []string{"guest-1"}
		}
		b, err := marshal(pkt)
		if err != nil {
			s.fails("%v", err)
			return
		}
		s.room.doLocalData(v.Participant, true, pkt, b)
	}
}

// keepsChat is Deps.KeepChat: it judges that this may be kept, and hands it to the
// origin that the router names, as the node does.
func (s *station) keepsChat(rec Record, line ChatLine) {
	p, qa := s.policy(), line.Kind == QA
	switch {
	case p == nil || qa && !p.QALog || !qa && !p.ChatLog:
		s.fails("has %s kept that nobody switched on (R10)", line.Kind)
	case p.E2EE == residency.E2EERequired || s.encrypted():
		s.fails("has %s of an end-to-end encrypted room kept (R15)", line.Kind)
	case s.whispers:
		s.fails("has kept what is for somebody alone")
	}
	at := router.Keeper(s.gate, residency.Request{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Class: residency.ClassChat, QA: qa}, s.candidates(), s.clock()).Node()
	if at == "" {
		s.w.seen["chat that nobody may keep"]++
		return
	}
	f := s.about(s.facts("chat"), at)
	f.QA, f.Store, f.Outside, f.Unprovable = qa, true, false, false // the keeper says itself whether it can prove it
	if broken := residencytest.Against(f); len(broken) > 0 {
		s.fails("has %s keep %s: %q", at, line.Kind, broken)
	}
	o := s.w.station(at)
	if link := s.pipes[at]; link != nil {
		link.arrives(func() { o.archives(qa) })
	} else if o == s {
		s.archives(qa)
	}
}

// archives writes a message down, if the gate here lets it.
func (s *station) archives(qa bool) {
	permit, v := s.gate.Permit(residency.Request{Room: s.w.record.Name, Tenant: s.w.record.Tenant, Policy: s.w.record.Policy, Class: residency.ClassChat, QA: qa,
		Peer: s.self, PeerEpoch: s.bundle.Epoch, Store: true, NoEvidence: s.unprovable, Now: s.clock()})
	if !v.Allow {
		return
	}
	s.w.seen["chat kept"]++
	s.writes(permit, residency.ClassChat)
	f := s.about(s.facts("chat"), s.self.Name)
	f.QA, f.Store, f.Outside = qa, true, false
	if broken := residencytest.Against(f); len(broken) > 0 {
		s.fails("keeps chat: %q", broken)
	}
}

// proves lets evidence of this node fail to be written, or be written again.
func (s *station) proves() {
	if s.unprovable == "" {
		s.unprovable, s.mute = "the disk is full", s.w.now
		s.w.seen["evidence fails"]++
	} else {
		s.unprovable, s.proved = "", s.w.now
	}
	s.tells("evidence: %q", s.unprovable)
}
