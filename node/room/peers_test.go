package room

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

var vp8 = sfu.Codec{MimeType: "video/VP8", ClockRate: 90000}

// TestOtherNodesParticipants keeps every node to its own participants and tracks.
func TestOtherNodesParticipants(t *testing.T) {
	s := newStage(t, "edge")
	s.has(t, "waw", false, person("PA_anna", "anna", "TR_anna"))
	s.has(t, "nyc", true, person("PA_eve", "eve"))
	if s.tracks["TR_anna"] == nil || s.count() != 2 {
		t.Fatalf("tracks %v, %d people", s.tracks, s.count())
	}

	t.Run("a sid of another node is not taken over", func(t *testing.T) {
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc", Participants: 2, Outside: true},
			Changed: []ParticipantRecord{recordOf(t, 9, person("PA_anna", "mallory"))}})
		if got := s.remotes["waw"].participants["PA_anna"].info.Identity; got != "anna" || s.remotes["nyc"].participants["PA_anna"] != nil {
			t.Errorf("anna is %q", got)
		}
		if s.tracks["TR_anna"] == nil {
			t.Error("anna's track is gone")
		}
	})
	t.Run("nor is a track", func(t *testing.T) {
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc", Participants: 1, Outside: true},
			Changed: []ParticipantRecord{recordOf(t, 2, person("PA_eve", "eve", "TR_anna"))}})
		s.says("nyc", KindTrackClosed, TrackClosed{Track: "TR_anna"})
		s.says("nyc", KindLayers, Layers{Track: "TR_anna", Available: 7})
		s.says("nyc", KindTrackOpen, TrackOpen{Track: "TR_anna", Alias: 1})
		if tr := s.tracks["TR_anna"]; tr == nil || tr.node != "waw" || tr.ownerIdentity != "anna" || tr.media.Available != 1 {
			t.Errorf("got %+v", tr)
		}
	})
	t.Run("a goodbye in another's name is ignored", func(t *testing.T) {
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc", Participants: 1, Outside: true}, Left: []string{"PA_anna"}})
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "waw"}, Left: []string{"PA_anna"}, Whole: true})
		if s.remotes["waw"].participants["PA_anna"] == nil {
			t.Error("anna is gone")
		}
	})
	t.Run("where somebody is, is who says so", func(t *testing.T) {
		lie := person("PA_liar", "liar")
		lie.Region = "fra"
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc", Participants: 2, Outside: true},
			Changed: []ParticipantRecord{recordOf(t, 1, lie)}})
		if got := s.remotes["nyc"].participants["PA_liar"].info.Region; got != "nyc" {
			t.Errorf("region %q", got)
		}
	})
	t.Run("an older record changes nothing", func(t *testing.T) {
		s.says("waw", KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 1},
			Changed: []ParticipantRecord{recordOf(t, 1, person("PA_anna", "anna"))}})
		if s.tracks["TR_anna"] == nil {
			t.Error("an old record has ended the track")
		}
	})
	t.Run("whoever is not in the whole list has left", func(t *testing.T) {
		s.says("waw", KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 1}, Whole: true})
		if s.tracks["TR_anna"] != nil || len(s.remotes["waw"].participants) != 0 {
			t.Error("anna is still there")
		}
	})
}

