package signal

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var (
	now  = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	keys = control.Keys{"devkey": "secret"}
)

// token mints a good one, changed by edit.
func token(t testing.TB, edit func(*control.Grants)) string {
	t.Helper()
	g := control.Grants{
		Identity: "alice", Name: "Alice", Attributes: map[string]string{"role": "host"},
		Video: &auth.VideoGrant{RoomJoin: true, Room: "standup"},
	}
	if edit != nil {
		edit(&g)
	}
	s, err := control.MintToken("devkey", "secret", g, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(target string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.RemoteAddr = "[::ffff:192.0.2.7]:4711"
	return r
}

func TestParseJoinOfABrowser(t *testing.T) {
	// The query as livekit-client 2.23 sends it when it resumes.
	q := url.Values{
		"access_token": {token(t, nil)}, "reconnect": {"1"}, "sid": {"PA_x"}, "reconnect_reason": {"3"},
		"auto_subscribe": {"0"}, "adaptive_stream": {"1"}, "sdk": {"js"}, "version": {"2.23.0"},
		"protocol": {"17"}, "client_protocol": {"2"}, "os": {"macOS"}, "os_version": {"15.1"},
		"browser": {"Chrome"}, "browser_version": {"140"}, "device_model": {"Pixel 9"}, "network": {"wifi"}, "newer": {"x"},
	}
	j, err := ParseJoin(get("/rtc?"+q.Encode()), keys, now)
	if err != nil {
		t.Fatal(err)
	}
	want := Join{
		Token: j.Token, Room: "standup", Identity: "alice", Attributes: map[string]string{"role": "host"},
		AdaptiveStream: true, Reconnect: true, SID: "PA_x", ReconnectReason: livekit.ReconnectReason_RR_SUBSCRIBER_FAILED,
		SDK: "js", SDKVersion: "2.23.0", Protocol: 17, ClientProtocol: 2, OS: "macOS", OSVersion: "15.1",
		Browser: "Chrome", BrowserVersion: "140", DeviceModel: "Pixel 9", Network: "wifi",
		RemoteAddr: netip.MustParseAddrPort("192.0.2.7:4711"),
	}
	if d := cmp.Diff(want, j, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("join (-want +got):\n%s", d)
	}
	if j.Token.Identity != "alice" || j.Token.Name != "Alice" {
		t.Errorf("grants %+v", j.Token)
	}
}

func TestParseJoinOfTheGoSDK(t *testing.T) {
	attributes := base64.URLEncoding.EncodeToString([]byte(`{"role":"","seat":"4"}`))
	r := get("/rtc?version=2.16.0&protocol=17&&auto_subscribe=1&attributes=" + attributes + "&sdk=go&os=linux")
	r.Header.Set("Authorization", "Bearer "+token(t, func(g *control.Grants) { g.Video.SetCanUpdateOwnMetadata(true) }))
	j, err := ParseJoin(r, keys, now)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"role": "host", "seat": "4"}, j.Attributes); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
	if len(j.Token.Attributes) != 1 {
		t.Errorf("the token's attributes became %v", j.Token.Attributes)
	}
	if !j.AutoSubscribe || j.SDK != "go" || j.OS != "linux" {
		t.Errorf("join %+v", j)
	}
}

func TestPublishOnly(t *testing.T) {
	j, err := ParseJoin(get("/rtc?publish=screen&access_token="+token(t, nil)), keys, now)
	if err != nil {
		t.Fatal(err)
	}
	if j.Identity != "alice#screen" || j.Token.Video.GetCanSubscribe() || !j.Token.Video.GetCanPublish() {
		t.Errorf("identity %q, may subscribe %v", j.Identity, j.Token.Video.GetCanSubscribe())
	}
}

