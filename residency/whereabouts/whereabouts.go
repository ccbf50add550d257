// Package whereabouts says which nodes are not where their certificates say, as
// far as this node can tell.
//
// What is measured can only contradict a certificate, never take its place:
// answers that came faster than light, an address that a GeoIP database knows
// in another country, coordinates outside of the country, and the word of at
// least two other nodes. A contradiction by round-trip time is never false,
// whatever the jitter: jitter makes answers late, not early. Nothing here is a
// decision about bytes: the gate takes the contradiction and the operator's
// overrides.
//
// It is a pure core: sightings and `now` go in, contradictions come out. It
// performs no I/O and reads no clock.
package whereabouts

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// Ground is the kind of evidence that contradicts a certificate.
type Ground string

// The grounds, the strongest first.
const (
	GroundRTT       Ground = "round-trip" // its answers came faster than light
	GroundAddress   Ground = "address"    // its address is known to be in another country
	GroundPlace     Ground = "place"      // it says itself that it stands elsewhere
	GroundWitnesses Ground = "witnesses"  // other nodes say so
)

// Grounds lists every ground.
func Grounds() []Ground { return []Ground{GroundRTT, GroundAddress, GroundPlace, GroundWitnesses} }

const (
	// strikes is how many sightings have to contradict a certificate before it
	// counts. One could be due to this machine: a virtual machine that is halted
	// while an answer is on its way, with its clock, measures too little.
	strikes = 3
	// within is the time in which they have to come.
	within = 10 * time.Minute
	// calm is how long everything has to agree before a contradiction by address
	// or place, or by other nodes' word, is taken back. One by round-trip time
	// stays: that later answers come late proves nothing.
	calm = 10 * time.Minute
	// wordLasts is how long a node's word counts; it is repeated every 5 s.
	wordLasts = 30 * time.Second
	// witnesses is how many other nodes have to say so. A single one may lie, or
	// be where it should not be itself.
	witnesses = 2
	// forgetAfter drops what is known of nodes that are gone. A node that comes
	// back is seen again, and contradicted again, within seconds.
	forgetAfter = 24 * time.Hour
	// MaxWords bounds what one node may say of others at once.
	MaxWords = 256
)

// Sighting is what this node saw of another in a short time.
type Sighting struct {
	Peer   residency.Node    // as its certificate states it
	RTT    time.Duration     // the least round trip; 0: none was measured
	SeenIn residency.Country // where its address is known to be; empty: unknown
	At     Place             // where it says that it stands; zero: it does not
}

// Word is what a node says of another: that it has contradicted itself there.
type Word struct {
	Of      residency.NodeName `json:"of"`
	Country residency.Country  `json:"country"`           // as the other's certificate states it
	RTT     time.Duration      `json:"rtt_ns,omitempty"`  // that was too short
	SeenIn  residency.Country  `json:"seen_in,omitempty"` // that its address is known to be in
}

// Doubt is a node that is not where its certificate says.
type Doubt struct {
	Node   residency.NodeName   `json:"node"`
	Ground Ground               `json:"ground"`
	Reason string               `json:"reason"` // one sentence for people
	Since  time.Time            `json:"since"`
	By     []residency.NodeName `json:"by,omitempty"` // the witnesses
}

// Watch gathers what is known of the whereabouts of others. It is for one
// goroutine.
type Watch struct {
	self  residency.Node
	atlas *atlas
	peers map[residency.NodeName]*peer
	words map[residency.NodeName]speech
	said  map[residency.NodeName]Doubt // by witnesses, while it stands
	last  map[residency.NodeName]time.Time
}

// peer is what was seen of one node under one statement of its country.
type peer struct {
	country residency.Country
	seen    time.Time
	least   time.Duration // of impossible round trips
	inside  residency.Country
	grounds map[Ground]*ground
}

// ground is the evidence of one kind.
type ground struct {
	times  []time.Time // of the latest sightings that contradict, up to strikes
	reason string
	since  time.Time // zero: it does not stand yet
	agrees time.Time // since when sightings agree; zero: they do not
}

// speech is what one node said last.
type speech struct {
	words []Word
	at    time.Time
}