// TestDataSender takes data only from participants of the node that sends it.
func TestDataSender(t *testing.T) {
	m := &remote{participants: map[string]*remoteParticipant{"PA_eve": {info: person("PA_eve", "eve")}}}
	for _, c := range []struct {
		name string
		pkt  *livekit.DataPacket
		want bool
	}{
		{"own", &livekit.DataPacket{ParticipantSid: "PA_eve", ParticipantIdentity: "eve"}, true},
		{"nobody", &livekit.DataPacket{}, false},
		{"another's", &livekit.DataPacket{ParticipantSid: "PA_anna", ParticipantIdentity: "anna"}, false},
		{"own sid, another's name", &livekit.DataPacket{ParticipantSid: "PA_eve", ParticipantIdentity: "anna"}, false},
		{"another's name inside", &livekit.DataPacket{ParticipantSid: "PA_eve", ParticipantIdentity: "eve",
			Value: &livekit.DataPacket_User{User: &livekit.UserPacket{ParticipantSid: "PA_eve", ParticipantIdentity: "anna"}}}, false},
	} {
		if got := m.sent(c.pkt); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestMeant checks whom a data packet is for.
func TestMeant(t *testing.T) {
	all := &livekit.DataPacket{ParticipantIdentity: "anna"}
	some := &livekit.DataPacket{ParticipantIdentity: "anna", DestinationIdentities: []string{"bob", "anna"}}
	older := &livekit.DataPacket{ParticipantIdentity: "anna", Value: &livekit.DataPacket_User{User: &livekit.UserPacket{DestinationIdentities: []string{"bob"}}}}
	for _, c := range []struct {
		pkt  *livekit.DataPacket
		who  string
		want bool
	}{{all, "bob", true}, {all, "anna", false}, {some, "bob", true}, {some, "anna", true}, {some, "carl", false}, {older, "bob", true}, {older, "carl", false}} {
		if got := meant(c.pkt, c.who); got != c.want {
			t.Errorf("%v for %s: %v", c.pkt, c.who, got)
		}
	}
}

// TestOutside lets a node outside the zone in only while it names somebody who
// is there with it.
func TestOutside(t *testing.T) {
	allowed := func(s *stage) bool {
		_, v := s.permit("nyc", residency.ClassMedia)
		return v.Allow
	}
	t.Run("it names nobody", func(t *testing.T) {
		s := newStage(t, "edge")
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc", Participants: 1, Outside: true}, Whole: true})
		if allowed(s) {
			t.Error("its word was enough")
		}
	})
	t.Run("its last one leaves", func(t *testing.T) {
		s := newStage(t, "edge")
		s.has(t, "nyc", true, person("PA_eve", "eve"))
		if !allowed(s) {
			t.Fatal("it is refused with a participant")
		}
		// It says only that she left, and not that nobody from outside is there.
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc", Participants: 1, Outside: true}, Left: []string{"PA_eve"}})
		if allowed(s) {
			t.Error("it is still allowed")
		}
	})
	t.Run("in a closed room", func(t *testing.T) {
		s := newStage(t, "closed")
		s.has(t, "nyc", true, person("PA_eve", "eve"))
		s.says("nyc", KindHello, Hello{Presence: Presence{Node: "nyc", Participants: 1, Outside: true}, Record: s.record})
		if allowed(s) || s.count() != 0 || len(s.Room.home.nodes) != 0 || s.remotes["nyc"] != nil {
			t.Errorf("nyc is in: %d people, nodes %v", s.count(), s.Room.home.nodes)
		}
	})
	t.Run("by an old roster", func(t *testing.T) {
		s := newStage(t, "edge")
		s.at = "waw"
		s.doHome(s.now)
		s.has(t, "nyc", true, person("PA_eve", "eve"))
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc"}, Whole: true})
		s.says("waw", KindRoster, Roster{Home: "waw", Seq: 1, Record: s.record, Nodes: []Presence{{Node: "nyc", Participants: 1, Outside: true}}})
		if s.remotes["nyc"] != nil && s.remotes["nyc"].heard && allowed(s) {
			t.Error("the roster outranks what the node said itself")
		}
	})
}

// TestRoster takes the home's word and nobody else's, and never another policy.
func TestRoster(t *testing.T) {
	s := newStage(t, "closed")
	s.at = "waw"
	s.doHome(s.now)
	renamed := renamed(s.record, "m")
	s.says("nyc", KindRoster, Roster{Home: "nyc", Seq: 5, Record: renamed})
	s.says("nyc", KindRoster, Roster{Home: "waw", Seq: 5, Record: renamed})
	if s.record.Metadata != "" {
		t.Fatal("a roster of nobody's home is taken")
	}
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 5, Record: renamed})
	if s.record.Metadata != "m" {
		t.Fatal("the home's roster is not taken")
	}
	older := renamed
	older.Metadata, older.Versions.Metadata.Write = "older", 0
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 4, Record: older})
	if s.record.Metadata != "m" {
		t.Fatal("an older roster is taken")
	}
	wider := renamed
	wider.Policy = "edge"
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 6, Record: wider})
	if !s.ended || s.record.Policy != "closed" {
		t.Errorf("ended %v, policy %q", s.ended, s.record.Policy)
	}
}

