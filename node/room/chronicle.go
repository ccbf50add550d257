package room

import (
	"cmp"
	"slices"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// What happens in a room is told to its node: attendance and webhooks are made of it.
// Every node of the room keeps the chronicle, the room's home alone tells it, so that a
// home that takes over goes on where the one before was. What the room did within a tick
// is told at its end: who came and went in between is not mentioned.
//
// A home that starts anew knows nothing of before and tells of everybody who is there:
// who hears it knows them by their sid.

// EventKind names what happened, as LiveKit's webhooks do.
type EventKind string

// The kinds.
const (
	RoomStarted      EventKind = "room_started"  // the first participant is there
	RoomFinished     EventKind = "room_finished" // the room ends
	Joined           EventKind = "participant_joined"
	Left             EventKind = "participant_left"
	Published        EventKind = "track_published"
	Unpublished      EventKind = "track_unpublished"
	RecordingStarted EventKind = "recording_started"
	RecordingEnded   EventKind = "recording_ended"
)

// Event is something that happened. Nothing in it is ever changed.
type Event struct {
	Kind        EventKind
	Participant *livekit.ParticipantInfo // of the events about one, and about tracks
	Track       *livekit.TrackInfo
	Node        residency.NodeName // that serves the participant
	Recording   *Recording
	Problem     string // why the recording ended, if nobody asked for it
	People      int    // who are there afterwards
}

// chronicle tells events from what the room was and is. It is owned by Room.run.
type chronicle struct {
	open      bool // RoomStarted has been told
	people    map[string]*livekit.ParticipantInfo
	recording *Recording
}

// look compares the room with what it was. Participants are never changed after they
// were shown: a new one takes their place.
func (c *chronicle) look(people []*livekit.ParticipantInfo, rec *Recording, problem string) (events []Event) {
	here := make(map[string]*livekit.ParticipantInfo, len(people))
	var came []*livekit.ParticipantInfo
	for _, p := range people {
		here[p.Sid] = p
		if c.people[p.Sid] == nil {
			came = append(came, p)
		}
	}
	for _, p := range sorted(c.people) {
		if here[p.Sid] == nil {
			events = append(append(events, unpublished(p, nil)...), event(Left, p))
		}
	}
	slices.SortFunc(came, byJoin)
	if len(came) > 0 && !c.open {
		c.open = true
		events = append(events, Event{Kind: RoomStarted})
	}
	for _, p := range came {
		events = append(append(events, event(Joined, p)), published(nil, p)...)
	}
	for _, p := range sorted(here) {
		if old := c.people[p.Sid]; old != nil && old != p {
			events = append(append(events, unpublished(old, p)...), published(old, p)...)
		}
	}
	c.people = here
	for i := range events {
		events[i].People = len(here)
	}
	return append(events, c.lookAt(rec, problem)...)
}

// lookAt tells of recordings.
func (c *chronicle) lookAt(rec *Recording, problem string) (events []Event) {
	old := c.recording
	c.recording = rec
	if old != nil && (rec == nil || rec.ID != old.ID) {
		events = append(events, Event{Kind: RecordingEnded, Recording: old, Problem: problem, People: len(c.people)})
	}
	if rec != nil && (old == nil || rec.ID != old.ID) {
		events = append(events, Event{Kind: RecordingStarted, Recording: rec, People: len(c.people)})
	}
	return events
}

// end tells that everybody has left and the room is over.
func (c *chronicle) end(problem string) []Event {
	events := c.look(nil, nil, problem)
	if c.open {
		c.open = false
		events = append(events, Event{Kind: RoomFinished})
	}
	return events
}

func event(k EventKind, p *livekit.ParticipantInfo) Event {
	return Event{Kind: k, Participant: p, Node: residency.NodeName(p.Region)}
}

// published are the tracks that a participant has now and had not before; before is nil
// for one who has just come.
func published(before, now *livekit.ParticipantInfo) (events []Event) {
	for _, t := range now.Tracks {
		if !hasTrack(before, t.Sid) {
			e := event(Published, now)
			e.Track = t
			events = append(events, e)
		}
	}
	return events
}

func unpublished(before, now *livekit.ParticipantInfo) (events []Event) {
	for _, e := range published(now, before) {
		e.Kind = Unpublished
		events = append(events, e)
	}
	return events
}

func hasTrack(p *livekit.ParticipantInfo, sid string) bool {
	return slices.ContainsFunc(p.GetTracks(), func(t *livekit.TrackInfo) bool { return t.Sid == sid })
}

func sorted(people map[string]*livekit.ParticipantInfo) []*livekit.ParticipantInfo {
	list := make([]*livekit.ParticipantInfo, 0, len(people))
	for _, p := range people {
		list = append(list, p)
	}
	slices.SortFunc(list, byJoin)
	return list
}

func byJoin(a, b *livekit.ParticipantInfo) int {
	return cmp.Or(cmp.Compare(a.JoinedAtMs, b.JoinedAtMs), cmp.Compare(a.Sid, b.Sid))
}

// doChronicle tells what has happened since the last time, if this node is the home.
func (r *Room) doChronicle() {
	snap := r.snapshot.Load()
	if r.deps.Event == nil || snap == r.chronicled {
		return
	}
	r.chronicled = snap
	r.tellEvents(r.chronicle.look(snap.Participants, snap.Record.Recording, snap.Record.RecordingProblem))
}

// endChronicle tells of the room's end. A home that stops leaves a room in which others
// are to the next home, which tells who has gone with it.
func (r *Room) endChronicle(reason livekit.DisconnectReason) {
	elsewhere := 0
	for _, m := range r.remotes {
		elsewhere += len(m.participants)
	}
	if r.deps.Event == nil || reason == livekit.DisconnectReason_SERVER_SHUTDOWN && elsewhere > 0 {
		return
	}
	r.doChronicle()
	r.tellEvents(r.chronicle.end(r.record.RecordingProblem))
}

func (r *Room) tellEvents(events []Event) {
	if r.home.name != r.deps.Self.Name {
		return
	}
	for _, e := range events {
		r.deps.Event(r.record, e)
	}
}
