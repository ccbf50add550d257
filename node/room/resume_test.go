package room

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
)

// TestResume follows somebody whose WebSocket is lost and who comes back: the
// others see nothing of it.
func TestResume(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	carl := s.comes(t, "carl")
	before := number(bob.wire, (*livekit.SignalResponse).GetUpdate)
	anna.wire.Close("lost")
	awaits(t, "the loss is noticed", func() bool { return anna.line.Load() == nil })

	carl.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_Leave{Leave: &livekit.LeaveRequest{}}})
	ends(t, "carl leaves", carl.ended)
	back, _ := anna.resumes()
	awaits(t, "anna is greeted again", func() bool { return len(back.sent()) >= 4 })
	got := back.sent()
	if got[0].GetReconnect().GetServerInfo().GetVersion() == "" {
		t.Errorf("first message %v", got[0])
	}
	people := map[string]livekit.ParticipantInfo_State{}
	for _, p := range got[1].GetUpdate().GetParticipants() {
		people[p.Identity] = p.State
	}
	if len(people) != 3 || people["bob"] != livekit.ParticipantInfo_ACTIVE || people["anna"] != livekit.ParticipantInfo_ACTIVE ||
		people["carl"] != livekit.ParticipantInfo_DISCONNECTED {
		t.Errorf("update %v", people)
	}
	if got[2].GetRoomUpdate().GetRoom().GetNumParticipants() != 2 {
		t.Errorf("room update %v", got[2])
	}
	if got[3].GetOffer() == nil {
		t.Errorf("no offer with new credentials but %v", got[3])
	}
	if n := number(bob.wire, (*livekit.SignalResponse).GetUpdate) - before; n != 1 { // carl's end
		t.Errorf("bob got %d updates", n)
	}
	back.in <- &livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: &livekit.Ping{}}}
	awaits(t, "the new connection is read", func() bool { return last(back, (*livekit.SignalResponse).GetPongResp) != nil })
}

// TestResumeWins lets the newest connection win over one that is still open.
func TestResumeWins(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	first, firstEnded := anna.resumes()
	awaits(t, "greeted", func() bool { return last(first, (*livekit.SignalResponse).GetReconnect) != nil })
	awaits(t, "the old socket is closed", func() bool { anna.wire.mu.Lock(); defer anna.wire.mu.Unlock(); return anna.wire.over })
	second, _ := anna.resumes()
	awaits(t, "greeted", func() bool { return last(second, (*livekit.SignalResponse).GetReconnect) != nil })
	if err := ends(t, "the first one ends", firstEnded); err != nil {
		t.Error(err)
	}
	if last(anna.wire, (*livekit.SignalResponse).GetLeave) != nil || last(first, (*livekit.SignalResponse).GetLeave) != nil {
		t.Error("a replaced connection is told to leave")
	}
	if s.inRoom(t, "anna") == nil {
		t.Error("anna is gone")
	}
}

// TestNoSession refuses what is not this very session.
func TestNoSession(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	s.comes(t, "bob")
	for name, edit := range map[string]func(*signal.Join){
		"another's sid":       func(j *signal.Join) { j.SID = "PA_bob" },
		"another's identity":  func(j *signal.Join) { j.Identity = "bob" },
		"no sid":              func(j *signal.Join) { j.SID = "" },
		"nobody":              func(j *signal.Join) { j.Identity = "eve" },
		"of another protocol": func(j *signal.Join) { j.Single = true },
	} {
		w, ended := anna.resumes(edit)
		if err := ends(t, name, ended); !errors.Is(err, ErrNoSession) || len(w.sent()) != 0 {
			t.Errorf("%s: %v, told %v", name, err, w.sent())
		}
	}
	if err := s.Resume(t.Context(), newSocket(), signal.Join{Identity: "anna", SID: anna.sid}, "FR"); !errors.Is(err, ErrNoSession) {
		t.Errorf("from another country: %v", err)
	}
	if s.inRoom(t, "anna") == nil || s.inRoom(t, "bob") == nil {
		t.Error("somebody is gone")
	}
}

