package node

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"
	"google.golang.org/protobuf/proto"
)

// single is an attendee that speaks signalling v1: one peer connection, which it
// alone offers.
type single struct {
	origin string // in its offers, of browsers: Firefox says who it is
	*client
	node  *testNode
	token string
	mids  map[string]string // track by MID, of the last answer
	offer sync.Mutex        // one negotiation at a time
	sent  []*webrtc.TrackLocalStaticRTP
	moved bool
}

// v1 joins with the offer in the join request, as livekit-client does.
func v1(t *testing.T, n *testNode, room, identity string) *single {
	t.Helper()
	c := &single{node: n, token: tokenFor(t, room, identity, nil), client: &client{t: t, identity: identity,
		people: map[string]*livekit.ParticipantInfo{}, tracks: map[string]*livekit.TrackInfo{},
		got: map[string]*atomic.Uint64{}, answered: make(chan string, 16)}}
	// Without pion's interceptors, which race where media comes before the answer.
	c.pub = newPeer(t, webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
	c.sub = c.pub
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.pub.OnTrack(c.receive)
	ordered := true
	var err error
	if c.reliable, err = c.pub.CreateDataChannel("_reliable", &webrtc.DataChannelInit{Ordered: &ordered}); err != nil {
		t.Fatal(err)
	}
	c.reliable.OnMessage(c.receiveData)
	c.sections(1, 1)
	c.connect(&livekit.JoinRequest{PublisherOffer: c.describe(nil)})
	t.Cleanup(c.close)
	c.await("greeting", func() bool { return c.join != nil || c.ended })
	c.take()
	return c
}

func (c *client) receiveData(m webrtc.DataChannelMessage) {
	p := &livekit.DataPacket{}
	if proto.Unmarshal(m.Data, p) == nil {
		c.mu.Lock()
		c.data = append(c.data, p)
		c.mu.Unlock()
	}
}

// connect opens a signalling connection.
func (c *single) connect(req *livekit.JoinRequest) {
	c.t.Helper()
	req.ClientInfo = &livekit.ClientInfo{Sdk: livekit.ClientInfo_JS, Protocol: 17}
	req.ConnectionSettings = &livekit.ConnectionSettings{AutoSubscribe: true}
	inner, err := proto.Marshal(req)
	if err != nil {
		c.t.Fatal(err)
	}
	outer, err := proto.Marshal(&livekit.WrappedJoinRequest{JoinRequest: inner})
	if err != nil {
		c.t.Fatal(err)
	}
	q := url.Values{"access_token": {c.token}, "join_request": {base64.URLEncoding.EncodeToString(outer)}}
	ws, _, err := websocket.Dial(c.t.Context(), fmt.Sprintf("ws://%s/rtc/v1?%s", c.node.addr, q.Encode()), nil) //nolint:bodyclose // the library closes it
	if err != nil {
		c.t.Fatal(err)
	}
	ws.SetReadLimit(8 << 20)
	c.ws = ws
	c.wg.Go(func() { c.follow(ws) })
}

// follow handles what the node says until the connection ends.
func (c *single) follow(ws *websocket.Conn) {
	defer func() {
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
	}()
	for {
		_, b, err := ws.Read(c.ctx)
		if err != nil {
			return
		}
		m := &livekit.SignalResponse{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		switch x := m.Message.(type) {
		case *livekit.SignalResponse_Answer:
			c.mu.Lock()
			c.mids = x.Answer.MidToTrackId
			c.mu.Unlock()
			c.answered <- x.Answer.Sdp
		case *livekit.SignalResponse_MediaSectionsRequirement:
			c.wg.Go(func() {
				c.sections(int(x.MediaSectionsRequirement.NumAudios), int(x.MediaSectionsRequirement.NumVideos))
				c.renegotiate(nil)
			})
		case *livekit.SignalResponse_Reconnect:
			c.mu.Lock()
			c.ended = false
			c.mu.Unlock()
		default:
			c.handle(m)
		}
	}
}

// sections makes room for tracks to receive.
func (c *single) sections(audio, video int) {
	for range audio {
		c.pub.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}) //nolint:errcheck // closed
	}
	for range video {
		c.pub.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}) //nolint:errcheck // closed
	}
}

// describe makes an offer.
func (c *single) describe(opts *webrtc.OfferOptions) *livekit.SessionDescription {
	offer, err := c.pub.CreateOffer(opts)
	if err != nil {
		return nil // closed
	}
	gathered := webrtc.GatheringCompletePromise(c.pub)
	if c.pub.SetLocalDescription(offer) != nil {
		return nil
	}
	<-gathered
	return &livekit.SessionDescription{Type: "offer", Sdp: c.pub.LocalDescription().SDP, Id: 1}
}

