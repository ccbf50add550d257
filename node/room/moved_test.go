package room

import (
	"testing"
	"time"
)

// TestDoubtEndsNoTrack has nodes doubt what they know of each other's participants, as
// both do whenever somebody goes from one to the other: they ask, and the tracks between
// them go on. It was the longest part of a move that nothing came meanwhile.
func TestDoubtEndsNoTrack(t *testing.T) {
	s := newMiddle(t)
	s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3, Available: 1})
	if s.track.way.at.link == nil {
		t.Fatal("the track does not come")
	}
	newest[Participants](s, "waw", KindParticipants)
	newest[Subscribe](s, "waw", KindSubscribe)

	s.later(2 * time.Second)
	s.compare(Presence{Node: "waw", Participants: 1, Who: digest("PA_wilma")})
	if got := newest[Participants](s, "waw", KindParticipants); !got.Tell || !got.Kept || !got.Whole {
		t.Errorf("waw is told %+v", got)
	}
	here := Participants{Presence: Presence{Node: "waw", Participants: 1, Who: digest("PA_wanda")}, Whole: true, Here: []string{"PA_wanda"}, Tell: true, Kept: true}
	s.says("waw", KindParticipants, here)
	if got := newest[Participants](s, "waw", KindParticipants); !got.Whole || got.Tell {
		t.Errorf("waw, which asks, is told %+v", got)
	}
	if s.track.way.at.link == nil {
		t.Error("a doubt has ended the track")
	}
	here.Kept = false // it has forgotten everything
	s.says("waw", KindParticipants, here)
	if s.track.way.at.link != nil {
		t.Error("the track of a node that has forgotten this one is waited for")
	}
	s.doReconcile()
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.Layers != 1 {
		t.Errorf("and is not asked for again: %+v", got)
	}
}