// TestNoReturn ends who does not come back, and who cannot.
func TestNoReturn(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*stage, *guest)
		wait    time.Duration
	}{
		"in time":         {func(*stage, *guest) {}, resumeWait + time.Second},
		"with its media":  {func(_ *stage, g *guest) { g.media(rtc.TargetSubscriber, "closed") }, 0},
		"a silent client": {func(s *stage, _ *guest) { s.later(pingTimeout + time.Second) }, resumeWait + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, "edge")
			s.open(t)
			anna := s.comes(t, "anna")
			if name != "a silent client" {
				anna.wire.Close("lost")
			}
			c.happens(s, anna)
			if c.wait > 0 {
				awaits(t, "the loss is noticed", func() bool { return anna.line.Load() == nil })
				s.later(resumeWait - time.Second)
				s.do(t, func() {})
				if s.inRoom(t, "anna") == nil {
					t.Fatal("anna is gone too soon")
				}
				s.later(2 * time.Second)
			}
			if err := ends(t, "the wait", anna.ended); Ending(err) != "connection lost" {
				t.Error(err)
			}
			if w, ended := anna.resumes(); !errors.Is(ends(t, "resume", ended), ErrNoSession) {
				t.Errorf("too late, and yet: %v", w.sent())
			}
		})
	}
}

// TestAbsent sends nothing to a client that is not heard of, and goes on when it is.
func TestAbsent(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	up := anna.publishes(camera(), vp8)
	bob.shows(up.ID(), 2, false)
	wanted := func(want bool) {
		t.Helper()
		awaits(t, "wanted", func() bool { return (up.Wanted() != 0) == want })
	}
	wanted(true)
	bob.media(rtc.TargetSubscriber, "disconnected")
	bob.inside(func() {})
	wanted(true) // signalling stands: it may be a moment
	bob.wire.Close("lost")
	wanted(false)
	back, _ := bob.resumes()
	awaits(t, "greeted", func() bool { return last(back, (*livekit.SignalResponse).GetReconnect) != nil })
	wanted(true)
}

// TestStreamStates tells a client again what is paused, under the name that it knows.
func TestStreamStates(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	id := anna.publishes(camera(), vp8).ID()
	awaits(t, "published", func() (ok bool) {
		s.do(t, func() { ok = s.tracks[id] != nil })
		return ok
	})
	s.do(t, func() { s.doStreamState(bob.Participant, id+"|vp8", true) })
	check := func(w *socket, want livekit.StreamState) {
		t.Helper()
		m := last(w, (*livekit.SignalResponse).GetStreamStateUpdate).GetStreamStates()
		if len(m) != 1 || m[0].TrackSid != string(id) || m[0].ParticipantSid != anna.sid || m[0].State != want {
			t.Errorf("told %v", m)
		}
	}
	check(bob.wire, livekit.StreamState_PAUSED)
	bob.wire.Close("lost")
	s.do(t, func() { s.doStreamState(bob.Participant, id, false) })
	back, _ := bob.resumes()
	awaits(t, "told again", func() bool { return last(back, (*livekit.SignalResponse).GetStreamStateUpdate) != nil })
	check(back, livekit.StreamState_ACTIVE)
}

// TestNeverConnected ends who was lost before media came up: there is nothing to resume.
func TestNeverConnected(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	s.do(t, func() { anna.post(func() { anna.active = false }) })
	anna.wire.Close("lost")
	ends(t, "the end", anna.ended)
}

// TestMediaFails asks the client to resume, and sends it away if it does not.
func TestMediaFails(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	for _, g := range []*guest{anna, bob} {
		g.media(rtc.TargetPublisher, "failed")
		awaits(t, "asked to resume", func() bool {
			return last(g.wire, (*livekit.SignalResponse).GetLeave).GetAction() == livekit.LeaveRequest_RESUME
		})
	}
	bob.media(rtc.TargetPublisher, "connected")
	for range 3 { // so that neither counts as silent
		s.later(resumeWait / 3)
		for _, g := range []*guest{anna, bob} {
			n := number(g.wire, (*livekit.SignalResponse).GetPongResp)
			g.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: &livekit.Ping{}}})
			awaits(t, "pong", func() bool { return number(g.wire, (*livekit.SignalResponse).GetPongResp) > n })
		}
	}
	s.later(time.Second)
	ends(t, "anna ends", anna.ended)
	if got := last(anna.wire, (*livekit.SignalResponse).GetLeave); got.Action != livekit.LeaveRequest_RECONNECT {
		t.Errorf("anna is told %v", got)
	}
	if s.inRoom(t, "bob") == nil {
		t.Error("bob is gone")
	}
}