// TestRosterOfRestartedHome counts from the beginning again.
func TestRosterOfRestartedHome(t *testing.T) {
	s := newStage(t, "edge")
	s.at = "waw"
	s.doHome(s.now)
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 50, Record: s.record})
	stop := s.run(t)
	s.LinkDown("waw")
	s.LinkUp("waw")
	if err := s.call(t.Context(), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	stop()
	s.ended = false
	renamed := renamed(s.record, "new")
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 1, Record: renamed})
	if s.record.Metadata != "new" {
		t.Error("the restarted home is not listened to")
	}
}

// TestRestartedHomeLosesNobody keeps the others while a home that was started anew hears
// of them: the first to say hello to it is alone on its first roster.
func TestRestartedHomeLosesNobody(t *testing.T) {
	s := newStage(t, "edge")
	s.at = "waw"
	s.doHome(s.now)
	s.has(t, "nyc", true, person("PA_eve", "eve"))
	nodes := []Presence{{Node: "fra", Participants: 1}, {Node: "nyc", Participants: 1, Outside: true}}
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 50, Record: s.record, Nodes: nodes})
	s.later(time.Minute)
	s.LinkDown("waw")
	s.LinkUp("waw")
	for len(s.inbox) > 0 {
		(<-s.inbox)()
	}
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 1, Record: s.record, Nodes: nodes[:1]})
	if s.count() != 1 {
		t.Fatal("eve is gone before the home can have heard of her node")
	}
	s.later(linkGrace)
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 2, Record: s.record, Nodes: nodes[:1]})
	if s.count() != 0 {
		t.Error("eve stays for ever")
	}
}

// TestCrossedRoster keeps a node that has just spoken although a roster that was
// under way does not list it.
func TestCrossedRoster(t *testing.T) {
	s := newStage(t, "edge")
	s.at = "waw"
	s.doHome(s.now)
	s.has(t, "nyc", true, person("PA_eve", "eve"))
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 1, Record: s.record})
	if s.count() != 1 {
		t.Fatal("eve is gone at once")
	}
	s.now = s.now.Add(linkGrace)
	s.says("waw", KindRoster, Roster{Home: "waw", Seq: 2, Record: s.record})
	if s.count() != 0 {
		t.Error("eve stays for ever")
	}
}

// TestSilentNode lets the home forget a node whose goodbye was lost.
func TestSilentNode(t *testing.T) {
	s := newStage(t, "edge")
	hello := Hello{Presence: Presence{Node: "waw", Participants: 1}, Record: s.record}
	s.says("waw", KindHello, hello)
	s.now = s.now.Add(helloLost)
	s.doHome(s.now)
	if _, ok := s.Room.home.nodes["waw"]; !ok {
		t.Fatal("waw is forgotten too soon")
	}
	s.now = s.now.Add(time.Second)
	s.doHome(s.now)
	if _, ok := s.Room.home.nodes["waw"]; ok {
		t.Error("waw is still on the roster")
	}
	s.says("nyc", KindHello, Hello{Presence: Presence{Node: "waw", Participants: 1}, Record: s.record})
	if len(s.Room.home.nodes) != 0 {
		t.Error("nyc may say hello for waw")
	}
}

// TestExpiry follows the room's timeouts.
func TestExpiry(t *testing.T) {
	for policy, forgotten := range map[string]int{"edge": 1, "closed": 0} {
		s := newStage(t, policy)
		s.now = start.Add(defaultEmptyTimeout*time.Second - 1)
		if s.doExpire(s.now); s.ended {
			t.Fatal("it ends before anybody came")
		}
		s.has(t, "waw", false, person("PA_anna", "anna"))
		s.doExpire(s.now)
		s.has(t, "waw", false)
		s.doExpire(s.now)
		left := s.now
		s.now = left.Add(defaultDepartureTimeout*time.Second - 1)
		if s.doExpire(s.now); s.ended {
			t.Fatal("it ends too soon after the last one")
		}
		s.now = left.Add(defaultDepartureTimeout * time.Second)
		if s.doExpire(s.now); !s.ended || !s.Snapshot().Ended {
			t.Error("it does not end")
		}
		if len(s.forgot) != forgotten {
			t.Errorf("policy %s: forgot %q", policy, s.forgot)
		}
	}
}

