package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/machine"
	"github.com/domicile/domicile/residency"
)

// zone is where a case's data may be, as raw facts.
type zone struct {
	countries []residency.Country // of what is live
	metadata  []residency.Country // of metadata, whoever runs the node; nil: as what is live
	noUS      bool                // no ultimate parent in the US
	outside   bool                // an edge elsewhere, while it has a local attendee
	without   residency.NodeName  // whose certificate is revoked
}

var zones = [][]residency.Country{{"DE"}, {"DE", "PL"}, {"DE", "CH"}, {"DE", "PL", "CH"}, {"PL", "US"}, {"DE", "US"}, {"DE", "PL", "CH", "US", "RU"}, {"CH"}}

func randomZone(random *rand.Rand) zone {
	z := zone{countries: zones[random.IntN(len(zones))], noUS: random.IntN(2) == 0, outside: random.IntN(2) == 0}
	switch random.IntN(4) {
	case 0:
		z.metadata = zones[random.IntN(len(zones))]
	case 1:
		z.metadata = []residency.Country{"DE", "PL", "CH", "US", "RU"}
	}
	return z
}

// apart says whether metadata may be where live data may not.
func (z zone) apart() bool {
	return slices.ContainsFunc(z.metadata, func(c residency.Country) bool { return !slices.Contains(z.countries, c) })
}

func (z zone) owner(n residency.Node) bool { return !(z.noUS && n.ParentCountry == "US") }

// belongs says whether a node serves anybody here. mow serves its tenants alone.
func (z zone) belongs(n residency.Node) bool { return n.Name != "mow" && n.Name != z.without }

// holds says whether a node lies in the zone of what is live.
func (z zone) holds(n residency.Node) bool {
	return z.belongs(n) && slices.Contains(z.countries, n.Country) && z.owner(n)
}

// edges says whether a node outside may be an edge of the zone: its country is
// another, but who owns it counts there too.
func (z zone) edges(n residency.Node) bool {
	return z.outside && z.belongs(n) && !slices.Contains(z.countries, n.Country) && z.owner(n)
}

// serves says whether an attendee may be let in on a node.
func (z zone) serves(n residency.Node) bool { return z.holds(n) || z.edges(n) }

// keeps says whether a node may keep the room's metadata.
func (z zone) keeps(n residency.Node) bool {
	if !z.belongs(n) || !slices.Contains(n.Roles, origin) {
		return false
	}
	if z.metadata == nil {
		return z.holds(n)
	}
	return slices.Contains(z.metadata, n.Country)
}

// home says whether some node can be the room's home whoever attends: it keeps its
// metadata and gets its signalling. Without one nobody is let in.
func (z zone) home() bool {
	return slices.ContainsFunc(fieldNodes, func(n residency.Node) bool { return z.keeps(n) && z.holds(n) })
}

// policy has live data and metadata in their zones, and the rest anywhere.
func (z zone) policy(name string) *residency.Policy {
	live := residency.Zone{Name: "live-" + name, Countries: z.countries}
	if z.noUS {
		live.ExcludedParentCountries = []residency.Country{"US"}
	}
	p := &residency.Policy{Name: name, Title: name, Zones: map[residency.Class]residency.Zone{}, EdgeOutside: z.outside, SingleOrigin: true}
	for _, c := range residency.Classes() {
		p.Zones[c] = residency.Zone{Name: "anywhere", Anywhere: true}
	}
	for _, c := range []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat, residency.ClassMetadata} {
		p.Zones[c] = live
	}
	if z.metadata != nil {
		p.Zones[residency.ClassMetadata] = residency.Zone{Name: "metadata-" + name, Countries: z.metadata}
	}
	return p
}

// longestStall is how long this process may be kept from running before a round does
// not count: what it notes is so late then that nothing follows from it.
const longestStall = time.Second

// judge asks of each packet whether it might be where it was.
func (r *round) judge(sum *tally) {
	why := r.f.tap.missed().since(r.before).unseen()
	if why == "" && r.stall > longestStall {
		why = fmt.Sprintf("this process did not run for %s", r.stall)
	}
	sum.add(r, why == "")
	if why != "" {
		r.f.t.Logf("%d cases are played again: %s", len(r.cases), why)
	}
	for _, c := range r.cases {
		for _, w := range []struct {
			canary   string
			metadata bool // it is in what is kept of a room, too
			asked    bool // who is refused has named it
		}{{c.media, false, false}, {c.word, false, false}, {c.title, true, true}} {
			for node, passed := range r.f.tap.take(w.canary) {
				for _, p := range passed {
					if (p.by == byMedia || p.by == byText) && !p.out || w.asked && (p.by == byText || p.out) {
						continue // an attendee said it, and who was asked may ask others for the room
					}
					if !r.weigh(c, p, node, w.metadata, why == "", w.canary, sum) {
						break
					}
				}
			}
		}
	}
	for _, what := range r.f.tap.strange() {
		sum.Leaks++
		r.f.t.Errorf("a node says something where nobody expects it: %s", what)
	}
}

