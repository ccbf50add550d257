package relay_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// patient makes links that outlive a cut of some seconds, and frames that do.
func patient(mesh *relaytest.Mesh) {
	mesh.Configure = func(_ residency.NodeName, c *relay.Config) {
		c.DeadAfter, c.FrameDeadline = 30*time.Second, 20*time.Second
	}
}

// What waits behind a cut path leaves when the path is back, unless the track was
// revoked meanwhile: then not a packet of video does, neither queued nor
// repeated, and of audio only what QUIC already held.
func TestRevokeStopsWhatIsQueued(t *testing.T) {
	for _, video := range []bool{true, false} {
		for _, revoke := range []bool{false, true} {
			simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
				patient(mesh)
				a, b, ab, ba := mesh.Pair(t)
				track, sink := openTrack(t, ab, video), relaytest.NewSink()
				bind(t, ba, track.Alias(), sink)
				mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{Loss: 1})
				for i := range 200 {
					track.Offer(0, i%10 == 9, relaytest.RTP(uint16(i), uint32(i/10), i%10 == 9, 1100))
					time.Sleep(5 * time.Millisecond)
				}
				if revoke {
					track.Revoke("test")
				}
				mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{})
				time.Sleep(10 * time.Second)
				arrived, drops := len(sink.Packets), ab.Stats().Drops
				switch {
				case !revoke && video && arrived != 200:
					t.Errorf("control: %d packets of video arrived, want 200; drops %v", arrived, drops)
				case !revoke && !video && arrived <= 33:
					t.Errorf("control: %d packets of audio arrived, want more", arrived)
				case revoke && video && arrived > 0:
					t.Errorf("%d packets of video arrived after Revoke", arrived)
				case revoke && !video && arrived > 33:
					t.Errorf("%d packets of audio arrived after Revoke", arrived)
				case revoke && drops["revoked"] == 0:
					t.Errorf("drops %v, want some revoked", drops)
				}
				select {
				case <-ab.Done():
					t.Error("the link ended")
				default:
				}
			})
		}
	}
}

func TestFullQueueDropsItsOldest(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		patient(mesh)
		a, b, ab, ba := mesh.Pair(t)
		track, sink := openTrack(t, ab, false), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{Loss: 1})
		for i := range 300 {
			track.Offer(0, true, relaytest.RTP(uint16(i), uint32(i), true, 1100))
			time.Sleep(5 * time.Millisecond)
		}
		dropped := ab.Stats().Drops["queue-full"]
		if dropped < 100 {
			t.Fatalf("drops %v, want a full queue", ab.Stats().Drops)
		}
		mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{})
		time.Sleep(10 * time.Second)
		got := map[uint16]bool{}
		for len(sink.Packets) > 0 {
			got[(<-sink.Packets).Seq] = true
		}
		for seq := uint16(290); seq < 300; seq++ {
			if !got[seq] {
				t.Errorf("packet %d is missing: the newest must survive", seq)
			}
		}
	})
}

// What arrives at once after the process stood still for a second leaves whole.
func TestBacklogOfASecondLeavesWhole(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := mesh.Pair(t)
		audio, video := openTrack(t, ab, false), openTrack(t, ab, true)
		heard, seen := relaytest.NewSink(), relaytest.NewSink()
		bind(t, ba, audio.Alias(), heard)
		bind(t, ba, video.Alias(), seen)
		for i := range uint32(50) {
			audio.Offer(0, true, relaytest.RTP(uint16(i), i*960, true, 160))
		}
		for i := range uint32(330) { // at 3 Mbit/s
			video.Offer(0, i%11 == 10, relaytest.RTP(uint16(i), i/11*3000, i%11 == 10, 1150))
		}
		time.Sleep(time.Second)
		if a, v := len(heard.Packets), len(seen.Packets); a != 50 || v != 330 {
			t.Errorf("%d of 50 audio and %d of 330 video packets arrived; drops %v", a, v, ab.Stats().Drops)
		}
	})
}

// Audio that waited for longer than FrameDeadline is not sent any more.
func TestOldAudioIsGivenUp(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		mesh.Configure = func(_ residency.NodeName, c *relay.Config) { c.DeadAfter = 30 * time.Second }
		a, b, ab, ba := mesh.Pair(t)
		track, sink := openTrack(t, ab, false), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{Loss: 1})
		const outage, all = 200, 800
		for i := range all { // of a size of which the queue holds 58, one second
			if i == outage {
				mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{})
			}
			track.Offer(0, true, relaytest.RTP(uint16(i), uint32(i), true, 1100))
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Second)
		drops := ab.Stats().Drops
		if drops["deadline"] < 20 {
			t.Errorf("drops %v, want audio of more than half a second ago given up", drops)
		}
		last := uint16(0)
		for len(sink.Packets) > 0 {
			last = (<-sink.Packets).Seq
		}
		if last != all-1 {
			t.Errorf("the last packet that arrived is %d, want the newest, %d", last, all-1)
		}
	})
}

