package transport

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

func packet(ssrc uint32, seq uint16, payload []byte) []byte {
	p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SSRC: ssrc, SequenceNumber: seq, Timestamp: uint32(seq) * 3000}, Payload: payload}
	b, err := p.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

// sendRTP sends packets as a DownTrack does.
func sendRTP(t testing.TB, s *Stream, e *Engine, packets ...[]byte) {
	t.Helper()
	b := e.Batch()
	defer e.Release(b)
	for _, p := range packets {
		room := b.Reserve(len(p) + 100)
		if err := s.Write(b, room[:copy(room, p)]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMediaBothWays(t *testing.T) {
	s := connect(t, listen(t), ConnConfig{})
	stop := s.publish("up")
	got := s.events.await(t, "packet", func(e event) bool { return e.what == "rtp" })
	stop()
	var p rtp.Packet
	if err := p.Unmarshal(got.payload); err != nil || string(p.Payload) != "up" {
		t.Errorf("got %v, %v, want payload %q", p, err, "up")
	}
	s.events.await(t, "Drained", func(e event) bool { return e.what == "drained" })

	stream, err := s.conn.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	frame := bytes.Repeat([]byte{7}, 1000)
	sendRTP(t, stream, s.engine, packet(ourSSRC, 1, frame), packet(ourSSRC, 2, frame), packet(ourSSRC, 3, frame[:10]))
	select {
	case tr := <-s.remote:
		for want := uint16(1); want <= 3; want++ {
			p, _, err := tr.ReadRTP()
			if err != nil || p.SequenceNumber != want {
				t.Fatalf("got packet %v, %v, want %d", p, err, want)
			}
		}
	case <-time.After(patience):
		t.Fatal("nothing came down")
	}
	if st := s.engine.Stats(); st.Drops["unreachable"] > 0 || st.PacketsSent <= st.MessagesSent {
		t.Errorf("stats %+v: want three packets in one message", st)
	}
}

func TestRTCPBothWays(t *testing.T) {
	s := connect(t, listen(t), ConnConfig{})
	if err := s.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: ourSSRC}}); err != nil {
		t.Fatal(err)
	}
	s.events.await(t, "PLI", func(e event) bool {
		pkts, err := rtcp.Unmarshal(e.payload)
		if e.what != "rtcp" || err != nil {
			return false
		}
		pli, ok := pkts[0].(*rtcp.PictureLossIndication)
		return ok && pli.MediaSSRC == ourSSRC
	})
	sender := s.pc.GetSenders()[0]
	ssrc := uint32(sender.GetParameters().Encodings[0].SSRC)
	b, err := rtcp.Marshal([]rtcp.Packet{&rtcp.PictureLossIndication{SenderSSRC: 2, MediaSSRC: ssrc}})
	if err != nil {
		t.Fatal(err)
	}
	batch := s.engine.Batch()
	if err := s.conn.WriteRTCP(batch, b); err != nil {
		t.Fatal(err)
	}
	s.engine.Release(batch)
	got := make(chan []rtcp.Packet, 1)
	go func() {
		pkts, _, _ := sender.ReadRTCP()
		got <- pkts
	}()
	select {
	case pkts := <-got:
		if pli, ok := pkts[0].(*rtcp.PictureLossIndication); !ok || pli.MediaSSRC != ssrc {
			t.Errorf("got %v, want a PLI for %d", pkts, ssrc)
		}
	case <-time.After(patience):
		t.Fatal("no RTCP came down")
	}
}

func TestDataBothWays(t *testing.T) {
	none := uint16(0)
	cfg := ConnConfig{Channels: []Channel{{Label: "_reliable", Ordered: true}, {Label: "_lossy", MaxRetransmits: &none}}}
	e := listen(t)
	s := begin(t, e, cfg)
	type message struct {
		label, text string
		isString    bool
	}
	down := make(chan message, 10)
	s.pc.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnMessage(func(m webrtc.DataChannelMessage) { down <- message{dc.Label(), string(m.Data), m.IsString} })
	})
	if err := s.conn.Send("_reliable", true, []byte("early")); err != nil {
		t.Fatal(err)
	}
	s.events.await(t, "channel", func(e event) bool { return e.what == "opened" && e.label == "_lossy" })
	if err := s.conn.Send("_lossy", false, []byte("text")); err != nil {
		t.Fatal(err)
	}
	want := map[message]bool{{"_reliable", "early", false}: true, {"_lossy", "text", true}: true}
	for len(want) > 0 {
		select {
		case m := <-down:
			if !want[m] {
				t.Errorf("unexpected message %+v", m)
			}
			delete(want, m)
		case <-time.After(patience):
			t.Fatalf("missing messages: %v", want)
		}
	}
	track, err := s.pc.CreateDataChannel("_data_track", nil)
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte{1}, 60<<10)
	track.OnOpen(func() { _ = track.Send(big) })
	got := s.events.await(t, "message", func(e event) bool { return e.what == "message" && e.label == "_data_track" })
	if !got.binary || !bytes.Equal(got.payload, big) {
		t.Errorf("got %d bytes, binary %v, want %d bytes", len(got.payload), got.binary, len(big))
	}
	if !s.conn.Open("_data_track") || s.conn.Open("other") {
		t.Error("wrong channels are open")
	}
	other, err := s.pc.CreateDataChannel("other", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	other.OnClose(func() { close(closed) })
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("a channel that nobody reads stays open")
	}
}