func TestParseJoinRefuses(t *testing.T) {
	good := "access_token=" + token(t, nil)
	grants := func(edit func(*control.Grants)) string { return "access_token=" + token(t, edit) }
	attributes := func(s string) string { return "&attributes=" + base64.URLEncoding.EncodeToString([]byte(s)) }
	own := grants(func(g *control.Grants) { g.Video.SetCanUpdateOwnMetadata(true) })

	for name, c := range map[string]struct {
		query, header string
		status        int
		text          string
	}{
		"no token":                  {"", "", 401, "no access token"},
		"garbage":                   {"access_token=invalid", "", 401, "malformed"},
		"expired":                   {grants(func(*control.Grants) {}) + "&", "", 0, ""}, // the control: not refused
		"basic authorization":       {good, "Basic Zm9v", 401, "authorization header"},
		"bad header, good one":      {good, "Bearer x", 401, "malformed"},
		"no roomJoin":               {grants(func(g *control.Grants) { g.Video.RoomJoin = false }), "", 403, "roomJoin"},
		"room is a path":            {grants(func(g *control.Grants) { g.Video.Room = "../x" }), "", 400, "room name"},
		"join_request":              {good + "&join_request=AAAA", "", 400, "WrappedJoinRequest"},
		"publish, not allowed":      {grants(func(g *control.Grants) { g.Video.SetCanPublish(false) }) + "&publish=x", "", 403, "canPublish"},
		"publish, too long":         {grants(func(g *control.Grants) { g.Identity = strings.Repeat("a", 250) }) + "&publish=screen", "", 400, "257 bytes"},
		"attributes, not allowed":   {good + attributes(`{"a":"b"}`), "", 403, "canUpdateOwnMetadata"},
		"attributes, no base64":     {own + "&attributes=%21", "", 400, "base64url"},
		"attributes, cut":           {own + attributes(`{"a":"b`), "", 400, "JSON"},
		"attributes, not strings":   {own + attributes(`{"a":1}`), "", 400, "JSON"},
		"attributes, 65537 bytes":   {own + attributes(`{"a":"`+strings.Repeat("b", 64<<10)+`"}`), "", 400, "at most 65536"},
		"protocol is a word":        {good + "&protocol=latest", "", 400, `"latest"`},
		"protocol below zero":       {good + "&protocol=-1", "", 400, `"-1"`},
		"protocol beyond 16 bits":   {good + "&protocol=70000", "", 400, "65535"},
		"sid of 129 bytes":          {good + "&sid=" + strings.Repeat("s", 129), "", 400, `"sid" has 129 bytes`},
		"line break in the version": {good + "&version=1%0a2", "", 400, "control characters"},
		"os is not UTF-8":           {good + "&os=%ff", "", 400, "UTF-8"},
		"malformed query":           {good + "&a=%zz", "", 400, "malformed"},
		"a huge query":              {good + "&x=" + strings.Repeat("x", maxQueryBytes), "", 400, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("/rtc?" + c.query)
			if c.header != "" {
				r.Header.Set("Authorization", c.header)
			}
			_, err := ParseJoin(r, keys, now)
			var refusal *Refusal
			switch {
			case c.status == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case c.status != 0 && !errors.As(err, &refusal):
				t.Errorf("error %v, want a Refusal", err)
			case c.status != 0 && (refusal.Status != c.status || !strings.Contains(refusal.Text, c.text)):
				t.Errorf("%d %q, want %d with %q", refusal.Status, refusal.Text, c.status, c.text)
			}
		})
	}
	if _, err := ParseJoin(get("/rtc?"+good), keys, now.Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("two hours later: %v", err)
	}
}

func TestRemoteAddrIsTheConnections(t *testing.T) {
	r := get("/rtc?access_token=" + token(t, nil))
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	r.Header.Set("CF-Connecting-IP", "203.0.113.9")
	j, err := ParseJoin(r, keys, now)
	if err != nil || j.RemoteAddr.Addr() != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("%v, %v", j.RemoteAddr, err)
	}
	r.RemoteAddr = "@"
	if j, err := ParseJoin(r, keys, now); err != nil || j.RemoteAddr.IsValid() {
		t.Errorf("unknown address: %v, %v", j.RemoteAddr, err)
	}
}

func TestValidate(t *testing.T) {
	var refusal error
	h := Validate(keys, func() time.Time { return now }, func(j Join) error {
		if j.Room != "standup" {
			t.Errorf("room %q", j.Room)
		}
		return refusal
	})
	for name, c := range map[string]struct {
		token   string
		refusal error
		status  int
		text    string
	}{
		"welcome":       {token(t, nil), nil, 200, "success"},
		"bad token":     {"invalid", nil, 401, "malformed"},
		"residency":     {token(t, nil), Refuse(403, "room %q stays in the EEA; use waw", "standup"), 403, `room "standup" stays in the EEA; use waw`},
		"not a Refusal": {token(t, nil), errors.New("dial 10.0.0.7: refused"), 500, "try again"},
	} {
		t.Run(name, func(t *testing.T) {
			refusal = c.refusal
			status, header, text := answer(t, h, "/rtc/validate?access_token="+c.token)
			if status != c.status || !strings.Contains(text, c.text) {
				t.Errorf("%d %q, want %d with %q", status, text, c.status, c.text)
			}
			if strings.Contains(text, "10.0.0.7") {
				t.Error("an internal error is shown to the client")
			}
			wantText(t, header)
		})
	}
}

func answer(t *testing.T, h http.Handler, target string) (int, http.Header, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, get(target))
	resp := w.Result()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func wantText(t *testing.T, h http.Header) {
	t.Helper()
	if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Cache-Control") != "no-store" || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
		t.Errorf("header %v", h)
	}
}

func FuzzParseJoin(f *testing.F) {
	good := "access_token=" + token(f, func(g *control.Grants) { g.Video.SetCanUpdateOwnMetadata(true) })
	f.Add("")
	f.Add("&reconnect=1&sid=PA_x&protocol=17")
	f.Add("&publish=x&attributes=e30=")
	f.Add("&a=%zz;b")
	f.Fuzz(func(t *testing.T, query string) {
		r := get("/rtc")
		r.URL.RawQuery = good + query
		j, err := ParseJoin(r, keys, now)
		var refusal *Refusal
		if err != nil {
			if !errors.As(err, &refusal) || refusal.Status < 400 || refusal.Status > 403 || refusal.Text == "" {
				t.Fatalf("error %v is no refusal", err)
			}
			return
		}
		if j.Room != "standup" || control.ValidIdentity(j.Identity) != nil || control.ValidAttributes(j.Attributes) != nil {
			t.Fatalf("out of bounds: %+v", j)
		}
		for _, s := range []string{j.SID, j.SDK, j.SDKVersion, j.OS, j.Browser, j.DeviceModel, j.Network, j.Publish} {
			if len(s) > maxParamBytes || strings.ContainsAny(s, "\r\n\x00") {
				t.Fatalf("parameter %q", s)
			}
		}
	})
}
