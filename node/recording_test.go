package node

import (
	"context"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"

	films "github.com/domicile/domicile/node/record"
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

// gapIn is the first gap of a cause in a track in which so many packets are missing, as
// `recordings verify` prints it; nil if there is none.
func gapIn(t *testing.T, n *testNode, id vault.ID, track string, c films.Cause, least int) *films.Gap {
	t.Helper()
	r, err := n.vault.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	checks, err := films.Verify(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range checks {
		for _, g := range check.Gaps {
			if string(check.ID) == track && g.Cause == c && g.Packets >= least {
				return &g
			}
		}
	}
	return nil
}

// interrupts mutes a track, loses packets of it and is away for a while, each until the
// recording says so.
func (c *client) interrupts(t *testing.T, n *testNode, other *client, id vault.ID, track string) {
	t.Helper()
	marked := func(cause films.Cause, least int) {
		t.Helper()
		eventually(t, "the recording says "+cause.String(), func() bool { return gapIn(t, n, id, track, cause, least) != nil })
	}
	c.mute(track, true)
	marked(films.Muted, 0)
	c.mute(track, false)
	other.hears(track)

	c.loses.Store(5)
	marked(films.Loss, 5)

	c.still.Store(true)
	c.ws.CloseNow() //nolint:errcheck // it is to be lost
	marked(films.Away, 0)
	c.await("the loss is noticed", func() bool { return c.ended })
	c.back(t, n)
	c.still.Store(false)
	other.hears(track)
}

// TestRecordingLandsOnOrigin starts a recording on a node that stores nothing.
func TestRecordingLandsOnOrigin(t *testing.T) {
	t.Parallel()
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
	bob.interrupts(t, fra, eve, vault.ID(started.ID), voice)
	if _, refusal := record(t, nyc, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	info := finished(t, fra, started.ID)
	for _, cause := range []films.Cause{films.Muted, films.Loss, films.Away} {
		if g := gapIn(t, fra, info.ID, voice, cause, 0); g == nil || g.ToMS <= g.FromMS {
			t.Errorf("the finished recording says of %q %+v", cause, g)
		}
	}
	if g := gapIn(t, fra, info.ID, camera, films.Muted, 0); g != nil {
		t.Errorf("the camera was not muted: %+v", g)
	}
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
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	for policy, why := range map[string]string{"unrecorded": "does not allow"} {
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
		token := tokenFor(t, "unrecorded", "guest", ungranted)
		refusal := call(t, m.node("waw"), "POST", "/api/rooms/unrecorded/recording", token, `{"action":"start"}`, nil)
		if refusal == nil || refusal.Code != CodeForbidden {
			t.Errorf("%v", refusal)
		}
	})
}

// TestRecordingByPolicy meets under a policy that has every meeting recorded: it begins
// with the first participant, records nobody who has not agreed, outlasts the host's wish
// to stop it, and ends with the room's last participant.
func TestRecordingByPolicy(t *testing.T) {
	t.Parallel()
	b := testBundle(1)
	always := *b.Policies["global"]
	always.Name, always.Recording = "always", residency.RecordingRule{Allowed: true, Notice: true, Consent: true, Always: true}
	b.Policies["always"] = &always
	m := newMesh(t, b, "fra DE origin")
	fra := m.node("fra")
	if _, err := (service{fra.Node}).CreateRoom(t.Context(), &livekit.CreateRoomRequest{Name: "board", RoomPreset: "always", EmptyTimeout: 60, DepartureTimeout: 1}); err != nil {
		t.Fatal(err)
	}
	anna, bob := enter(t, fra, "board", "anna", nil), enter(t, fra, "board", "bob", nil)
	voice, other := anna.publish("voice", livekit.TrackType_AUDIO), bob.publish("voice", livekit.TrackType_AUDIO)
	anna.await("sees that it is recorded", func() bool { return anna.room.ActiveRecording })
	id := fra.rooms.get("board").Snapshot().Record.Recording.ID
	anna.agrees(id)
	eventually(t, "her voice is recorded", func() bool {
		info, err := fra.vault.Info(vault.ID(id))
		return err == nil && len(info.Tracks) == 1 && string(info.Tracks[0].ID) == voice && info.Tracks[0].Size > 5000
	})
	if _, refusal := record(t, fra, "board", "stop"); refusal == nil || refusal.Code != CodeRefused || !strings.Contains(refusal.Error(), "every meeting recorded") {
		t.Errorf("the host stops it: %v", refusal)
	}
	anna.hears(other)
	if r := fra.rooms.get("board").Snapshot().Record.Recording; r == nil || r.ID != id {
		t.Errorf("it is recorded as %+v now", r)
	}
	anna.close()
	bob.close()
	if info := finished(t, fra, id); len(info.Tracks) != 1 {
		t.Errorf("recorded are %+v", info.Tracks)
	}
}

// TestRecorderIsNotHome records on one origin a room that is at home on another.
func TestRecorderIsNotHome(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL")
	waw := m.node("waw")
	anna := enter(t, waw, "town", "anna", nil)
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	home := waw.home(room.Record{Name: "town", Policy: "global"})
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
		eventually(t, "the recording goes on at home", func() bool {
			r := waw.rooms.get("town").Snapshot().Record.Recording
			return r != nil && r.Node == home && r.Part == 2
		})
	})
}

// TestRoomExpiry lets rooms end by their timeouts; what binds a name to a
// policy that is not the default stays.
func TestRoomExpiry(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL", "osl NO")
	waw, osl := m.node("waw"), m.node("osl")
	anna := enter(t, waw, "town", "anna", preset("eea-only"))
	olaf := enter(t, osl, "town", "olaf", nil)
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	olaf.hears(camera)
	home := waw.home(room.Record{Name: "town", Policy: "eea-only"})
	m.halt(home)
	olaf.hears(camera)
	var next *testNode
	eventually(t, "another node is home and knows both", func() bool {
		next = m.nodes[waw.home(room.Record{Name: "town", Policy: "eea-only"})]
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
