package node

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// download asks a node for a table of a room.
func download(t *testing.T, n *testNode, path, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+n.addr.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// onDisk counts the files below a node's directory that a name leads to, and fails when
// one of its files says something in clear.
func onDisk(t *testing.T, n *testNode, below, canary string) (count int) {
	t.Helper()
	err := filepath.WalkDir(n.cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s says %q", path, canary)
		}
		if strings.HasPrefix(path, filepath.Join(n.cfg.DataDir, below)) && strings.HasSuffix(path, ".dtr") {
			count++
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return count
}

// attended is a bundle with a policy that keeps attendance and takes registrations.
func attended() *residency.Bundle {
	b := testBundle(1)
	p := *b.Policies["global"]
	p.Name, p.AttendanceLog, p.Registration = "attended", true, true
	b.Policies["attended"] = &p
	return b
}

// TestAttendance keeps who was there on origins of the zone alone, sealed, where the
// policy has it kept; it outlives the home that began, and the host alone gets it.
func TestAttendance(t *testing.T) {
	t.Parallel()
	m := newMesh(t, attended(), "fra DE origin", "par FR origin", "nyc US")
	nyc := m.node("nyc")
	anna := enter(t, nyc, "town", "anna", preset("attended"))
	eve := enter(t, nyc, "town", "eve-canary", preset("attended"))
	unkept := enter(t, nyc, "elsewhere", "bob", nil)
	anna.sees("eve-canary")
	home := nyc.home(nyc.rooms.get("town").Snapshot().Record)
	next := m.node(map[residency.NodeName]residency.NodeName{"fra": "par", "par": "fra"}[home])
	token := tokenFor(t, "town", "host", host)
	stays := func(n *testNode) map[string]room.Stay {
		t.Helper()
		status, body := download(t, n, "/api/rooms/town/attendance", token)
		var out struct{ Stays []room.Stay }
		if err := json.Unmarshal([]byte(body), &out); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		found := map[string]room.Stay{}
		for _, s := range out.Stays {
			found[s.Identity] = s
		}
		return found
	}
	for _, n := range []*testNode{m.node(home), next} { // the other origin asks the home
		eventually(t, "both are there", func() bool { return len(stays(n)) == 2 })
	}
	if s := stays(next)["eve-canary"]; s.LeftMS != 0 || s.Node != "nyc" || s.Country != "US" || time.Since(time.UnixMilli(s.JoinedMS)) > time.Minute {
		t.Errorf("got %+v", s)
	}
	eve.close()
	eventually(t, "eve has left", func() bool { return stays(next)["eve-canary"].LeftMS >= stays(next)["eve-canary"].JoinedMS })
	status, body := download(t, m.node(home), "/api/rooms/town/attendance?format=csv", token)
	if status != http.StatusOK || !strings.HasPrefix(body, "identity,name,joined,left,seconds,node,country\r\nanna,") || strings.Count(body, "\n") != 3 {
		t.Errorf("%d %s", status, body)
	}
	for _, who := range []string{tokenFor(t, "town", "guest", nil), tokenFor(t, "elsewhere", "host", host)} {
		if status, body := download(t, m.node(home), "/api/rooms/town/attendance", who); status != http.StatusForbidden {
			t.Errorf("somebody else gets %d %s", status, body)
		}
	}
	if status, body := download(t, nyc, "/api/rooms/town/attendance", token); status != http.StatusForbidden || !strings.Contains(body, `"use"`) {
		t.Errorf("a node outside the zone: %d %s", status, body)
	}
	if onDisk(t, m.node(home), "attendance", "eve-canary") != 1 || onDisk(t, nyc, "attendance", "eve-canary") != 0 {
		t.Error("attendance is not where it should be")
	}
	m.halt(home)
	eventually(t, "the room has another home", func() bool { return nyc.home(nyc.rooms.get("town").Snapshot().Record) == next.cfg.Self.Name })
	eventually(t, "the next home has seen anna", func() bool { return stays(next)["anna"].SID != "" })
	anna.close()
	unkept.close()
	eventually(t, "anna has left", func() bool { return stays(next)["anna"].LeftMS != 0 })
}

// TestRegistration takes registrations on nodes in the zone of metadata, keeps them on an
// origin, and refuses forms that lack something.
func TestRegistration(t *testing.T) {
	t.Parallel()
	m := newMesh(t, attended(), "fra DE origin", "par FR origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	enter(t, fra, "town", "anna", preset("attended"))
	enter(t, fra, "plain", "anna", nil)
	register := func(n *testNode, name, form string) *Refusal {
		return call(t, n, "POST", "/api/rooms/"+name+"/registrations", tokenFor(t, name, "ada", nil), form, nil)
	}
	good := `{"first_name":" Ada ","last_name":"Canary","email":"ada@example.org","company":"=1+1","phone":"+49 30 1"}`
	for _, n := range []*testNode{fra, m.node("par")} {
		if refusal := register(n, "town", good); refusal != nil {
			t.Fatal(refusal)
		}
	}
	for form, want := range map[string]string{
		`{"last_name":"x","email":"a@b.example"}`:                                                            "first_name is missing",
		`{"first_name":"x","last_name":" ","email":"a@b.example"}`:                                           "last_name is missing",
		`{"first_name":"x","last_name":"y"}`:                                                                 "email is missing",
		`{"first_name":"x","last_name":"y","email":"canary"}`:                                                "email is no address",
		`{"first_name":"x","last_name":"y","email":"A <a@b.example>"}`:                                       "email is no address",
		`{"first_name":"x\u202e","last_name":"y","email":"a@b.example"}`:                                     "cannot be printed",
		`{"first_name":"` + strings.Repeat("x", maxFormField+1) + `","last_name":"y","email":"a@b.example"}`: "first_name is too long",
		`{"first_name":"x","last_name":"y","email":"a@b.example","shoe_size":"7"}`:                           "unknown field",
	} {
		if refusal := register(fra, "town", form); refusal == nil || refusal.Code != CodeInvalid || !strings.Contains(refusal.Message, want) {
			t.Errorf("%.60s: %v, want %s", form, refusal, want)
		}
	}
	if refusal := register(fra, "plain", good); refusal == nil || refusal.Rule != residency.RuleNotStored {
		t.Errorf("a policy without registration: %v", refusal)
	}
	if refusal := register(nyc, "town", good); refusal == nil || refusal.Code != CodeRefused || refusal.Use == nil || refusal.Use.Node == "nyc" {
		t.Errorf("a node outside the zone: %v", refusal)
	}
	if refusal := call(t, fra, "POST", "/api/rooms/town/registrations", "", good, nil); refusal != nil {
		t.Errorf("a guest: %v", refusal)
	}
	token := tokenFor(t, "town", "host", host)
	for _, n := range []*testNode{fra, m.node("par")} {
		status, body := download(t, n, "/api/rooms/town/registrations?format=csv", token)
		lines := strings.Split(strings.TrimSpace(body), "\r\n")
		if status != http.StatusOK || len(lines) != 4 || !strings.HasSuffix(body, ",'+49 30 1,\r\n") || !strings.HasSuffix(lines[1], ",Ada,Canary,ada@example.org,'=1+1,,'+49 30 1,ada") {
			t.Errorf("%d %s", status, body)
		}
	}
	if status, _ := download(t, fra, "/api/rooms/town/registrations", tokenFor(t, "town", "guest", nil)); status != http.StatusForbidden {
		t.Errorf("a guest gets %d", status)
	}
	if onDisk(t, fra, "registrations", "Canary")+onDisk(t, m.node("par"), "registrations", "Canary") == 0 || onDisk(t, nyc, "registrations", "Canary") != 0 {
		t.Error("registrations are not where they should be")
	}
}
