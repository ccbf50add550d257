package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/residency"
)

// TestGatherIsBounded asks one origin that answers in two pages, one that falls silent
// after the first, one that refuses and one that repeats itself without end.
func TestGatherIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no := errors.New("no")
		began := time.Now()
		found := gatherAll(t.Context(), []residency.NodeName{"well", "silent", "refuses", "endless"}, func(ctx context.Context, origin residency.NodeName, from int) (reply, error) {
			page := reply{Lines: [][]byte{fmt.Appendf(nil, "%s %d", origin, from)}, More: from == 0}
			switch {
			case origin == "silent" && from > 0:
				<-ctx.Done()
				return reply{}, ctx.Err()
			case origin == "refuses":
				return reply{}, no
			case origin == "endless":
				page = reply{Lines: [][]byte{make([]byte, maxLineFile/10)}, More: true}
			}
			return page, nil
		})
		if d := time.Since(began); d != gatherWithin {
			t.Errorf("it took %v", d)
		}
		if f := found[0]; f.err != nil || len(f.lines) != 2 || string(f.lines[1]) != "well 1" {
			t.Errorf("an origin that is well: %q, %v", f.lines, f.err)
		}
		if f := found[1]; !errors.Is(f.err, context.DeadlineExceeded) || len(f.lines) != 1 {
			t.Errorf("an origin that falls silent: %q, %v", f.lines, f.err)
		}
		if !errors.Is(found[2].err, no) {
			t.Errorf("an origin that refuses: %v", found[2].err)
		}
		if f := found[3]; f.err == nil || len(f.lines) > 10 {
			t.Errorf("an origin without end: %d lines, %v", len(f.lines), f.err)
		}
	})
}

// TestTableWithoutAnOrigin has one of three origins fail, and then go: the table has what
// the others keep, and says in each form of whom it may lack something.
func TestTableWithoutAnOrigin(t *testing.T) {
	m := newMesh(t, attended(), "fra DE origin", "par FR origin", "waw PL origin")
	fra := m.node("fra")
	enter(t, fra, "town", "anna", preset("attended"))
	form := `{"first_name":"Ada","last_name":"Canary","email":"ada@example.org"}`
	if refusal := call(t, fra, "POST", "/api/rooms/town/registrations", tokenFor(t, "town", "ada", nil), form, nil); refusal != nil {
		t.Fatal(refusal)
	}
	var keeps residency.NodeName // the registration
	for _, name := range []residency.NodeName{"fra", "par", "waw"} {
		if files, _ := filepath.Glob(filepath.Join(m.node(name).cfg.DataDir, "registrations", "RE_*")); len(files) > 0 {
			keeps = name
		}
	}
	var others []*testNode
	for _, name := range []residency.NodeName{"fra", "par", "waw"} {
		if name != keeps {
			others = append(others, m.node(name))
		}
	}
	asked, fails := others[0], others[1]
	token := tokenFor(t, "town", "host", host)
	const path = "/api/rooms/town/registrations"
	says := func(why string) {
		t.Helper()
		status, body := download(t, asked, path, token)
		var out struct {
			Registrations []Registration
			Missing       []MissingOrigin
		}
		err := json.Unmarshal([]byte(body), &out)
		if status != http.StatusOK || err != nil || len(out.Registrations) != 1 || len(out.Missing) != 1 || out.Missing[0].Node != fails.cfg.Self.Name || !strings.Contains(out.Missing[0].Why, why) {
			t.Fatalf("%d %s", status, body)
		}
		status, body = download(t, asked, path+"?format=csv", token)
		lines := strings.Split(body, "\r\n")
		if status != http.StatusOK || len(lines) != 4 || !strings.HasPrefix(lines[1], "incomplete: what node "+string(fails.cfg.Self.Name)) || !strings.Contains(lines[2], "Canary") {
			t.Errorf("%d %s", status, body)
		}
		rec, err := asked.onceRoom(t.Context(), "town", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, notes, err := asked.table(t.Context(), rec, exportRegistrations); err != nil || len(notes) != 1 || !strings.Contains(notes[0], string(fails.cfg.Self.Name)) {
			t.Errorf("an export notes %q, %v", notes, err)
		}
	}
	if status, body := download(t, asked, path, token); status != http.StatusOK || strings.Contains(body, "missing") || !strings.Contains(body, "Canary") {
		t.Fatalf("while all are well: %d %s", status, body)
	}
	folder := filepath.Join(fails.cfg.DataDir, "registrations")
	if err := errors.Join(os.Rename(folder, folder+".away"), os.WriteFile(folder, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	says("")
	m.halt(fails.cfg.Self.Name)
	eventually(t, "it is away", func() bool { return !asked.isMember(fails.cfg.Self) })
	says("it is away")
}
