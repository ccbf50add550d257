package room

import (
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/signal"
)

// TestTrackInfo takes a publisher's word on its own tracks and on nobody else's.
func TestTrackInfo(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	cam := string(anna.publishes(camera(), vp8).ID())
	video := func(g *guest, sid string) {
		g.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_UpdateVideoTrack{
			UpdateVideoTrack: &livekit.UpdateLocalVideoTrack{TrackSid: sid, Width: 640, Height: 360}}})
	}
	video(anna, cam)
	awaits(t, "bob sees the size", func() bool {
		for _, p := range last(bob.wire, (*livekit.SignalResponse).GetUpdate).GetParticipants() {
			for _, ti := range p.Tracks {
				if ti.Sid == cam && ti.Width == 640 && ti.Height == 360 {
					return true
				}
			}
		}
		return false
	})
	refused := func(g *guest, why livekit.RequestResponse_Reason) {
		t.Helper()
		awaits(t, "refused", func() bool {
			m := last(g.wire, (*livekit.SignalResponse).GetRequestResponse)
			return m.GetReason() == why && m.Request != nil
		})
	}
	video(bob, cam)
	refused(bob, livekit.RequestResponse_NOT_FOUND)
	anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_UpdateAudioTrack{UpdateAudioTrack: &livekit.UpdateLocalAudioTrack{TrackSid: cam}}})
	refused(anna, livekit.RequestResponse_NOT_FOUND)
	for range updateBurst {
		video(anna, cam)
	}
	refused(anna, livekit.RequestResponse_LIMIT_EXCEEDED)
	bob.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_PublishDataTrackRequest{
		PublishDataTrackRequest: &livekit.PublishDataTrackRequest{PubHandle: 1, Name: "n"}}})
	refused(bob, livekit.RequestResponse_NOT_ALLOWED)
}

// TestTokenIsRenewed before it ends, and again.
func TestTokenIsRenewed(t *testing.T) {
	s := newStage(t, "edge")
	minted := make(chan time.Duration, 16)
	s.deps.Mint = func(g control.Grants, ttl time.Duration) (string, error) {
		if g.Identity != "anna" {
			t.Errorf("for %q", g.Identity)
		}
		minted <- ttl
		return "new", nil
	}
	s.open(t)
	anna := s.comes(t, "anna", func(j *signal.Join) { j.Token.Expires = start.Add(tokenAhead + 10*time.Second) })
	stays := func(d time.Duration) {
		s.later(d)
		n := number(anna.wire, (*livekit.SignalResponse).GetPongResp)
		anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: &livekit.Ping{}}})
		awaits(t, "pong", func() bool { return number(anna.wire, (*livekit.SignalResponse).GetPongResp) > n })
	}
	if len(minted) != 0 {
		t.Fatal("renewed too soon")
	}
	stays(10 * time.Second)
	awaits(t, "renewed", func() bool { return last(anna.wire, (*livekit.SignalResponse).GetRefreshToken) == "new" })
	if ttl := <-minted; ttl != tokenTTL || len(minted) != 0 {
		t.Errorf("for %s, and %d more", ttl, len(minted))
	}
	for d := time.Duration(0); d < tokenTTL-tokenAhead; d += 10 * time.Second {
		if len(minted) != 0 {
			t.Fatal("renewed too soon")
		}
		stays(10 * time.Second)
	}
	awaits(t, "renewed again", func() bool { return len(minted) == 1 })
}
