package node

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/router"
)

// What a routing file would change is put together from what each node says of
// those whom it serves, without names and addresses; nobody is moved.
func TestRoutingPlanOverTheMesh(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, testBundle(1), func(m *testMesh, c *Config) {
		inCities(m, c)
		rules := router.DefaultRules()
		rules.Weights.Room = 0 // the round trips of the test's links are the machine's: from 31 ms on anna would be placed on waw
		c.Routing = Routing{Rules: rules, Parse: configs.ParseRouting}
	}, "fra DE origin", "waw PL edge", "nyc US edge")
	fra := m.node("fra")
	enter(t, fra, "town", "anna", preset("eea-only"))
	waw := enter(t, m.node("waw"), "town", "ben", preset("eea-only"))
	waw.sees("anna")
	for _, at := range []*testNode{fra, m.node("waw")} { // or anna is placed as if nobody carried the room
		eventually(t, "both nodes tell of both", func() bool { return carry(at, "town") == 2 })
	}
	plan := func(overrides string) (out RoutingPlan, err error) {
		t.Helper()
		body, _ := json.Marshal(map[string][]byte{"rules": []byte("weights: {room: 0}\n" + overrides)})
		return fra.planRouting(httptest.NewRecorder(), httptest.NewRequest("POST", "/routing/plan", bytes.NewReader(body)))
	}
	got, err := plan("")
	if err != nil || got.People != 2 || len(got.Moves) != 0 {
		t.Errorf("the rules in force: %v %+v", err, got)
	}
	got, err = plan("overrides:\n  - {name: repair, not: [waw, nyc]}\n")
	moved := 0
	for _, mv := range got.Moves {
		if mv.From != "waw" || mv.To != "fra" || mv.Policy != "eea-only" || !strings.HasPrefix(mv.Room, "RM_") {
			t.Errorf("moves %+v", mv)
		}
		moved += mv.People
	}
	if err != nil || moved != 1 || got.Refused != 0 {
		t.Errorf("waw is excluded: %v\n%s", err, got.Text)
	}
	for _, secret := range []string{"anna", "ben", "town", "127.0.0.1"} {
		if b, _ := json.Marshal(got); bytes.Contains(b, []byte(secret)) {
			t.Errorf("%q is told: %s", secret, b)
		}
	}
	if got, err = plan("overrides:\n  - {name: away, only: [nyc]}\n"); err != nil || got.Refused != 2 {
		t.Errorf("pinned to a node that the policy refuses: %v\n%s", err, got.Text)
	}
	if _, err := plan("overrides: [\n"); asRefusal(err).Code != CodeInvalid {
		t.Errorf("bad rules: %v", err)
	}
	waw.sees("anna") // nobody was moved
}