// TestRecordingStates lets the home follow who records, and nobody else.
func TestRecordingStates(t *testing.T) {
	s := newStage(t, "edge")
	rec := s.record
	rec.Recording = &Recording{ID: "RE_1", Node: "waw", Country: "PL"}
	s.says("nyc", KindHello, Hello{Presence: Presence{Node: "nyc", Participants: 1, Outside: true, Recorder: true}, Record: rec})
	if s.record.Recording != nil {
		t.Fatal("nyc may state waw's recording")
	}
	s.says("waw", KindHello, Hello{Presence: Presence{Node: "waw", Recorder: true}, Record: rec})
	if s.record.Recording == nil || s.record.Recording.Node != "waw" {
		t.Fatal("waw's recording is not noted")
	}
	s.dropRemote("waw")
	s.doLostRecording(s.now)
	s.doLostRecording(s.now.Add(recorderGrace))
	if s.record.Recording == nil {
		t.Error("it is given up while people may still come")
	}
	s.doLostRecording(s.now.Add(nobodyWait))
	if s.record.Recording != nil || !strings.Contains(s.record.RecordingProblem, "waw is gone") {
		t.Errorf("got %+v", s.record)
	}
}

// TestHostileMessages drops what no node of ours sends.
func TestHostileMessages(t *testing.T) {
	s := newStage(t, "edge")
	long := strings.Repeat("x", 1<<20+1)
	bad := []*livekit.ParticipantInfo{
		{Identity: "a"}, {Sid: "PA_a"}, {Sid: "PA_a\r\na=x", Identity: "a"}, {Sid: "PA/../a", Identity: "a"},
		{Sid: long[:65], Identity: "a"}, {Sid: "PA_a", Identity: long[:2000]},
		{Sid: "PA_a", Identity: "a", Tracks: []*livekit.TrackInfo{{Sid: "TR a"}}},
		{Sid: "PA_a", Identity: "a", Tracks: []*livekit.TrackInfo{{Sid: "TR_a", Stream: "x\r\na=ice-pwd:1"}}},
		{Sid: "PA_a", Identity: "a", Tracks: make([]*livekit.TrackInfo, maxTracks+1)},
	}
	for i := range bad[8].Tracks {
		bad[8].Tracks[i] = &livekit.TrackInfo{Sid: fmt.Sprintf("TR_%d", i)}
	}
	presence := Presence{Node: "waw", Participants: 1}
	for i, p := range bad {
		b, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		m := Participants{Presence: presence, Changed: []ParticipantRecord{{Version: 1, Info: b}}}
		if _, err := decode[Participants](encode(m)); err == nil {
			t.Errorf("%d: %v is accepted", i, p)
		}
		s.says("waw", KindParticipants, m)
	}
	codec := recordOf(t, 1, person("PA_a", "a", "TR_a"))
	codec.Media["TR_a"] = TrackRecord{Codec: sfu.Codec{MimeType: "video/VP8\r\n"}}
	s.says("waw", KindParticipants, Participants{Presence: presence, Changed: []ParticipantRecord{codec}})
	for _, body := range []string{"", "{", "null", "[]", `{"presence":1}`, long, `{"record":{"name":"town"}}`} {
		for kind := KindHello; kind <= KindData+1; kind++ {
			s.doMessage("waw", kind, []byte(body))
		}
	}
	if s.count() != 0 || s.ended || len(s.Room.home.nodes) != 0 {
		t.Errorf("%d people, ended %v, nodes %v", s.count(), s.ended, s.Room.home.nodes)
	}
}