// New returns a watch of a node that knows nothing yet.
func New(self residency.Node) *Watch {
	return &Watch{self: self, atlas: newAtlas(), peers: map[residency.NodeName]*peer{},
		words: map[residency.NodeName]speech{}, said: map[residency.NodeName]Doubt{}, last: map[residency.NodeName]time.Time{}}
}

// See takes in a sighting.
func (w *Watch) See(s Sighting, now time.Time) {
	if s.Peer.Name == "" || s.Peer.Name == w.self.Name {
		return
	}
	p := w.peers[s.Peer.Name]
	if p == nil || p.country != s.Peer.Country {
		p = &peer{country: s.Peer.Country, grounds: map[Ground]*ground{}}
		w.peers[s.Peer.Name] = p
	}
	p.seen = now
	w.seeRTT(p, s.RTT, now)
	w.seeAddress(p, s.SeenIn, now)
	w.seePlace(p, s.At, now)
}

func (w *Watch) seeRTT(p *peer, rtt time.Duration, now time.Time) {
	bound := w.atlas.leastRTT(w.self.Country, p.country)
	if rtt <= 0 || rtt >= bound {
		return
	}
	if p.least == 0 || rtt < p.least {
		p.least = rtt
	}
	p.contradicts(GroundRTT, tooFast(p.least, w.self.Country, p.country, bound), now)
}

