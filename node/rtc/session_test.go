package rtc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

// meet makes a publisher with one VP8 stream and a started subscriber.
func meet(t *testing.T) (alice, bob *client, video *encoding, feedback <-chan rtcp.Packet) {
	t.Helper()
	e := newTestEngine(t)
	alice, bob = newClient(t, e), newClient(t, e)
	video = newVideoStream(t, "cam-1", "", 0)
	sender, err := alice.pub.AddTrack(video.track)
	if err != nil {
		t.Fatal(err)
	}
	feedback = answerPLI(t, sender, "", video)
	if err := bob.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	return alice, bob, video, feedback
}

// answerPLI makes a keyframe for each request that reaches the publisher, and
// returns the feedback that does. It ends with the publisher's connection.
func answerPLI(t *testing.T, sender *webrtc.RTPSender, rid string, streams ...*encoding) <-chan rtcp.Packet {
	t.Helper()
	seen := make(chan rtcp.Packet, 64)
	go func() {
		buf := make([]byte, 1600)
		for {
			n, _, err := sender.ReadSimulcast(buf, rid)
			if err != nil {
				return
			}
			pkts, err := rtcp.Unmarshal(buf[:n])
			if err != nil {
				continue
			}
			for _, p := range pkts {
				if _, ok := p.(*rtcp.PictureLossIndication); ok {
					for _, s := range streams {
						s.forceKey()
					}
				}
				select {
				case seen <- p:
				default:
				}
			}
		}
	}()
	return seen
}

// readRTP reads n packets of a track.
func readRTP(t *testing.T, track *webrtc.TrackRemote, n int) []*rtp.Packet {
	t.Helper()
	if err := track.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var got []*rtp.Packet
	for len(got) < n {
		p, _, err := track.ReadRTP()
		if err != nil {
			t.Fatalf("after %d packets: %v", len(got), err)
		}
		got = append(got, p)
	}
	return got
}

func TestPublishAndSubscribe(t *testing.T) {
	alice, bob, video, _ := meet(t)
	every(t, 10*time.Millisecond, func() { video.send(nil) })
	alice.offer()
	p := wait(t, alice.published, "the published track")
	if p.in.CID != "cam-1" || p.in.StreamID != "camera" || p.in.Kind != sfu.Video || p.in.MID == "" ||
		p.in.Codec.MimeType != webrtc.MimeTypeVP8 || p.in.Codec.ClockRate != 90000 || len(p.in.RIDs) != 0 {
		t.Errorf("published %+v", p.in)
	}
	if _, err := bob.session.Subscribe(Subscription{Up: p.up, StreamID: "PA_a|TR_1", TrackID: "TR_1"}); err != nil {
		t.Fatal(err)
	}
	track := wait(t, bob.tracks, "the track at the subscriber")
	if track.StreamID() != "PA_a|TR_1" || track.ID() != "TR_1" {
		t.Errorf("msid is %q %q", track.StreamID(), track.ID())
	}
	got := readRTP(t, track, 100)
	if got[0].Payload[6] != 0 {
		t.Error("the stream begins without a keyframe")
	}
	for i := 1; i < len(got); i++ {
		if got[i].SequenceNumber != got[i-1].SequenceNumber+1 {
			t.Errorf("sequence number %d after %d", got[i].SequenceNumber, got[i-1].SequenceNumber)
		}
		for _, id := range got[i].GetExtensionIDs() {
			if id != 3 && id != 4 { // the stamp and the MID, as jsep numbers them
				t.Errorf("packet carries extension %d, which was not negotiated", id)
			}
		}
	}
}

