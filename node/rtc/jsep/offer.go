package jsep

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Offer writes an offer with all senders there are. The client has to answer it
// before there can be another one.
func (p *Peer) Offer(l Local) (string, error) {
	switch {
	case p.offered != nil:
		return "", fmt.Errorf("offer: %w", errOutstanding)
	case p.role == answers:
		return "", errors.New("offer: on this connection the client offers")
	}
	if err := l.check(); err != nil {
		return "", fmt.Errorf("offer: %w", err)
	}
	st := p.stable.clone()
	open := p.clear(st)
	if len(st.sections) == 0 && p.cfg.Data {
		st.sections = append(st.sections, section{mid: "0", kind: data})
	}
	for _, want := range p.waiting(st) {
		if i := p.sectionFor(st, want.Kind, open); i >= 0 {
			p.place(&st.sections[i], want)
		}
	}
	if len(st.sections) == 0 {
		return "", errors.New("offer: there is nothing to offer")
	}
	text, err := p.write(st, l)
	if err != nil {
		return "", fmt.Errorf("offer: %w", err)
	}
	p.offered, p.role = st, offers
	return text, nil
}

// sectionFor finds an open section or makes a new one; -1 if there is no room.
// Sections are called by their place.
func (p *Peer) sectionFor(st *state, k Kind, open []bool) int {
	for i, free := range open {
		if free && st.sections[i].kind == k && st.sections[i].snd == nil {
			return i
		}
	}
	if len(st.sections) == maxSections {
		return -1
	}
	st.sections = append(st.sections, section{mid: strconv.Itoa(len(st.sections)), kind: k})
	return len(st.sections) - 1
}

// TakeAnswer takes the client's answer to our offer. After an error the offer
// still waits.
func (p *Peer) TakeAnswer(raw string) (Change, error) {
	if p.offered == nil {
		return Change{}, errors.New("take answer: no offer waits for one")
	}
	d, err := parse(raw, p.cfg.RED)
	if err != nil {
		return Change{}, fmt.Errorf("take answer: %w", err)
	}
	st := p.offered.clone()
	if len(d.media) != len(st.sections) {
		return Change{}, fmt.Errorf("take answer: %d media sections, offered were %d", len(d.media), len(st.sections))
	}
	for i, m := range d.media {
		if err := st.sections[i].answered(m); err != nil {
			return Change{}, fmt.Errorf("take answer: section %d: %w", i, err)
		}
	}
	if d.remote.Setup == "actpass" {
		return Change{}, errors.New(`take answer: setup "actpass" chooses nothing, want "active" or "passive"`)
	}
	restarted, err := st.connect(d, false)
	if err != nil {
		return Change{}, fmt.Errorf("take answer: %w", err)
	}
	c := p.settle(st, restarted)
	p.stable, p.offered = st, nil
	return c, nil
}

// answered notes what the client says of a section of ours.
func (s *section) answered(m *media) error {
	switch {
	case m.named && m.mid != s.mid:
		return fmt.Errorf("it is called %q, offered was %q", m.mid, s.mid)
	case m.kind != s.kind && !m.closed:
		return fmt.Errorf("it is %s, offered was %s", m.kind, s.kind)
	}
	m.dir &^= sends // we never offered to receive
	s.taken = m
	if m.closed || s.kind <= Video && len(m.formats) == 0 {
		s.rejected = true
	}
	return nil
}

// waiting are the senders without a section, in the order they were added.
func (p *Peer) waiting(st *state) []Sender {
	placed := st.placed()
	return slices.DeleteFunc(slices.Clone(p.wishes), func(s Sender) bool { return placed[s.Key] })
}
