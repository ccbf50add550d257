package room

import (
	"slices"
	"testing"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/rtc"
)

// said is a numbered message as a node sends it on.
func said(t *testing.T, sid, identity string, seq uint32, to ...string) []byte {
	t.Helper()
	b, err := proto.Marshal(&livekit.DataPacket{ParticipantSid: sid, ParticipantIdentity: identity, Sequence: seq, DestinationIdentities: to})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kept are the numbers of a publisher's messages that were delivered here.
func (s *stage) kept(t *testing.T, sid string) (list []uint32) {
	t.Helper()
	s.do(t, func() {
		for _, m := range s.data.log.Since(sid, 0, nil) {
			list = append(list, m.Seq)
		}
	})
	return list
}

// TestReliableAcross puts another node's reliable data in order, once.
func TestReliableAcross(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	s.comes(t, "bob")
	from := func(seq, prev uint32) {
		s.do(t, func() {
			s.says("waw", KindData, Data{Reliable: true, Packet: said(t, "PA_w", "w", seq), Prev: prev})
		})
	}
	s.do(t, func() { s.has(t, "waw", false, person("PA_w", "w")) })
	from(1, 0)
	from(2, 1)
	from(2, 1) // a link that came back repeats
	from(5, 4) // 3 and 4 are missing
	if got := s.kept(t, "PA_w"); !slices.Equal(got, []uint32{1, 2}) {
		t.Fatalf("delivered %v", got)
	}
	from(3, 2)
	from(4, 3)
	if got := s.kept(t, "PA_w"); !slices.Equal(got, []uint32{1, 2, 3, 4, 5}) {
		t.Fatalf("delivered %v", got)
	}
	from(9, 8)
	s.do(t, func() {
		s.says("nyc", KindDataHead, DataHead{Publisher: "PA_w", Seq: 8, Skip: true}) // not its publisher
	})
	if got := s.kept(t, "PA_w"); len(got) != 5 {
		t.Fatalf("another node's word counts: %v", got)
	}
	s.do(t, func() { s.says("waw", KindDataHead, DataHead{Publisher: "PA_w", Seq: 8, Skip: true}) })
	if got := s.kept(t, "PA_w"); len(got) != 6 || got[5] != 9 {
		t.Fatalf("it waits for ever: %v", got)
	}
	s.do(t, func() { // what a hostile node may say
		s.says("waw", KindDataAsk, DataAsk{Publisher: "PA_w", After: 1})
		s.says("waw", KindDataAsk, DataAsk{Publisher: "PA_bob", After: 1 << 31})
		s.says("waw", KindDataHead, DataHead{Publisher: "a b"})
		s.says("waw", KindDataHead, DataHead{Publisher: "PA_w", Seq: 1<<32 - 1, Skip: true})
	})
}

// TestNumbersToNodes names to each node the message that went there before.
func TestNumbersToNodes(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	s.do(t, func() {
		s.has(t, "waw", false, person("PA_w", "w"))
		s.has(t, "nyc", true, person("PA_n", "n"))
	})
	say := func(seq uint32, to ...string) {
		b, err := proto.Marshal(&livekit.DataPacket{Sequence: seq, DestinationIdentities: to})
		if err != nil {
			t.Fatal(err)
		}
		anna.inside(func() { anna.doData(true, b) })
	}
	say(1)
	say(2, "n")
	say(3, "w")
	say(3, "n") // sent again: has been handled
	heads := func(node string) (seq uint32) {
		s.do(t, func() { seq = s.data.feed.Heads(node)[anna.sid] })
		return seq
	}
	awaits(t, "waw was sent the last", func() bool { return heads("waw") == 3 && heads("nyc") == 2 })
	if got := s.kept(t, anna.sid); !slices.Equal(got, []uint32{1, 2, 3}) {
		t.Errorf("kept %v", got)
	}
	if anna.lastReliable.Load() != 3 {
		t.Errorf("the client would be told %d", anna.lastReliable.Load())
	}
	s.do(t, func() { s.dropRemote("waw") })
	if heads("waw") != 0 {
		t.Error("a node that has left is remembered")
	}
}

// TestHeldData keeps reliable data for a client whose media is in doubt, and no
// longer than that.
func TestHeldData(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	held := func(want bool) {
		t.Helper()
		awaits(t, "held", func() (ok bool) {
			s.do(t, func() { ok = s.data.log.Held("anna") == want })
			return ok
		})
	}
	held(false)
	anna.media(rtc.TargetPublisher, "disconnected") // not the one that carries data to her
	anna.media(rtc.TargetSubscriber, "disconnected")
	held(true)
	anna.media(rtc.TargetSubscriber, "connected")
	held(false)
	anna.media(rtc.TargetSubscriber, "disconnected")
	held(true)
	back, _ := anna.resumes()
	awaits(t, "greeted", func() bool { return last(back, (*livekit.SignalResponse).GetReconnect) != nil })
	back.in <- &livekit.SignalRequest{Message: &livekit.SignalRequest_SyncState{SyncState: &livekit.SyncState{}}}
	held(false)

	t.Run("a client that keeps no account", func(t *testing.T) {
		p := &Participant{}
		if received(p, &livekit.SyncState{}) != nil {
			t.Error("an old client is taken to have nothing")
		}
		p.join.Protocol = seqProtocol
		if received(p, &livekit.SyncState{}) == nil {
			t.Error("a client that has nothing is not believed")
		}
		have := received(p, &livekit.SyncState{DatachannelReceiveStates: []*livekit.DataChannelReceiveState{{PublisherSid: "PA_w", LastSeq: 7}}})
		if have["PA_w"] != 7 {
			t.Errorf("got %v", have)
		}
	})
}
