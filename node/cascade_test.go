package node

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// cascadeMesh is a mesh whose nodes send a track to so many others, and no more.
func cascadeMesh(t *testing.T, fanOut int, places ...string) *testMesh {
	t.Helper()
	return newMeshOf(t, testBundle(1), func(_ *testMesh, c *Config) { c.FanOut = fanOut }, places...)
}

// ways are the links by which a track goes, as the nodes of the room see it: who
// sends to whom. A node that is to get it from nobody is not in it.
func (m *testMesh) ways(track string) map[residency.NodeName][]residency.NodeName {
	out := map[residency.NodeName][]residency.NodeName{}
	for name, n := range m.nodes {
		for _, f := range n.flowsOf("town") {
			if f.Track == track && len(f.To) > 0 {
				out[name] = f.To
			}
		}
	}
	return out
}

func (n *testNode) flowsOf(name string) []room.Flow {
	r := n.rooms.get(name)
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := r.Part(ctx, "")
	if err != nil {
		return nil
	}
	return p.Flows
}

// tree waits until a track goes to so many nodes by a tree in which nobody sends to
// more than fanOut others and nobody gets it twice, and returns it.
func (m *testMesh) tree(track string, source residency.NodeName, fanOut, nodes int) (ways map[residency.NodeName][]residency.NodeName) {
	m.t.Helper()
	eventually(m.t, fmt.Sprintf("a tree of %d nodes", nodes), func() bool {
		ways = m.ways(track)
		reached, queue := map[residency.NodeName]bool{}, []residency.NodeName{source}
		for len(queue) > 0 {
			from := queue[0]
			queue = queue[1:]
			if len(ways[from]) > fanOut || reached[from] {
				return false
			}
			reached[from] = true
			queue = append(queue, ways[from]...)
		}
		senders := 0
		for from := range ways {
			if !reached[from] {
				senders++
			}
		}
		return len(reached) == nodes && senders == 0
	})
	return ways
}

// TestCascade sends a meeting's tracks over nodes that pass them on: whatever a node
// tells the others of itself, or its people do, it reaches those two hops away.
func TestCascade(t *testing.T) {
	m := cascadeMesh(t, 2, "fra DE origin", "par FR", "waw PL", "vie AT", "osl NO")
	fra := m.node("fra")
	anna := enter(t, fra, "town", "anna", nil)
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	sound := anna.publish("sound", livekit.TrackType_AUDIO)
	people := map[residency.NodeName]*client{}
	for _, name := range []residency.NodeName{"par", "waw", "vie", "osl"} {
		people[name] = enter(t, m.node(name), "town", "at-"+string(name), nil)
	}
	for _, c := range people {
		c.hears(camera)
		c.hears(sound)
	}
	ways := m.tree(camera, "fra", 2, 5)
	m.tree(sound, "fra", 2, 5)
	var far []residency.NodeName
	for name := range people {
		if !slices.Contains(ways["fra"], name) {
			far = append(far, name)
		}
	}
	if len(ways["fra"]) != 2 || len(far) != 2 {
		t.Fatalf("ways %v", ways)
	}

	t.Run("each link carries one copy", func(t *testing.T) {
		for _, to := range ways["fra"] {
			link, heard := fra.media(to), people[to].packets(camera)+people[to].packets(sound)
			for people[to].packets(camera)+people[to].packets(sound) < heard+80 {
				people[to].hears(camera)
			}
			crossed, arrived := fra.media(to)-link, people[to].packets(camera)+people[to].packets(sound)-heard
			if crossed > arrived+arrived/4+10 {
				t.Errorf("%d packets crossed the link to %s, where %d arrived", crossed, to, arrived)
			}
		}
		for name, c := range people { // while something moves, it comes both ways for a moment
			eventually(t, fmt.Sprintf("what goes to %s goes there once", name), func() bool {
				direct, before := slices.Contains(m.ways(camera)["fra"], name), fra.media(name)
				c.hears(camera)
				c.hears(camera)
				return direct == (fra.media(name) > before)
			})
		}
	})
	t.Run("mute", func(t *testing.T) {
		anna.mute(camera, true)
		c := people[far[0]]
		c.await("shown as muted", func() bool {
			return slices.ContainsFunc(c.people["anna"].Tracks, func(ti *livekit.TrackInfo) bool { return ti.Sid == camera && ti.Muted })
		})
		still := c.packets(camera)
		c.hears(sound)
		c.hears(sound)
		if got := c.packets(camera); got > still+2 {
			t.Errorf("%d packets of a muted camera", got-still)
		}
		anna.mute(camera, false)
		c.hears(camera)
	})
	t.Run("who is in the middle leaves", func(t *testing.T) {
		var middle residency.NodeName
		for from := range m.tree(camera, "fra", 2, 5) {
			if from != "fra" {
				middle = from
			}
		}
		people[middle].close()
		delete(people, middle)
		gone := time.Now()
		m.tree(camera, "fra", 2, 4)
		t.Logf("a tree without %s after %s", middle, time.Since(gone).Round(time.Millisecond))
		for _, c := range people {
			c.hears(camera)
			c.hears(sound)
		}
	})
}

