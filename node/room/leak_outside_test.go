package room

import (
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// What leaves the rooms of TestNoLeak for disks of other origins, for programs that are
// told of events, for files that are prepared for download, and for the log of consents.
// What is drawn here has a source of its own, so that it changes nothing else of a case.

// outside is what stands around a station.
type outside struct {
	residencytest.Rand
	store   residency.Place // where it keeps recordings, if not on its own disk
	program residency.Place // where a program stands that is told of its rooms
}

func newOutside(seed, of uint64) outside {
	o := outside{Rand: residencytest.NewRand(seed, 1000+of)}
	o.program = residencytest.Place(o.Rand)
	if o.In(6) {
		o.store = residencytest.Place(o.Rand)
	}
	return o
}

// places is Deps.Places.
func (s *station) places() map[residency.Class]residency.Place {
	return map[residency.Class]residency.Place{residency.ClassRecording: s.outside.store}
}

// request is what the node asks about keeping a class itself, or at another.
func (s *station) keeping(c residency.Class, at member) residency.Request {
	return residency.Request{Room: s.w.record.Name, Tenant: s.w.record.Tenant, Policy: s.w.record.Policy, Class: c, Store: true,
		Peer: at.node, PeerEpoch: at.epoch, Contradiction: at.contradiction, NoEvidence: s.unprovable, Now: s.clock()}
}

// keeps writes a class down here, if the gate lets it, and judges that.
func (s *station) keeps(c residency.Class, what string) {
	q := s.keeping(c, member{node: s.self, epoch: s.bundle.Epoch})
	q.Place = s.places()[c]
	permit, v := s.gate.Permit(q)
	if !v.Allow {
		s.w.seen[what+" refused"]++
		return
	}
	s.w.seen[what]++
	s.writes(permit, c)
	f := s.about(s.facts(c), s.self.Name)
	f.Store, f.Outside, f.Place = true, false, q.Place
	if broken := residencytest.Against(f); len(broken) > 0 {
		s.fails("%s: %q", what, broken)
	}
}

// spreads does now and then what an origin does beside its rooms.
func (s *station) spreads() {
	if s.room == nil || !s.self.Has(residency.RoleOrigin) {
		return
	}
	if s.outside.In(20) {
		s.keeps(residency.ClassExport, "exports")
	}
	if s.room.recorder != nil && s.outside.In(8) {
		s.copies(residencytest.Pick(s.outside.Rand, s.w.stations...))
	}
}

// copies brings what is recorded here to another origin, as the node does: both ask.
func (s *station) copies(o *station) {
	at, known := s.view[o.self.Name]
	link := s.pipes[o.self.Name]
	if o == s || !known || link == nil || link.broken || !at.node.Has(residency.RoleOrigin) {
		return
	}
	permit, v := s.gate.Permit(s.keeping(residency.ClassRecording, at))
	if !v.Allow || !link.admit(permit) {
		s.w.seen["copies not sent"]++
		return
	}
	f := s.about(s.facts("recording"), o.self.Name)
	f.Store, f.Outside = true, false
	if broken := residencytest.Against(f); len(broken) > 0 {
		s.fails("a copy of a recording leaves for %s: %q", o.self.Name, broken)
	}
	link.arrives(func() { o.keeps(residency.ClassRecording, "copies") })
}

// happened is Deps.Event: the node tells a program, if the gate lets it.
func (s *station) happened(rec Record, e Event) {
	to := residency.Recipient{Name: "hooks.example", Country: s.outside.program.Country, Operator: s.outside.program.Operator,
		OperatorCountry: s.outside.program.OperatorCountry, Parent: s.outside.program.Parent, ParentCountry: s.outside.program.ParentCountry}
	v := s.gate.Hand(residency.Request{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Class: residency.ClassMetadata, NoEvidence: s.unprovable, Now: s.clock()}, to)
	if !v.Allow {
		s.w.seen["programs not told"]++
		return
	}
	s.w.seen["programs told"]++
	if broken := residencytest.Handing(s.facts("metadata"), s.outside.program); len(broken) > 0 {
		s.fails("tells a program of %s: %q", e.Kind, broken)
	}
}

// noted is Deps.Consent: what is written down of somebody is what they were told and have
// said, not what the rooms believe.
func (s *station) noted(_ Record, l ConsentLine) {
	s.w.seen["consents noted"]++
	if p := s.policy(); p == nil || !p.Recording.Consent {
		s.fails("notes a consent for which nobody is asked")
	}
	o, v := s.w.owner(l.SID)
	if v == nil {
		return // left, and the news of it is on its way
	}
	o.hears()
	switch agreed := v.said[l.Recording] || l.Token && v.given; {
	case l.Event == ConsentShown && !v.told[l.Recording]:
		s.fails("notes that %s was told of %s, and they were not", v.identity, l.Recording)
	case (l.Event == ConsentAgreed || l.Event == ConsentWithdrawn) && !agreed && !v.given:
		s.fails("notes %q of %s, who has never agreed to %s", l.Event, v.identity, l.Recording)
	}
}
