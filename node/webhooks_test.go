package node

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	lk "github.com/livekit/protocol/webhook"

	"github.com/domicile/domicile/residency"
)

// listener is a program that is told what happens, and believes LiveKit's own library.
type listener struct {
	mu   sync.Mutex
	told []*livekit.WebhookEvent
	bad  []error
}

func (l *listener) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	ev, err := lk.ReceiveWebhookEvent(r, auth.NewSimpleKeyProvider("devkey", testKeys["devkey"]))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.bad = append(l.bad, err)
		return
	}
	l.told = append(l.told, ev)
}

// of are the events of a room, each with whom or what it is about.
func (l *listener) of(room string) (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.told {
		if e.Room.GetName() == room {
			text := e.Event
			if e.Participant != nil {
				text += " " + e.Participant.Identity
			}
			if e.Track != nil {
				text += "/" + e.Track.Name
			}
			list = append(list, text)
		}
	}
	return list
}

// find returns the first event of a kind.
func (l *listener) find(kind string) *livekit.WebhookEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.told, func(e *livekit.WebhookEvent) bool { return e.Event == kind }); i >= 0 {
		return l.told[i]
	}
	return nil
}

// TestWebhooks has two programs told of meetings over two nodes, an egress and a
// recording among them: the one in the zone of the room's metadata hears everything once
// and in order, the one that is declared elsewhere hears nothing, and neither does the
// first of a room whose policy keeps it away.
func TestWebhooks(t *testing.T) {
	b := testBundle(1)
	french := *b.Policies["global"]
	french.Name, french.Zones = "french", zones(residency.Zone{Name: "France", Countries: []residency.Country{"FR"}})
	for _, c := range []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat, residency.ClassRecording} {
		french.Zones[c] = b.Policies["eea-only"].Zones[c]
	}
	b.Policies["french"] = &french
	var inside, outside listener
	here, there := httptest.NewServer(&inside), httptest.NewServer(&outside)
	t.Cleanup(here.Close)
	t.Cleanup(there.Close)
	m := newMeshOf(t, b, func(_ *testMesh, cfg *Config) {
		cfg.Webhooks = []Webhook{
			{URL: here.URL, APIKey: "devkey", Recipient: residency.Recipient{Name: "inside", Country: "DE"}},
			{URL: there.URL, APIKey: "devkey", Recipient: residency.Recipient{Name: "outside", Country: "US"}},
		}
	}, "fra DE origin", "par FR origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")

	anna := enter(t, fra, "town", "anna", nil)
	eve := enter(t, nyc, "town", "eve", nil)
	anna.sees("eve")
	camera := eve.publish("camera", livekit.TrackType_VIDEO)
	anna.hears(camera)
	eventually(t, "the track is told of", func() bool { return inside.find("track_published") != nil })
	api, ctx := recorders(t, fra, auth.VideoGrant{RoomRecord: true})
	one, err := api.StartParticipantEgress(ctx, &livekit.ParticipantEgressRequest{RoomName: "town", Identity: "eve", FileOutputs: toVault("eve")})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "something is recorded", func() bool {
		return inside.find("recording_started") != nil && nyc.media(nyc.rooms.get("town").Snapshot().Record.Recording.Node) > 50
	})
	if _, err := api.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: one.EgressId}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the egress is told of", func() bool { return inside.find("egress_ended") != nil })
	eventually(t, "the end of the recording is told of", func() bool { return inside.find("recording_ended") != nil })
	eve.close()
	eventually(t, "eve's leaving is told of", func() bool { return slices.Contains(inside.of("town"), "participant_left eve") })
	if err := (service{fra.Node}).DeleteRoom(t.Context(), "town"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end is told of", func() bool { return inside.find("room_finished") != nil })

	told := inside.of("town")
	people := slices.DeleteFunc(slices.Clone(told), func(s string) bool {
		return strings.HasPrefix(s, "egress_") || strings.HasPrefix(s, "recording_")
	})
	if got := strings.Join(people, ", "); got != "room_started, participant_joined anna, participant_joined eve, track_published eve/camera, "+
		"track_unpublished eve/camera, participant_left eve, participant_left anna, room_finished" {
		t.Errorf("told: %s", got)
	}
	for _, want := range []string{"egress_started", "egress_updated", "egress_ended", "recording_started", "recording_ended"} {
		if n := len(slices.DeleteFunc(slices.Clone(told), func(s string) bool { return s != want })); n != 1 {
			t.Errorf("%s: told %d times", want, n)
		}
	}
	if e := inside.find("egress_ended").EgressInfo; e.EgressId != one.EgressId || e.Status != livekit.EgressStatus_EGRESS_COMPLETE || e.FileResults[0].Size == 0 {
		t.Errorf("got %v", e)
	}
	if e := inside.find("participant_joined"); e.Room.Sid == "" || e.Participant.Sid == "" || e.Id == "" || e.CreatedAt == 0 {
		t.Errorf("got %v", e)
	}

	t.Run("a policy that keeps the program away", func(t *testing.T) {
		refused := func() (n uint64) {
			for _, node := range m.nodes {
				for _, h := range node.hooks {
					if h.Recipient.Name == "inside" {
						n += h.sender.Dropped("refused")
					}
				}
			}
			return n
		}
		pierre := enter(t, m.node("par"), "ville", "pierre", preset("french"))
		eventually(t, "the start and who joins are refused", func() bool { return refused() >= 2 }) // who goes at once is not told of
		pierre.close()
		if err := (service{m.node("par").Node}).DeleteRoom(t.Context(), "ville"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "who leaves and the end are refused, too", func() bool { return refused() >= 4 })
		if got := inside.of("ville"); len(got) > 0 {
			t.Errorf("told: %v", got)
		}
	})
	inside.mu.Lock()
	defer inside.mu.Unlock()
	if len(outside.told)+len(outside.bad) > 0 || len(inside.bad) > 0 {
		t.Errorf("outside heard %v; inside did not believe %v", outside.told, inside.bad)
	}
	for _, n := range m.nodes {
		if log := n.log.String(); strings.Contains(log, "anna") || strings.Contains(log, here.URL) {
			t.Error("a log names somebody, or where a program is")
		}
	}
}