// chain is a meeting in which a track goes fra → middle → end, one copy from each.
type chain struct {
	*testMesh
	anna        *client
	camera      string
	middle, end residency.NodeName
	people      map[residency.NodeName]*client
	fra         *testNode
}

func newChain(t *testing.T, bundle *residency.Bundle, policy string, places ...string) *chain {
	t.Helper()
	return newChainOf(t, webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, bundle, policy, places...)
}

func newChainOf(t *testing.T, codec webrtc.RTPCodecCapability, bundle *residency.Bundle, policy string, places ...string) *chain {
	t.Helper()
	m := newMeshOf(t, bundle, func(_ *testMesh, c *Config) { c.FanOut = 1 }, places...)
	c := &chain{testMesh: m, people: map[residency.NodeName]*client{}, fra: m.node("fra")}
	c.anna = enter(t, c.fra, "town", "anna", preset(policy))
	c.camera = c.anna.publishAs(&livekit.AddTrackRequest{Cid: "camera", Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA, Name: "camera",
		Layers: []*livekit.VideoLayer{{Quality: livekit.VideoQuality_LOW, Width: 320, Height: 180}, {Quality: livekit.VideoQuality_MEDIUM, Width: 640, Height: 360}}}, codec)
	for name, n := range m.nodes {
		if name != "fra" {
			c.people[name] = enter(t, n, "town", "at-"+string(name), preset(policy))
		}
	}
	for _, p := range c.people {
		p.hears(c.camera)
	}
	ways := m.tree(c.camera, "fra", 1, len(places))
	c.middle = ways["fra"][0]
	c.end = ways[c.middle][0]
	return c
}

// small has everybody watch the smallest picture, and waits until no more travels.
func (c *chain) small() {
	for _, p := range c.people {
		p.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_TrackSetting{
			TrackSetting: &livekit.UpdateTrackSettings{TrackSids: []string{c.camera}, Quality: livekit.VideoQuality_LOW}}})
	}
	c.anna.await("may send the smallest picture alone", func() bool {
		for _, q := range slices.Backward(c.anna.asked) {
			if q.TrackSid == c.camera {
				return slices.ContainsFunc(q.SubscribedQualities, func(s *livekit.SubscribedQuality) bool {
					return s.Quality == livekit.VideoQuality_MEDIUM && !s.Enabled
				})
			}
		}
		return false
	})
	for _, p := range c.people {
		p.hears(c.camera)
		p.hears(c.camera)
	}
}

// TestCascadeMoves moves a track from the node in the middle to the publisher's: the
// other end misses nothing.
func TestCascadeMoves(t *testing.T) {
	for what, codec := range map[string]webrtc.RTPCodecCapability{
		"streams":           {MimeType: webrtc.MimeTypeVP8, ClockRate: 90000},
		"one of all layers": {MimeType: webrtc.MimeTypeVP9, ClockRate: 90000, SDPFmtpLine: "profile-id=0"},
	} {
		t.Run(what, func(t *testing.T) { cascadeMoves(t, codec) })
	}
}

