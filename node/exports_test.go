package node

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/prepared"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency/retention"
)

// fetchPart asks for a link, or a part of what it leads to.
func fetchPart(t *testing.T, n *testNode, link, part string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+n.addr.String()+link, nil)
	if err != nil {
		t.Fatal(err)
	}
	if part != "" {
		req.Header.Set("Range", part)
	}
	resp, b := fetched(t, req)
	return resp, b
}

// exported has something exported and waits for its end.
func exported(t *testing.T, n *testNode, name, token string, q ExportRequest) ExportState {
	t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var s ExportState
	if refusal := call(t, n, "POST", "/api/rooms/"+name+"/exports", token, string(body), &s); refusal != nil {
		t.Fatalf("%s: %v", body, refusal)
	}
	eventually(t, "the export ends", func() bool {
		if refusal := call(t, n, "GET", "/api/rooms/"+name+"/exports/"+string(s.ID), token, "", &s); refusal != nil {
			t.Fatal(refusal)
		}
		return s.State == prepared.Done || s.State == prepared.Failed
	})
	if s.State != prepared.Done || s.URL == "" {
		t.Fatalf("%s: %+v", body, s)
	}
	return s
}

func nowhereInClear(t *testing.T, dir, canary string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("in clear in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestExports records a meeting with chat and gives its host, and nobody else, films,
// tables and an archive of it: from the origin, sealed on its disk, in parts if wanted,
// until the links end.
func TestExports(t *testing.T) {
	t.Parallel()
	b := testBundle(1)
	logged := *b.Policies["global"]
	logged.Name, logged.ChatLog, logged.AttendanceLog = "logged", true, true
	b.Policies["logged"] = &logged
	m := newMesh(t, b, "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	anna := enter(t, waw, "logged", "anna", preset("logged"))
	voice := anna.publish("voice", livekit.TrackType_AUDIO)
	bob := enter(t, fra, "logged", "bob", nil)
	bob.hears(voice)
	started, refusal := record(t, waw, "logged", "start")
	if refusal != nil {
		t.Fatal(refusal)
	}
	for _, p := range textStream("1", "lk.chat", "=canary()") {
		anna.say(p)
	}
	bob.hears(voice)
	token, guest := tokenFor(t, "logged", "boss", host), tokenFor(t, "logged", "guest", nil)
	eventually(t, "the message is kept", func() bool {
		_, s := getChat(t, fra, "logged", token, "text")
		return strings.Contains(s, "canary")
	})
	if _, refusal := record(t, waw, "logged", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	finished(t, fra, started.ID)

	var list kept
	if refusal := call(t, fra, "GET", "/api/rooms/logged/recordings", token, "", &list); refusal != nil {
		t.Fatal(refusal)
	}
	if len(list.Recordings) != 1 || string(list.Recordings[0].ID) != started.ID || len(list.Recordings[0].Tracks) != 1 || list.Recordings[0].Tracks[0].Participant != "anna" {
		t.Errorf("listed %+v", list)
	}
	t.Run("others are refused", func(t *testing.T) {
		for _, c := range []struct{ method, path, token, body string }{
			{"GET", "/api/rooms/logged/recordings", guest, ""},
			{"GET", "/api/rooms/logged/recordings", "", ""},
			{"GET", "/api/rooms/logged/recordings", tokenFor(t, "other", "boss", host), ""},
			{"POST", "/api/rooms/logged/exports", guest, `{"kind":"chat"}`},
			{"POST", "/api/rooms/logged/exports", token, `{"kind":"tenant"}`},
			{"POST", "/api/rooms/logged/exports", token, `{"kind":"chat","room":"other"}`},
		} {
			if r := call(t, fra, c.method, c.path, c.token, c.body, nil); r == nil || r.Code != CodeForbidden {
				t.Errorf("%s %s: %v", c.method, c.path, r)
			}
		}
		if r := call(t, waw, "GET", "/api/rooms/logged/recordings", token, "", nil); r == nil || r.Use == nil || r.Use.Node != "fra" {
			t.Errorf("on an edge: %v", r)
		}
		for body, code := range map[string]string{`{"kind":"x"}`: CodeInvalid, `{"kind":"recording","recording":"RE_nonenonenone"}`: CodeNotFound,
			`{"kind":"chat","format":"mp4"}`: CodeInvalid, `{"kind":"chat","password":"correct horse"}`: CodeInvalid, `{"kind":"room","password":"short"}`: CodeInvalid,
			`{"kind":"chat","days":1000}`: CodeInvalid, `{"kind":"recording","recording":"` + started.ID + `","format":"avi"}`: CodeInvalid} {
			if r := call(t, fra, "POST", "/api/rooms/logged/exports", token, body, nil); r == nil || r.Code != code {
				t.Errorf("%s: %v", body, r)
			}
		}
	})
	t.Run("a film, in parts", func(t *testing.T) {
		s := exported(t, fra, "logged", token, ExportRequest{Kind: exportRecording, Recording: list.Recordings[0].ID, Format: "webm"})
		resp, whole := fetchPart(t, fra, s.URL, "")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "video/webm" || int64(len(whole)) != s.Size || !bytes.HasPrefix(whole, []byte("\x1a\x45\xdf\xa3")) {
			t.Fatalf("%s, %d bytes of %d", resp.Status, len(whole), s.Size)
		}
		resp, part := fetchPart(t, fra, s.URL, "bytes=40-99")
		if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(part, whole[40:100]) {
			t.Errorf("a part: %s, %d bytes", resp.Status, len(part))
		}
		path := filepath.Join(t.TempDir(), "x.webm")
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", path).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "opus" {
			t.Errorf("%v: %s", err, out)
		}
		for _, forged := range []string{strings.Replace(s.URL, "until=", "until=9", 1), s.URL + "x", strings.Split(s.URL, "?")[0]} {
			if resp, _ := fetchPart(t, fra, forged, ""); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s: %s", forged, resp.Status)
			}
		}
		if r := call(t, fra, "DELETE", "/api/rooms/logged/exports/"+string(s.ID), token, "", nil); r != nil {
			t.Error(r)
		}
		if resp, _ := fetchPart(t, fra, s.URL, ""); resp.StatusCode != http.StatusGone {
			t.Errorf("after it was removed: %s", resp.Status)
		}
	})
	t.Run("tables", func(t *testing.T) {
		for _, c := range []struct{ kind, format, want string }{{exportChat, "txt", "Name of anna (chat): =canary()"}, {exportChat, "csv", "'=canary()"}, {exportChat, "xlsx", "PK"}, {exportStatistics, "csv", "recordings,1,"},
			{exportAttendance, "csv", "anna,Name of anna,"}, {exportRegistrations, "csv", "first_name,last_name,email"}, {exportConsents, "csv", "at,identity,name,event"}} {
			s := exported(t, fra, "logged", token, ExportRequest{Kind: c.kind, Format: c.format})
			if resp, body := fetchPart(t, fra, s.URL, ""); resp.StatusCode != 200 || !strings.Contains(string(body), c.want) || resp.Header.Get("Content-Type") != exportTypes[c.format] {
				t.Errorf("%s as %s: %s: %.200s", c.kind, c.format, resp.Status, body)
			}
		}
	})
	t.Run("all of the room, until the link ends", func(t *testing.T) {
		s := exported(t, fra, "logged", token, ExportRequest{Kind: exportRoom})
		_, body := fetchPart(t, fra, s.URL, "")
		z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range z.File {
			names = append(names, f.Name)
			if r, err := f.Open(); err != nil {
				t.Error(err)
			} else if _, err := io.Copy(io.Discard, r); err != nil {
				t.Errorf("%s: %v", f.Name, err)
			}
		}
		if got := strings.Join(names, " "); !strings.HasPrefix(got, "chat.txt chat.csv ") || !strings.HasSuffix(got, started.ID+".mkv gaps.csv") || !strings.Contains(got, "records.xlsx") {
			t.Errorf("it holds %s", got)
		}
		sealed := exported(t, fra, "logged", token, ExportRequest{Kind: exportRoom, Password: "correct horse battery"})
		if _, body := fetchPart(t, fra, sealed.URL, ""); bytes.Contains(body, []byte("canary")) || len(body) == 0 {
			t.Error("a sealed archive is in clear")
		}
		nowhereInClear(t, filepath.Join(fra.cfg.DataDir, "exports"), "canary")
		// The last second of a link; TestKeptThirtyDays has the days.
		for until, want := range map[time.Time]int{fra.now().Add(time.Minute): 200, fra.now().Add(-time.Second): http.StatusGone} {
			link := fmt.Sprintf("/api/exports/%s/x?until=%d&sig=%s", s.ID, until.Unix(), fra.exports.Sign(s.ID, until))
			if resp, _ := fetchPart(t, fra, link, ""); resp.StatusCode != want {
				t.Errorf("%v: %s", until, resp.Status)
			}
		}
		if got := s.Expires.Sub(s.Created); got != 30*24*time.Hour {
			t.Errorf("it lasts %v", got)
		}
	})
	t.Run("one recording is erased, and nothing else", func(t *testing.T) {
		film := exported(t, fra, "logged", token, ExportRequest{Kind: exportRecording, Recording: list.Recordings[0].ID, Format: "webm"})
		chat := exported(t, fra, "logged", token, ExportRequest{Kind: exportChat})
		const path = "/api/rooms/logged/erasures"
		one := `{"recording":"` + started.ID + `"}`
		for _, c := range []struct{ token, body, code string }{{guest, one, CodeForbidden}, {token, `{}`, CodeInvalid}, {token, `{"recording":"RE_nonenonenone"}`, CodeNotFound},
			{token, `{"recording":"` + started.ID + `","participant":"anna"}`, CodeInvalid}, {token, `{"participant":"` + strings.Repeat("x", 300) + `"}`, CodeInvalid}} {
			if r := call(t, fra, "POST", path, c.token, c.body, nil); r == nil || r.Code != c.code {
				t.Errorf("%.60s: %v", c.body, r)
			}
		}
		hold, refusal := order(t, fra, retention.Hold, OrderRequest{Room: "logged"})
		if refusal != nil {
			t.Fatal(refusal)
		}
		if r := call(t, fra, "POST", path, token, one, nil); r == nil || r.Rule != ruleHold || !strings.Contains(r.Message, hold.ID) {
			t.Errorf("under a hold: %v", r)
		}
		if _, r := order(t, fra, retention.Erasure, OrderRequest{Recording: started.ID}); r == nil || r.Rule != ruleHold {
			t.Errorf("under a hold, by the operator: %v", r)
		}
		if _, r := order(t, fra, retention.Hold, OrderRequest{Recording: started.ID}); r == nil || r.Code != CodeInvalid {
			t.Errorf("a hold on a recording: %v", r)
		}
		if _, r := order(t, fra, retention.Erasure, OrderRequest{Recording: "RE_nonenonenone"}); r == nil || r.Code != CodeNotFound {
			t.Errorf("no recording: %v", r)
		}
		if _, err := fra.liftHold(httptest.NewRequestWithContext(t.Context(), "DELETE", "/holds?id="+hold.ID, nil)); err != nil {
			t.Fatal(err)
		}
		var o OrderReport
		if r := call(t, fra, "POST", path, token, one, &o); r != nil {
			t.Fatal(r)
		}
		eventually(t, "the recording is gone", func() bool {
			if r := call(t, fra, "GET", path+"/"+o.ID, token, "", &o); r != nil {
				t.Fatal(r)
			}
			return len(o.Nodes) == 1 && o.Nodes[0].State == OrderDone
		})
		if infos, err := fra.vault.List(); err != nil || len(infos) != 0 {
			t.Errorf("%d recordings are left, %v", len(infos), err)
		}
		if resp, _ := fetchPart(t, fra, film.URL, ""); resp.StatusCode != http.StatusGone {
			t.Errorf("the film made of it: %s", resp.Status)
		}
		if resp, body := fetchPart(t, fra, chat.URL, ""); resp.StatusCode != 200 || !bytes.Contains(body, []byte("canary")) {
			t.Errorf("the chat: %s", resp.Status)
		}
		if r := call(t, fra, "GET", path+"/"+hold.ID, token, "", nil); r == nil || r.Code != CodeNotFound {
			t.Errorf("a hold as an erasure: %v", r)
		}
	})
	t.Run("all of it is erased", func(t *testing.T) {
		s := exported(t, fra, "logged", token, ExportRequest{Kind: exportChat})
		if r := call(t, fra, "DELETE", "/api/rooms/logged/recordings", guest, "", nil); r == nil || r.Code != CodeForbidden {
			t.Errorf("by a guest: %v", r)
		}
		if r := call(t, fra, "DELETE", "/api/rooms/logged/recordings", token, "", nil); r != nil {
			t.Fatal(r)
		}
		eventually(t, "nothing is left", func() bool {
			infos, err := fra.vault.List()
			resp, _ := fetchPart(t, fra, s.URL, "")
			return err == nil && len(infos) == 0 && resp.StatusCode == http.StatusGone
		})
	})
}

// TestPresence counts who was there.
func TestPresence(t *testing.T) {
	stays := []room.Stay{{Identity: "anna", JoinedMS: 1000, LeftMS: 5000}, {Identity: "bob", JoinedMS: 2000, LeftMS: 4000}, {Identity: "anna", JoinedMS: 5000, LeftMS: 6000}, {Identity: "eve", JoinedMS: 3000}}
	if people, present, most := presence(stays); people != 3 || present != 7*time.Second || most != 2 {
		t.Errorf("%d people for %v, at most %d at once", people, present, most)
	}
}

// TestFoldersDoNotMeet: rooms whose names differ by what no file name has, by their end
// or by case lie beside each other in an archive.
func TestFoldersDoNotMeet(t *testing.T) {
	f, seen := folders{}, map[string]bool{}
	long := strings.Repeat("x", 80)
	for _, name := range []string{"a/b", "a:b", "A-B", "..", "", long + "1", long + "2"} {
		dir := f.of(name)
		if seen[strings.ToLower(dir)] || strings.ContainsAny(dir, "/:") {
			t.Errorf("room %q lies in %q", name, dir)
		}
		seen[strings.ToLower(dir)] = true
	}
}
