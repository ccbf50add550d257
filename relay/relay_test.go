package relay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

func permit(t testing.TB, l *relay.Link, class residency.Class) residency.Permit {
	t.Helper()
	return relaytest.Permit(t, l.Peer(), 1, "room-1", class)
}

func openTrack(t testing.TB, l *relay.Link, video bool) *relay.Track {
	t.Helper()
	track, err := l.OpenTrack(permit(t, l, residency.ClassMedia), video)
	if err != nil {
		t.Fatal(err)
	}
	return track
}

// bind listens to a track with a permit of the receiver's.
func bind(t testing.TB, l *relay.Link, alias uint32, s relay.MediaSink) {
	t.Helper()
	if err := l.Bind(permit(t, l, residency.ClassMedia), alias, s); err != nil {
		t.Error(err)
	}
}

// eventually waits for a condition that no channel tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(relaytest.Patience)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// steady takes a measurement that says what is wrong with it, "" for nothing. One
// during which this process was itself kept waiting tells of the machine: it is taken
// again, nine times at most.
func steady(t *testing.T, measure func() (wrong string)) {
	t.Helper()
	const step, much = 5 * time.Millisecond, 20 * time.Millisecond
	var wrong string
	for range 10 {
		var waited time.Duration
		done, watched := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(watched)
			for last := time.Now(); ; {
				select {
				case <-done:
					return
				case <-time.After(step):
				}
				now := time.Now()
				waited, last = max(waited, now.Sub(last)-step), now
			}
		}()
		wrong = measure()
		close(done)
		<-watched
		if wrong == "" {
			return
		}
		if waited < much {
			break
		}
		t.Logf("%s; but this process was kept waiting for %s", wrong, waited)
	}
	t.Error(wrong)
}

func TestVideoArrivesInOrderOnItsLayers(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := mesh.Pair(t)
		track, sink := openTrack(t, ab, true), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)

		const frames, perFrame = 25, 9 // what the queue holds, should the sender not run at all
		for f := range frames {
			for p := range perFrame {
				for layer := range uint8(3) {
					track.Offer(layer, p == perFrame-1, relaytest.RTP(uint16(f*perFrame+p), uint32(f*3000), p == perFrame-1, 300+300*int(layer)))
				}
			}
		}
		var next [3]uint16
		for range 3 * frames * perFrame {
			p := relaytest.Await(t, sink.Packets, "video packet")
			if p.Seq != next[p.Layer] {
				t.Fatalf("layer %d: packet %d arrived, want %d", p.Layer, p.Seq, next[p.Layer])
			}
			if want := 300 + 300*int(p.Layer); p.Size != want {
				t.Fatalf("layer %d: packet of %d bytes, want %d", p.Layer, p.Size, want)
			}
			next[p.Layer]++
		}
		if n := sink.Clashes.Load(); n > 0 {
			t.Errorf("%d calls of the sink for one layer at the same time", n)
		}
		s := ab.Stats()
		if s.TxPackets != 3*frames*perFrame || len(s.Drops) > 0 {
			t.Errorf("sender counted %d packets and drops %v", s.TxPackets, s.Drops)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	})
}

func TestFrameWithoutMarkerStillEnds(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := mesh.Pair(t)
		track, sink := openTrack(t, ab, true), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		for i := range 5 { // five frames by timestamp alone; the last one ends by waiting
			track.Offer(0, false, relaytest.RTP(uint16(i), uint32(i), false, 500))
		}
		for i := range 5 {
			if p := relaytest.Await(t, sink.Packets, "packet"); p.Seq != uint16(i) {
				t.Fatalf("packet %d, want %d", p.Seq, i)
			}
		}
		track.Close()
		eventually(t, "closed track is forgotten", func() bool { return ab.Stats().TxTracks == 0 })
		if s := ab.Stats(); s.TxPackets != 5 {
			t.Errorf("%d packets counted after the track was forgotten, want 5", s.TxPackets)
		}
	})
}

func TestAudioAndReportsArrive(t *testing.T) {
	_, _, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	tracks, sinks := make([]*relay.Track, 20), make([]*relaytest.Sink, 20)
	for i := range tracks {
		tracks[i], sinks[i] = openTrack(t, ab, false), relaytest.NewSink()
		bind(t, ba, tracks[i].Alias(), sinks[i])
	}
	for seq := range 20 {
		for _, track := range tracks {
			track.Offer(0, true, relaytest.RTP(uint16(seq), uint32(seq*960), true, 120))
		}
	}
	for i, sink := range sinks {
		for seq := range 20 {
			if p := relaytest.Await(t, sink.Packets, "audio packet"); p.Seq != uint16(seq) || p.Size != 120 {
				t.Fatalf("track %d: packet %+v, want number %d", i, p, seq)
			}
		}
	}
	if s := ab.Stats(); s.QUICSent > 200 {
		t.Errorf("400 audio packets took %d QUIC packets: they are not packed", s.QUICSent)
	}
	sr := wire.SenderReport{NTP: 1, RTP: 2, Packets: 3, Octets: 4}
	tracks[3].Report(0, sr)
	if got := relaytest.Await(t, sinks[3].Reports, "report"); got != sr {
		t.Errorf("report %+v, want %+v", got, sr)
	}
}