func tooFast(rtt time.Duration, from, to residency.Country, bound time.Duration) string {
	return fmt.Sprintf("it answered %s within %s; light takes %s to %s and back", from, milliseconds(rtt), milliseconds(bound), to)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func (w *Watch) seeAddress(p *peer, c residency.Country, now time.Time) {
	switch {
	case !c.Known(): // contradicts nothing and confirms nothing
	case c == p.country:
		p.agrees(GroundAddress, now)
	default:
		p.inside = c
		p.contradicts(GroundAddress, fmt.Sprintf("it is seen at an address that the GeoIP database has in %s", c), now)
	}
}

// nearKm is how far outside of its country a node may say to stand: whoever
// writes coordinates into a file takes those of the next city, and a platform
// at sea belongs to a country, too.
const nearKm = 100.0

func (w *Watch) seePlace(p *peer, at Place, now time.Time) {
	if !at.stated() {
		return
	}
	if km := w.atlas.away(at, p.country); km > nearKm {
		p.contradicts(GroundPlace, fmt.Sprintf("it says that it stands at %s, %.0f km from %s", at, km, p.country), now)
		return
	}
	p.agrees(GroundPlace, now)
}

// contradicts notes a sighting that does; the third within the time counts.
func (p *peer) contradicts(kind Ground, reason string, now time.Time) {
	g := p.grounds[kind]
	if g == nil {
		g = &ground{}
		p.grounds[kind] = g
	}
	g.reason, g.agrees = reason, time.Time{}
	if !g.since.IsZero() {
		return
	}
	g.times = append(g.times, now)
	if len(g.times) > strikes {
		g.times = g.times[1:]
	}
	if len(g.times) == strikes && now.Sub(g.times[0]) <= within {
		g.since = now
	}
}

// agrees notes a sighting that agrees with the certificate.
func (p *peer) agrees(kind Ground, now time.Time) {
	g := p.grounds[kind]
	switch {
	case g == nil:
	case g.agrees.IsZero():
		g.agrees = now
	case now.Sub(g.agrees) >= calm:
		delete(p.grounds, kind)
	}
}

// stands returns the strongest ground that stands.
func (p *peer) stands() (Ground, *ground) {
	for _, kind := range Grounds() {
		if g := p.grounds[kind]; g != nil && !g.since.IsZero() {
			return kind, g
		}
	}
	return "", nil
}

// Hear takes in what a node says of others, all of it: what it does not repeat
// it has taken back.
func (w *Watch) Hear(by residency.NodeName, words []Word, now time.Time) {
	if by == "" || by == w.self.Name {
		return
	}
	w.words[by] = speech{words: slices.Clone(words[:min(len(words), MaxWords)]), at: now}
}

// Words is what this node says to others: what it has seen itself.
func (w *Watch) Words() []Word {
	var out []Word
	for _, name := range slices.Sorted(maps.Keys(w.peers)) {
		p := w.peers[name]
		word := Word{Of: name, Country: p.country}
		if p.standing(GroundRTT) {
			word.RTT = p.least
		}
		if p.standing(GroundAddress) {
			word.SeenIn = p.inside
		}
		if (word.RTT != 0 || word.SeenIn != "") && len(out) < MaxWords {
			out = append(out, word)
		}
	}
	return out
}

func (p *peer) standing(kind Ground) bool {
	g := p.grounds[kind]
	return g != nil && !g.since.IsZero()
}

// Judge returns the nodes among members that are not where they say, by name.
// Members are as their certificates state them; believed are those for whose
// places the operator vouches: their word counts, whatever is said of them.
func (w *Watch) Judge(members []residency.Node, believed func(residency.NodeName) bool, now time.Time) []Doubt {
	w.forget(now)
	doubts := map[residency.NodeName]Doubt{}
	for name, p := range w.peers {
		if kind, g := p.stands(); g != nil {
			doubts[name] = Doubt{Node: name, Ground: kind, Reason: g.reason, Since: g.since}
		}
	}
	w.addSaid(doubts, members, believed, now)
	all := slices.Collect(maps.Values(doubts))
	slices.SortFunc(all, func(a, b Doubt) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// addSaid adds the nodes that others doubt. What they say is taken back later
// than it ends, so that a link that comes and goes changes nothing.
func (w *Watch) addSaid(doubts map[residency.NodeName]Doubt, members []residency.Node, believed func(residency.NodeName) bool, now time.Time) {
	direct := map[residency.NodeName]bool{}
	for name := range doubts {
		direct[name] = !believed(name)
	}
	for name, by := range convict(w.accusers(members, now), direct, believed) {
		d := Doubt{Node: name, Ground: GroundWitnesses, By: by, Since: now,
			Reason: fmt.Sprintf("%s measured that it cannot be there", list(by))}
		if old, stood := w.said[name]; stood {
			d.Since = old.Since
		}
		w.said[name], w.last[name] = d, now
	}
	for name, d := range w.said {
		if now.Sub(w.last[name]) >= calm {
			delete(w.said, name)
			delete(w.last, name)
		} else if _, seen := doubts[name]; !seen {
			doubts[name] = d
		}
	}
}

func list(names []residency.NodeName) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return "nodes " + strings.Join(words, ", ")
}

// accusers says who accuses whom with a word that holds: given by a member, of a
// member in the country that it still states, and impossible by this node's own
// reckoning.
func (w *Watch) accusers(members []residency.Node, now time.Time) map[residency.NodeName][]residency.NodeName {
	country := map[residency.NodeName]residency.Country{}
	for _, m := range members {
		country[m.Name] = m.Country
	}
	out := map[residency.NodeName][]residency.NodeName{}
	for _, by := range slices.Sorted(maps.Keys(w.words)) {
		s := w.words[by]
		if _, member := country[by]; !member || now.Sub(s.at) > wordLasts {
			continue
		}
		for _, word := range s.words {
			c, member := country[word.Of]
			if member && word.Of != by && word.Of != w.self.Name && c == word.Country && w.holds(country[by], word) &&
				!slices.Contains(out[word.Of], by) {
				out[word.Of] = append(out[word.Of], by)
			}
		}
	}
	return out
}

// holds reports whether a word of a node in a country contradicts anything.
func (w *Watch) holds(from residency.Country, word Word) bool {
	return word.RTT > 0 && word.RTT < w.atlas.leastRTT(from, word.Country) ||
		word.SeenIn.Known() && word.SeenIn != word.Country
}

// AccusedBy lists the nodes that doubt this one.
func (w *Watch) AccusedBy(members []residency.Node, now time.Time) []residency.NodeName {
	var by []residency.NodeName
	for _, m := range members {
		s, spoke := w.words[m.Name]
		if spoke && now.Sub(s.at) <= wordLasts && slices.ContainsFunc(s.words, func(word Word) bool { return word.Of == w.self.Name }) {
			by = append(by, m.Name)
		}
	}
	return by
}

// forget drops what time has settled.
func (w *Watch) forget(now time.Time) {
	for name, p := range w.peers {
		if now.Sub(p.seen) > forgetAfter {
			delete(w.peers, name)
		}
	}
	for name, s := range w.words {
		if now.Sub(s.at) > wordLasts {
			delete(w.words, name)
		}
	}
}
