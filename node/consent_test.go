package node

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency/vault"
)

// agrees sets what a participant says of its consent: a recording's id, or "".
func (c *client) agrees(to string) {
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_UpdateMetadata{UpdateMetadata: &livekit.UpdateParticipantMetadata{
		Attributes: map[string]string{room.ConsentAttribute: to}}}})
}

// recorded are the tracks of a recording on this node.
func recorded(t *testing.T, n *testNode, id string) map[string]vault.TrackInfo {
	t.Helper()
	info, err := n.vault.Info(vault.ID(id))
	if err != nil {
		t.Fatal(err)
	}
	tracks := map[string]vault.TrackInfo{}
	for _, i := range info.Tracks {
		tracks[string(i.ID)] = i
	}
	return tracks
}

// grows waits until more of a track is on the disk than there is now.
func grows(t *testing.T, n *testNode, id, track string) {
	t.Helper()
	eventually(t, "the track is recorded", func() bool { return recorded(t, n, id)[track].Size > 0 })
	was := recorded(t, n, id)[track].Size
	eventually(t, "more of the track is recorded", func() bool { return recorded(t, n, id)[track].Size > was })
}

// answered is the log of a room's consents as its host gets it from a node: each
// identity's events, in their order.
func answered(t *testing.T, n *testNode, name string) map[string]string {
	t.Helper()
	status, body := download(t, n, "/api/rooms/"+name+"/consents", tokenFor(t, name, "host", host))
	var out struct{ Consents []room.ConsentLine }
	if err := json.Unmarshal([]byte(body), &out); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	found := map[string]string{}
	for _, l := range out.Consents {
		said := string(l.Event)
		if l.Token {
			said += " by token"
		}
		found[l.Identity] = strings.TrimPrefix(found[l.Identity]+", "+said, ", ")
		if l.Epoch == 0 || l.Policy == "" || l.Recording == "" || l.Node == "" || time.Since(time.UnixMilli(l.AtMS)) > time.Minute {
			t.Errorf("a line lacks something: %+v", l)
		}
	}
	return found
}

// TestConsent records a meeting whose policy asks for consent: nobody is recorded
// before they agreed to this very recording, wherever they are and whenever they
// came, and nobody is after they took it back (R9).
func TestConsent(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL")
	fra, par, waw := m.node("fra"), m.node("par"), m.node("waw")
	if _, err := (service{fra.Node}).CreateRoom(t.Context(), &livekit.CreateRoomRequest{Name: "town", RoomPreset: "consent", EmptyTimeout: 60, DepartureTimeout: 1}); err != nil {
		t.Fatal(err)
	}
	voiceless := func(g *control.Grants) {
		no := false
		g.RoomPreset, g.Video.CanUpdateOwnMetadata = "consent", &no
	}
	anna, bob := enter(t, waw, "town", "anna-canary", voiceless), enter(t, fra, "town", "bob", preset("consent"))
	annas, bobs := anna.publish("voice", livekit.TrackType_AUDIO), bob.publish("voice", livekit.TrackType_AUDIO)
	bob.hears(annas)
	anna.hears(bobs)
	anna.agrees("RE_another")

	started, refusal := record(t, waw, "town", "start")
	if refusal != nil || !started.Consent {
		t.Fatalf("%+v, %v", started, refusal)
	}
	at := m.node(started.Node)
	for _, c := range []*client{anna, bob} {
		c.await("is told that the room records", func() bool { return c.room.ActiveRecording })
	}
	before := bob.packets(annas)
	eventually(t, "bob hears on", func() bool { return bob.packets(annas) > before+20 })
	if got := recorded(t, at, started.ID); len(got) != 0 {
		t.Fatalf("recorded before anybody agreed: %+v", got)
	}

	anna.agrees(started.ID)
	grows(t, at, started.ID, annas)
	if got := recorded(t, at, started.ID); len(got) != 1 {
		t.Fatalf("anna alone agreed, recorded are %+v", got)
	}
	given := enter(t, waw, "town", "given", func(g *control.Grants) {
		g.RoomPreset, g.Attributes = "consent", map[string]string{room.ConsentAttribute: room.ConsentGiven}
	})
	givens := given.publish("voice", livekit.TrackType_AUDIO)
	late := enter(t, fra, "town", "late", preset("consent"), "attributes=eyJkb21pY2lsZS5jb25zZW50IjoiZ2l2ZW4ifQ") // says "given" itself
	lates := late.publish("voice", livekit.TrackType_AUDIO)
	grows(t, at, started.ID, givens)
	anna.hears(lates)
	if _, ok := recorded(t, at, started.ID)[lates]; ok {
		t.Error("who came late is recorded without having agreed")
	}

	withdrawn := time.Now()
	anna.agrees("")
	given.agrees("")
	for _, id := range []string{annas, givens} {
		eventually(t, "who withdraws is not recorded any more", func() bool { return recorded(t, at, started.ID)[id].Finished })
	}
	t.Logf("both files were complete %s after the withdrawal", time.Since(withdrawn).Round(time.Millisecond))
	size := recorded(t, at, started.ID)[annas].Size
	late.agrees(started.ID)
	grows(t, at, started.ID, lates)
	bob.agrees("")
	bob.hears(annas) // she is still heard, only not recorded
	if again := recorded(t, at, started.ID)[annas].Size; again != size {
		t.Errorf("%d bytes of her were recorded after she had withdrawn", again-size)
	}
	if _, ok := recorded(t, at, started.ID)[bobs]; ok {
		t.Error("bob never agreed and is recorded")
	}
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	finished(t, at, started.ID)

	for _, c := range []*client{anna, bob, given, late} {
		c.close()
	}
	eventually(t, "the room has ended", func() bool {
		return fra.rooms.get("town") == nil && par.rooms.get("town") == nil && waw.rooms.get("town") == nil
	})
	for _, n := range []*testNode{fra, par} { // one of them has written it, the other asks
		got := answered(t, n, "town")
		given := got["given"] == "notice, given by token, withdrawn" || got["given"] == "given by token, notice, withdrawn" // it knows both at once, or one after the other
		if len(got) != 4 || got["anna-canary"] != "notice, given, withdrawn" || got["bob"] != "notice, declined" || !given || got["late"] != "notice, given" {
			t.Errorf("the log of node %s says %v", n.cfg.Self.Name, got)
		}
		for _, who := range []string{tokenFor(t, "town", "guest", nil), tokenFor(t, "elsewhere", "host", host)} {
			if status, body := download(t, n, "/api/rooms/town/consents", who); status != http.StatusForbidden {
				t.Errorf("somebody else gets %d %s", status, body)
			}
		}
	}
	for format, want := range map[string]string{"csv": "at,identity,name,event,recording,by,node,policy,version,connection\r\n", "xlsx": "PK"} {
		if status, body := download(t, fra, "/api/rooms/town/consents?format="+format, tokenFor(t, "town", "host", host)); status != http.StatusOK || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %.200s", format, status, body)
		}
	}
	if onDisk(t, at, "consents", "anna-canary") != 1 || onDisk(t, waw, "consents", "anna-canary") != 0 {
		t.Error("the log is not where it should be")
	}
}
