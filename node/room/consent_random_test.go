package room

import (
	"testing"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// TestNobodyIsRecordedUnasked plays schedules of people who come, publish, agree, take it
// back, go and come again on other nodes, while origins record, stop, and are cut off so
// that another one records (G22): every packet that arrives where a recorder takes it is
// judged by what its sender has been told and has said, not by what the rooms believe
// (station.captures). Who takes it back is recorded no longer than the news takes, and at
// most a second.
func TestNobodyIsRecordedUnasked(t *testing.T) {
	seen := residencytest.Tally{}
	residencytest.Run(t, 100, func(seed uint64) []string {
		c := newCounty(seed)
		c.stations[0].bundle.Policies["p"].Recording = residency.RecordingRule{Allowed: true, Notice: true, Consent: true, EraseWithdrawn: c.In(2)}
		for range 40 {
			c.rehearses()
			for range 1 + c.IntN(4) {
				c.passes()
			}
		}
		c.closes()
		seen.Add(c.seen)
		return c.wrong
	})
	seen.Want(t, "people recorded", "recordings", "answers", "sides cut off", "moved", "published", "records elsewhere")
}

// rehearses has somebody do something that matters to who is recorded.
func (c *county) rehearses() {
	s, o := residencytest.Pick(c.Rand, c.stations...), residencytest.Pick(c.Rand, c.stations...)
	switch c.IntN(12) {
	case 0, 1:
		identity := residencytest.Pick(c.Rand, "anna", "bob", "carl")
		if _, here := c.arrived[identity]; here {
			c.seen["moved"]++
		}
		c.joins(s, identity)
	case 2:
		c.leaves(s)
	case 3, 4:
		if s.room != nil && len(s.people) > 0 {
			c.seen["published"]++
			s.publishes()
		}
	case 5, 6, 7:
		c.seen["answers"]++
		s.answers()
	case 8, 9:
		if s.room == nil || !s.self.Has(residency.RoleOrigin) {
			break
		}
		c.seen["recordings"]++
		if cur := s.room.record.Recording; cur != nil && cur.Node != s.self.Name {
			c.seen["records elsewhere"]++
		}
		s.records()
	case 10:
		c.part(s, o)
		c.seen["sides cut off"]++
	case 11:
		if s != o {
			c.meet(s, o)
		}
	}
	c.looks()
}
