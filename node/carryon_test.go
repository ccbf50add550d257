package node

import (
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// toldOfRecording reports whether a problem of the recording was pushed to a client.
func (c *client) toldOfRecording(problem string) bool {
	for _, p := range c.data {
		if u := p.GetUser(); u.GetTopic() == room.TopicRecording && p.ParticipantIdentity == "" && strings.Contains(string(u.Payload), problem) {
			return true
		}
	}
	return false
}

// TestRecordingGoesOnElsewhere loses the node that records a room and is its home: the
// recording goes on at another origin of the zone, as a part that says which it follows.
// When that is lost, too, no origin of the zone is left, and people are told so.
func TestRecordingGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "nyc US origin", "waw PL")
	waw := m.node("waw")
	anna, bob := enter(t, waw, "town", "anna", preset("eea-only")), enter(t, waw, "town", "bob", preset("eea-only"))
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	bob.hears(camera)
	first, refusal := record(t, waw, "town", "start")
	if refusal != nil {
		t.Fatal(refusal)
	}
	bob.await("sees that it is recorded", func() bool { return bob.room.ActiveRecording })
	other := residency.NodeName("par")
	if first.Node == "par" {
		other = "fra"
	}
	if home := waw.home(room.Record{Name: "town", Policy: "eea-only"}); home != first.Node {
		t.Fatalf("%s records, and %s is home", first.Node, home)
	}
	eventually(t, "the other origin knows of it", func() bool {
		r, ok, err := m.node(other).store.load(t.Context(), "town")
		return ok && err == nil && r.Recording != nil
	})
	m.halt(first.Node)
	var second *room.Recording
	eventually(t, "it is recorded elsewhere", func() bool {
		second = waw.rooms.get("town").Snapshot().Record.Recording
		return second != nil && second.Node == other && second.ID != first.ID
	})
	bob.await("is told what happened", func() bool { return bob.toldOfRecording("is gone") })
	bob.await("sees that it is recorded again", func() bool { return bob.room.ActiveRecording })
	bob.hears(camera)
	if _, refusal := record(t, waw, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	info := finished(t, m.node(other), second.ID)
	if a := info.After; a == nil || string(a.ID) != first.ID || a.Node != first.Node || a.Part != 2 || second.Part != 2 || a.Gap <= 0 || a.Gap > 30*time.Second {
		t.Errorf("the second part says %+v", info.After)
	}
	if len(info.Tracks) != 1 || info.Size() == 0 {
		t.Errorf("it has %+v", info.Tracks)
	}

	third, refusal := record(t, waw, "town", "start")
	if refusal != nil || third.Node != other {
		t.Fatal(third, refusal)
	}
	bob.await("sees that it is recorded", func() bool { return bob.room.ActiveRecording })
	m.halt(other)
	eventually(t, "people know that it does not go on", func() bool {
		rec := waw.rooms.get("town").Snapshot().Record
		return rec.Recording == nil && strings.Contains(rec.RecordingProblem, "is gone")
	})
	if list, err := m.node("nyc").vault.List(); err != nil || len(list) > 0 {
		t.Errorf("outside the zone: %+v, %v", list, err)
	}
}