func TestOpusAnswerAsksForDTX(t *testing.T) {
	e := newTestEngine(t)
	alice := newClient(t, e)
	mic, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "mic", "m")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.pub.AddTrack(mic); err != nil {
		t.Fatal(err)
	}
	alice.offer()
	answer := alice.pub.RemoteDescription().SDP
	for _, want := range []string{"usedtx=1", "transport-wide-cc", "a=ice-lite", "a=candidate:"} {
		if !strings.Contains(answer, want) {
			t.Errorf("answer lacks %q:\n%s", want, answer)
		}
	}
	var seq uint16
	every(t, 20*time.Millisecond, func() {
		seq++
		_ = mic.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: 960 * uint32(seq)}, Payload: []byte{1, 2, 3}})
	})
	p := wait(t, alice.published, "the microphone")
	if p.in.Kind != sfu.Audio || p.in.Codec.ClockRate != 48000 {
		t.Errorf("published %+v", p.in)
	}
}

// browserExtensions adds MID and RID as browsers do to simulcast streams.
func browserExtensions(t *testing.T, sender *webrtc.RTPSender, mid, rid string) func(*rtp.Packet) {
	t.Helper()
	ids := make(map[string]uint8)
	for _, x := range sender.GetParameters().HeaderExtensions {
		ids[x.URI] = uint8(x.ID)
	}
	return func(p *rtp.Packet) {
		for uri, value := range map[string]string{sdp.SDESMidURI: mid, sdp.SDESRTPStreamIDURI: rid} {
			if err := p.SetExtension(ids[uri], []byte(value)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSimulcastSwitchesLayers(t *testing.T) {
	e := newTestEngine(t)
	alice, bob := newClient(t, e), newClient(t, e)
	var streams []*encoding
	for i, rid := range []string{"q", "h", "f"} {
		streams = append(streams, newVideoStream(t, "cam-1", rid, byte(i)))
	}
	transceiver, err := alice.pub.AddTransceiverFromTrack(streams[0].track,
		webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		t.Fatal(err)
	}
	sender := transceiver.Sender()
	for _, s := range streams[1:] {
		if err := sender.AddEncoding(s.track); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range streams {
		answerPLI(t, sender, s.track.RID(), s)
	}
	alice.offer()
	for i, rid := range []string{"q", "h", "f"} {
		ext := browserExtensions(t, sender, transceiver.Mid(), rid)
		every(t, 10*time.Millisecond, func() { streams[i].send(ext) })
	}
	p := wait(t, alice.published, "the published track")
	if strings.Join(p.in.RIDs, ",") != "q,h,f" {
		t.Errorf("RIDs are %q", p.in.RIDs)
	}
	all := make(chan struct{})
	p.up.OnAvailable(func(s sfu.LayerSet) {
		if s == 0b111 {
			close(all)
			p.up.OnAvailable(nil)
		}
	})
	wait(t, all, "all layers")
	if err := bob.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	every(t, 20*time.Millisecond, func() {
		p.up.Tick(time.Now())
	})
	down, err := bob.session.Subscribe(Subscription{Up: p.up, StreamID: "PA_a|TR_1", TrackID: "TR_1"})
	if err != nil {
		t.Fatal(err)
	}
	track := wait(t, bob.tracks, "the track at the subscriber")
	var seq []uint16
	for _, want := range []byte{2, 0, 1} {
		down.SetMaxLayer(sfu.Layer(want))
		for n := 0; ; n++ {
			pkt := readRTP(t, track, 1)[0]
			seq = append(seq, pkt.SequenceNumber)
			if pkt.Payload[7] == want {
				break
			}
			if n == 2000 {
				t.Fatalf("layer %d does not come", want)
			}
		}
	}
	for i := 1; i < len(seq); i++ {
		if seq[i] != seq[i-1]+1 {
			t.Errorf("sequence number %d after %d", seq[i], seq[i-1])
		}
	}
	if len(alice.published) != 0 {
		t.Error("a simulcast track was published more than once")
	}
}

func TestNackAndPLI(t *testing.T) {
	alice, bob, video, feedback := meet(t)
	every(t, 10*time.Millisecond, func() { video.send(nil) })
	alice.offer()
	p := wait(t, alice.published, "the published track")
	down, err := bob.session.Subscribe(Subscription{Up: p.up, StreamID: "PA_a|TR_1", TrackID: "TR_1"})
	if err != nil {
		t.Fatal(err)
	}
	track := wait(t, bob.tracks, "the track at the subscriber")
	lost := readRTP(t, track, 10)[9]
	err = bob.sub.WriteRTCP([]rtcp.Packet{
		&rtcp.TransportLayerNack{MediaSSRC: uint32(track.SSRC()), Nacks: []rtcp.NackPair{{PacketID: lost.SequenceNumber}}},
		&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The subscriber's SRTP drops the packet as a replay, so the node's own
	// counter shows that it was sent.
	for down.Stats().Resent == 0 || down.Stats().KeyframeRequests == 0 {
		readRTP(t, track, 1)
	}
	for {
		if _, ok := wait(t, feedback, "a keyframe request at the publisher").(*rtcp.PictureLossIndication); ok {
			break
		}
	}
	for {
		if _, ok := wait(t, feedback, "transport-wide feedback").(*rtcp.TransportLayerCC); ok {
			break
		}
	}
}

func TestSenderReportsReachTheSubscriber(t *testing.T) {
	alice, bob, video, _ := meet(t)
	every(t, 10*time.Millisecond, func() { video.send(nil) })
	alice.offer()
	p := wait(t, alice.published, "the published track")
	if _, err := bob.session.Subscribe(Subscription{Up: p.up, StreamID: "PA_a|TR_1", TrackID: "TR_1"}); err != nil {
		t.Fatal(err)
	}
	track := wait(t, bob.tracks, "the track at the subscriber")
	readRTP(t, track, 5)
	const clock = 0x1234567800000000
	p.up.Report(0, sfu.SenderReport{NTP: clock, RTP: 5, Arrival: time.Now()})
	for _, tr := range bob.sub.GetTransceivers() {
		pkts, _, err := tr.Receiver().ReadRTCP()
		if err != nil {
			t.Fatal(err)
		}
		sr, ok := pkts[0].(*rtcp.SenderReport)
		if !ok || sr.NTPTime>>32 != clock>>32 || sr.SSRC != uint32(track.SSRC()) {
			t.Errorf("got %v", pkts[0])
		}
	}
}

func TestUnpublishEndsTheTrack(t *testing.T) {
	alice, _, video, _ := meet(t)
	every(t, 10*time.Millisecond, func() { video.send(nil) })
	alice.offer()
	p := wait(t, alice.published, "the published track")
	if err := alice.pub.RemoveTrack(alice.pub.GetSenders()[0]); err != nil {
		t.Fatal(err)
	}
	alice.offer()
	if up := wait(t, alice.ended, "the end of the track"); up != p.up {
		t.Error("another track ended")
	}
	second := newVideoStream(t, "cam-2", "", 0)
	if _, err := alice.pub.AddTrack(second.track); err != nil {
		t.Fatal(err)
	}
	every(t, 10*time.Millisecond, func() { second.send(nil) })
	alice.offer()
	if p := wait(t, alice.published, "the second track"); p.in.CID != "cam-2" {
		t.Errorf("published %+v", p.in)
	}
}

func TestIgnoredTrackHarmsNobody(t *testing.T) {
	alice, _, video, _ := meet(t)
	alice.refuse = true
	every(t, 10*time.Millisecond, func() { video.send(nil) })
	alice.offer()
	if p := wait(t, alice.published, "the track that is refused"); p.up != nil {
		t.Error("it was taken")
	}
}

func TestSectionsAreReused(t *testing.T) {
	_, bob, _, _ := meet(t)
	wait(t, bob.offers, "the first answer")
	for i := range 8 {
		subscribeInTurn(t, bob, i, 1)
	}
	if got := bob.session.Stats().Sections; got != 1 {
		t.Errorf("%d media sections after 8 tracks, one at a time", got)
	}
	if err := bob.session.Unsubscribe(&sfu.DownTrack{}); err == nil {
		t.Error("a track that was never subscribed to could be unsubscribed")
	}
}

// The other end of these tests is pion, which has the fault that PionClient is for.
func TestPionClientsGetFreshSections(t *testing.T) {
	bob := newClientWith(t, newTestEngine(t), SessionConfig{PionClient: true})
	if err := bob.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	wait(t, bob.offers, "the first answer")
	for i := range 4 {
		subscribeInTurn(t, bob, i, 3)
	}
	if got := bob.session.Stats().Sections; got != 12 {
		t.Errorf("%d media sections after 12 tracks, want one each", got)
	}
}

// subscribeInTurn subscribes to some tracks of changing codecs one by one, sees
// media of each arrive, and unsubscribes.
func subscribeInTurn(t *testing.T, c *client, round, tracks int) {
	t.Helper()
	codecs := []sfu.Codec{
		{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000},
		{MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: "packetization-mode=1;profile-level-id=42e01f"},
	}
	var downs []*sfu.DownTrack
	for k := range tracks {
		up := sfu.NewUpTrack(sfu.UpTrackConfig{Kind: sfu.Video, Codec: codecs[(round+k)%2]})
		id := fmt.Sprintf("TR_%d_%d", round, k)
		d, err := c.session.Subscribe(Subscription{Up: up, StreamID: "PA_a|" + id, TrackID: id})
		if err != nil {
			t.Fatal(err)
		}
		downs = append(downs, d)
		settleOffers(t, c)
		tr := firstMedia(t, c, up)
		if tr.ID() != id || !strings.EqualFold(tr.Codec().MimeType, up.Codec().MimeType) {
			t.Errorf("round %d: track %q of %q", round, tr.ID(), tr.Codec().MimeType)
		}
	}
	for _, d := range downs {
		if err := c.session.Unsubscribe(d); err != nil {
			t.Fatal(err)
		}
	}
	settleOffers(t, c)
}

// firstMedia sends keyframes until the client has a track.
func firstMedia(t *testing.T, c *client, up *sfu.UpTrack) *webrtc.TrackRemote {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for seq := range uint16(patience / (5 * time.Millisecond)) {
		up.Ingest(0, []sfu.Inbound{{Raw: rtpKeyframe(up.Codec().MimeType, seq), Arrival: time.Now()}}, &sfu.Scratch{})
		select {
		case tr := <-c.tracks:
			return tr
		case <-tick.C:
		}
	}
	t.Fatal("no media came")
	return nil
}

// settleOffers returns when no offer is due or under way.
func settleOffers(t *testing.T, c *client) {
	t.Helper()
	for {
		wait(t, c.offers, "an answer")
		c.session.sub.mu.Lock()
		settled := c.session.sub.outstanding == 0 && !c.session.sub.dirty
		c.session.sub.mu.Unlock()
		if settled {
			return
		}
	}
}

func rtpKeyframe(mime string, seq uint16) []byte {
	payload := []byte{0x10, 0}
	if mime == webrtc.MimeTypeH264 {
		payload = []byte{0x67, 0x42}
	}
	raw, err := (&rtp.Packet{Header: rtp.Header{
		Version: 2, Marker: true, SequenceNumber: seq, Timestamp: 3000 * uint32(seq), SSRC: 1,
	}, Payload: payload}).Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

func TestOffersAreMerged(t *testing.T) {
	e := newTestEngine(t)
	bob := newClient(t, e)
	bob.hold = true
	if err := bob.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	first := wait(t, bob.held, "the first offer")
	for i := range 20 {
		up := sfu.NewUpTrack(sfu.UpTrackConfig{Kind: sfu.Audio, Codec: sfu.Codec{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}})
		if _, err := bob.session.Subscribe(Subscription{Up: up, StreamID: "PA_a", TrackID: fmt.Sprintf("TR_%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(bob.held) != 0 {
		t.Fatal("a second offer was made while the first waits")
	}
	bob.answerOffer(first, 0) // a client that does not echo ids
	second := wait(t, bob.held, "the second offer")
	if got := countLines(second, "m=audio"); got != 20 {
		t.Errorf("second offer has %d audio sections, want all 20", got)
	}
	if err := bob.session.Answer(first, 7); err == nil || !strings.Contains(err.Error(), "offer 7") {
		t.Errorf("answer to an offer that was never made: %v", err)
	}
}

func TestRestartICE(t *testing.T) {
	_, bob, _, _ := meet(t)
	wait(t, bob.offers, "the first answer")
	before := bob.sub.RemoteDescription().SDP
	if err := bob.session.RestartICE(TargetPublisher); err == nil {
		t.Error("the publisher's restart is the client's to offer")
	}
	if err := bob.session.RestartICE(TargetSubscriber); err != nil {
		t.Fatal(err)
	}
	wait(t, bob.offers, "the answer to the restart")
	if a, b := ufrag(before), ufrag(bob.sub.RemoteDescription().SDP); a == b {
		t.Errorf("credentials stayed %q", a)
	}
	if err := bob.session.SendData(true, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	wait(t, bob.received, "data after the restart")
}

func ufrag(sdp string) string {
	_, rest, _ := strings.Cut(sdp, "a=ice-ufrag:")
	u, _, _ := strings.Cut(rest, "\r\n")
	return u
}

func TestRestartRepeatsAnOfferThatWasLost(t *testing.T) {
	e := newTestEngine(t)
	bob := newClient(t, e)
	bob.hold = true
	if err := bob.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	lost := wait(t, bob.held, "the first offer")
	if err := bob.session.RestartICE(TargetSubscriber); err != nil {
		t.Fatal(err)
	}
	again := wait(t, bob.held, "the same offer")
	if again != lost {
		t.Error("another offer was made before the first was answered")
	}
	bob.answerOffer(again, 1)
	if fresh := wait(t, bob.held, "the restart"); ufrag(fresh) == ufrag(lost) {
		t.Error("the restart has the old credentials")
	}
}

func TestClosedSessionRefuses(t *testing.T) {
	alice, bob, _, _ := meet(t)
	alice.session.Close()
	bob.session.Close()
	bob.session.Close()
	up := sfu.NewUpTrack(sfu.UpTrackConfig{Kind: sfu.Audio, Codec: sfu.Codec{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000}})
	if _, err := bob.session.Subscribe(Subscription{Up: up, StreamID: "s", TrackID: "t"}); err == nil {
		t.Error("subscribed on a closed session")
	}
	if up.Stats().Sinks != 0 {
		t.Error("the refused DownTrack is still a sink")
	}
	if err := bob.session.StartSubscriber(); err == nil {
		t.Error("started on a closed session")
	}
	if err := bob.session.Answer("v=0\r\nm=audio 9 x 0\r\n", 0); err == nil {
		t.Error("answered on a closed session")
	}
	offer, err := alice.pub.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.session.Publish(offer.SDP, 1); err == nil {
		t.Error("published on a closed session")
	}
}

// Somebody who joins gets everything with the first offer: a second round would
// cost a round trip before the first picture.
func TestFirstOfferHasEverything(t *testing.T) {
	bob := newClient(t, newTestEngine(t))
	bob.hold = true
	bob.session.Together(func() { subscribeTo(t, bob, 10) })
	if got := countLines(wait(t, bob.held, "the first offer"), "m=audio"); got != 10 {
		t.Errorf("the first offer has %d audio sections, want 10", got)
	}
}

func subscribeTo(t *testing.T, c *client, n int) {
	t.Helper()
	if err := c.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		up := sfu.NewUpTrack(sfu.UpTrackConfig{Kind: sfu.Audio, Codec: sfu.Codec{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}})
		id := fmt.Sprintf("TR_%d", i)
		if _, err := c.session.Subscribe(Subscription{Up: up, StreamID: "PA_a|" + id, TrackID: id}); err != nil {
			t.Fatal(err)
		}
	}
}