func TestLongAudioPacketTakesAStream(t *testing.T) {
	_, _, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	track, sink := openTrack(t, ab, false), relaytest.NewSink()
	bind(t, ba, track.Alias(), sink)
	for _, size := range []int{12, 1139, 1140, 1200, 1472, wire.MaxPacket} {
		track.Offer(0, true, relaytest.RTP(1, 1, true, size))
		if p := relaytest.Await(t, sink.Packets, "packet"); p.Size != size {
			t.Errorf("packet of %d bytes arrived, want %d", p.Size, size)
		}
	}
}

func TestBadPacketsAreCountedAndNotSent(t *testing.T) {
	_, _, ab, _ := relaytest.NewMesh(t, nil).Pair(t)
	track := openTrack(t, ab, true)
	track.Offer(0, true, make([]byte, 11))
	track.Offer(0, true, make([]byte, wire.MaxPacket+1))
	track.Offer(wire.MaxLayer+1, true, relaytest.RTP(1, 1, true, 100))
	if s := ab.Stats(); s.Drops["malformed"] != 3 || s.TxPackets != 0 {
		t.Errorf("drops %v, %d packets sent", s.Drops, s.TxPackets)
	}
}

func TestUnboundTrackIsDropped(t *testing.T) {
	_, _, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	audio, video, sink := openTrack(t, ab, false), openTrack(t, ab, true), relaytest.NewSink()
	audio.Offer(0, true, relaytest.RTP(1, 1, true, 100))
	video.Offer(0, true, relaytest.RTP(1, 1, true, 100))
	eventually(t, "two drops", func() bool { return ba.Stats().Drops["unbound"] == 2 })
	bind(t, ba, audio.Alias(), sink)
	audio.Offer(0, true, relaytest.RTP(2, 2, true, 100))
	if p := relaytest.Await(t, sink.Packets, "packet after Bind"); p.Seq != 2 {
		t.Errorf("packet %d, want 2", p.Seq)
	}
	ba.Unbind(audio.Alias())
	audio.Offer(0, true, relaytest.RTP(3, 3, true, 100))
	eventually(t, "a third drop", func() bool { return ba.Stats().Drops["unbound"] == 3 })
	if s := ba.Stats(); s.RxPackets != 1 {
		t.Errorf("%d packets counted after Unbind, want 1", s.RxPackets)
	}
}