func cascadeMoves(t *testing.T, codec webrtc.RTPCodecCapability) {
	c := newChainOf(t, codec, testBundle(1), "global", "fra DE origin", "waw PL", "vie AT")
	end, over := c.people[c.end], c.people[c.middle]
	if codec.MimeType == webrtc.MimeTypeVP9 {
		c.small()
	}
	flow := end.flow(c.camera)
	steady(t, func() string { // what waits in a node that is halted is dropped
		flow.since()
		for range 2 {
			over.want(c.camera, false)
			eventually(t, "it comes straight from fra", func() bool {
				w := c.ways(c.camera)
				return slices.Equal(w["fra"], []residency.NodeName{c.end}) && len(w) == 1
			})
			end.hears(c.camera)
			over.want(c.camera, true)
			over.hears(c.camera)
			c.tree(c.camera, "fra", 1, 3)
			over.hears(c.camera)
		}
		end.hears(c.camera)
		missing, pause := flow.since()
		t.Logf("longest pause %s", pause)
		if missing > 0 {
			return fmt.Sprintf("%d packets are lost by moving", missing)
		}
		return ""
	})
}

// TestCascadePolicy tightens the policy so that the node in the middle may have the
// room no longer: nothing goes there, and the end gets it another way.
func TestCascadePolicy(t *testing.T) {
	b := testBundle(1)
	c := newChain(t, b, "eea-only", "fra DE origin", "waw PL", "vie AT")
	middle := c.node(c.middle)
	next := testBundle(2)
	z := next.Policies["eea-only"].Zones[residency.ClassMedia]
	z.Countries = slices.DeleteFunc(slices.Clone(z.Countries), func(x residency.Country) bool { return x == middle.cfg.Self.Country })
	next.Policies["eea-only"].Zones = zones(z)
	at := lived()
	c.adopt(next)
	promptly(t, time.Second-(lived()-at), "nothing goes to the node that may have it no more", func() bool {
		return !serves(c.fra, middle) && !serves(middle, c.node(c.end))
	})
	to, from := c.fra.media(c.middle), middle.media(c.end)
	c.people[c.end].hears(c.camera)
	c.people[c.end].hears(c.camera)
	if c.fra.media(c.middle) != to || middle.media(c.end) != from {
		t.Error("packets went to and from a node that may not have them")
	}
}

// TestCascadeEdgeOutside keeps an edge that is there for its own people alone from
// passing anything on, whatever that costs.
func TestCascadeEdgeOutside(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, testBundle(1), func(_ *testMesh, c *Config) { c.FanOut = 1 }, "fra DE origin", "nyc US", "waw PL")
	anna := enter(t, m.node("fra"), "town", "anna", nil)
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, m.node("nyc"), "town", "eve", nil)
	eve.hears(camera)
	wanda := enter(t, m.node("waw"), "town", "wanda", nil)
	wanda.hears(camera)
	eve.hears(camera)
	ways := m.tree(camera, "fra", 1, 3)
	if !slices.Equal(ways["fra"], []residency.NodeName{"waw"}) || !slices.Equal(ways["waw"], []residency.NodeName{"nyc"}) {
		t.Errorf("ways %v", ways)
	}
	if n := m.node("nyc").media("waw") + m.node("nyc").media("fra"); n > 0 {
		t.Errorf("nyc has sent %d packets", n)
	}
}

// TestCascadeMiddleStops stops the node in the middle: the end gets the track another
// way.
func TestCascadeMiddleStops(t *testing.T) {
	c := newChain(t, testBundle(1), "global", "fra DE origin", "waw PL", "vie AT")
	end := c.people[c.end]
	c.people[c.middle].close()
	c.halt(c.middle)
	end.hears(c.camera)
	c.tree(c.camera, "fra", 1, 2)
	end.hears(c.camera)
	if _, pause := end.flow(c.camera).since(); pause > 2*time.Second {
		t.Errorf("nothing came for %s", pause)
	} else {
		t.Logf("longest pause %s", pause)
	}
}

