package room

import (
	"slices"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room/reliable"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/residency"
)

// speaker is somebody on this node, without a client.
func (s *middle) speaker(identity string) *Participant {
	yes := true
	p := &Participant{room: s.Room, sid: "PA_" + identity, identity: identity, info: person("PA_"+identity, identity), log: s.log,
		session: &rtc.Session{}, stop: func(error) {}, inbox: make(chan func(), participantQ)}
	p.info.Permission = &livekit.ParticipantPermission{CanPublishData: true}
	p.token.Store(&control.Grants{Video: &auth.VideoGrant{CanPublishData: &yes}})
	s.locals[identity] = p
	return p
}

// data are the numbers of what was sent to a node since the last question.
func (s *middle) sentTo(to residency.NodeName) (list []uint32) {
	s.t.Helper()
	for _, l := range s.letters {
		if l.to != to || l.kind != KindData {
			continue
		}
		d, err := decode[Data](l.body)
		pkt := &livekit.DataPacket{}
		if err == nil {
			err = proto.Unmarshal(d.Packet, pkt)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, pkt.Sequence)
	}
	s.letters = nil
	return list
}

func (s *middle) numbers(sid string) (list []uint32) {
	for _, m := range s.data.log.Since(sid, 0, nil) {
		list = append(list, m.Seq)
	}
	return list
}

// TestReleasedAreHeard has a client say something to the node before, which has released
// it: the node that serves it now gets that, once. What is on its way there from before
// the release is no gap in what comes back.
func TestReleasedAreHeard(t *testing.T) {
	s := newMiddle(t)
	ada := s.speaker("ada")
	say := func(seq uint32) {
		pkt := &livekit.DataPacket{ParticipantSid: "PA_ada", ParticipantIdentity: "ada", Sequence: seq}
		s.doLocalData(ada, true, pkt, said(t, "PA_ada", "ada", seq))
	}
	say(1)
	say(2)
	s.letters = nil
	rec := recordOf(t, 9, person("PA_ada", "ada"))
	rec.Moves = 1
	s.says("vie", KindParticipants, Participants{Presence: Presence{Node: "vie", Participants: 2}, Changed: []ParticipantRecord{rec}})
	if s.locals["ada"] != nil || len(s.ghosts) != 1 {
		t.Fatal("ada is not released")
	}
	s.letters = nil
	say(3)
	say(4)
	s.doLocalData(ada, false, &livekit.DataPacket{ParticipantSid: "PA_ada"}, nil) // lossy: stale
	if vie, waw := s.sentTo("vie"), s.sentTo("waw"); !slices.Equal(vie, []uint32{3, 4}) || len(waw) > 0 {
		t.Errorf("vie gets %v, waw %v", vie, waw)
	}
	for _, seq := range []uint32{1, 2, 3, 4} { // vie spreads what it had not had
		s.says("vie", KindData, Data{Reliable: true, Packet: said(t, "PA_ada", "ada", seq)})
	}
	if got := s.numbers("PA_ada"); !slices.Equal(got, []uint32{1, 2, 3, 4}) {
		t.Errorf("here arrives %v", got)
	}
}

// TestNodeBeforeIsHeard takes what the node before hands on of somebody who is here now,
// as if they had said it here; nobody else's, nor for ever.
func TestNodeBeforeIsHeard(t *testing.T) {
	s := newMiddle(t)
	ada := s.speaker("ada")
	ada.source, ada.origin = reliable.NewSource(6), origin{"waw", s.deps.Now(), true}
	from := func(node residency.NodeName, d Data) {
		s.says(node, KindData, d)
		for len(ada.inbox) > 0 {
			(<-ada.inbox)()
		}
		for len(s.inbox) > 0 {
			(<-s.inbox)()
		}
	}
	from("waw", Data{Reliable: true, Packet: said(t, "PA_ada", "ada", 6)}) // had it
	from("waw", Data{Reliable: true, Packet: said(t, "PA_ada", "ada", 7)})
	from("waw", Data{Reliable: true, Packet: said(t, "PA_ada", "ada", 7)})
	from("vie", Data{Reliable: true, Packet: said(t, "PA_ada", "ada", 8)}) // never served her
	from("waw", Data{Packet: said(t, "PA_ada", "ada", 8)})
	from("waw", Data{Reliable: true, Packet: said(t, "PA_ada", "ole", 8)})
	from("waw", Data{Reliable: true, Packet: said(t, "PA_eva", "ada", 8)})
	if got := s.numbers("PA_ada"); !slices.Equal(got, []uint32{7}) {
		t.Errorf("passed on: %v", got)
	}
	if got := s.sentTo("osl"); !slices.Equal(got, []uint32{7}) {
		t.Errorf("osl gets %v", got)
	}
	s.later(lateLife)
	from("waw", Data{Reliable: true, Packet: said(t, "PA_ada", "ada", 8)})
	if got := s.numbers("PA_ada"); !slices.Equal(got, []uint32{7}) {
		t.Errorf("passed on after all: %v", got)
	}
}

// TestOthersHearWhatWasOnItsWay has somebody go from one node to another, both not this
// one: what the first has sent before is taken when they are known at the second already.
func TestOthersHearWhatWasOnItsWay(t *testing.T) {
	s := newMiddle(t)
	say := func(node residency.NodeName, seq, prev uint32) {
		s.says(node, KindData, Data{Reliable: true, Packet: said(t, "PA_wanda", "wanda", seq), Prev: prev})
	}
	say("waw", 1, 0)
	rec := recordOf(t, 2, person("PA_wanda", "wanda"))
	rec.Moves = 1
	s.says("vie", KindParticipants, Participants{Presence: Presence{Node: "vie", Participants: 2}, Changed: []ParticipantRecord{rec}})
	say("waw", 2, 1)
	say("osl", 3, 2)
	say("waw", 2, 1)
	say("vie", 3, 0)
	if got := s.numbers("PA_wanda"); !slices.Equal(got, []uint32{1, 2, 3}) {
		t.Errorf("here arrives %v", got)
	}
	s.later(lateLife)
	say("waw", 4, 3)
	if got := s.numbers("PA_wanda"); len(got) != 3 {
		t.Errorf("a node that has let go is heard for ever: %v", got)
	}
}

// TestLateAnswers lets a client that is taken over resume once more where its answer would
// come when it takes the node before for the new one, but not without end.
func TestLateAnswers(t *testing.T) {
	s := newMiddle(t)
	p := &Participant{room: s.Room, moving: true, attached: newLine(newSocket(), s.deps.Now), origin: origin{"waw", s.deps.Now(), true}}
	offers := func() { p.attached.offered.Store(s.deps.Now().UnixNano()) }
	offers()
	s.later(answerWithin)
	if p.answersLate() {
		t.Error("it is late in time")
	}
	s.later(time.Millisecond)
	if !p.answersLate() {
		t.Error("it is in time too late")
	}
	if p.origin.lives = false; p.answersLate() {
		t.Error("who comes from a node that may be dead is answered at once")
	}
	p.origin.lives = true
	p.answered = true
	if p.answersLate() {
		t.Error("a second offer is late")
	}
	p.answered = false
	offers()
	if p.answersLate() {
		t.Error("it is late when it offers again")
	}
	s.later(answerAnyway)
	if p.answersLate() {
		t.Error("it is not answered while the node before still has the client")
	}
}