// Five megabits of video over a path for one: the video is thinned and stays
// fresh, and the audio beside it is whole.
func TestCongestionDropsOldVideoAndKeepsAudio(t *testing.T) {
	path := relaytest.Path{Delay: 20 * time.Millisecond, Rate: 1_000_000}
	simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := mesh.Pair(t)
		audio, video := openTrack(t, ab, false), openTrack(t, ab, true)
		heard, seen := relaytest.NewSink(), relaytest.NewSink()
		bind(t, ba, audio.Alias(), heard)
		bind(t, ba, video.Alias(), seen)
		offered := map[uint32]time.Time{}
		const frames = 300 // ten seconds
		for f := range uint32(frames) {
			offered[f] = time.Now()
			for p := range 17 {
				video.Offer(2, p == 16, relaytest.RTP(uint16(f*17+uint32(p)), f, p == 16, 1200))
			}
			audio.Offer(0, true, relaytest.RTP(uint16(f), f, true, 120))
			time.Sleep(33 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		drops := ab.Stats().Drops
		if drops["deadline"]+drops["queue-full"] == 0 {
			t.Errorf("drops %v, want old video", drops)
		}
		if n := len(heard.Packets); n < frames*98/100 {
			t.Errorf("%d of %d audio packets arrived", n, frames)
		}
		if n := len(seen.Packets); n < 500 {
			t.Errorf("%d packets of video arrived, want what fits", n)
		}
		for len(seen.Packets) > 0 {
			p := <-seen.Packets
			if age := p.At.Sub(offered[p.TS]); age > time.Second {
				t.Fatalf("a packet is %s old", age)
			}
		}
	})
}

// Frames whose packets overtook each other on the path come out in order.
func TestJitterDoesNotShuffleFrames(t *testing.T) {
	path := relaytest.Path{Delay: 10 * time.Millisecond, Jitter: 8 * time.Millisecond}
	simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := mesh.Pair(t)
		track, sink := openTrack(t, ab, true), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		for i := range 500 {
			track.Offer(0, true, relaytest.RTP(uint16(i), uint32(i), true, 800))
			time.Sleep(3 * time.Millisecond)
		}
		time.Sleep(time.Second)
		for i := range 500 {
			if p := relaytest.Await(t, sink.Packets, "packet"); p.Seq != uint16(i) {
				t.Fatalf("packet %d came as number %d", p.Seq, i)
			}
		}
	})
}

func TestPeerThatDoesNotReadLosesTheLink(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, ab, _ := mesh.Pair(t)
		release := make(chan struct{})
		b.OnMessage(func(relaytest.Message) { <-release })
		p := relaytest.Permit(t, ab.Peer(), 1, "r", residency.ClassSignalling)
		var err error
		began := time.Now()
		for err == nil && time.Since(began) < time.Minute {
			err = ab.Send(p, 1, make([]byte, 64<<10))
			time.Sleep(20 * time.Millisecond)
		}
		if le := linkError(t, err); le.Code != wire.CodeOverload {
			t.Errorf("send: %v", le)
		}
		if took := time.Since(began); took < 2*time.Second || took > 5*time.Second {
			t.Errorf("gave up after %s", took)
		}
		relaytest.Await(t, a.Down, "link is down")
		close(release)
		synctest.Wait()
	})
}

// More than the outbox holds ends the link at once: nobody waits for room in it.
func TestTooMuchAtOnceEndsTheLink(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, ab, _ := mesh.Pair(t)
		release := make(chan struct{})
		b.OnMessage(func(relaytest.Message) { <-release })
		p := relaytest.Permit(t, ab.Peer(), 1, "r", residency.ClassSignalling)
		began, sent := time.Now(), 0
		var err error
		for ; err == nil && sent < 64<<20; sent += 64 << 10 {
			err = ab.Send(p, 1, make([]byte, 64<<10))
		}
		if le := linkError(t, err); le.Code != wire.CodeOverload || sent < 16<<20 {
			t.Errorf("after %d bytes: %v", sent, le)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("Send waited, %s in all", took)
		}
		relaytest.Await(t, a.Down, "link is down")
		close(release)
		synctest.Wait()
	})
}

// A message that waited while the policy changed does not leave.
func TestQueuedMessageIsCheckedAgain(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		mesh.Configure = func(_ residency.NodeName, c *relay.Config) {
			c.SendTimeout, c.DeadAfter = 20*time.Second, 30*time.Second
		}
		a, b, ab, _ := mesh.Pair(t)
		time.Sleep(time.Second)
		mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{Loss: 1})
		p := relaytest.Permit(t, ab.Peer(), 1, "r", residency.ClassSignalling)
		for range 10 { // more than QUIC takes without an acknowledgement
			if err := ab.Send(p, 1, make([]byte, 200<<10)); err != nil {
				t.Fatal(err)
			}
		}
		a.Epoch.Store(2)
		mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{Delay: time.Millisecond})
		time.Sleep(15 * time.Second)
		if refused, arrived := ab.Stats().Drops["refused"], len(b.Messages); refused == 0 || int(refused)+arrived != 10 {
			t.Errorf("%d messages refused, %d arrived; want some refused and 10 together", refused, arrived)
		}
	})
}
