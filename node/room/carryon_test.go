package room

import (
	"testing"
	"time"

	"github.com/domicile/domicile/residency/vault"
)

// TestGapOfALostHome loses the home, which records the room: the node that is home next
// was told of neither death, and states all the time for which nothing was recorded.
func TestGapOfALostHome(t *testing.T) {
	s := newStage(t, "edge")
	s.at = "waw"
	s.doHome(s.deps.Now())
	s.has(t, "waw", false, person("PA_anna", "anna"))
	s.has(t, "nyc", true, person("PA_eve", "eve"))
	s.record.Recording = &Recording{ID: "RE_1", Node: "waw"}
	s.home.nodes["waw"] = Presence{Node: "waw", Participants: 1, Recorder: true}
	var goesOn *vault.After
	s.deps.Continue = func(_ Record, a vault.After) { goesOn = &a }

	died := s.deps.Now()
	for at := 100 * time.Millisecond; goesOn == nil && at < 10*time.Second; at += 100 * time.Millisecond {
		s.later(100 * time.Millisecond)
		switch at {
		case 1200 * time.Millisecond: // the link has ended
			s.remotes["waw"].lostAt = s.deps.Now()
		case 2300 * time.Millisecond: // gossip has given it up
			s.dropRemote("waw")
		case 2400 * time.Millisecond:
			s.at = "fra"
			s.doHome(s.deps.Now())
		}
		s.doLostRecording(s.deps.Now())
	}
	if goesOn == nil {
		t.Fatal("the recording does not go on")
	}
	missing := s.deps.Now().Sub(died)
	if goesOn.Gap < missing || goesOn.Gap > missing+time.Second || goesOn.Part != 2 || goesOn.Node != "waw" {
		t.Errorf("it says %+v, and %s are missing", *goesOn, missing)
	}
	if missing > 3*time.Second {
		t.Errorf("it goes on after %s: the new home waits for what it knows", missing)
	}
}
