package node

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"crypto/tls"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// TestRefusalCrossesTheMesh sends refusals over a link as errors and reads them again.
func TestRefusalCrossesTheMesh(t *testing.T) {
	full := &Refusal{Code: CodeRefused, Message: "node nyc is in US", Hint: "h", Rule: residency.RuleZone, Policy: "eea-only",
		Use: &Use{Node: "fra", URL: "https://fra.example"}}
	for _, err := range []error{full, fmt.Errorf("resolve: %w", full)} {
		remote := &relay.RemoteError{Peer: "fra", Text: encodeRefusal(err).Error()}
		got := asRefusal(fmt.Errorf("ask: %w", decodeRefusal(remote.Error())))
		if got.Error() != full.Error() || got.Rule != full.Rule || got.Policy != full.Policy || *got.Use != *full.Use {
			t.Errorf("got %+v", got)
		}
	}
	for text, code := range map[string]string{
		"": CodeUnavailable, "link is down": CodeUnavailable, "{": CodeUnavailable, "{}": CodeUnavailable, `{"code":1}`: CodeUnavailable,
		`relay: node "a": {"code":"not_found","message":"m"}`: CodeNotFound,
		encodeRefusal(errors.New("disk on fire")).Error():     CodeInternal,
	} {
		if got := asRefusal(decodeRefusal(text)); got.Code != code {
			t.Errorf("%q: %+v, want code %s", text, got, code)
		}
	}
}

// TestRefusalForClients maps codes to what clients and platforms get.
func TestRefusalForClients(t *testing.T) {
	for code, want := range map[string]int{CodeRefused: 403, CodeForbidden: 403, CodeNotFound: 404, CodeInvalid: 400,
		CodeUnavailable: 503, CodeInternal: 500, "unheard-of": 500} {
		var s *signal.Refusal
		if err := toSignal(&Refusal{Code: code, Message: "m"}); !errors.As(err, &s) || s.Status != want || s.Text != "m" {
			t.Errorf("%s: %v", code, err)
		}
	}
	for code, want := range map[string]error{CodeNotFound: control.ErrNotFound, CodeInvalid: control.ErrInvalid, CodeUnavailable: control.ErrUnavailable} {
		if err := toControl(&Refusal{Code: code}); !errors.Is(err, want) {
			t.Errorf("%s: %v", code, err)
		}
	}
	var refused control.ErrRefused
	if err := toControl(&Refusal{Code: CodeRefused, Rule: "zone", Message: "m"}); !errors.As(err, &refused) || refused.Rule != "zone" {
		t.Errorf("%v", err)
	}
	if toControl(nil) != nil {
		t.Error("no error becomes one")
	}
}

func TestSocketURL(t *testing.T) {
	n := &Node{cfg: Config{PublicURL: "https://127.1.0.1:7443", Listen: Listen{HTTP: netip.MustParseAddrPort("127.1.0.1:7480")}}}
	for _, c := range []struct {
		base string
		tls  bool
		want string
	}{
		{"https://127.1.0.1:7443", true, "wss://127.1.0.1:7443"},
		{"https://127.1.0.1:7443", false, "ws://127.1.0.1:7480"},
		{"https://127.1.0.2:7443", false, "ws://127.1.0.2:7480"}, // another node of the demo
		{"https://fra.example", false, "wss://fra.example"},      // not of this machine: with TLS
		{"https://fra.example:8443", true, "wss://fra.example:8443"},
		{"https://192.0.2.1", false, "wss://192.0.2.1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = "127.1.0.1:7480"
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if got := n.socketURL(r, c.base); got != c.want {
			t.Errorf("%s, TLS %v: %q, want %q", c.base, c.tls, got, c.want)
		}
	}
	n.cfg.Listen.HTTP = netip.AddrPort{}
	if got := n.socketURL(httptest.NewRequest("GET", "/", nil), "https://127.1.0.2:1"); got != "wss://127.1.0.2:1" {
		t.Errorf("without a plain listener: %q", got)
	}
}

func TestGraveyard(t *testing.T) {
	var g graveyard
	for i := range maxGraves + 10 {
		g.add(fmt.Sprint(i))
		g.add(fmt.Sprint(i)) // once is enough
	}
	if g.has("9", 1) || !g.has("10", 1) || !g.has(fmt.Sprint(maxGraves+9), 1<<63) || len(g.sids) != maxGraves || len(g.ring) != maxGraves {
		t.Errorf("%d, %d", len(g.sids), len(g.ring))
	}
	g.addTerm("RM_x", 3) // it expired, and may go on elsewhere in a later term
	if !g.has("RM_x", 2) || !g.has("RM_x", 3) || g.has("RM_x", 4) {
		t.Error("a room that goes on is taken for over")
	}
}

// standalone is a node that is alone and does not run.
func standalone(t testing.TB) *Node {
	t.Helper()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	b := testBundle(1)
	n, err := New(Config{Self: nodeIn("dev", "DE", residency.RoleEdge), Bundle: b, Standalone: true, Keys: testKeys,
		Listen: Listen{HTTP: any, Media: any}, PublicURL: "http://" + any.String(), Page: Page{Guests: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.close(); n.rooms.close() })
	return n
}

func nodeIn(name residency.NodeName, c residency.Country, roles ...residency.Role) residency.Node {
	return residency.Node{Name: name, Country: c, Operator: "o", OperatorCountry: c, Parent: "o", ParentCountry: c, Roles: roles,
		NotBefore: testStart, NotAfter: testStart.AddDate(100, 0, 0), Serial: string(name)}
}

// TestPageAPI asks what the page asks, in ways in which it does not.
func TestPageAPI(t *testing.T) {
	n := standalone(t)
	h := n.handler()
	do := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/api/node", "", 200, `"name":"dev"`},
		{"GET", "/api/nothing", "", 404, "no such API"},
		{"POST", "/api/join", "{", 400, "JSON"},
		{"POST", "/api/join", `{"room":"r","name":"n","x":1}`, 400, "unknown field"},
		{"POST", "/api/join", `{"room":"r","name":" "}`, 400, "name: want 1 to"},
		{"POST", "/api/join", `{"room":"","name":"n"}`, 400, "room"},
		{"POST", "/api/join", `{"room":"r","name":"n","policy":"nothing"}`, 400, "not in the bundle"},
		{"POST", "/api/join", `{"room":"r","name":"n","from":"192.0.2.1"}`, 400, "does not accept a claimed address"},
		{"POST", "/api/join", `{"room":"` + strings.Repeat("x", maxBody) + `"}`, 400, "too large"},
		{"GET", "/api/rooms/town", "", 403, ""},
		{"POST", "/api/rooms/town/recording", `{"action":"start"}`, 403, ""},
		{"OPTIONS", "/api/join", "", 204, ""},
		{"GET", "/rtc", "", 401, ""},
		{"GET", "/rtc/validate", "", 401, ""},
		{"GET", "/rtc/validate?access_token=" + url.QueryEscape("a.b.c"), "", 401, ""},
		{"GET", "/rtc/v1/validate", "", 401, ""},
		{"GET", "/rtc/v1", "", 401, ""},
		{"GET", "/", "", 200, ""},
		{"HEAD", "/", "", 200, ""},
	} {
		if status, text := do(c.method, c.path, c.body); status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%s %s %.60s: %d %.200s, want %d %q", c.method, c.path, c.body, status, text, c.status, c.text)
		}
	}
}
