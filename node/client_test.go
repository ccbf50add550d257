package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/pion/logging"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
)

// client is an attendee: LiveKit's signalling over a real WebSocket, and two
// real peer connections.
type client struct {
	t        *testing.T
	identity string
	ws       *websocket.Conn
	ctx      context.Context
	cancel   context.CancelFunc
	pub, sub *webrtc.PeerConnection
	reading  sync.WaitGroup
	wg       sync.WaitGroup
	reliable *webrtc.DataChannel

	mu       sync.Mutex
	join     *livekit.JoinResponse
	resumed  *livekit.ReconnectResponse
	self     *livekit.ParticipantInfo
	people   map[string]*livekit.ParticipantInfo // others by identity
	gone     []string                            // identities of which it was told that they have left
	room     *livekit.Room
	leave    *livekit.LeaveRequest
	replies  []*livekit.RequestResponse
	orders   []*livekit.SignalResponse     // mute and track_unpublished, in order
	tracks   map[string]*livekit.TrackInfo // own, by cid
	got      map[string]*atomic.Uint64     // packets received, by track sid
	flows    map[string]*flow              // what was missing of them
	data     []*livekit.DataPacket
	ended    bool
	answered chan string
	plis     atomic.Uint64
	still    atomic.Bool  // sends no media
	loses    atomic.Int32 // packets that are numbered, and lost
	asked    []*livekit.SubscribedQualityUpdate
	refused  []*livekit.SubscriptionResponse
}

// tokenFor is a token that grants everything, changed by edit.
func tokenFor(t *testing.T, room, identity string, edit func(*control.Grants)) string {
	t.Helper()
	g := control.Grants{Identity: identity, Name: "Name of " + identity, Video: &auth.VideoGrant{RoomJoin: true, Room: room, RoomRecord: true}}
	yes := true
	g.Video.CanUpdateOwnMetadata = &yes
	if edit != nil {
		edit(&g)
	}
	key := cmp.Or(g.APIKey, "devkey")
	token, err := control.MintToken(key, testKeys[key], g, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func preset(policy string) func(*control.Grants) {
	return func(g *control.Grants) { g.RoomPreset = policy }
}

// signedBy has a tenant's key sign the token.
func signedBy(key string) func(*control.Grants) {
	return func(g *control.Grants) { g.APIKey = key }
}

// refusedJoin returns the status and text that an attendee is refused with.
func refusedJoin(t *testing.T, n *testNode, room, identity string, edit func(*control.Grants)) (int, string) {
	t.Helper()
	u := fmt.Sprintf("http://%s/rtc/validate?access_token=%s", n.addr, tokenFor(t, room, identity, edit))
	resp, err := http.Get(u)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode, string(b)
}

// enter joins a room through a node and waits for the greeting.
func enter(t *testing.T, n *testNode, room, identity string, edit func(*control.Grants), query ...string) *client {
	t.Helper()
	c, err := dial(t, n, room, identity, edit, query...)
	if err != nil {
		t.Fatal(err)
	}
	c.await("greeting", func() bool { return c.join != nil || c.ended })
	if c.join == nil {
		t.Fatalf("%s is not greeted", identity)
	}
	return c
}

func dial(t *testing.T, n *testNode, room, identity string, edit func(*control.Grants), query ...string) (*client, error) {
	t.Helper()
	c := &client{t: t, identity: identity, people: map[string]*livekit.ParticipantInfo{}, tracks: map[string]*livekit.TrackInfo{},
		got: map[string]*atomic.Uint64{}, answered: make(chan string, 16)}
	q := url.Values{"access_token": {tokenFor(t, room, identity, edit)}, "sdk": {"go"}, "protocol": {"16"}, "auto_subscribe": {"1"}}
	for i := 0; i+1 < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, fmt.Sprintf("ws://%s/rtc?%s", n.addr, q.Encode()), nil) //nolint:bodyclose // the library closes it
	if err != nil && resp != nil {
		why, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("%w: %s", err, why)
	}
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(8 << 20)
	c.ws = ws
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.pub, c.sub = newPeer(t), newPeer(t)
	if q.Get("poor") != "" {
		c.sub.Close() //nolint:errcheck // nothing has begun
		c.sub = newPeerWith(t, vp8Alone(t))
	}
	c.sub.OnTrack(c.receive)
	c.sub.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnMessage(func(m webrtc.DataChannelMessage) {
			p := &livekit.DataPacket{}
			if proto.Unmarshal(m.Data, p) == nil {
				c.mu.Lock()
				c.data = append(c.data, p)
				c.mu.Unlock()
			}
		})
	})
	ordered := true
	if c.reliable, err = c.pub.CreateDataChannel("_reliable", &webrtc.DataChannelInit{Ordered: &ordered}); err != nil {
		t.Fatal(err)
	}
	c.reading.Go(c.read)
	c.wg.Go(c.ping)
	t.Cleanup(c.close)
	return c, nil
}