// TestDataChannelsMayComeLater has the client add its application section to a
// session that stands.
func TestDataChannelsMayComeLater(t *testing.T) {
	e := listen(t)
	events, pc := newRecorder(), newPeer(t)
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "camera")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.AddTrack(track); err != nil {
		t.Fatal(err)
	}
	c, err := e.NewConn(events, ConnConfig{Channels: []Channel{{Label: "_reliable", Ordered: true}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make(chan string, 1)
	pc.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnMessage(func(m webrtc.DataChannelMessage) { got <- dc.Label() + string(m.Data) })
	})
	negotiate := func() {
		t.Helper()
		d, r := offer(t, pc, nil)
		if err := c.SetRemote(r); err != nil {
			t.Fatal(err)
		}
		answer(t, pc, d, e, c.Local(), "passive")
	}
	negotiate()
	events.awaitState(t, Connected)
	if err := c.Send("_reliable", true, []byte(" waited")); err != nil {
		t.Fatal(err)
	}
	if _, err := pc.CreateDataChannel("_lossy", nil); err != nil {
		t.Fatal(err)
	}
	negotiate()
	events.await(t, "their channel", func(e event) bool { return e.what == "opened" && e.label == "_lossy" })
	select {
	case m := <-got:
		if m != "_reliable waited" {
			t.Errorf("got %q", m)
		}
	case <-time.After(patience):
		t.Error("our message did not arrive")
	}
}

// TestWhatWaitsIsBounded before our channels are open.
func TestWhatWaitsIsBounded(t *testing.T) {
	none := uint16(0)
	c, err := listen(t).NewConn(newRecorder(), ConnConfig{Channels: []Channel{{Label: "_reliable"}, {Label: "_lossy", MaxRetransmits: &none}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	message := make([]byte, 50<<10)
	for i := range 6 {
		err := c.Send("_reliable", true, message)
		if full := i >= maxEarly/len(message); full != errors.Is(err, errBehind) || !full && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
		if err := c.Send("_lossy", true, message); err != nil {
			t.Errorf("lossy message %d: %v", i, err)
		}
	}
	if err := c.Send("_data_track", true, message); !errors.Is(err, errNoChannel) {
		t.Errorf("got %v, want %v", err, errNoChannel)
	}
	if err := c.Send("_reliable", true, make([]byte, defaultMaxMessage+1)); !errors.Is(err, errTooBig) {
		t.Errorf("got %v, want %v", err, errTooBig)
	}
}

// TestAClientThatReadsNothing is too far behind at some time, and lossy data for it
// is dropped from then on: nothing grows.
func TestAClientThatReadsNothing(t *testing.T) {
	none := uint16(0)
	s := begin(t, listen(t), ConnConfig{Channels: []Channel{{Label: "_reliable", Ordered: true}, {Label: "_lossy", MaxRetransmits: &none}}})
	hold := make(chan struct{})
	defer close(hold)
	s.pc.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnMessage(func(webrtc.DataChannelMessage) { <-hold })
	})
	s.events.await(t, "channel", func(e event) bool { return e.what == "opened" && e.label == "_lossy" })
	message := make([]byte, 60<<10)
	var err error
	for range (maxReliableBuffer + 8<<20) / len(message) { // what it takes itself is at most a MiB or two
		if err = s.conn.Send("_reliable", true, message); err != nil {
			break
		}
	}
	if !errors.Is(err, errBehind) || s.conn.Buffered("_reliable") > maxReliableBuffer {
		t.Errorf("got %v with %d bytes waiting, want %v", err, s.conn.Buffered("_reliable"), errBehind)
	}
	for range 10 {
		if err := s.conn.Send("_lossy", true, message); err != nil {
			t.Error(err)
		}
	}
	if n := s.conn.Stats().Drops["lossy"]; n < 8 {
		t.Errorf("%d lossy messages dropped, want most of 10", n)
	}
}

// TestChannelsAreBounded whatever the client opens.
func TestChannelsAreBounded(t *testing.T) {
	s := connect(t, listen(t), ConnConfig{})
	for range 3 * maxChannels {
		if _, err := s.pc.CreateDataChannel("_lossy", nil); err != nil {
			t.Fatal(err)
		}
	}
	last, err := s.pc.CreateDataChannel("_data_track", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	last.OnClose(func() { close(closed) })
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("the last of too many channels stays open")
	}
	s.conn.channels.mu.Lock()
	defer s.conn.channels.mu.Unlock()
	if n := len(s.conn.channels.open); n > maxChannels {
		t.Errorf("%d channels are open, want %d at most", n, maxChannels)
	}
}
