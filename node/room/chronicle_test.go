package room

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

func someone(sid string, tracks ...string) *livekit.ParticipantInfo {
	p := &livekit.ParticipantInfo{Sid: sid, Identity: sid, Region: "fra", JoinedAtMs: int64(len(sid))}
	for _, t := range tracks {
		p.Tracks = append(p.Tracks, &livekit.TrackInfo{Sid: t})
	}
	return p
}

func story(events []Event) string {
	var s []string
	for _, e := range events {
		text := strings.NewReplacer("participant_", "", "track_", "", "room_", "room ", "recording_", "recording ").Replace(string(e.Kind))
		if e.Participant != nil {
			text += " " + e.Participant.Sid
		}
		if e.Track != nil {
			text += "/" + e.Track.Sid
		}
		if e.Recording != nil {
			text += " " + e.Recording.ID + e.Problem
		}
		s = append(s, text)
	}
	return strings.Join(s, ", ")
}

// TestChronicle tells a meeting from beginning to end.
func TestChronicle(t *testing.T) {
	var c chronicle
	first, second := &Recording{ID: "RE_1"}, &Recording{ID: "RE_2"}
	people := func(p ...*livekit.ParticipantInfo) []*livekit.ParticipantInfo { return p }
	for i, tt := range []struct {
		people []*livekit.ParticipantInfo
		rec    *Recording
		why    string
		want   string
	}{
		{nil, nil, "", ""},
		{people(someone("bob2", "v"), someone("ann")), nil, "", "room started, joined ann, joined bob2, published bob2/v"},
		{people(someone("bob2", "v"), someone("ann")), nil, "", ""},
		{people(someone("bob2", "w"), someone("ann", "a")), first, "", "published ann/a, unpublished bob2/v, published bob2/w, recording started RE_1"},
		{people(someone("ann", "a")), second, ": its node is gone", "unpublished bob2/w, left bob2, recording ended RE_1: its node is gone, recording started RE_2"},
		{people(someone("ann", "a"), someone("bob33")), nil, "", "joined bob33, recording ended RE_2"},
		{nil, nil, "", "unpublished ann/a, left ann, left bob33"},
		{people(someone("ann")), nil, "", "joined ann"},
	} {
		if got := story(c.look(tt.people, tt.rec, tt.why)); got != tt.want {
			t.Errorf("%d:\n  got  %s\n  want %s", i, got, tt.want)
		}
	}
	if got := story(c.end("")) + "; " + story(c.end("")); got != "left ann, room finished; " {
		t.Errorf("the end: %s", got)
	}
}

// TestChronicleAddsUp plays random meetings: who hears the events knows at every moment
// who is there with which tracks.
func TestChronicleAddsUp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var c chronicle
		heard := map[string]map[string]bool{}
		for range 30 {
			var people []*livekit.ParticipantInfo
			for _, sid := range []string{"a", "bb", "ccc"} {
				if r.IntN(3) > 0 {
					people = append(people, someone(sid, []string{"x" + sid, "y" + sid, "z" + sid}[:r.IntN(4)]...))
				}
			}
			for _, e := range c.look(people, nil, "") {
				switch sid := e.Participant.GetSid(); {
				case e.Kind == Joined && heard[sid] == nil:
					heard[sid] = map[string]bool{}
				case e.Kind == Left && len(heard[sid]) == 0:
					delete(heard, sid)
				case e.Kind == Published && heard[sid] != nil && !heard[sid][e.Track.Sid]:
					heard[sid][e.Track.Sid] = true
				case e.Kind == Unpublished && heard[sid][e.Track.Sid]:
					delete(heard[sid], e.Track.Sid)
				case e.Kind == RoomStarted:
				default:
					t.Fatalf("%s is told while %v is known", story([]Event{e}), heard)
				}
			}
			want := map[string]map[string]bool{}
			for _, p := range people {
				want[p.Sid] = map[string]bool{}
				for _, track := range p.Tracks {
					want[p.Sid][track.Sid] = true
				}
			}
			if fmt.Sprint(heard) != fmt.Sprint(want) {
				t.Fatalf("known %v, there are %v", heard, want)
			}
		}
	}
}

// TestStays puts the lines of two homes together, of which the second repeats.
func TestStays(t *testing.T) {
	line := func(at int64, e EventKind, sid string, node residency.NodeName) AttendanceLine {
		return AttendanceLine{AtMS: at, Event: e, SID: sid, Identity: "i-" + sid, Node: node}
	}
	got := Stays([]AttendanceLine{
		line(50, Joined, "a", "par"), line(70, Left, "a", "par"), // the second home's
		line(10, Joined, "a", "fra"), line(20, Joined, "b", "fra"), line(30, Left, "b", "fra"), line(60, Joined, "c", "fra"),
	})
	want := []Stay{{SID: "a", Identity: "i-a", Node: "par", JoinedMS: 10, LeftMS: 70}, {SID: "b", Identity: "i-b", Node: "fra", JoinedMS: 20, LeftMS: 30},
		{SID: "c", Identity: "i-c", Node: "fra", JoinedMS: 60}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
