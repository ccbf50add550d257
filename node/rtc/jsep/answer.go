package jsep

import (
	"errors"
	"fmt"
)

// TakeOffer takes an offer of the client. Senders go into its sections as far as
// they fit. Answer has to follow; another offer may come instead of it, and is
// compared with the last one that was answered.
func (p *Peer) TakeOffer(raw string) (Change, error) {
	switch {
	case p.offered != nil:
		return Change{}, fmt.Errorf("take offer: %w", errOutstanding)
	case p.role == offers:
		return Change{}, errors.New("take offer: on this connection the node offers")
	}
	d, err := parse(raw, p.cfg.RED)
	if err != nil {
		return Change{}, fmt.Errorf("take offer: %w", err)
	}
	st := p.stable.clone()
	open := p.clear(st)
	if err := st.offered(d, p.prefers); err != nil {
		return Change{}, fmt.Errorf("take offer: %w", err)
	}
	restarted, err := st.connect(d, p.leads)
	if err != nil {
		return Change{}, fmt.Errorf("take offer: %w", err)
	}
	p.seat(st)
	for _, want := range p.waiting(st) {
		if i := p.sectionOf(st, want.Kind, open); i >= 0 {
			p.place(&st.sections[i], want)
		}
	}
	p.vacate(st)
	p.taken, p.role = st, answers
	p.version++
	return p.settle(st, restarted), nil
}

// Answer writes the answer to the offer that was taken last. It may be written
// again, with other candidates.
func (p *Peer) Answer(l Local) (string, error) {
	if p.role != answers {
		return "", errors.New("answer: no offer was taken")
	}
	text, err := p.write(p.latest(), l)
	if err != nil {
		return "", fmt.Errorf("answer: %w", err)
	}
	if p.taken != nil {
		p.stable, p.taken, p.seats = p.taken, nil, nil
	}
	return text, nil
}

// offered notes what the client says of its sections.
func (s *state) offered(d *description, prefers map[string]string) error {
	if len(d.media) < len(s.sections) {
		return fmt.Errorf("%d media sections, there were %d", len(d.media), len(s.sections))
	}
	s.bundled = d.bundled
	hasData := false
	for i, m := range d.media {
		if i == len(s.sections) {
			s.sections = append(s.sections, section{mid: m.mid, kind: m.kind})
		}
		m.formats = first(prefers[m.track], m.formats)
		if err := s.sections[i].offered(m); err != nil {
			return fmt.Errorf("section %d: %w", i, err)
		}
		if sec := &s.sections[i]; sec.kind == data && !sec.rejected {
			sec.rejected, hasData = hasData, true // one is enough
		}
	}
	return nil
}

// offered notes what the client says of a section. A rejected one may come back
// as another one (RFC 9429 section 5.2.2).
func (s *section) offered(m *media) error {
	if s.rejected && !m.closed {
		*s = section{mid: m.mid, kind: m.kind}
	}
	switch {
	case s.rejected:
		s.mid = m.mid
	case m.mid != s.mid:
		return fmt.Errorf("it is called %q, it was %q", m.mid, s.mid)
	case m.kind != s.kind && !m.closed:
		return fmt.Errorf("it is %s, it was %s", m.kind, s.kind)
	}
	s.taken = m
	s.rejected = m.closed || s.kind <= Video && len(m.formats) == 0
	if s.rejected || !m.dir.receives() {
		s.snd = nil
	}
	return nil
}

// sectionOf finds a section in which the client is ready to receive, -1 if none.
func (p *Peer) sectionOf(st *state, k Kind, open []bool) int {
	for i := range st.sections {
		s := &st.sections[i]
		empty := !s.used || i < len(open) && open[i]
		if empty && s.kind == k && s.snd == nil && !s.rejected && s.taken.dir.receives() && !p.reserved(s) {
			return i
		}
	}
	return -1
}
