package room

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/quality"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// tap is the way to another node that looks at nothing: what a room hands to it has
// left. It is also what a peer looks like that does not ask its gate.
type tap struct {
	sent   []relay.Kind
	opened int
	bound  map[uint32]bool
}

func (l *tap) Send(_ residency.Permit, k relay.Kind, _ []byte) error {
	l.sent = append(l.sent, k)
	return nil
}
func (l *tap) OpenTrack(residency.Permit, bool) (OutTrack, error) { l.opened++; return flow{}, nil }
func (l *tap) Bind(_ residency.Permit, alias uint32, _ relay.MediaSink) error {
	l.bound[alias] = true
	return nil
}
func (l *tap) Rebind(residency.Permit, uint32) error { return nil }
func (l *tap) Bound(alias uint32) bool               { return l.bound[alias] }
func (l *tap) Unbind(alias uint32)                   { delete(l.bound, alias) }

type flow struct{}

func (flow) Alias() uint32                   { return 1 }
func (flow) Offer(uint8, bool, []byte)       {}
func (flow) Report(uint8, wire.SenderReport) {}
func (flow) Renew(residency.Permit) error    { return nil }
func (flow) Revoke(string)                   {}
func (flow) Revoked() string                 { return "" }
func (flow) Held() uint8                     { return 0 }
func (flow) Close()                          {}

// scene is a room on fra with gus, who has a camera, and waw, where wanda has one.
type scene struct {
	*stage
	*tap
	gus    *Participant
	turned []string
	asked  int // keyframes of gus's camera
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{stage: newStage(t, "edge"), tap: &tap{bound: map[uint32]bool{}}}
	s.deps.Link = func(n residency.NodeName) Link {
		if n == "waw" {
			return s.tap
		}
		return nil
	}
	s.deps.TurnedAway = func(from residency.NodeName, c residency.Class, rule string) {
		s.turned = append(s.turned, fmt.Sprintf("%s %s %s", from, c, rule))
	}
	gus, up := s.films()
	s.gus = gus
	up.OnKeyframeRequest(func(sfu.Layer) { s.asked++ })
	s.has(t, "waw", false, person("PA_wanda", "wanda", "TR_wanda"))
	s.ensureUp(s.tracks["TR_wanda"])
	return s
}

// films brings gus, who has a camera, to a room on fra.
func (s *stage) films() (*Participant, *sfu.UpTrack) {
	gus := &Participant{room: s.Room, log: s.Room.log, sid: "PA_gus", identity: "gus", inbox: make(chan func(), participantQ),
		due: make(chan struct{}, 1), gone: make(chan struct{}), muted: map[sfu.TrackID]bool{},
		info: &livekit.ParticipantInfo{Sid: "PA_gus", Identity: "gus", Permission: &livekit.ParticipantPermission{CanSubscribe: true, CanPublish: true}}}
	s.locals["gus"] = gus
	info := &livekit.TrackInfo{Sid: "TR_gus", Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA, MimeType: vp8.MimeType}
	up := newUp("TR_gus", sfu.Video, info, TrackRecord{Codec: vp8}, false)
	s.doPublished(gus, info, TrackRecord{Codec: vp8}, up)
	return gus, up
}

// forbids takes Poland, where waw is, out of the zone of a class.
func (s *scene) forbids(c residency.Class) {
	p := *s.bundle.Policies["edge"]
	zones := map[residency.Class]residency.Zone{}
	for class, z := range p.Zones {
		zones[class] = z
	}
	zones[c] = residency.Zone{Name: "home", Countries: []residency.Country{"DE"}}
	p.Zones = zones
	s.bundle.Policies["edge"] = &p
}

// heardOf are the messages of waw, and how to see that one was listened to.
var heardOf = []struct {
	kind   relay.Kind
	msg    any
	before func(*scene)
	heard  func(*scene) bool
}{
	{KindHello, Hello{Presence: Presence{Node: "waw", Participants: 7}}, nil,
		func(s *scene) bool { return s.Room.home.nodes["waw"].Participants == 7 }},
	{KindRoster, Roster{Home: "waw", Seq: 9},
		func(s *scene) { s.at = "waw"; s.doHome(s.now) },
		func(s *scene) bool { return s.record.Metadata == "canary" }},
	{KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 2}}, nil,
		func(s *scene) bool { return s.remotes["waw"] != nil && len(s.remotes["waw"].participants) == 2 }},
	{KindSubscribe, Subscribe{Track: "TR_gus", Layers: 1}, nil,
		func(s *scene) bool { return s.opened > 0 }},
	{KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 5}, nil,
		func(s *scene) bool { return s.bound[5] }},
	{KindTrackClosed, TrackClosed{Track: "TR_wanda"},
		func(s *scene) { s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 5}) },
		func(s *scene) bool { return !s.bound[5] }},
	{KindKeyframe, Keyframe{Track: "TR_gus"},
		func(s *scene) {
			s.says("waw", KindSubscribe, Subscribe{Track: "TR_gus", Layers: 1}) // asks for one by itself
			s.now, s.asked = s.now.Add(time.Second), 0
		},
		func(s *scene) bool { return s.asked > 0 }},
	{KindLayers, Layers{Track: "TR_wanda", Available: 7}, nil,
		func(s *scene) bool { return s.tracks["TR_wanda"].media.Available == 7 }},
	{KindData, nil, nil,
		func(s *scene) bool { return len(s.gus.inbox) > 0 }},
	{KindSpeaking, Speaking{Speakers: []Speaker{{SID: "PA_wanda", Level: 1}}}, nil,
		func(s *scene) bool { return s.remotes["waw"].speaking["PA_wanda"] > 0 }},
	{KindQuality, Qualities{List: []Quality{{SID: "PA_wanda", Level: quality.Poor, Score: 2}}}, nil,
		func(s *scene) bool { return s.remotes["waw"].participants["PA_wanda"].quality.Score == 2 }},
	{KindDataAsk, DataAsk{Publisher: "PA_gus"}, nil,
		func(s *scene) bool { return slices.Contains(s.sent, KindDataHead) }},
	{KindDataHead, DataHead{Publisher: "PA_wanda", Seq: 3},
		func(s *scene) {
			s.says("waw", KindData, wandaSays(livekit.DataPacket_RELIABLE, 1))
			for len(s.gus.inbox) > 0 {
				<-s.gus.inbox
			}
		},
		func(s *scene) bool { return slices.Contains(s.sent, KindDataAsk) }},
}