func newPeer(t *testing.T, opts ...func(*webrtc.API)) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	return newPeerWith(t, m, opts...)
}

// vp8Alone are the codecs of a client that decodes nothing else.
func vp8Alone(t *testing.T) *webrtc.MediaEngine {
	t.Helper()
	m := &webrtc.MediaEngine{}
	for kind, c := range map[webrtc.RTPCodecType]webrtc.RTPCodecParameters{
		webrtc.RTPCodecTypeAudio: {RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, PayloadType: 111},
		webrtc.RTPCodecTypeVideo: {RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, PayloadType: 96},
	} {
		if err := m.RegisterCodec(c, kind); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// newPeerWith makes a peer connection that knows some codecs.
func newPeerWith(t *testing.T, m *webrtc.MediaEngine, opts ...func(*webrtc.API)) *webrtc.PeerConnection {
	t.Helper()
	quiet := logging.NewDefaultLoggerFactory()
	quiet.DefaultLogLevel = logging.LogLevelDisabled
	s := webrtc.SettingEngine{LoggerFactory: quiet}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	late := newDeclared(t)
	s.SetNet(late)
	opts = append(opts, webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s))
	pc, err := webrtc.NewAPI(opts...).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	late.pc.Store(pc)
	return pc
}

// close goes away without a word, as a browser that is closed.
func (c *client) close() {
	c.cancel()
	c.ws.CloseNow()  //nolint:errcheck // it may be closed already
	c.reading.Wait() // an offer answered after the end would leave an ICE agent behind
	for _, pc := range []*webrtc.PeerConnection{c.pub, c.sub} {
		pc.GracefulClose() //nolint:errcheck // it may be closed already
	}
	c.wg.Wait()
}

func (c *client) send(m *livekit.SignalRequest) { c.sendOn(c.ws, m) }

func (c *client) sendOn(ws *websocket.Conn, m *livekit.SignalRequest) {
	b, err := proto.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	ws.Write(c.ctx, websocket.MessageBinary, b) //nolint:errcheck // the reader sees that it ended
}

func (c *client) ping() {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.mu.Lock()
			ws := c.ws // another one once the client is back
			c.mu.Unlock()
			c.sendOn(ws, &livekit.SignalRequest{Message: &livekit.SignalRequest_Ping{Ping: 1}})
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *client) read() {
	defer func() {
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
	}()
	for {
		_, b, err := c.ws.Read(c.ctx)
		if err != nil {
			return
		}
		m := &livekit.SignalResponse{}
		if err := proto.Unmarshal(b, m); err != nil {
			return
		}
		c.handle(m)
	}
}

func (c *client) handle(all *livekit.SignalResponse) {
	switch m := all.Message.(type) {
	case *livekit.SignalResponse_Offer:
		c.answer(m.Offer)
		return
	case *livekit.SignalResponse_Answer:
		c.answered <- m.Answer.Sdp
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m := all.Message.(type) {
	case *livekit.SignalResponse_Join:
		c.join, c.room = m.Join, m.Join.Room
		for _, p := range m.Join.OtherParticipants {
			c.people[p.Identity] = p
		}
	case *livekit.SignalResponse_Reconnect:
		c.resumed = m.Reconnect
	case *livekit.SignalResponse_Update:
		for _, p := range m.Update.Participants {
			old := c.people[p.Identity]
			switch {
			case p.Sid == c.join.GetParticipant().GetSid():
				c.self = p
			case p.State != livekit.ParticipantInfo_DISCONNECTED:
				c.people[p.Identity] = p
			case old != nil && old.Sid == p.Sid:
				delete(c.people, p.Identity)
				c.gone = append(c.gone, p.Identity)
			}
		}
	case *livekit.SignalResponse_SubscribedQualityUpdate:
		c.asked = append(c.asked, m.SubscribedQualityUpdate)
	case *livekit.SignalResponse_SubscriptionResponse:
		c.refused = append(c.refused, m.SubscriptionResponse)
	case *livekit.SignalResponse_RoomUpdate:
		c.room = m.RoomUpdate.Room
	case *livekit.SignalResponse_Leave:
		c.leave = m.Leave
	case *livekit.SignalResponse_TrackPublished:
		c.tracks[m.TrackPublished.Cid] = m.TrackPublished.Track
	case *livekit.SignalResponse_Mute, *livekit.SignalResponse_TrackUnpublished:
		c.orders = append(c.orders, all)
	case *livekit.SignalResponse_RequestResponse:
		c.replies = append(c.replies, m.RequestResponse)
	}
}

func (c *client) answer(offer *livekit.SessionDescription) {
	if c.sub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer.Sdp}) != nil {
		return // closed
	}
	answer, err := c.sub.CreateAnswer(nil)
	if err != nil {
		return
	}
	gathered := webrtc.GatheringCompletePromise(c.sub)
	if c.sub.SetLocalDescription(answer) != nil {
		return
	}
	<-gathered
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Answer{
		Answer: &livekit.SessionDescription{Type: "answer", Sdp: c.sub.LocalDescription().SDP, Id: offer.Id}}})
}

