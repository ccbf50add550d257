package rtc

import "github.com/domicile/domicile/node/sfu"

// Stats counts what a session does now.
type Stats struct {
	Published    int             // tracks whose media arrives
	Ignored      uint64          // streams beyond SessionConfig.MaxTracks
	Down         []sfu.DownStats // one for each track that is sent
	Sections     int             // media sections of the subscriber, used or free
	LossyDropped uint64          // messages that the client did not take in time
}

// Stats returns the session's counters.
func (s *Session) Stats() Stats {
	var st Stats
	s.pub.mu.Lock()
	st.Published, st.Ignored = len(s.pub.incoming), s.pub.ignored
	s.pub.mu.Unlock()
	for _, d := range s.sub.downTracks() {
		st.Down = append(st.Down, d.Stats())
	}
	s.sub.mu.Lock()
	defer s.sub.mu.Unlock()
	st.LossyDropped = s.sub.out.dropped
	if s.sub.pc != nil {
		st.Sections = len(s.sub.pc.GetTransceivers())
	}
	return st
}