func TestMessagesKeepTheirOrder(t *testing.T) {
	_, b, ab, _ := relaytest.NewMesh(t, nil).Pair(t)
	p := permit(t, ab, residency.ClassSignalling)
	big := strings.Repeat("x", 100_000)
	for i := range 500 {
		body := fmt.Sprint(i)
		if i%50 == 0 {
			body += big
		}
		if err := ab.Send(p, relay.Kind(i), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 500 {
		m := relaytest.Await(t, b.Messages, "message")
		if m.Kind != relay.Kind(i) || !strings.HasPrefix(m.Body, fmt.Sprint(i)) {
			t.Fatalf("message %d arrived, want %d", m.Kind, i)
		}
		if m.Room != "room-1" || m.Class != residency.ClassSignalling {
			t.Fatalf("room %q and class %q", m.Room, m.Class)
		}
	}
	err := ab.Send(p, 1, make([]byte, wire.MaxMessage+1))
	if err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("message that is too long: %v", err)
	}
}

func TestRequests(t *testing.T) {
	_, b, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	p := permit(t, ab, residency.ClassMetadata)
	gaveUp := make(chan error, 1)
	b.Answer(func(ctx context.Context, m relaytest.Message) ([]byte, residency.Permit, error) {
		reply := permit(t, ba, residency.ClassMetadata)
		switch m.Kind {
		case 1:
			return []byte("echo " + m.Body), reply, nil
		case 2:
			return nil, reply, errors.New(strings.Repeat("no such room ", 100))
		case 3:
			return make([]byte, wire.MaxMessage), reply, nil
		case 4:
			return make([]byte, wire.MaxMessage+1), reply, nil
		case 5:
			<-ctx.Done()
			gaveUp <- ctx.Err()
			return nil, reply, ctx.Err()
		case 6:
			return []byte("secret"), residency.Permit{}, nil
		case 7:
			return []byte("secret"), relaytest.Permit(t, ba.Peer(), 1, "another room", m.Class), nil
		}
		return []byte("secret"), relaytest.Permit(t, ab.Peer(), 1, m.Room, m.Class), nil // for this node itself
	})
	ctx := context.Background()
	if got, err := ab.Request(ctx, p, 1, []byte("hello")); err != nil || string(got) != "echo hello" {
		t.Errorf("request: %q, %v", got, err)
	}
	var remote *relay.RemoteError
	if _, err := ab.Request(ctx, p, 2, nil); !errors.As(err, &remote) || len(remote.Text) != wire.MaxError || remote.Peer != "b" {
		t.Errorf("error of the handler: %v", err)
	}
	if got, err := ab.Request(ctx, p, 3, make([]byte, wire.MaxMessage)); err != nil || len(got) != wire.MaxMessage {
		t.Errorf("longest request and reply: %d bytes, %v", len(got), err)
	}
	if _, err := ab.Request(ctx, p, 4, nil); !errors.As(err, &remote) || !strings.Contains(remote.Text, "at most 1048576") {
		t.Errorf("reply that is too long: %v", err)
	}
	if _, err := ab.Request(ctx, p, 1, make([]byte, wire.MaxMessage+1)); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("request that is too long: %v", err)
	}
	for kind := relay.Kind(6); kind <= 8; kind++ {
		if _, err := ab.Request(ctx, p, kind, nil); !errors.As(err, &remote) || !strings.Contains(remote.Text, "refused") {
			t.Errorf("reply %d without a permit for the asking node: %v", kind, err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := ab.Request(short, p, 5, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("request that is given up: %v", err)
	}
	if err := relaytest.Await(t, gaveUp, "handler hears of it"); !errors.Is(err, context.Canceled) {
		t.Errorf("handler's context: %v", err)
	}
	if s := ba.Stats(); s.Drops["refused"] != 2 {
		t.Errorf("drops %v, want 2 refused replies", s.Drops)
	}
}

func TestRequestsRunSideBySide(t *testing.T) {
	_, b, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	const n = 150 // more than one peer may have at work
	b.Answer(func(_ context.Context, m relaytest.Message) ([]byte, residency.Permit, error) {
		return []byte(m.Body), permit(t, ba, m.Class), nil
	})
	p := permit(t, ab, residency.ClassMetadata)
	results := make(chan error, n)
	for i := range n {
		go func() {
			body := bytes.Repeat([]byte{byte(i)}, 3000)
			got, err := ab.Request(context.Background(), p, 1, body)
			if err == nil && !bytes.Equal(got, body) {
				err = fmt.Errorf("reply %d is another's", i)
			}
			results <- err
		}()
	}
	for range n {
		if err := relaytest.Await(t, results, "reply"); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusedSendsLeaveNothing(t *testing.T) {
	_, b, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	class := residency.ClassMedia
	expired := ab.Peer()
	expired.NotAfter = time.Now().Add(30 * time.Millisecond)
	ends := relaytest.Permit(t, expired, 1, "room-1", class)
	eventually(t, "permit ends", func() bool { return time.Now().After(ends.Until()) })
	for name, c := range map[string]struct {
		permit residency.Permit
		quotes string
	}{
		"none":       {residency.Permit{}, "no permit"},
		"other node": {relaytest.Permit(t, ba.Peer(), 1, "room-1", class), `node "a" at epoch 1`},
		"epoch":      {relaytest.Permit(t, ab.Peer(), 2, "room-1", class), "at epoch 2"},
		"expired":    {ends, `rule "zone"`},
	} {
		var refused *relay.RefusedError
		check := func(what string, err error) {
			t.Helper()
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.quotes) {
				t.Errorf("%s, permit %s: %v; want it to quote %s", what, name, err, c.quotes)
			}
		}
		check("send", ab.Send(c.permit, 1, []byte("secret")))
		_, err := ab.Request(context.Background(), c.permit, 1, []byte("secret"))
		check("request", err)
		_, err = ab.OpenTrack(c.permit, false)
		check("track", err)
	}
	if err := ab.Send(permit(t, ab, class), 9, nil); err != nil {
		t.Fatal(err)
	}
	if m := relaytest.Await(t, b.Messages, "permitted message"); m.Kind != 9 {
		t.Errorf("message %d arrived before the permitted one", m.Kind)
	}
}

func TestNewEpochRevokesTracks(t *testing.T) {
	a, _, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	for _, video := range []bool{false, true} {
		a.Epoch.Store(1)
		track, sink := openTrack(t, ab, video), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		track.Offer(0, true, relaytest.RTP(1, 1, true, 100))
		relaytest.Await(t, sink.Packets, "packet of the old epoch")
		a.Epoch.Store(2)
		track.Offer(0, true, relaytest.RTP(2, 2, true, 100))
		eventually(t, "track is revoked", func() bool { return track.Revoked() != "" })
		if want := "policy epoch is 2, the permit's 1"; track.Revoked() != want {
			t.Errorf("reason %q, want %q", track.Revoked(), want)
		}
		eventually(t, "drop is counted", func() bool { return ab.Stats().Drops["revoked"] > 0 })
		if len(sink.Packets) > 0 {
			t.Error("a packet left under the new epoch")
		}
	}
}

func TestRecheckRevokesAnIdleTrack(t *testing.T) {
	a, _, ab, _ := relaytest.NewMesh(t, nil).Pair(t)
	track := openTrack(t, ab, true)
	a.Epoch.Store(2)
	a.Fabric.Recheck()
	eventually(t, "track is revoked", func() bool { return track.Revoked() != "" })
}

// What is offered between the change of the policies and a permit of the new epoch
// waits, and then leaves.
func TestRenewedTrackLosesNothing(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, renewedTrackLosesNothing)
}

func renewedTrackLosesNothing(t *testing.T, mesh *relaytest.Mesh) {
	a, _, ab, ba := mesh.Pair(t)
	for _, video := range []bool{false, true} {
		a.Epoch.Store(1)
		track, sink := openTrack(t, ab, video), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		track.Offer(0, true, relaytest.RTP(1, 1, true, 100))
		relaytest.Await(t, sink.Packets, "packet of the old epoch")
		a.Epoch.Store(2)
		for seq := uint16(2); seq < 20; seq++ {
			track.Offer(0, true, relaytest.RTP(seq, uint32(seq), true, 100))
		}
		time.Sleep(200 * time.Millisecond) // heartbeats pass
		if n := len(sink.Packets); n > 0 {
			t.Fatalf("%d packets left without a permit", n)
		}
		for what, p := range map[string]residency.Permit{
			"the old epoch": relaytest.Permit(t, ab.Peer(), 1, "room-1", residency.ClassMedia),
			"another room":  relaytest.Permit(t, ab.Peer(), 2, "room-2", residency.ClassMedia),
			"another class": relaytest.Permit(t, ab.Peer(), 2, "room-1", residency.ClassChat),
		} {
			if track.Renew(p) == nil {
				t.Errorf("renewed with a permit for %s", what)
			}
		}
		if err := track.Renew(relaytest.Permit(t, ab.Peer(), 2, "room-1", residency.ClassMedia)); err != nil {
			t.Fatal(err)
		}
		for range 18 {
			relaytest.Await(t, sink.Packets, "packet that waited")
		}
		track.Revoke("test")
		if track.Renew(relaytest.Permit(t, ab.Peer(), 2, "room-1", residency.ClassMedia)) == nil {
			t.Error("a revoked track is renewed")
		}
	}
}

func TestThreeNodes(t *testing.T) {
	mesh := relaytest.NewMesh(t, nil)
	nodes := []*relaytest.Node{}
	for _, name := range []residency.NodeName{"a", "b", "c"} {
		nodes = append(nodes, mesh.Start(t, name, netip.AddrPort{}))
	}
	mesh.Introduce()
	for _, n := range nodes {
		relaytest.Await(t, n.Up, "first link")
		relaytest.Await(t, n.Up, "second link")
	}
	if links := nodes[1].Fabric.Links(); len(links) != 2 || links[0].Peer().Name != "a" || links[1].Peer().Name != "c" {
		t.Errorf("links of b: %v", links)
	}
	eventually(t, "round trip is measured", func() bool { return nodes[0].Fabric.Link("c").Stats().RTT > 0 })
}

// TestLateAnswerIsDropped changes the policies while a question is on its way: what
// may not be asked any more is not taken as an answer either.
func TestLateAnswerIsDropped(t *testing.T) {
	a, b, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	var late atomic.Bool
	b.Answer(func(_ context.Context, m relaytest.Message) ([]byte, residency.Permit, error) {
		if late.Load() {
			a.Epoch.Store(2)
		}
		return []byte("canary"), permit(t, ba, m.Class), nil
	})
	p := permit(t, ab, residency.ClassMetadata)
	if got, err := ab.Request(t.Context(), p, 1, []byte("hello")); err != nil || string(got) != "canary" {
		t.Fatalf("in time: %q, %v", got, err)
	}
	late.Store(true)
	var refused *relay.RefusedError
	if got, err := ab.Request(t.Context(), p, 1, []byte("hello")); got != nil || !errors.As(err, &refused) {
		t.Errorf("late: %q, %v", got, err)
	}
	if ab.Stats().Drops["refused"] != 1 {
		t.Errorf("drops: %v", ab.Stats().Drops)
	}
}