func (c *client) receive(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
	c.mu.Lock()
	n := c.got[track.ID()]
	if n == nil {
		n = &atomic.Uint64{}
		c.got[track.ID()] = n
	}
	c.mu.Unlock()
	buf := make([]byte, 1500)
	for {
		if _, _, err := track.Read(buf); err != nil {
			return
		}
		n.Add(1)
		c.flow(track.ID()).take(binary.BigEndian.Uint16(buf[2:]))
	}
}

// flow is what is known of a track's packets beside their number.
type flow struct {
	mu      sync.Mutex
	started bool
	highest uint16
	missing int           // sequence numbers that did not come, or not yet
	last    time.Duration // lived by then
	pause   time.Duration // longest time without a packet
}

func (f *flow) take(seq uint16) {
	now := lived()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started {
		f.pause = max(f.pause, now-f.last)
	}
	f.last = now
	switch step := int16(seq - f.highest); {
	case !f.started:
		f.started, f.highest = true, seq
	case step > 0:
		f.missing += int(step) - 1
		f.highest = seq
	case step < 0:
		f.missing--
	}
}

// since returns what was missing since the last call, and the longest pause.
func (f *flow) since() (missing int, pause time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	missing, pause = f.missing, f.pause
	f.missing, f.pause = 0, 0
	return missing, pause
}

func (c *client) flow(sid string) *flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flows == nil {
		c.flows = map[string]*flow{}
	}
	if c.flows[sid] == nil {
		c.flows[sid] = &flow{}
	}
	return c.flows[sid]
}

// packets is how many packets of a track have arrived.
func (c *client) packets(sid string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.got[sid]; n != nil {
		return n.Load()
	}
	return 0
}

// await waits for something about the client's state.
func (c *client) await(what string, ok func() bool) {
	c.t.Helper()
	eventually(c.t, c.identity+": "+what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return ok()
	})
}

// sees waits until exactly these others are in the room.
func (c *client) sees(others ...string) {
	c.t.Helper()
	c.await(fmt.Sprintf("sees %q", others), func() bool {
		for _, o := range others {
			if c.people[o] == nil {
				return false
			}
		}
		return len(c.people) == len(others)
	})
}

// hears waits until more packets of a track arrive.
func (c *client) hears(sid string) {
	c.t.Helper()
	from := c.packets(sid)
	eventually(c.t, c.identity+" gets more packets of "+sid, func() bool { return c.packets(sid) > from+5 })
}

// negotiate offers what the client publishes, its data channel included.
func (c *client) negotiate() {
	c.t.Helper()
	offer, err := c.pub.CreateOffer(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(c.pub)
	if err := c.pub.SetLocalDescription(offer); err != nil {
		c.t.Fatal(err)
	}
	<-gathered
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{
		Offer: &livekit.SessionDescription{Type: "offer", Sdp: c.pub.LocalDescription().SDP, Id: 1}}})
	select {
	case sdp := <-c.answered:
		if err := c.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}); err != nil {
			c.t.Fatal(err)
		}
	case <-time.After(patience):
		c.t.Fatalf("%s: the offer is not answered", c.identity)
	}
}

