package rtc

import (
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/bwe"
	"github.com/domicile/domicile/node/transport"
)

// EngineStats counts what all sessions did together: datagrams, and the drops by
// name.
type EngineStats = transport.EngineStats

// Stats returns the engine's counters.
func (e *Engine) Stats() EngineStats { return e.transport.Stats() }

// Stats counts what a session does now.
type Stats struct {
	Published    int             // tracks whose media arrives
	Ignored      uint64          // tracks beyond SessionConfig.MaxTracks
	Unknown      uint64          // packets that belong to no track
	Down         []sfu.DownStats // one for each track that is sent
	Sections     int             // media sections of the subscriber, used or free
	LossyDropped uint64          // messages that the client did not take in time
	Bandwidth    bwe.Stats       // of the way to the client
}

// Stats returns the session's counters.
func (s *Session) Stats() Stats {
	var st Stats
	pub, sub := s.peers()
	if pub != nil {
		pub.recv.mu.Lock()
		st.Published, st.Ignored, st.Unknown = pub.recv.tracks(), pub.recv.ignored, pub.recv.unknown
		pub.recv.mu.Unlock()
	}
	if sub == nil {
		return st
	}
	for _, snd := range sub.send.all() {
		st.Down = append(st.Down, snd.down.Stats())
	}
	st.LossyDropped, st.Bandwidth = sub.out.lossyDropped(), sub.send.budget.estimate()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	st.Sections = sub.neg.Sections()
	if !s.cfg.NoData { // the section of data channels carries no track
		st.Sections = max(st.Sections-1, 0)
	}
	return st
}

// Received is what arrived of each published track, all its layers together, by
// the track's id.
func (s *Session) Received() map[sfu.TrackID]sfu.Counts {
	all := map[sfu.TrackID]sfu.Counts{}
	pub, _ := s.peers()
	if pub == nil {
		return all
	}
	pub.recv.mu.Lock()
	defer pub.recv.mu.Unlock()
	for _, st := range pub.recv.streams {
		if st.recv == nil || st.track == nil || st.track.up == nil {
			continue
		}
		id, now := st.track.up.ID(), st.recv.Counts()
		sum := all[id]
		sum.Expected, sum.Received, sum.Jitter = sum.Expected+now.Expected, sum.Received+now.Received, max(sum.Jitter, now.Jitter)
		all[id] = sum
	}
	return all
}
