package whip

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/control"
)

func TestPublishing(t *testing.T) {
	r := newRig(t, nil)
	alice := token(t, "alice", nil)
	w := r.call("POST", "/whip/studio", offerFile(t, "whip-obs-h264.sdp"), sdpType, bearer(alice))
	h := w.Header()
	if w.Code != 201 || w.Body.String() != answerText || h.Get("Content-Type") != "application/sdp" {
		t.Fatalf("%d %v %s", w.Code, h, w.Body)
	}
	id, ok := strings.CutPrefix(h.Get("Location"), "/wish/")
	if !ok || len(id) < 40 {
		t.Errorf("Location %q", h.Get("Location"))
	}
	if tag := h.Get("ETag"); len(tag) < 20 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		t.Errorf("ETag %q is not a strong tag", tag)
	}
	want := []string{`<stun:node.example>; rel="ice-server"`,
		`<turns:node.example:443?transport=tcp>; rel="ice-server"; username="17:\"a\""; credential="p\\w"; credential-type="password"`}
	if got := h.Values("Link"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("Link %q, want %q", got, want)
	}
	if h.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "Location") {
		t.Error("a page of another origin cannot read the answer")
	}
	join := r.rooms.joins[0]
	if join.Room != "studio" || join.Token.Identity != "alice" || join.Request == nil {
		t.Errorf("the room was asked for %+v", join)
	}
	w = r.call("POST", "/whip?redirected=1", offerFile(t, "whip-obs-h264.sdp"), sdpType, bearer(alice))
	if got := w.Header().Get("Location"); !strings.HasPrefix(got, "https://node.example/wish/") {
		t.Errorf("after a redirect, Location is %q", got)
	}
	other, _ := r.publish(alice)
	if other == "/wish/"+id {
		t.Error("two sessions have one URL")
	}
}

func TestWatching(t *testing.T) {
	r := newRig(t, nil)
	bob := token(t, "bob", nil)
	for path, want := range map[string]string{
		"/whep": "watch ", "/whep/studio": "watch ", "/whep/studio/alice": "watch alice",
		"/whep/studio/TR_x": "watch TR_x", "/whep/studio/a%2Fb%20c": "watch a/b c",
	} {
		w := r.call("POST", path, offerFile(t, "whep-browser.sdp"), "Content-Type: Application/SDP; charset=utf-8", "Accept: text/plain, */*;q=0.1", bearer(bob))
		if w.Code != 201 {
			t.Fatalf("POST %s: %d %s", path, w.Code, w.Body)
		}
		if got := r.rooms.sources[len(r.rooms.sources)-1]; got != want {
			t.Errorf("POST %s: %d, asks for %q, want %q", path, w.Code, got, want)
		}
	}
}

func TestRefusedPosts(t *testing.T) {
	alice := bearer(token(t, "alice", nil))
	whip, whep := offerFile(t, "whip-obs-h264.sdp"), offerFile(t, "whep-browser.sdp")
	for _, c := range []struct {
		name, path, body string
		headers          []string
		status           int
		detail           string
	}{
		{"no token", "/whip", whip, []string{sdpType}, 401, "no access token was sent"},
		{"another scheme", "/whip", whip, []string{sdpType, "Authorization: Basic QQ=="}, 401, "not \"Bearer"},
		{"a token that is none", "/whip", whip, []string{sdpType, bearer("abc")}, 401, "malformed"},
		{"a token of another key", "/whip", whip, []string{sdpType, bearer(foreign(t))}, 401, "unknown API key"},
		{"no roomJoin", "/whip", whip, []string{sdpType, bearer(token(t, "alice", func(g *control.Grants) { g.Video.RoomJoin = false }))}, 403, "roomJoin"},
		{"no canPublish", "/whip", whip, []string{sdpType, bearer(token(t, "alice", func(g *control.Grants) { g.Video.SetCanPublish(false) }))}, 403, "canPublish"},
		{"no canSubscribe", "/whep", whep, []string{sdpType, bearer(token(t, "alice", func(g *control.Grants) { g.Video.SetCanSubscribe(false) }))}, 403, "canSubscribe"},
		{"another room", "/whip/attic", whip, []string{sdpType, alice}, 403, "another room"},
		{"another room to watch", "/whep/attic/bob", whep, []string{sdpType, alice}, 403, "another room"},
		{"a room's name that is none", "/whip", whip, []string{sdpType, bearer(token(t, "alice", func(g *control.Grants) { g.Video.Room = "a/b" }))}, 403, "room name"},
		{"no type", "/whip", whip, []string{alice}, 415, `want "application/sdp"`},
		{"JSON", "/whip", "{}", []string{"Content-Type: application/json", alice}, 415, `"application/json"`},
		{"a type that is none", "/whip", whip, []string{"Content-Type: ///", alice}, 415, "want"},
		{"too large", "/whip", whip + strings.Repeat("a=x\r\n", maxOffer/5), []string{sdpType, alice}, 413, "65536"},
		{"nothing", "/whip", "", []string{sdpType, alice}, 400, "no body"},
		{"a player without an offer", "/whep", "\r\n", []string{sdpType, alice}, 406, "no offers of its own"},
		{"an answer in JSON", "/whip", whip, []string{sdpType, alice, "Accept: application/json, application/sdp;q=0"}, 406, "Accept"},
		{"no SDP", "/whip", "hello", []string{sdpType, alice}, 400, "no SDP"},
		{"a player at WHIP", "/whip", whep, []string{sdpType, alice}, 422, "sendonly"},
		{"an encoder at WHEP", "/whep", whip, []string{sdpType, alice}, 422, "recvonly"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			w := r.call("POST", c.path, c.body, c.headers...)
			if p := problem(t, w); w.Code != c.status || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("%d %q, want %d …%s…", w.Code, p.Detail, c.status, c.detail)
			}
			if w.Code == 401 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") {
				t.Error("401 without WWW-Authenticate")
			}
			if len(r.rooms.joins)+r.s.Sessions()+len(r.s.arriving) > 0 {
				t.Error("the room was asked")
			}
		})
	}
}