// publish sends a camera or microphone until the client closes, and returns the
// track's sid.
func (c *client) publish(cid string, kind livekit.TrackType) string {
	c.t.Helper()
	cap := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	source := livekit.TrackSource_CAMERA
	if kind == livekit.TrackType_AUDIO {
		cap = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
		source = livekit.TrackSource_MICROPHONE
	}
	return c.publishAs(&livekit.AddTrackRequest{Cid: cid, Type: kind, Source: source, Name: cid}, cap)
}

func (c *client) publishAs(req *livekit.AddTrackRequest, cap webrtc.RTPCodecCapability) string {
	c.t.Helper()
	track, err := webrtc.NewTrackLocalStaticRTP(cap, req.Cid, "stream-"+req.Cid)
	if err != nil {
		c.t.Fatal(err)
	}
	sender, err := c.pub.AddTrack(track)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: req}})
	c.negotiate()
	c.await("track is announced", func() bool { return c.tracks[req.Cid] != nil })
	c.wg.Go(func() { c.stream(track) })
	c.wg.Go(func() {
		for {
			pkts, _, err := sender.ReadRTCP()
			if err != nil {
				return
			}
			for _, p := range pkts {
				if _, ok := p.(*rtcp.PictureLossIndication); ok {
					c.plis.Add(1)
				}
			}
		}
	})
	return c.tracks[req.Cid].Sid
}

// payloads are the packets that stream sends: a key frame, of VP9 in two sizes (RFC 9628),
// the second with a hundred bytes more.
func payloads(mime string) [][]byte {
	switch mime {
	case webrtc.MimeTypeOpus:
		return [][]byte{{0xfc, 1, 2, 3, 4, 5, 6, 7}}
	case webrtc.MimeTypeVP9:
		return [][]byte{append([]byte{0x2c, 0x00, 0x00}, make([]byte, 200)...), append([]byte{0x2c, 0x03, 0x00}, make([]byte, 300)...)}
	}
	return [][]byte{append([]byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00}, make([]byte, 200)...)}
}

// stream sends payloads every 10 ms.
func (c *client) stream(track *webrtc.TrackLocalStaticRTP) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	list := payloads(track.Codec().MimeType)
	p := rtp.Packet{Header: rtp.Header{Version: 2}}
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		if c.still.Load() {
			continue
		}
		p.Timestamp += 900
		for i := range list {
			p.SequenceNumber++
			p.Payload, p.Marker = list[i], i == len(list)-1
			if c.loses.Load() > 0 {
				c.loses.Add(-1)
				continue
			}
			track.WriteRTP(&p) //nolint:errcheck // it is not connected yet, or not any more
		}
	}
}

func (c *client) mute(sid string, muted bool) {
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Mute{Mute: &livekit.MuteTrackRequest{Sid: sid, Muted: muted}}})
}

func (c *client) want(sid string, yes bool) {
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Subscription{
		Subscription: &livekit.UpdateSubscription{TrackSids: []string{sid}, Subscribe: yes}}})
}

// say sends a data packet as it is.
func (c *client) say(p *livekit.DataPacket) {
	c.t.Helper()
	b, err := proto.Marshal(p)
	if err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, "data channel is open", func() bool { return c.reliable.ReadyState() == webrtc.DataChannelStateOpen })
	if err := c.reliable.Send(b); err != nil {
		c.t.Fatal(err)
	}
}

func userData(text string, to ...string) *livekit.DataPacket {
	return &livekit.DataPacket{DestinationIdentities: to, Value: &livekit.DataPacket_User{User: &livekit.UserPacket{Payload: []byte(text)}}}
}

// texts are the user data received, with their senders.
func (c *client) texts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, p := range c.data {
		list = append(list, p.ParticipantIdentity+": "+string(p.GetUser().GetPayload()))
	}
	return list
}

// call uses the page's API with a token and decodes the answer or the refusal.
func call(t *testing.T, n *testNode, method, path, token string, body string, into any) *Refusal {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://"+n.addr.String()+path, r)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, b := fetched(t, req)
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error *Refusal }
		if err := json.Unmarshal(b, &e); err != nil || e.Error == nil {
			t.Fatalf("%s %s: %s %s", method, path, resp.Status, b)
		}
		return e.Error
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
	return nil
}

func ungranted(g *control.Grants) { g.Video.RoomRecord = false }

// fetched sends a request, and keeps no connection.
func fetched(t *testing.T, req *http.Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}
