package jsep

import "fmt"

// A connection may go on at another node, which knows nothing of its negotiation:
// the client has the sections that it had, and offers them again, with an ICE
// restart. Each track has to come in the section in which it came before, or the
// client would take it for another one.
//
//	answer of the node before ── Seats ──► mid 3: PA_x|camera TR_y
//	client's offer ──────────────────────► TR_y goes into section 3, under that name

// Seat is what was sent in a section.
type Seat struct{ StreamID, TrackID string }

// Seats reads what is sent in each section of a node's description, by MID.
func Seats(description string) (map[string]Seat, error) {
	d, err := parse(description, true)
	if err != nil {
		return nil, fmt.Errorf("read seats: %w", err)
	}
	seats := make(map[string]Seat)
	for _, m := range d.media {
		if m.kind <= Video && m.dir.sends() && m.mid != "" && token(m.stream) && token(m.track) {
			seats[m.mid] = Seat{StreamID: m.stream, TrackID: m.track}
		}
	}
	return seats, nil
}

// Seat says what was sent in the client's sections by the node before. It has to
// come before the first offer is taken, and counts until that one is answered.
func (p *Peer) Seat(seats map[string]Seat) { p.seats = seats }

// Lead has us begin the DTLS handshake, where the client's offer leaves that to us. It
// has to come before the first offer is taken.
func (p *Peer) Lead() { p.leads = true }

// seat puts tracks where they were.
func (p *Peer) seat(st *state) {
	if len(p.seats) == 0 {
		return
	}
	for _, want := range p.waiting(st) {
		for i := range st.sections {
			s := &st.sections[i]
			if p.seats[s.mid].TrackID == want.TrackID && !s.used && s.snd == nil && s.kind == want.Kind && !s.rejected && s.taken.dir.receives() {
				p.place(s, want)
				break
			}
		}
	}
}

// reserved keeps other tracks out of a section in which the client had one.
func (p *Peer) reserved(s *section) bool {
	_, taken := p.seats[s.mid]
	return taken
}

// vacate gives up the seats of tracks that are not sent any more: from the next
// offer on their sections are like others that have been used.
func (p *Peer) vacate(st *state) {
	for i := range st.sections {
		if s := &st.sections[i]; s.snd == nil && p.reserved(s) {
			s.used = true
		}
	}
}