// wandaSays is chat of wanda's.
func wandaSays(kind livekit.DataPacket_Kind, seq uint32) Data {
	b, err := marshal(&livekit.DataPacket{Kind: kind, Sequence: seq, ParticipantSid: "PA_wanda", ParticipantIdentity: "wanda",
		Value: &livekit.DataPacket_ChatMessage{ChatMessage: &livekit.ChatMessage{Message: "canary"}}})
	if err != nil {
		panic(err)
	}
	return Data{Reliable: seq > 0, Packet: b}
}

// TestReceiverAsks hands a room each kind of message of a node whose own gate has
// let it send it, while this one's does not, or does: the class of the message
// decides, and no other.
func TestReceiverAsks(t *testing.T) {
	for _, c := range heardOf {
		for _, forbidden := range []residency.Class{"", residency.ClassSignalling, residency.ClassChat, residency.ClassMedia} {
			t.Run(fmt.Sprintf("%s without %s", kindNames[c.kind], forbidden), func(t *testing.T) {
				s := newScene(t)
				if c.before != nil {
					c.before(s)
				}
				s.sent = nil
				if forbidden != "" {
					s.forbids(forbidden)
				}
				msg := c.msg
				switch c.kind {
				case KindHello:
					m := c.msg.(Hello)
					m.Record = s.record
					msg = m
				case KindRoster:
					m := c.msg.(Roster)
					m.Record = renamed(s.record, "canary")
					msg = m
				case KindParticipants:
					m := c.msg.(Participants)
					m.Changed = []ParticipantRecord{recordOf(t, 1, person("PA_willi", "willi"))}
					msg = m
				case KindData:
					msg = wandaSays(livekit.DataPacket_LOSSY, 0)
				}
				s.says("waw", c.kind, msg)
				heard := forbidden == "" || forbidden != Class(c.kind)
				if forbidden == residency.ClassMedia && (c.kind == KindTrackOpen || c.kind == KindSubscribe) {
					heard = false // the message is signalling, what it opens is not
				}
				if c.heard(s) != heard {
					t.Errorf("listened to: %v, want %v", !heard, heard)
				}
				counted := slices.Contains(s.turned, fmt.Sprintf("waw %s %s", Class(c.kind), residency.RuleEdgeEmpty))
				if counted != (forbidden == Class(c.kind)) {
					t.Errorf("counted: %q", s.turned)
				}
			})
		}
	}
}

// TestSenderAsks has a room send each kind of message, and media, to a node that it
// may send to, or may not.
func TestSenderAsks(t *testing.T) {
	for kind := range kindNames {
		for _, forbidden := range []residency.Class{"", residency.ClassSignalling, residency.ClassChat} {
			s := newScene(t)
			s.sent = nil
			if forbidden != "" {
				s.forbids(forbidden)
			}
			err := s.sendTo("waw", kind, []byte("canary"))
			if left := len(s.sent) > 0; left != (forbidden != Class(kind)) || left != (err == nil) {
				t.Errorf("%s without %q: left %v, %v", kindNames[kind], forbidden, left, err)
			}
		}
	}
	for _, forbidden := range []residency.Class{"", residency.ClassMedia} {
		s := newScene(t)
		if forbidden != "" {
			s.forbids(forbidden)
		}
		err := s.serve(s.tracks["TR_gus"], "waw", 1)
		if left := s.opened > 0; left != (forbidden == "") || left != (err == nil) {
			t.Errorf("media without %q: left %v, %v", forbidden, left, err)
		}
	}
}

// TestRefusalIsToldOnce keeps a node that goes on sending from filling the log.
func TestRefusalIsToldOnce(t *testing.T) {
	s := newScene(t)
	s.forbids(residency.ClassSignalling)
	for range 5 {
		s.says("waw", KindSpeaking, Speaking{})
		s.says("nyc", KindSpeaking, Speaking{})
	}
	if len(s.turned) != 10 || s.remotes["waw"].refused == "" || s.strangers["nyc"] == "" {
		t.Errorf("%q, %q, %v", s.turned, s.remotes["waw"].refused, s.strangers)
	}
}
