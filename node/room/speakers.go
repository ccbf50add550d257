package room

import (
	"errors"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu/speakers"
	"github.com/domicile/domicile/residency"
)

// Who speaks is measured where somebody publishes, from the levels in the
// packets, and told to the other nodes: they hear of people whose sound they do
// not get. A node tells everybody who speaks there, whenever that changes and
// every speakersAgain while somebody does, so that a lost message heals.
const (
	speakersAgain = 2 * time.Second
	// speakersStale is the age at which a node's word does not count any more.
	speakersStale = 3 * speakersAgain
	// maxSpeakers bounds those whom one node states to be speaking.
	maxSpeakers = 1000
)

// selection is what the room knows of who is loud. Owned by Room.run, but safe
// for those who ingest packets.
type selection struct {
	active *speakers.Active  // publishers here
	here   *speakers.Loudest // among all, for attendees here
	away   *speakers.Loudest // among publishers here, for other nodes
	update time.Time         // when active was asked last
	told   time.Time         // when the other nodes were told last
}

func newSelection(places int) selection {
	cfg := speakers.Config{Places: places}
	return selection{active: speakers.NewActive(), here: speakers.NewLoudest(cfg), away: speakers.NewLoudest(cfg)}
}

// Speaking says who speaks on a node: everybody who does.
type Speaking struct {
	Speakers []Speaker `json:"speakers"`
}

// Speaker is one of them.
type Speaker struct {
	SID   string  `json:"sid"`
	Level float32 `json:"level"` // above 0, up to 1
}

func (s *Speaking) check() error {
	if len(s.Speakers) > maxSpeakers {
		return errors.New("too many speakers")
	}
	for _, x := range s.Speakers {
		if !(x.Level > 0 && x.Level <= 1) {
			return errors.New("a speaker's level is out of range")
		}
	}
	return nil
}

// doSelect lets the selections and the measurement go on.
func (r *Room) doSelect(now time.Time) {
	r.selection.here.Tick(now)
	r.selection.away.Tick(now)
	if now.Sub(r.selection.update) < speakers.Interval {
		return
	}
	r.selection.update = now
	changed := r.selection.active.Update(now)
	var infos []*livekit.SpeakerInfo
	for _, s := range changed {
		infos = append(infos, &livekit.SpeakerInfo{Sid: string(s.Owner), Level: s.Level, Active: s.Active})
	}
	r.tellSpeakers(infos)
	r.tellSpeaking(now, len(changed) > 0)
	for _, m := range r.remotes {
		if len(m.speaking) > 0 && now.Sub(m.spokeAt) > speakersStale {
			r.takeSpeaking(m, nil)
		}
	}
}

// tellSpeaking tells the other nodes who speaks here.
func (r *Room) tellSpeaking(now time.Time, changed bool) {
	speaking := r.selection.active.Now()
	if !changed && (len(speaking) == 0 || now.Sub(r.selection.told) < speakersAgain) {
		return
	}
	r.selection.told = now
	m := Speaking{Speakers: []Speaker{}}
	for _, s := range speaking[:min(len(speaking), maxSpeakers)] {
		m.Speakers = append(m.Speakers, Speaker{SID: string(s.Owner), Level: s.Level})
	}
	body := encode(m)
	for name := range r.remotes {
		r.sendTo(name, KindSpeaking, body) //nolint:errcheck // told again
	}
}

// doSpeaking takes a node's word on its own participants.
func (r *Room) doSpeaking(from residency.NodeName, s Speaking) {
	m := r.remotes[from]
	if m == nil {
		return
	}
	m.spokeAt = r.deps.Now()
	now := map[string]float32{}
	for _, x := range s.Speakers {
		if m.participants[x.SID] != nil {
			now[x.SID] = x.Level
		}
	}
	r.takeSpeaking(m, now)
}

// takeSpeaking tells attendees here what has changed on another node.
func (r *Room) takeSpeaking(m *remote, now map[string]float32) {
	var infos []*livekit.SpeakerInfo
	for sid, level := range now {
		if m.speaking[sid] != level {
			infos = append(infos, &livekit.SpeakerInfo{Sid: sid, Level: level, Active: true})
		}
	}
	for sid := range m.speaking {
		if now[sid] == 0 {
			infos = append(infos, &livekit.SpeakerInfo{Sid: sid})
		}
	}
	m.speaking = now
	r.tellSpeakers(infos)
}

// tellSpeakers sends changes to everybody here.
func (r *Room) tellSpeakers(infos []*livekit.SpeakerInfo) {
	if msg := r.speakersChanged(infos); msg != nil {
		r.tellAll(msg)
	}
}

// speakersChanged makes the message, without those whom clients do not know; nil
// if there is nothing to tell.
func (r *Room) speakersChanged(infos []*livekit.SpeakerInfo) *livekit.SignalResponse {
	var known []*livekit.SpeakerInfo
	for _, i := range infos {
		if !r.hidden(i.Sid) {
			known = append(known, i)
		}
	}
	if len(known) == 0 {
		return nil
	}
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_SpeakersChanged{
		SpeakersChanged: &livekit.SpeakersChanged{Speakers: known}}}
}

func (r *Room) hidden(sid string) bool {
	for _, p := range r.locals {
		if p.sid == sid {
			return p.info.GetPermission().GetHidden()
		}
	}
	for _, m := range r.remotes {
		if p := m.participants[sid]; p != nil {
			return p.info.GetPermission().GetHidden()
		}
	}
	return false
}

// tellWhoSpeaks tells one who joins or comes back.
func (r *Room) tellWhoSpeaks(p *Participant) {
	var infos []*livekit.SpeakerInfo
	for _, s := range r.selection.active.Now() {
		infos = append(infos, &livekit.SpeakerInfo{Sid: string(s.Owner), Level: s.Level, Active: true})
	}
	for _, m := range r.remotes {
		for sid, level := range m.speaking {
			infos = append(infos, &livekit.SpeakerInfo{Sid: sid, Level: level, Active: true})
		}
	}
	if msg := r.speakersChanged(infos); msg != nil {
		p.send(msg)
	}
}
