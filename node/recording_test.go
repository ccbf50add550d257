package node

import (
	"context"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// finished waits until a recording is complete and returns it.
func finished(t *testing.T, n *testNode, id string) vault.Info {
	t.Helper()
	var info vault.Info
	eventually(t, "recording is complete", func() bool {
		infos, err := n.vault.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			if string(i.ID) == id {
				info = i
			}
		}
		return info.State == vault.StateFinished
	})
	return info
}

func record(t *testing.T, n *testNode, name, action string) (recordingJSON, *Refusal) {
	t.Helper()
	var out recordingJSON
	refusal := call(t, n, "POST", "/api/rooms/"+name+"/recording", tokenFor(t, name, "host", nil), `{"action":"`+action+`"}`, &out)
	return out, refusal
}

// TestRecordingLandsOnOrigin starts a recording on a node that stores nothing.
func TestRecordingLandsOnOrigin(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	bob := enter(t, fra, "town", "bob", nil)
	eve := enter(t, nyc, "town", "eve", nil)
	camera := eve.publish("camera", livekit.TrackType_VIDEO)
	voice := bob.publish("voice", livekit.TrackType_AUDIO)
	bob.hears(camera)

	started, refusal := record(t, nyc, "town", "start")
	if refusal != nil || !started.Active || started.Node != "fra" || started.Country != "DE" {
		t.Fatalf("got %+v, %v", started, refusal)
	}
	for _, c := range []*client{bob, eve} {
		c.await("sees that it is recorded", func() bool { return c.room.ActiveRecording })
	}
	again, refusal := record(t, nyc, "town", "start")
	if refusal != nil || again.ID != started.ID {
		t.Errorf("a second start: %+v, %v", again, refusal)
	}
	bob.hears(camera)
	eve.hears(voice)
	if _, refusal := record(t, nyc, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	info := finished(t, fra, started.ID)
	if len(info.Tracks) != 2 || info.Size() == 0 || info.Problem != nil {
		t.Errorf("got %+v", info)
	}
	for _, c := range []*client{bob, eve} {
		c.await("sees that it is over", func() bool { return !c.room.ActiveRecording })
	}
	if nyc.vault != nil || nyc.files != nil {
		t.Error("an edge has opened files")
	}

	t.Run("a room that ends leaves a finished file", func(t *testing.T) {
		started, refusal := record(t, fra, "town", "start")
		if refusal != nil {
			t.Fatal(refusal)
		}
		bob.hears(camera)
		if err := (service{nyc.Node}).DeleteRoom(context.Background(), "town"); err != nil {
			t.Fatal(err)
		}
		finished(t, fra, started.ID)
	})
}

// TestRecordingRefused asks where the policy says no.
func TestRecordingRefused(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	for policy, why := range map[string]string{"consent": "consent", "unrecorded": "does not allow"} {
		enter(t, m.node("waw"), policy, "bob", preset(policy))
		_, refusal := record(t, m.node("waw"), policy, "start")
		if refusal == nil || refusal.Code != CodeRefused || !strings.Contains(refusal.Error(), why) {
			t.Errorf("%s: %v", policy, refusal)
		}
	}
	if infos, err := m.node("fra").vault.List(); err != nil || len(infos) != 0 {
		t.Errorf("%v, %v", infos, err)
	}
	t.Run("not granted", func(t *testing.T) {
		token := tokenFor(t, "consent", "guest", ungranted)
		refusal := call(t, m.node("waw"), "POST", "/api/rooms/consent/recording", token, `{"action":"start"}`, nil)
		if refusal == nil || refusal.Code != CodeForbidden {
			t.Errorf("%v", refusal)
		}
	})
}

// TestRecorderIsNotHome records on one origin a room that is at home on another.
func TestRecorderIsNotHome(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL")
	waw := m.node("waw")
	anna := enter(t, waw, "town", "anna", nil)
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	home := waw.home("town", "global")
	other := residency.NodeName("fra")
	if home == "fra" {
		other = "par"
	}
	rec := waw.rooms.get("town").Snapshot().Record
	reply, err := waw.command(context.Background(), other, rec, command{Op: opRecord, Room: "town", Policy: rec.Policy})
	if err != nil || reply.Recording == nil || reply.Recording.Node != other {
		t.Fatalf("got %+v, %v", reply, err)
	}
	anna.await("sees that it is recorded", func() bool { return anna.room.ActiveRecording })
	for _, n := range m.nodes {
		eventually(t, "every node knows who records", func() bool {
			s := n.rooms.get("town").Snapshot()
			return s.Record.Recording != nil && s.Record.Recording.Node == other
		})
	}
	eventually(t, "the recorder gets the camera", func() bool { return waw.media(other) > 20 })
	if _, refusal := record(t, m.node(home), "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	if info := finished(t, m.node(other), reply.Recording.ID); len(info.Tracks) != 1 || string(info.Tracks[0].ID) != camera {
		t.Errorf("got %+v", info)
	}
	anna.await("sees that it is over", func() bool { return !anna.room.ActiveRecording })

	t.Run("the recorder goes away", func(t *testing.T) {
		if _, err := waw.command(context.Background(), other, rec, command{Op: opRecord, Room: "town", Policy: rec.Policy}); err != nil {
			t.Fatal(err)
		}
		anna.await("sees that it is recorded", func() bool { return anna.room.ActiveRecording })
		m.halt(other)
		anna.await("sees that it is not", func() bool { return !anna.room.ActiveRecording })
		eventually(t, "the room says why", func() bool {
			return strings.Contains(waw.rooms.get("town").Snapshot().Record.RecordingProblem, string(other))
		})
	})
}

// TestRoomExpiry lets rooms end by their timeouts; what binds a name to a
// policy that is not the default stays.
func TestRoomExpiry(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	for _, policy := range []string{"global", "eea-only"} {
		_, err := (service{fra.Node}).CreateRoom(context.Background(), &livekit.CreateRoomRequest{Name: policy, RoomPreset: policy, EmptyTimeout: 60, DepartureTimeout: 1})
		if err != nil {
			t.Fatal(err)
		}
		anna := enter(t, waw, policy, "anna", nil)
		anna.close()
	}
	for _, policy := range []string{"global", "eea-only"} {
		eventually(t, "the room ends", func() bool { return fra.rooms.get(policy) == nil && waw.rooms.get(policy) == nil })
	}
	if _, ok, _ := fra.store.load(context.Background(), "global"); ok {
		t.Error("a room of the default policy is not forgotten")
	}
	enter(t, waw, "eea-only", "anna", nil)
	if got := waw.rooms.get("eea-only").Snapshot().Record.Policy; got != "eea-only" {
		t.Errorf("the room has lost its policy and has %q", got)
	}
	eventually(t, "its home lives again", func() bool { return fra.rooms.get("eea-only") != nil })
}

// TestHomeStops stops the node that writes a room's record.
func TestHomeStops(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL", "osl NO")
	waw, osl := m.node("waw"), m.node("osl")
	anna := enter(t, waw, "town", "anna", preset("eea-only"))
	olaf := enter(t, osl, "town", "olaf", nil)
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	olaf.hears(camera)
	home := waw.home("town", "eea-only")
	m.halt(home)
	olaf.hears(camera)
	var next *testNode
	eventually(t, "another node is home and knows both", func() bool {
		next = m.nodes[waw.home("town", "eea-only")]
		if next == nil {
			return false
		}
		r := next.rooms.get("town")
		return r != nil && present(next, "town", "waw") && present(next, "town", "osl") && r.Snapshot().Record.Policy == "eea-only"
	})
	olaf.hears(camera)
	late := enter(t, next, "town", "late", nil)
	late.sees("anna", "olaf")
	anna.sees("olaf", "late")
	if rec, ok, _ := next.store.load(context.Background(), "town"); !ok || rec.Policy != "eea-only" {
		t.Errorf("the new home has not stored the record: %+v", rec)
	}
	if _, err := waw.resolve(context.Background(), resolveRequest{Spec: room.Record{Name: "town"}}); err != nil {
		t.Error(err)
	}
}