// weigh judges one packet; false: it leaked.
func (r *round) weigh(c *realCase, p passage, node string, metadata, whole bool, canary string, sum *tally) bool {
	sum.Passed++
	if canary != c.media {
		sum.Words++
	}
	if p.by == byMedia {
		sum.Media++
	}
	n := r.f.nodes[node]
	ok, outside, late := c.might(n, p.at, metadata)
	if outside {
		sum.Outside++
	}
	if ok && late > 0 && whole {
		sum.Ended++
		sum.Slowest = max(sum.Slowest, float64(late)/float64(time.Millisecond))
	}
	if ok && (!whole || late <= time.Second+2*r.stall) {
		return true
	}
	sum.Leaks++
	text := map[bool]string{true: fmt.Sprintf("%s late", late), false: "never allowed"}[ok]
	r.f.t.Errorf("%s (seed %d): %s with canary %s passed %s (%s) at %s, out %v, %s: zones %+v, written %s, in force %s, attendees %+v", c.name, sum.Seed, p.by,
		map[string]string{c.media: "media", c.word: "of a name", c.title: "of the room"}[canary], node, n.Country, p.at.Format(stamp), p.out, text, c.zones,
		stamps(c.wrote), stamps(c.from), c.told())
	return false
}

const stamp = "15:04:05.000"

func stamps(list []time.Time) string {
	var s []string
	for _, at := range list {
		s = append(s, at.Format(stamp))
	}
	return strings.Join(s, ", ")
}

// told lists who was where.
func (c *realCase) told() string {
	var s []string
	for _, x := range c.stays {
		s = append(s, fmt.Sprintf("%s %s to %s", x.node, x.from.Format(stamp), x.to.Format(stamp)))
	}
	return strings.Join(s, ", ")
}

func (s *tally) add(r *round, whole bool) {
	if !whole {
		s.Repeated += len(r.cases)
		return
	}
	s.Judged += len(r.cases)
	s.Entered, s.Refused, s.Wrongly = s.Entered+r.count.entered, s.Refused+r.count.refused, s.Wrongly+r.count.wrongly
	for _, c := range r.cases {
		if slices.ContainsFunc(c.zones, zone.apart) {
			s.Apart++
		}
	}
	switch r.incident {
	case newPolicies:
		s.Changes++
	case revocation:
		s.Revoked++
	case killing:
		s.Kills++
	}
}

// might says whether a node might have a packet at a time: by a policy that was in
// force then or before, or that was on its way; for an edge outside, with an attendee
// there at that time or before. late is how long after the end of what allowed it.
func (c *realCase) might(n residency.Node, at time.Time, metadata bool) (ok, outside bool, late time.Duration) {
	const never = time.Duration(1<<63 - 1)
	late = never
	for i, z := range c.zones {
		if i >= len(c.wrote) || at.Before(c.wrote[i]) {
			continue
		}
		over := time.Duration(0)
		if i+1 < len(c.from) {
			over = max(at.Sub(c.from[i+1]), 0)
		}
		if z.holds(n) || metadata && z.keeps(n) {
			if over < late {
				late, outside = over, false
			}
			continue
		}
		if !z.edges(n) {
			continue
		}
		for _, s := range c.stays {
			if s.node != string(n.Name) || at.Before(s.from) {
				continue
			}
			gone := time.Duration(0)
			if !s.to.IsZero() {
				gone = max(at.Sub(s.to), 0)
			}
			if both := max(over, gone); both < late {
				late, outside = both, true
			}
		}
	}
	return late < never, outside, late
}

// record writes an outcome into bench/results.
func record(t *testing.T, name, command string, outcome any) {
	t.Helper()
	m := machine.Describe(time.Now(), command)
	b, err := json.MarshalIndent(map[string]any{"outcome": outcome, "machine": m}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	day, _, _ := strings.Cut(m.At, "T")
	if err := os.WriteFile(filepath.Join("..", "results", fmt.Sprintf("%s-%s.json", day, name)), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
