package node

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// tenantBundle has a tenant whose rooms live in one country, on a node that
// serves nobody else, and one in the EEA.
func tenantBundle() *residency.Bundle {
	b := testBundle(1)
	b.Policies["pinned"] = &residency.Policy{Name: "pinned", Title: "RU", Zones: zones(residency.Zone{Name: "pinned", Countries: []residency.Country{"RU"}}), SingleOrigin: true}
	b.Tenants = []residency.Tenant{
		{Name: "eu", Policy: "eea-only", Policies: []string{"global"}, APIKeys: []string{"eu-key"}, Controller: "Example SE, Paris"},
		{Name: "ru", Policy: "pinned", APIKeys: []string{"ru-key"}, Controller: "Example OOO, Moscow"},
	}
	b.Nodes = []residency.Registered{{Name: "fra", Country: "DE"}, {Name: "mow", Country: "RU", Tenants: []string{"ru"}}}
	b.Overrides = onLoopback("fra", "mow")
	return b
}

// TestTenants walks two tenants through two nodes, one of which is one tenant's alone (R2).
func TestTenants(t *testing.T) {
	t.Parallel()
	m := newMesh(t, tenantBundle(), "fra DE origin", "mow RU origin")
	fra, mow := m.node("fra"), m.node("mow")
	ru := enter(t, mow, "standup", "ivan", signedBy("ru-key"))
	eu := enter(t, fra, "town", "anna", signedBy("eu-key"))

	t.Run("the record carries the tenant", func(t *testing.T) {
		rec, ok, err := fra.store.load(context.Background(), "town")
		if err != nil || !ok || rec.Tenant != "eu" || rec.Policy != "eea-only" {
			t.Errorf("stored: %+v, %v, %v", rec, ok, err)
		}
		if got := mow.rooms.get("standup").Snapshot().Record; got.Tenant != "ru" || got.Policy != "pinned" {
			t.Errorf("live: %+v", got)
		}
	})

	t.Run("the pinned node serves nobody else", func(t *testing.T) {
		for _, key := range []string{"eu-key", "devkey"} {
			status, text := refusedJoin(t, mow, "other", "eve", signedBy(key))
			if status != 403 || !strings.Contains(text, "node mow serves rooms of ru alone") || !strings.Contains(text, "use node fra instead") {
				t.Errorf("%s: %d %q", key, status, text)
			}
		}
		if mow.rooms.get("other") != nil || mow.rooms.get("town") != nil {
			t.Error("a room of somebody else is on the pinned node")
		}
	})

	t.Run("no class of anybody else's room goes there", func(t *testing.T) {
		for _, class := range residency.Classes() {
			if _, v := fra.permit(fra.rooms.get("town").Snapshot().Record, class, "mow", true); v.Allow {
				t.Errorf("%s: %+v", class, v)
			}
		}
		if _, v := fra.permit(room.Record{Name: "standup", Tenant: "ru"}, residency.ClassMedia, "mow", false); !v.Allow || v.Tenant != "ru" || v.Policy != "pinned" {
			t.Errorf("the tenant's own: %+v", v)
		}
	})

	t.Run("a room is another tenant's", func(t *testing.T) {
		for _, key := range []string{"ru-key", "devkey"} {
			status, text := refusedJoin(t, fra, "town", "eve", signedBy(key))
			if status != 403 || !strings.Contains(text, `room "town" is not of the tenant`) || strings.Contains(text, "eea-only") {
				t.Errorf("%s: %d %q", key, status, text)
			}
		}
	})

	t.Run("a tenant asks for what it may not have", func(t *testing.T) {
		status, text := refusedJoin(t, fra, "new", "eve", func(g *control.Grants) { g.APIKey, g.RoomPreset = "eu-key", "pinned" })
		if status != 403 || !strings.Contains(text, `tenant "eu" may not have rooms of policy "pinned"`) {
			t.Errorf("%d %q", status, text)
		}
	})

	t.Run("placement is by tenant, not by address", func(t *testing.T) {
		for tenant, want := range map[string]residency.NodeName{"ru": "mow", "eu": "fra", "": "fra"} {
			for _, country := range []residency.Country{"RU", "DE"} {
				if p := fra.place(room.Record{Name: "r", Tenant: tenant}, router.Attendee{Known: true, Country: country}, seat{}); p.Node() != want {
					t.Errorf("tenant %q, attendee in %s: got %s, want %s\n%s", tenant, country, p.Node(), want, p)
				}
			}
		}
	})

	t.Run("the API shows a tenant its own rooms", func(t *testing.T) {
		for key, want := range map[string]string{"eu-key": "town", "ru-key": "standup", "devkey": ""} {
			n := fra
			if key == "ru-key" {
				n = mow
			}
			api, ctx := roomService(t, n, key)
			list, err := api.ListRooms(ctx, &livekit.ListRoomsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, rm := range list.Rooms {
				names = append(names, rm.Name)
			}
			if strings.Join(names, " ") != want {
				t.Errorf("%s: got %v, want %q", key, names, want)
			}
		}
		api, ctx := roomService(t, fra, "ru-key")
		_, err := api.DeleteRoom(ctx, &livekit.DeleteRoomRequest{Room: "town"})
		if err == nil || !strings.Contains(err.Error(), "is not of the tenant") || fra.rooms.get("town") == nil {
			t.Errorf("another tenant deletes the room: %v", err)
		}
	})
	t.Run("what was kept of a room is its tenant's, when nobody is in it too", func(t *testing.T) {
		if err := fra.keepRecord(room.Record{Name: "quiet", SID: "RM_quiet", Policy: "global", CreatedMS: 1}); err != nil {
			t.Fatal(err)
		}
		token := tokenFor(t, "quiet", "host", func(g *control.Grants) { g.APIKey, g.Video.RoomAdmin = "eu-key", true })
		if status, text := getChat(t, fra, "quiet", token, "json"); status != 403 || !strings.Contains(text, ruleOtherTenant) {
			t.Errorf("%d %s", status, text)
		}
	})
	ru.close()
	eu.close()
}

// roomService is the API of a node for whoever has a key.
func roomService(t *testing.T, n *testNode, key string) (livekit.RoomService, context.Context) {
	t.Helper()
	token := tokenFor(t, "town", "api", func(g *control.Grants) {
		g.APIKey, g.Video.RoomList, g.Video.RoomCreate, g.Video.RoomAdmin = key, true, true, true
	})
	ctx, err := twirp.WithHTTPRequestHeaders(context.Background(), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return livekit.NewRoomServiceJSONClient("http://"+n.addr.String(), http.DefaultClient), ctx
}