// TestSyncState takes the client's word for what it is subscribed to.
func TestSyncState(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	s.do(t, func() {
		s.has(t, "waw", false, person("PA_w", "w", "TR_1", "TR_2", "TR_3"))
		s.doSubscription(anna.Participant, &livekit.UpdateSubscription{TrackSids: []string{"TR_1"}})
	})
	subscribed := func() (list []sfu.TrackID) {
		done := make(chan struct{})
		anna.post(func() {
			defer close(done)
			for id := range anna.subs {
				list = append(list, id)
			}
		})
		<-done
		slices.Sort(list)
		return list
	}
	awaits(t, "all but the first", func() bool { return slices.Equal(subscribed(), []sfu.TrackID{"TR_2", "TR_3"}) })
	back, _ := anna.resumes()
	awaits(t, "greeted", func() bool { return last(back, (*livekit.SignalResponse).GetReconnect) != nil })
	back.in <- &livekit.SignalRequest{Message: &livekit.SignalRequest_SyncState{SyncState: &livekit.SyncState{
		Subscription:      &livekit.UpdateSubscription{TrackSids: []string{"TR_3"}},
		TrackSidsDisabled: []string{"TR_2"},
	}}}
	awaits(t, "all but the last", func() bool { return slices.Equal(subscribed(), []sfu.TrackID{"TR_1", "TR_2"}) })
	awaits(t, "the second is paused", func() (paused bool) {
		done := make(chan struct{})
		anna.post(func() { paused = anna.subs["TR_2"].Stats().Paused; close(done) })
		<-done
		return paused
	})
}

// TestSimulations answers a client that tests itself.
func TestSimulations(t *testing.T) {
	ask := func(g *guest, m *livekit.SimulateScenario) {
		g.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_Simulate{Simulate: m}})
	}
	t.Run("leaving", func(t *testing.T) {
		for _, c := range []struct {
			m    *livekit.SimulateScenario
			told bool
			want livekit.LeaveRequest_Action
		}{
			{&livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_NodeFailure{NodeFailure: true}}, false, 0},
			{&livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_ServerLeave{ServerLeave: true}}, true, livekit.LeaveRequest_DISCONNECT},
			{&livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_Migration{Migration: true}}, true, livekit.LeaveRequest_RECONNECT},
			{&livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_LeaveRequestFullReconnect{LeaveRequestFullReconnect: true}}, true, livekit.LeaveRequest_RECONNECT},
			{&livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_SwitchCandidateProtocol{}}, true, livekit.LeaveRequest_RECONNECT},
		} {
			s := newStage(t, "edge")
			s.open(t)
			anna := s.comes(t, "anna")
			ask(anna, c.m)
			ends(t, "the end", anna.ended)
			leave := last(anna.wire, (*livekit.SignalResponse).GetLeave)
			if (leave != nil) != c.told || leave.GetAction() != c.want || number(anna.wire, (*livekit.SignalResponse).GetLeave) > 1 {
				t.Errorf("%v: told %v", c.m, leave)
			}
			if _, ended := anna.resumes(); !errors.Is(ends(t, "resume", ended), ErrNoSession) {
				t.Errorf("%v: the session goes on", c.m)
			}
		}
	})
	t.Run("lost signalling on resume", func(t *testing.T) {
		s := newStage(t, "edge")
		s.open(t)
		anna := s.comes(t, "anna")
		ask(anna, &livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_DisconnectSignalOnResumeNoMessages{DisconnectSignalOnResumeNoMessages: true}})
		ask(anna, &livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_DisconnectSignalOnResume{DisconnectSignalOnResume: true}})
		anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: &livekit.Ping{}}})
		awaits(t, "taken", func() bool { return last(anna.wire, (*livekit.SignalResponse).GetPongResp) != nil })
		s.do(t, func() {})
		for i := range simulateCuts + 2 {
			w, ended := anna.resumes()
			switch {
			case i < simulateCuts:
				if ends(t, "silent cut", ended); len(w.sent()) != 0 {
					t.Errorf("%d: told %v", i, w.sent())
				}
			case i == simulateCuts:
				if ends(t, "cut", ended); last(w, (*livekit.SignalResponse).GetReconnect) == nil {
					t.Error("cut before the greeting")
				}
			default:
				awaits(t, "back at last", func() bool { return last(w, (*livekit.SignalResponse).GetOffer) != nil })
			}
		}
	})
	t.Run("speaking", func(t *testing.T) {
		s := newStage(t, "edge")
		s.open(t)
		anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
		ask(anna, &livekit.SimulateScenario{Scenario: &livekit.SimulateScenario_SpeakerUpdate{SpeakerUpdate: 3}})
		speaks := func(active bool) func() bool {
			return func() bool {
				m := last(anna.wire, (*livekit.SignalResponse).GetSpeakersChanged)
				return m != nil && m.Speakers[0].Active == active
			}
		}
		awaits(t, "she speaks", speaks(true))
		s.later(3 * time.Second)
		awaits(t, "she stops", speaks(false))
		if last(bob.wire, (*livekit.SignalResponse).GetSpeakersChanged) != nil {
			t.Error("bob hears of it")
		}
	})
}
