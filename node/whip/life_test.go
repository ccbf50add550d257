package whip

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/control"
)

func roomJoin() *auth.VideoGrant { return &auth.VideoGrant{RoomJoin: true, Room: "studio"} }

func TestSessionThatNeverConnectsIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		alice := token(t, "alice", nil)
		r.publish(alice)
		path, _ := r.publish(alice)
		late := r.rooms.last()
		close(r.rooms.sessions[0].connected)

		time.Sleep(connectWait - time.Millisecond)
		synctest.Wait()
		if r.s.Sessions() != 2 {
			t.Fatalf("%d sessions before the time is up", r.s.Sessions())
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		select {
		case <-late.done:
		default:
			t.Error("the session without media goes on")
		}
		if r.s.Sessions() != 1 {
			t.Errorf("%d sessions are left", r.s.Sessions())
		}
		if w := r.call("DELETE", path, "", bearer(alice)); w.Code != 404 {
			t.Errorf("its URL answers %d", w.Code)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if r.s.Sessions() != 1 {
			t.Error("a session with media is removed")
		}
	})
}

func TestSessionThatEndsIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		alice := token(t, "alice", nil)
		before, _ := r.publish(alice)
		after, _ := r.publish(alice)
		close(r.rooms.sessions[1].connected)
		synctest.Wait()
		r.rooms.sessions[0].Close() // the room sends them away
		r.rooms.sessions[1].Close()
		synctest.Wait()
		for _, path := range []string{before, after} {
			if w := r.call("PATCH", path, trickled, fragType, bearer(alice), "If-Match: *"); w.Code != 404 {
				t.Errorf("PATCH of a session that ended: %d", w.Code)
			}
		}
	})
}

func TestClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		alice, offer := token(t, "alice", nil), offerFile(t, "whip-obs-h264.sdp")
		r.publish(alice)
		r.rooms.entered, r.rooms.leave = make(chan struct{}), make(chan struct{})
		answered := make(chan int, 1)
		go func() { answered <- r.call("POST", "/whip", offer, sdpType, bearer(alice)).Code }()
		<-r.rooms.entered
		closed, began := make(chan struct{}), time.Now()
		go func() { r.s.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while a session was being made")
		case <-r.rooms.sessions[0].done:
		}
		close(r.rooms.leave)
		<-closed
		<-answered
		if d := time.Since(began); d > 0 {
			t.Errorf("closing takes %s", d)
		}
		for i, s := range r.rooms.sessions {
			select {
			case <-s.done:
			default:
				t.Errorf("session %d outlives the server", i)
			}
		}
		r.rooms.entered = nil
		w := r.call("POST", "/whip", offer, sdpType, bearer(alice))
		if p := problem(t, w); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(p.Detail, "shutting down") {
			t.Errorf("afterwards: %d %+v", w.Code, p)
		}
	})
}

func TestFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxSessions = maxPending + 10 })
		offer := offerFile(t, "whip-obs-h264.sdp")
		post := func(identity string) int {
			w := r.call("POST", "/whip", offer, sdpType, bearer(token(t, identity, nil)))
			if w.Code != http.StatusCreated && w.Header().Get("Retry-After") != "2" {
				t.Errorf("%d without Retry-After", w.Code)
			}
			return w.Code
		}
		for range maxPendingOf {
			post("mallory")
		}
		if code := post("mallory"); code != 429 {
			t.Errorf("one bearer's flood: %d", code)
		}
		for i := maxPendingOf; i < maxPending; i++ {
			if code := post(fmt.Sprint("m", i)); code != 201 {
				t.Fatalf("session %d: %d", i, code)
			}
		}
		if code := post("alice"); code != 503 {
			t.Errorf("everybody's flood: %d", code)
		}
		// Those that connect make room, up to what the node takes at all.
		for _, s := range r.rooms.sessions {
			close(s.connected)
		}
		synctest.Wait()
		for i := range 10 {
			if code := post(fmt.Sprint("a", i)); code != 201 {
				t.Fatalf("after it, session %d: %d", i, code)
			}
		}
		if code := post("bob"); code != 503 {
			t.Errorf("beyond MaxSessions: %d", code)
		}
		time.Sleep(connectWait + time.Second)
		synctest.Wait()
		if code := post("bob"); code != 201 {
			t.Errorf("when the silent ones are gone: %d", code)
		}
	})
}

func TestNewWantsRoomsAndCodecs(t *testing.T) {
	for _, cfg := range []Config{{}, {Rooms: &rooms{}}, {Rooms: &rooms{}, Audio: []string{"opus"}}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("made of %+v", cfg)
		}
	}
	if _, err := New(Config{Rooms: &rooms{}, Keys: control.Keys{}, Audio: []string{"opus"}, Video: []string{"VP8"}}); err != nil {
		t.Error(err)
	}
}
