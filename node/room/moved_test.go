package room

import (
	"testing"
	"time"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
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
	here.Kept = false // it has forgotten everything, and ended what it sent
	s.track.way.at.link.Unbind(3)
	s.says("waw", KindParticipants, here)
	s.doReconcile()
	if s.track.way.at.link != nil {
		t.Error("the track of a node that has forgotten this one is waited for")
	}
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.Layers != 1 {
		t.Errorf("and is not asked for again: %+v", got)
	}
}

// TestGhostOfWhoIsBack lets a session go whose participant went to another node and has
// come back meanwhile: what they publish stays, and nobody is told that they left.
func TestGhostOfWhoIsBack(t *testing.T) {
	s := newMiddle(t)
	ended := false
	ada := func() *Participant {
		return &Participant{room: s.Room, sid: "PA_ada", identity: "ada", info: person("PA_ada", "ada", "TR_ada"), log: s.log,
			session: &rtc.Session{}, stop: func(error) { ended = true }}
	}
	was, now := ada(), ada()
	s.locals["ada"] = now
	info := now.info.Tracks[0]
	mine := &track{id: "TR_ada", node: "fra", ownerSID: "PA_ada", ownerIdentity: "ada", info: info, poke: s.poke,
		media: TrackRecord{Codec: vp8}, up: newUp("TR_ada", sfu.Video, info, TrackRecord{Codec: vp8}, false)}
	s.tracks[mine.id] = mine
	s.ghosts = []ghost{{p: was, until: s.deps.Now().Add(ghostLife)}}
	newest[Participants](s, "waw", KindParticipants)

	s.noteArrived("PA_ada")
	s.later(ghostTail - time.Millisecond)
	s.noteArrived("PA_ada") // every later record of theirs says so too
	s.doGhosts(s.deps.Now())
	if ended {
		t.Fatal("the session ends too soon")
	}
	s.later(time.Millisecond)
	s.doGhosts(s.deps.Now())
	if !ended || len(s.ghosts) != 0 {
		t.Error("records that repeat an arrival keep the session alive")
	}
	s.doUnpublished(was, mine.id)
	if s.tracks[mine.id] != mine || len(now.info.Tracks) != 1 {
		t.Error("the end of the session before has ended the track")
	}
	if got := newest[Participants](s, "waw", KindParticipants); len(got.Left) > 0 {
		t.Errorf("waw is told that %v left", got.Left)
	}
}