// TestCascadeStops takes back what lets a track go on, and looks two hops away: a
// permission, the consent to its recording, the policy's leave to travel in clear.
func TestCascadeStops(t *testing.T) {
	t.Parallel()
	c := newChain(t, testBundle(1), "consent", "fra DE", "waw PL origin", "vie AT origin")
	middle, end := c.people[c.middle], c.people[c.end]
	silent := func(who, other *client, track string) {
		t.Helper()
		eventually(t, who.identity+" gets none", func() bool {
			n := who.packets(track)
			other.hears(track)
			return who.packets(track) == n
		})
	}

	t.Run("permission", func(t *testing.T) {
		allow := func(p *livekit.SubscriptionPermission) {
			c.anna.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_SubscriptionPermission{SubscriptionPermission: p}})
		}
		only := func(who *client) *livekit.SubscriptionPermission {
			return &livekit.SubscriptionPermission{TrackPermissions: []*livekit.TrackPermission{{ParticipantIdentity: who.identity, AllTracks: true}}}
		}
		allow(only(middle))
		silent(end, middle, c.camera)
		eventually(t, "nothing goes to the end", func() bool {
			return !serves(c.node(c.middle), c.node(c.end)) && !serves(c.fra, c.node(c.end))
		})
		allow(only(end))
		end.hears(c.camera)
		silent(middle, end, c.camera)
		eventually(t, "nothing goes to the middle", func() bool { return !serves(c.fra, c.node(c.middle)) })
		allow(&livekit.SubscriptionPermission{AllParticipants: true})
		middle.hears(c.camera)
		end.hears(c.camera)
	})

	t.Run("consent", func(t *testing.T) {
		started, refusal := record(t, c.fra, "town", "start")
		if refusal != nil || started.Node == "fra" {
			t.Fatal(started, refusal)
		}
		recorder := c.node(started.Node)
		voice := c.ending(started.Node)
		c.anna.agrees(started.ID)
		grows(t, recorder, started.ID, voice)
		c.anna.agrees("")
		eventually(t, "it is not recorded any more", func() bool { return recorded(t, recorder, started.ID)[voice].Finished })
		size := recorded(t, recorder, started.ID)[voice].Size
		c.people[started.Node].hears(voice)
		if more := recorded(t, recorder, started.ID)[voice].Size - size; more != 0 {
			t.Errorf("%d bytes of it were recorded afterwards", more)
		}
	})

	t.Run("encryption", func(t *testing.T) {
		next := testBundle(2)
		next.Policies["consent"].E2EE = residency.E2EERequired
		c.adopt(next)
		within(t, patience, "what is not encrypted goes nowhere", func() bool {
			return !serves(c.fra, c.node(c.middle)) && !serves(c.fra, c.node(c.end)) && !serves(c.node(c.middle), c.node(c.end))
		})
		sealed := c.anna.publishAs(&livekit.AddTrackRequest{Cid: "sealed", Type: livekit.TrackType_AUDIO, Source: livekit.TrackSource_MICROPHONE, Encryption: livekit.Encryption_GCM},
			webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
		ways := c.tree(sealed, "fra", 1, 3)
		far := c.people[ways[ways["fra"][0]][0]]
		far.hears(sealed)
		far.await("knows that it is encrypted", func() bool {
			return slices.ContainsFunc(far.people["anna"].Tracks, func(ti *livekit.TrackInfo) bool {
				return ti.Sid == sealed && ti.Encryption == livekit.Encryption_GCM
			})
		})
	})
}

// ending publishes sound until a track comes to a node over another. Where it goes
// depends on its id, unless one way has come out quicker by more than that weighs:
// then all go straight to the node, and the last of them is taken.
func (c *chain) ending(node residency.NodeName) (voice string) {
	c.t.Helper()
	for i := range 6 {
		voice = c.anna.publish(fmt.Sprintf("voice-%d", i), livekit.TrackType_AUDIO)
		for _, p := range c.people {
			p.hears(voice)
		}
		if c.tree(voice, "fra", 1, 3)["fra"][0] != node {
			return voice
		}
	}
	c.t.Logf("every track goes to %s straight", node)
	return voice
}
