package room

import (
	"testing"

	"github.com/domicile/domicile/relay"
)

// FuzzMessage gives every kind of message to a room: whatever a node sends, the
// room goes on, under its own policy, and nobody is in it whom the gate refuses.
func FuzzMessage(f *testing.F) {
	rec := Record{Name: "town", SID: "RM_town", Policy: "closed"}
	presence := Presence{Node: "waw", Participants: 1}
	for kind, m := range map[relay.Kind]any{
		KindHello:  Hello{Presence: presence, Record: rec},
		KindRoster: Roster{Home: "waw", Seq: 1, Record: rec, Nodes: []Presence{presence}},
		KindParticipants: Participants{Presence: presence, Whole: true, Here: []string{"PA_a"}, Left: []string{"PA_b"}, Tell: true,
			Changed: []ParticipantRecord{recordOf(f, 1, person("PA_a", "a", "TR_a"))}},
		KindSubscribe:   Subscribe{Track: "TR_a", Layers: 7},
		KindTrackOpen:   TrackOpen{Track: "TR_a", Alias: 1, Available: 1},
		KindTrackClosed: TrackClosed{Track: "TR_a", Reason: "r"},
		KindKeyframe:    Keyframe{Track: "TR_a", Layer: 2},
		KindLayers:      Layers{Track: "TR_a", Available: 255},
		KindData:        Data{Reliable: true, Packet: []byte{0x08, 0x01}, Prev: 1},
		KindSpeaking:    Speaking{Speakers: []Speaker{{SID: "PA_x", Level: 0.5}}},
		KindQuality:     Qualities{List: []Quality{{SID: "PA_x", Level: 1, Score: 2}}},
		KindDataAsk:     DataAsk{Publisher: "PA_x", After: 1},
		KindDataHead:    DataHead{Publisher: "PA_x", Seq: 2, Skip: true},
	} {
		f.Add(uint16(kind), true, encode(m))
	}
	f.Add(uint16(0xffff), false, []byte("{"))
	f.Fuzz(func(t *testing.T, kind uint16, home bool, body []byte) {
		s := newStage(t, "closed")
		if !home {
			s.at = "waw"
			s.doHome(s.now)
		}
		s.has(t, "waw", false, person("PA_x", "x", "TR_x"))
		s.doMessage("waw", relay.Kind(kind), body)
		s.doMessage("nyc", relay.Kind(kind), body)
		s.doTick(s.now)
		if s.record.Policy != "closed" {
			t.Errorf("policy %q", s.record.Policy)
		}
		if s.remotes["nyc"] != nil && len(s.remotes["nyc"].participants) > 0 {
			t.Error("nyc has participants in a closed room")
		}
		for _, tr := range s.tracks {
			if tr.node != "waw" || len(tr.serving) > 0 {
				t.Errorf("track %+v", tr)
			}
		}
		ReadHello(body) //nolint:errcheck // it must only not panic
	})
}
