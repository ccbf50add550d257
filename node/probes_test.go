package node

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/geo/geodemo"
)

// behindProxies is a mesh whose attendees come through a proxy, from addresses
// that a database knows.
func behindProxies(t *testing.T) *testMesh {
	t.Helper()
	db := filepath.Join(t.TempDir(), "cities.mmdb")
	at := func(prefix string, c residency.Country, p router.Point) geodemo.Entry {
		return geodemo.Entry{Prefix: netip.MustParsePrefix(prefix), Country: c, Lat: p.Lat, Lon: p.Lon}
	}
	if err := geodemo.Make(db, []geodemo.Entry{at("192.0.2.0/24", "PL", cities["waw"]), at("203.0.113.0/24", "US", cities["nyc"])}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return newMeshOf(t, testBundle(1), func(m *testMesh, c *Config) {
		inCities(m, c)
		c.Geo.Database, c.Geo.Unknown, c.Geo.TrustedProxies = db, router.FallbackOrigin, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}, "fra DE origin", "waw PL edge", "nyc US edge")
}

// from asks a node from an address; an error is a refusal.
func (n *testNode) from(t *testing.T, addr, method, path, token, body string) ([]byte, *Refusal) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+n.addr.String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", addr)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, b := fetched(t, req)
	if resp.StatusCode/100 != 2 {
		var e struct{ Error *Refusal }
		if err := json.Unmarshal(b, &e); err != nil || e.Error == nil {
			t.Fatalf("%s %s: %s %s", method, path, resp.Status, b)
		}
		return nil, e.Error
	}
	return b, nil
}

// A page measures only nodes that may serve its attendee, and gets the one that it
// is nearest to by what it measured. Whatever it says it never gets a refused one.
func TestPageMeasuresAndIsPlacedByIt(t *testing.T) {
	m := behindProxies(t)
	fra := m.node("fra")
	probes := func(addr, body string) (names []residency.NodeName) {
		b, ref := fra.from(t, addr, "POST", "/api/probes", "", body)
		var out probesReply
		if ref != nil || json.Unmarshal(b, &out) != nil {
			t.Fatalf("probes: %v %s", ref, b)
		}
		for _, p := range out.Nodes {
			names = append(names, p.Name)
		}
		return names
	}
	if got := probes("192.0.2.7", `{"room":"town","name":"anna"}`); !slices.Equal(got, []residency.NodeName{"waw", "fra"}) {
		t.Errorf("somebody in Warsaw measures %v", got)
	}
	if got := probes("203.0.113.7", `{"room":"town","name":"anna","policy":"eea-only"}`); slices.Contains(got, "nyc") || len(got) != 2 {
		t.Errorf("somebody in New York, in a room of the EEA, measures %v", got)
	}
	if got := probes("127.0.0.1", `{"room":"town","name":"anna"}`); len(got) != 0 {
		t.Errorf("who is on this machine measures %v", got)
	}
	if b, ref := fra.from(t, "192.0.2.7", "GET", "/api/ping", "", ""); ref != nil || len(b) != 0 {
		t.Errorf("ping: %v %q", ref, b)
	}
	joins := func(addr, body string) (*joinReply, *Refusal) {
		b, ref := fra.from(t, addr, "POST", "/api/join", "", body)
		var out joinReply
		if ref == nil && json.Unmarshal(b, &out) != nil {
			t.Fatalf("join: %s", b)
		}
		return &out, ref
	}
	for body, want := range map[string]residency.NodeName{
		`{"room":"town","name":"anna"}`:                                                        "waw",
		`{"room":"town","name":"anna","trips":{"waw":48,"fra":21}}`:                            "fra",
		`{"room":"town","name":"anna","trips":{"nyc":1,"fra":21,"waw":48}}`:                    "fra", // nyc is an edge outside, Warsaw is not
		`{"room":"town","name":"anna","trips":{"fra":-5,"waw":0,"nyc":1e300}}`:                 "waw",
		`{"room":"town","name":"anna","trips":{"nobody":1,"waw":48,"fra":21},"from":""}`:       "fra",
		`{"room":"town","name":"anna","trips":{"waw":48,"fra":1},"from":"192.0.2.8"}`:          "waw", // simulated: not measured there
		`{"room":"east","name":"anna","trips":{"nyc":1,"fra":9,"waw":30},"policy":"eea-only"}`: "fra",
		`{"room":"town","name":"anna","trips":{"waw":2001,"fra":1999,"nyc":1},"policy":""}`:    "waw",
	} {
		got, ref := joins("192.0.2.7", body)
		if ref != nil || got.Node.Name != want {
			t.Errorf("%s: node %s, want %s (%v)\n%s", body, got.Node.Name, want, ref, got.Placement)
		}
	}
	many := strings.Repeat(`"n":1,`, maxTrips)
	for i := range maxTrips {
		many = strings.Replace(many, `"n"`, `"n`+string(rune('a'+i))+`"`, 1)
	}
	if _, ref := joins("192.0.2.7", `{"room":"town","name":"anna","trips":{`+many+`"z":1}}`); ref == nil || ref.Code != CodeInvalid {
		t.Errorf("too many trips: %v", ref)
	}
	for _, body := range []string{`{"room":"town","name":"a","trips":{"fra":"1"}}`, `{"room":"town","name":"a","trips":{"fra":1e999}}`, `{"room":"town","name":"a","trips":[1]}`} {
		if _, ref := joins("192.0.2.7", body); ref == nil || ref.Code != CodeInvalid {
			t.Errorf("%s: %v", body, ref)
		}
	}
}

// LiveKit's clients learn which nodes may serve them, the best first.
func TestRegionsAreThePermittedNodes(t *testing.T) {
	m := behindProxies(t)
	fra := m.node("fra")
	regions := func(addr, room string, policy string) string {
		t.Helper()
		b, ref := fra.from(t, addr, "GET", "/settings/regions", tokenFor(t, room, "anna", preset(policy)), "")
		if ref != nil {
			return "refused: " + ref.Message
		}
		var s livekit.RegionSettings
		if err := protojson.Unmarshal(b, &s); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
		var names []string
		for _, r := range s.Regions {
			if r.Url == "" {
				t.Errorf("region %s has no address", r.Region)
			}
			names = append(names, r.Region)
		}
		return strings.Join(names, " ")
	}
	for _, c := range []struct{ addr, room, policy, want string }{
		{"192.0.2.7", "town", "global", "waw fra"},
		{"203.0.113.7", "town", "global", "nyc fra waw"},
		{"203.0.113.7", "town", "eea-only", "fra waw"},
		{"203.0.113.7", "town", "no-such", "refused: "},
	} {
		if got := regions(c.addr, c.room, c.policy); got != c.want && (c.policy != "no-such" || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if _, ref := fra.from(t, "192.0.2.7", "GET", "/settings/regions", "", ""); ref == nil || ref.Code != CodeForbidden {
		t.Errorf("without a token: %v", ref)
	}
	// Who is in the room on fra is not sent to and fro for little.
	enter(t, fra, "town", "anna", preset("global"))
	eventually(t, "the room and where anna is count", func() bool { return regions("192.0.2.7", "town", "global") == "fra waw" })
}
