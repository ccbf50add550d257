package node

import (
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"
)

// moves goes on at another node, as livekit-client does when the way to its node leads
// there: it asks for its session back, states what it had, and offers with an ICE
// restart. Browsers do the DTLS handshake again in the connection that they have; pion
// cannot, so it gets a new one with the same sections, tracks and channels, and the
// old one goes when the new node has answered.
func (c *single) moves(to *testNode) {
	c.t.Helper()
	c.ws.CloseNow() //nolint:errcheck // it is to be lost
	c.await("the old connection ends", func() bool { return c.ended })
	before := c.pub
	sync := &livekit.SyncState{
		Answer:       &livekit.SessionDescription{Type: "answer", Sdp: before.RemoteDescription().SDP},
		Offer:        &livekit.SessionDescription{Type: "offer", Sdp: strings.Replace(before.LocalDescription().SDP, "o=-", "o="+c.origin+"-", 1)},
		Subscription: &livekit.UpdateSubscription{},
		DataChannels: []*livekit.DataChannelInfo{{Label: "_reliable", Id: uint32(*c.reliable.ID()), Target: livekit.SignalTarget_PUBLISHER}},
	}
	c.mu.Lock()
	for cid, ti := range c.tracks {
		sync.PublishTracks = append(sync.PublishTracks, &livekit.TrackPublishedResponse{Cid: cid, Track: ti})
	}
	sid := c.join.Participant.Sid
	c.mu.Unlock()
	id, yes := *c.reliable.ID(), true
	c.pub = newPeer(c.t, webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
	c.sub = c.pub
	c.pub.OnTrack(c.receive)
	reliable, err := c.pub.CreateDataChannel("_reliable", &webrtc.DataChannelInit{Ordered: &yes, Negotiated: &yes, ID: &id})
	if err != nil {
		c.t.Fatal(err)
	}
	reliable.OnMessage(c.receiveData)
	c.reliable = reliable
	c.sections(1, 1)
	for _, track := range c.sent {
		if _, err := c.pub.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			c.t.Fatal(err)
		}
	}
	c.node = to
	c.offer.Lock() // what it has comes before its offer
	c.connect(&livekit.JoinRequest{Reconnect: true, ParticipantSid: sid, ReconnectReason: livekit.ReconnectReason_RR_SIGNAL_DISCONNECTED})
	c.await("back", func() bool { return !c.ended })
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_SyncState{SyncState: sync}})
	c.offer.Unlock()
	c.renegotiate(nil)
	before.GracefulClose() //nolint:errcheck // its node has closed it
}

// TestTakeOver moves a publisher from node to node. The others see nobody leave, get
// the same tracks, and miss next to nothing of them.
func TestTakeOver(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	fra, waw, vie := m.node("fra"), m.node("waw"), m.node("vie")
	anna := v1(t, fra, "town", "anna")
	others := []*client{enter(t, fra, "town", "dora", nil), enter(t, waw, "town", "bob", nil), enter(t, vie, "town", "carl", nil)}
	cam, sid := anna.show("cam"), anna.join.Participant.Sid
	screen := others[1].publish("screen", livekit.TrackType_VIDEO)
	anna.hears(screen)
	for _, o := range others {
		o.hears(cam)
	}
	for _, to := range []*testNode{waw, vie, fra} {
		for _, o := range others {
			o.flow(cam).since()
		}
		anna.moves(to)
		anna.hears(screen)
		for _, o := range others {
			o.hears(cam)
			o.await("learns where anna is", func() bool { return o.people["anna"].GetRegion() == string(to.cfg.Self.Name) })
			if missing, pause := o.flow(cam).since(); pause > time.Second {
				t.Errorf("to %s: %s missed %d packets, %s", to.cfg.Self.Name, o.identity, missing, pause)
			} else {
				t.Logf("to %s: %s missed %d packets, %s", to.cfg.Self.Name, o.identity, missing, pause)
			}
		}
		anna.say(userData("at " + string(to.cfg.Self.Name)))
		for _, o := range others {
			eventually(t, o.identity+" hears her", func() bool {
				return len(o.texts()) > 0 && o.texts()[len(o.texts())-1] == "anna: at "+string(to.cfg.Self.Name)
			})
		}
		others[1].say(userData("hello"))
		anna.await("data", func() bool { return len(anna.data) > 0 })
		anna.data = nil
		eventually(t, "one node serves her", func() bool { return serving(m, "town", "anna") == 1 })
	}
	for _, o := range others {
		o.mu.Lock()
		if p := o.people["anna"]; p == nil || p.Sid != sid || len(o.gone) > 0 {
			t.Errorf("%s sees %v, and %v leave", o.identity, p, o.gone)
		}
		o.mu.Unlock()
	}
}

// serving counts the nodes that serve somebody, sessions that are about to end too.
func serving(m *testMesh, room, identity string) (nodes int) {
	for _, n := range m.nodes {
		nodes += int(n.attendees.Load())
	}
	return nodes - 3 // the others in the room
}