func foreign(t *testing.T) string {
	s, err := control.MintToken("other", secret, control.Grants{Identity: "alice", Video: roomJoin()}, time.Hour, start)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRefusalOfTheRoom(t *testing.T) {
	r := newRig(t, nil)
	alice, offer := bearer(token(t, "alice", nil)), offerFile(t, "whip-obs-h264.sdp")
	refusal := &Problem{Status: 403, Detail: "the policy keeps media in Germany", Rule: "zone", Policy: "eu", Hint: "ask", Node: "berlin", URL: "https://berlin.example"}
	r.rooms.refusal = fmt.Errorf("join: %w", refusal)
	p := problem(t, r.call("POST", "/whip", offer, sdpType, alice))
	if p.Status != 403 || p.Detail != refusal.Detail || p.Rule != "zone" || p.Policy != "eu" || p.Node != "berlin" || p.URL != refusal.URL || p.Hint != "ask" {
		t.Errorf("%+v", p)
	}

	// Where another node takes the request as it is, the client is sent there, once.
	refusal.Redirect = "https://berlin.example:8443"
	w := r.call("POST", "/whip/studio", offer, sdpType, alice)
	if got := w.Header().Get("Location"); w.Code != 307 || got != "https://berlin.example:8443/whip/studio?redirected=1" {
		t.Errorf("%d to %q", w.Code, got)
	}
	if p := problem(t, w); p.Rule != "zone" {
		t.Errorf("%+v", p)
	}
	if w := r.call("POST", "/whip/studio?redirected=1", offer, sdpType, alice); w.Code != 403 || w.Header().Get("Location") != "" {
		t.Errorf("sent on a second time: %d %v", w.Code, w.Header())
	}
	if w := r.call("POST", "/whip", offer, sdpType, alice, "Origin: https://page.example"); w.Code != 403 || w.Header().Get("Location") != "" {
		t.Errorf("a page is redirected: %d %v", w.Code, w.Header())
	}
	for _, unsafe := range []string{"http://berlin.example", "berlin.example", "https://", "https://%zz", "javascript:alert(1)"} {
		refusal.Redirect = unsafe
		if w := r.call("POST", "/whip", offer, sdpType, alice); w.Code != 403 || w.Header().Get("Location") != "" {
			t.Errorf("redirected to %q: %d %v", unsafe, w.Code, w.Header())
		}
	}
	refusal.Redirect = "https://berlin.example"
	w = r.call("POST", "/whep/studio/a%2Fb", offerFile(t, "whep-browser.sdp"), sdpType, alice)
	if got := w.Header().Get("Location"); got != "https://berlin.example/whep/studio/a%2Fb?redirected=1" {
		t.Errorf("redirected to %q", got)
	}

	r.rooms.refusal = &Problem{Status: 409, Detail: "nobody publishes", RetryAfter: 1500 * time.Millisecond}
	if w := r.call("POST", "/whep", offerFile(t, "whep-browser.sdp"), sdpType, alice); w.Code != 409 || w.Header().Get("Retry-After") != "2" {
		t.Errorf("%d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	r.rooms.refusal = errors.New("disk at /secret/path is full")
	if p := problem(t, r.call("POST", "/whip", offer, sdpType, alice)); p.Status != 500 || strings.Contains(p.Detail, "secret") {
		t.Errorf("%+v", p)
	}
	if r.s.Sessions()+len(r.s.arriving) > 0 {
		t.Error("refused sessions are kept")
	}
}

func TestTrickleAndRestart(t *testing.T) {
	r := newRig(t, nil)
	alice := bearer(token(t, "alice", nil))
	path, first := r.publish(strings.TrimPrefix(alice, "Authorization: Bearer "))
	own := strings.ReplaceAll(strings.ReplaceAll(trickled, "EsAw", "Xq1t"), "P2uYro0UCOQ4zxjKXaWCBui1", "h0vS8mZyLw3KcRj5NbE2Ta")
	patch := func(match, body string) (int, http.Header, string) {
		headers := []string{fragType, alice}
		if match != "" {
			headers = append(headers, "If-Match: "+match)
		}
		w := r.call("PATCH", path, body, headers...)
		return w.Code, w.Header(), w.Body.String()
	}

	for _, match := range []string{first, "*", `"x", ` + first} {
		if code, h, body := patch(match, own); code != 204 || h.Get("ETag") != "" || body != "" {
			t.Errorf("candidates with If-Match %s: %d %v %q", match, code, h, body)
		}
	}
	if code, _, _ := patch(first, "a=candidate:1 1 udp 1 192.0.2.1 9 typ host"); code != 204 {
		t.Errorf("candidates without credentials: %d", code)
	}
	if code, _, _ := patch("", own); code != 428 {
		t.Errorf("no If-Match: %d", code)
	}
	if code, _, _ := patch(`"x"`, own); code != 412 {
		t.Errorf("an unknown tag: %d", code)
	}
	if code, _, _ := patch(`"x"`, restart); code != 412 {
		t.Errorf("a restart of an ICE session that is over: %d", code)
	}
	if n := len(r.rooms.last().restarts); n > 0 {
		t.Fatalf("%d restarts until now", n)
	}

	code, h, body := patch("*", restart)
	second := h.Get("ETag")
	if code != 200 || second == "" || second == first || h.Get("Content-Type") != typeFragment {
		t.Fatalf("restart: %d %v", code, h)
	}
	for _, line := range []string{"a=ice-lite", "a=ice-options:trickle ice2", "a=mid:1", "a=ice-ufrag:newysXw", "a=candidate:1 1 udp 2130706431 198.51.100.1 7882 typ host"} {
		if !strings.Contains(body, line+"\r\n") {
			t.Errorf("the answer to a restart lacks %q:\n%s", line, body)
		}
	}
	if got := r.rooms.last().restarts; len(got) != 1 || got[0] != (Credentials{"ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k"}) {
		t.Errorf("restarts %v", got)
	}
	if code, _, _ := patch(first, restart); code != 412 {
		t.Errorf("candidates of the old ICE session: %d", code)
	}
	if code, _, _ := patch(second, restart); code != 204 {
		t.Errorf("candidates of the new one: %d", code)
	}
	// New credentials are a restart whichever precondition lets them through.
	if code, h, _ := patch(second, strings.Replace(restart, "ysXw", "zzzz", 1)); code != 200 || h.Get("ETag") == second {
		t.Errorf("restart with a tag: %d", code)
	}

	// One that fails changes nothing.
	r.rooms.last().refusal = &Problem{Status: 503, Detail: "not now"}
	if code, _, _ := patch("*", restart); code != 503 {
		t.Errorf("a restart that fails: %d", code)
	}
	r.rooms.last().refusal = nil
	if code, _, _ := patch("*", strings.Replace(restart, "ysXw", "zzzz", 1)); code != 204 {
		t.Errorf("after it, the credentials are others than before: %d", code)
	}

	for _, c := range []struct {
		body   string
		header string
		status int
	}{
		{own, sdpType, 415}, {"v=0\r\n", fragType, 400}, {strings.Repeat("a=x\n", maxFragment/4+1), fragType, 413},
	} {
		w := r.call("PATCH", path, c.body, c.header, alice, "If-Match: *")
		if problem(t, w); w.Code != c.status || w.Header().Get("Accept-Patch") != typeFragment {
			t.Errorf("PATCH of %.20q: %d, want %d", c.body, w.Code, c.status)
		}
	}
}

func TestOverlappingRestartsTakeTurns(t *testing.T) { synctest.Test(t, overlappingRestarts) }

func overlappingRestarts(t *testing.T) {
	r := newRig(t, nil)
	alice := bearer(token(t, "alice", nil))
	path, _ := r.publish(strings.TrimPrefix(alice, "Authorization: Bearer "))
	close(r.rooms.last().connected)
	r.rooms.last().takes = 50 * time.Millisecond
	var wg sync.WaitGroup
	tags := make([]string, patchBurst-1)
	for i := range tags {
		wg.Go(func() {
			w := r.call("PATCH", path, strings.Replace(restart, "ysXw", fmt.Sprintf("u%04d", i), 1), fragType, alice, "If-Match: *")
			tags[i] = w.Header().Get("ETag")
		})
	}
	wg.Wait()
	if got := len(r.rooms.last().restarts); got != len(tags) {
		t.Fatalf("%d restarts of %d", got, len(tags))
	}
	last, valid := r.rooms.last().restarts[len(tags)-1], 0
	for i, tag := range tags {
		if w := r.s.sessions[strings.TrimPrefix(path, "/wish/")]; w.tag == tag {
			if valid++; fmt.Sprintf("u%04d", i) != last.Ufrag {
				t.Errorf("the valid tag is that of restart %d, the last one was %s", i, last.Ufrag)
			}
		}
	}
	if valid != 1 {
		t.Errorf("%d tags are valid", valid)
	}
	// The next are too many for one second.
	codes := map[int]int{}
	for range 3 {
		w := r.call("PATCH", path, trickled, fragType, alice, "If-Match: *")
		if codes[w.Code]++; w.Code == 429 && w.Header().Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if codes[429] != 2 {
		t.Errorf("a flood is answered with %v", codes)
	}
}

func TestEnding(t *testing.T) {
	r := newRig(t, nil)
	alice, bob := token(t, "alice", nil), token(t, "bob", nil)
	path, _ := r.publish(alice)
	for _, c := range []struct {
		name   string
		method string
		path   string
		header []string
		status int
	}{
		{"no token", "DELETE", path, nil, 401},
		{"somebody else", "DELETE", path, []string{bearer(bob)}, 403},
		{"alice of another room", "DELETE", path, []string{bearer(token(t, "alice", func(g *control.Grants) { g.Video.Room = "attic" }))}, 403},
		{"somebody else's restart", "PATCH", path, []string{bearer(bob), fragType, "If-Match: *"}, 403},
		{"a session that is none", "DELETE", "/wish/guess", []string{bearer(alice)}, 404},
		{"a method that is none", "PUT", path, []string{bearer(alice)}, 405},
		{"an answer to no counter-offer", "PATCH", path, []string{bearer(alice), sdpType}, 415},
	} {
		if w := r.call(c.method, c.path, "", c.header...); w.Code != c.status {
			t.Errorf("%s: %d, want %d", c.name, w.Code, c.status)
		} else if problem(t, w); c.status == 405 && !strings.Contains(w.Header().Get("Allow"), "DELETE") {
			t.Errorf("405 allows %q", w.Header().Get("Allow"))
		}
	}
	if w := r.call("GET", path, "", bearer(alice)); w.Code != 204 {
		t.Errorf("GET of a session: %d", w.Code)
	}
	// Any later token of the same person will do, and the first one even when it has expired.
	r.now = start.Add(2 * time.Hour)
	if w := r.call("DELETE", path, "", bearer(bob)); w.Code != 401 {
		t.Errorf("DELETE with somebody else's expired token: %d", w.Code)
	}
	if w := r.call("DELETE", path, "", bearer(alice), `If-Match: "x"`); w.Code != 200 {
		t.Errorf("DELETE: %d %s", w.Code, w.Body)
	}
	select {
	case <-r.rooms.last().done:
	default:
		t.Error("the session goes on")
	}
	r.now = start
	if w := r.call("DELETE", path, "", bearer(alice)); w.Code != 404 {
		t.Errorf("DELETE again: %d", w.Code)
	}
}

func TestQuestions(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/whip", "/whip/studio", "/whep/studio/alice"} {
		w := r.call("OPTIONS", path, "", "Origin: https://elsewhere.example", "Access-Control-Request-Method: POST")
		h := w.Header()
		if w.Code != 200 || h.Get("Accept-Post") != "application/sdp" || h.Get("Access-Control-Allow-Origin") != "*" ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") || len(h.Values("Link")) > 0 {
			t.Errorf("OPTIONS %s: %d %v", path, w.Code, h)
		}
		for _, method := range []string{"GET", "HEAD"} {
			if w := r.call(method, path, ""); w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Type") != "application/sdp" {
				t.Errorf("%s %s: %d %v", method, path, w.Code, w.Header())
			}
		}
		if w := r.call("DELETE", path, ""); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS, POST" {
			t.Errorf("DELETE %s: %d %v", path, w.Code, w.Header())
		}
	}
	w := r.call("OPTIONS", "/wish/anything", "")
	if h := w.Header(); w.Code != 200 || h.Get("Accept-Patch") != typeFragment || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PATCH") {
		t.Errorf("OPTIONS of a session: %d %v", w.Code, h)
	}
}