// take waits for the node's answer.
func (c *single) take() {
	select {
	case sdp := <-c.answered:
		if err := c.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}); err != nil && c.ctx.Err() == nil {
			c.t.Errorf("%s: %v", c.identity, err)
		}
	case <-c.ctx.Done():
	case <-time.After(patience):
		c.t.Errorf("%s: the offer is not answered", c.identity)
	}
}

func (c *single) renegotiate(opts *webrtc.OfferOptions) {
	c.offer.Lock()
	defer c.offer.Unlock()
	if d := c.describe(opts); d != nil {
		c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{Offer: d}})
		c.take()
	}
}

// show sends a camera until the client closes.
func (c *single) show(cid string) string {
	c.t.Helper()
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, cid, "stream")
	if err != nil {
		c.t.Fatal(err)
	}
	c.offer.Lock()
	_, err = c.pub.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	c.offer.Unlock()
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{
		Cid: cid, Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA}}})
	c.renegotiate(nil)
	c.await("track is announced", func() bool { return c.tracks[cid] != nil })
	c.sent = append(c.sent, track)
	c.wg.Go(func() { c.stream(track) })
	return c.tracks[cid].Sid
}

// TestSinglePeerConnection meets over v0 and v1, publishing both ways.
func TestSinglePeerConnection(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	anna := v1(t, fra, "town", "anna")
	bob := enter(t, waw, "town", "bob", nil)
	carl := v1(t, waw, "town", "carl")
	if anna.join.SubscriberPrimary {
		t.Error("anna is told of a subscriber connection")
	}
	anna.sees("bob", "carl")
	cam := anna.show("anna-cam")
	bob.hears(cam)
	carl.hears(cam)
	var sids []string
	for i := range 3 {
		sids = append(sids, bob.publish(fmt.Sprintf("bob-%d", i), livekit.TrackType_VIDEO))
	}
	sids = append(sids, carl.show("carl-cam"))
	for _, sid := range sids { // more than anna has sections for at first
		anna.hears(sid)
	}
	anna.await("the answer names the tracks", func() bool {
		named := map[string]bool{}
		for _, sid := range anna.mids {
			named[sid] = true
		}
		return !slices.ContainsFunc(sids, func(sid string) bool { return !named[sid] })
	})
	bob.say(userData("hello"))
	anna.await("data", func() bool { return len(anna.data) == 1 })
	anna.say(userData("hi"))
	eventually(t, "bob hears of it", func() bool { return slices.Contains(bob.texts(), "anna: hi") })
}

// TestResumeOfMedia loses the signalling of both kinds of client, and the others
// notice nothing: media goes on meanwhile, and after an ICE restart.
func TestResumeOfMedia(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	fra := m.node("fra")
	anna, bob := v1(t, fra, "town", "anna"), enter(t, fra, "town", "bob", nil)
	cam, sid := anna.show("cam"), anna.join.Participant.Sid
	screen := bob.publish("screen", livekit.TrackType_VIDEO)
	bob.hears(cam)
	anna.hears(screen)

	anna.ws.CloseNow() //nolint:errcheck // it is to be lost
	anna.await("the loss is noticed", func() bool { return anna.ended })
	bob.hears(cam)
	anna.connect(&livekit.JoinRequest{Reconnect: true, ParticipantSid: sid, ReconnectReason: livekit.ReconnectReason_RR_SIGNAL_DISCONNECTED})
	anna.await("back", func() bool { return !anna.ended })
	anna.renegotiate(&webrtc.OfferOptions{ICERestart: true})
	bob.hears(cam)
	anna.hears(screen)

	bob.ws.CloseNow() //nolint:errcheck // it is to be lost
	bob.await("the loss is noticed", func() bool { return bob.ended })
	late := anna.show("late")
	bob.back(t, fra)
	bob.hears(cam)
	anna.hears(screen)
	bob.hears(late) // was published meanwhile
	if p := bob.people["anna"]; p == nil || p.Sid != sid || len(bob.people) != 1 {
		t.Errorf("bob sees %v", bob.people)
	}
	if p := anna.people["bob"]; p == nil || p.Sid != bob.join.Participant.Sid || p.State != livekit.ParticipantInfo_ACTIVE {
		t.Errorf("anna sees %v", p)
	}
}

// back resumes a v0 session.
func (c *client) back(t *testing.T, n *testNode) {
	t.Helper()
	q := url.Values{"access_token": {tokenFor(t, "town", c.identity, nil)}, "reconnect": {"1"}, "sid": {c.join.Participant.Sid}}
	ws, _, err := websocket.Dial(t.Context(), fmt.Sprintf("ws://%s/rtc?%s", n.addr, q.Encode()), nil) //nolint:bodyclose // the library closes it
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(8 << 20)
	c.mu.Lock()
	c.ws, c.ended = ws, false
	c.mu.Unlock()
	c.wg.Go(c.read)
}
