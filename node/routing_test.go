package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/router"
)

// A changed routing file counts at once for who joins next; a bad one changes
// nothing and says so until it is mended.
func TestRoutingFileIsFollowed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routing.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("weights: {}\n")
	m := newMeshOf(t, testBundle(1), func(m *testMesh, c *Config) {
		inCities(m, c)
		c.Routing = Routing{File: file, Load: configs.LoadRouting}
	}, "fra DE origin", "waw PL edge")
	fra := m.node("fra")
	warsaw := router.Attendee{Country: "PL", At: cities["waw"], Known: true}
	goes := func(to string, rule string) {
		t.Helper()
		eventually(t, "somebody from Warsaw goes to "+to, func() bool {
			p := fra.place(roomCalled("town"), warsaw, seat{})
			return string(p.Node()) == to && p.Rule == rule
		})
	}
	goes("waw", router.RuleNearest)
	write("overrides:\n  - {name: poland, countries: [PL], not: [waw]}\n")
	goes("fra", router.RuleOnly)
	write("overrides:\n  - {name: poland, countries: [PL], not: waw}\n")
	eventually(t, "the bad file is refused loudly", func() bool {
		s := fra.state().Routing
		return strings.Contains(s.Problem, "routing.yaml:2:") && strings.Contains(fra.log.String(), "does not count")
	})
	goes("fra", router.RuleOnly)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a file that is gone is refused", func() bool { return strings.Contains(fra.state().Routing.Problem, "no such file") })
	goes("fra", router.RuleOnly)
	write("overrides:\n  - {name: poland, countries: [PL], prefer: [fra], by_ms: 5}\n")
	goes("waw", router.RuleNearest)
	if s := fra.state().Routing; s.Problem != "" || s.Since.IsZero() {
		t.Errorf("after the mend: %+v", s)
	}
}
