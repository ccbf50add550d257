package room

import (
	"time"

	"github.com/livekit/protocol/livekit"
)

const (
	// simulateCuts is how many resumes in a row find a connection that closes
	// without a word, and cutsWithin how long that is remembered: what LiveKit's
	// server does, and its clients' tests expect.
	simulateCuts = 3
	cutsWithin   = 10 * time.Second
	// maxSpeaking bounds a simulated speech.
	maxSpeaking = time.Minute
)

// simulation is what a client has asked to go wrong for it. Owned by Room.run.
type simulation struct {
	cutUntil, silentUntil time.Time
	silent                int       // connections still to be closed without a word
	speakingUntil         time.Time // zero: not simulated
}

// cut reports whether a resumed connection is to be closed after its greeting.
func (s *simulation) cut(now time.Time) bool {
	due := now.Before(s.cutUntil)
	s.cutUntil = time.Time{}
	return due
}

// cutSilently reports whether a resumed connection is to be closed at once.
func (s *simulation) cutSilently(now time.Time) bool {
	if s.silent == 0 || !now.Before(s.silentUntil) {
		return false
	}
	s.silent--
	return true
}

// doSimulate answers a client that tests itself. Nothing of it reaches anybody
// but the client, save that a client which asks to fail leaves the room.
func (r *Room) doSimulate(p *Participant, s *livekit.SimulateScenario) {
	if r.locals[p.identity] != p {
		return
	}
	now := r.deps.Now()
	switch m := s.GetScenario().(type) {
	case *livekit.SimulateScenario_SpeakerUpdate:
		p.simulated.speakingUntil = now.Add(min(time.Duration(max(m.SpeakerUpdate, 0))*time.Second, maxSpeaking))
		p.send(speaking(p.sid, 0.9, true))
	case *livekit.SimulateScenario_NodeFailure:
		p.stop(kicked{silent: true})
		r.removeLocal(p, livekit.DisconnectReason_UNKNOWN_REASON)
	case *livekit.SimulateScenario_ServerLeave:
		r.leave(p, livekit.DisconnectReason_SERVER_SHUTDOWN, livekit.LeaveRequest_DISCONNECT)
	case *livekit.SimulateScenario_Migration:
		r.leave(p, livekit.DisconnectReason_MIGRATION, livekit.LeaveRequest_RECONNECT)
	case *livekit.SimulateScenario_LeaveRequestFullReconnect, *livekit.SimulateScenario_SwitchCandidateProtocol:
		// The candidates are the same after a new join: TURN over TLS is among
		// them, and the client that tests it takes no others.
		r.leave(p, livekit.DisconnectReason_UNKNOWN_REASON, livekit.LeaveRequest_RECONNECT)
	case *livekit.SimulateScenario_SubscriberBandwidth:
		p.post(func() { p.session.LimitBandwidth(float64(max(m.SubscriberBandwidth, 0))) })
	case *livekit.SimulateScenario_DisconnectSignalOnResume:
		p.simulated.cutUntil = now.Add(cutsWithin)
	case *livekit.SimulateScenario_DisconnectSignalOnResumeNoMessages:
		p.simulated.silent, p.simulated.silentUntil = simulateCuts, now.Add(cutsWithin)
	}
}

// leave sends a participant away with an action of the room's choice.
func (r *Room) leave(p *Participant, why livekit.DisconnectReason, action livekit.LeaveRequest_Action) {
	p.stop(kicked{reason: why, action: action})
	r.removeLocal(p, why)
}

// doSpoken ends a simulated speech.
func (p *Participant) doSpoken(now time.Time) {
	if until := p.simulated.speakingUntil; !until.IsZero() && !now.Before(until) {
		p.simulated.speakingUntil = time.Time{}
		p.send(speaking(p.sid, 0, false))
	}
}

func speaking(sid string, level float32, active bool) *livekit.SignalResponse {
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_SpeakersChanged{SpeakersChanged: &livekit.SpeakersChanged{
		Speakers: []*livekit.SpeakerInfo{{Sid: sid, Level: level, Active: active}}}}}
}
