package speakers

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config bounds a selection.
type Config struct {
	// Places is how many tracks are forwarded at once; 0 means DefaultPlaces. While no more
	// microphones than that are open, all of them are, and nothing is selected.
	// More places let more people talk at a time and cost every attendee that
	// much rate; beyond six voices at once nobody follows any of them.
	Places int
	// Hangover is how long a silent track keeps its place; 0 means
	// DefaultHangover. Shorter, and a sentence with a pause in it begins twice;
	// longer, and places are spent on people who have finished.
	Hangover time.Duration
}

// Defaults of Config.
const (
	DefaultPlaces   = 8
	DefaultHangover = 1500 * time.Millisecond
)

// Loudness is 127 minus the level, so that more is louder, in hundredths of a
// decibel. A track's loudness is an envelope: it rises with the sound and falls slowly.
const (
	decibel = 100
	// audible is the quietest sound that asks for a place: -55 dBov. Below lie
	// fans and keyboards.
	audible = (127 - 55) * decibel
	// attack, per millisecond of sound: full loudness from silence in 127 ms. A
	// voice that takes the place of another is decided upon within PreRoll,
	// which makes good for it; one clap of the hands is not.
	attack = decibel
	// release, per millisecond: 20 dB in a second, so that the gaps between words
	// cost less than margin.
	release = 2
	// margin is how much louder somebody has to be than one who is speaking, to
	// take their place. Two voices of about the same loudness differ by less.
	margin = 6 * decibel
	// settling is for how long after an entry the margin is twice as wide: the
	// envelope of somebody who has just begun is not complete yet.
	settling = 500 // ms
	// pause is the silence after which one who holds a place does not count as
	// speaking: longer than the gaps between most words. It is also how long a
	// newcomer of equal loudness waits when somebody has just finished, of which
	// PreRoll makes good the half.
	pause = 240 // ms
	// pauseCosts is how much quieter one who pauses counts: their place goes to
	// the first packet of anybody who is not far quieter.
	pauseCosts = 20 * decibel
)

// What is sent on from the packet cache when a track enters.
const (
	// PreRoll bounds it: what attack needs at most.
	PreRoll = 120 * time.Millisecond
	// lead is how much of it may lie before the first audible packet: an unvoiced
	// consonant is quieter than the vowel after it.
	lead = 40 * time.Millisecond
	// newSpurt is the silence after which sound begins anew.
	newSpurt = 200 // ms
)

// Tracks without levels.
const (
	// emptyPayload is the longest Opus packet that holds no sound (DTX).
	emptyPayload = 2
	// turn is for how long such a track may speak while another waits.
	turn = 4000 // ms
	// stillThere is the age of the newest packet of one that waits.
	stillThere = 1000 // ms
)

// Reason says why a track is forwarded or not.
type Reason uint8

// The reasons.
const (
	Quiet     Reason = iota // not forwarded: nothing to hear
	NoPlace                 // not forwarded: everybody who has a place is louder
	Displaced               // not forwarded: somebody else has taken the place
	Ended                   // not forwarded: silent for longer than the hangover
	Muted                   // not forwarded: muted or gone
	Open                    // forwarded: there are places for everybody
	FreePlace               // forwarded: spoke when a place was free
	InPause                 // forwarded: spoke when somebody paused
	Louder                  // forwarded: was louder than somebody who spoke
	NoLevel                 // forwarded: the place kept for tracks without levels
	Turn                    // forwarded: has waited for its turn, for want of a level
)

// String returns the reason in a few words.
func (r Reason) String() string {
	return [...]string{"quiet", "no place", "displaced", "ended", "muted", "open", "free place", "in a pause", "louder", "no level", "turn"}[r]
}

// Loudest selects the tracks of a room that are worth hearing.
//
// A voice enters with its first audible packet if a place is free or its holder
// pauses, and within PreRoll if it has to outdo somebody who speaks; Decision
// names the packets from before that are to follow from the cache. It leaves
// after Hangover, or for somebody louder.
//
// A track whose publisher sends no levels counts as the quietest of all that
// sound: it takes free places and yields to any voice. But one place of several
// is always open to such tracks, and they take turns: each is heard within
// (their number - 1) × 4 s.
//
// For a packet that changes nothing no lock is taken: the places are read as
// they stand. mu guards their changes, and is not waited for by a packet; the
// next one comes in 20 ms.
type Loudest struct {
	cfg    Config                      // static
	places []atomic.Pointer[Candidate] // written under mu
	open   atomic.Bool                 // written under mu: everybody is forwarded

	mu         sync.Mutex
	candidates map[*Candidate]struct{}
	unmuted    int
}

// NewLoudest returns an empty selection.
func NewLoudest(cfg Config) *Loudest {
	if cfg.Places <= 0 {
		cfg.Places = DefaultPlaces
	}
	if cfg.Hangover <= 0 {
		cfg.Hangover = DefaultHangover
	}
	l := &Loudest{cfg: cfg, candidates: map[*Candidate]struct{}{}, places: make([]atomic.Pointer[Candidate], cfg.Places)}
	l.open.Store(true)
	return l
}

// Add lets a track take part, unmuted.
func (l *Loudest) Add(id string, clockRate uint32) *Candidate {
	c := &Candidate{id: id, of: l, line: timeline{rate: max(clockRate, 1)}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.candidates[c] = struct{}{}
	l.unmuted++
	l.open.Store(l.unmuted <= len(l.places))
	return c
}

// Remove ends a track's part; it is not selected again.
func (l *Loudest) Remove(c *Candidate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.candidates[c]; ok {
		l.setMuted(c, true)
		delete(l.candidates, c)
	}
}

// SetMuted frees a track's place at once, or lets it take part again.
func (l *Loudest) SetMuted(c *Candidate, muted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.candidates[c]; ok {
		l.setMuted(c, muted)
	}
}

func (l *Loudest) setMuted(c *Candidate, muted bool) {
	switch {
	case c.muted.Swap(muted) == muted:
		return
	case muted:
		l.unmuted--
		l.stand(c, Quiet)
	default:
		l.unmuted++
	}
	l.open.Store(l.unmuted <= len(l.places))
}

// Tick takes back the places of those who have stopped sending, and lets tracks
// without levels take turns. The owner calls it about every 100 ms.
func (l *Loudest) Tick(now time.Time) {
	ms := now.UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.places {
		if h := l.places[i].Load(); h != nil && l.over(h, ms) {
			l.stand(h, Ended)
		}
	}
	l.takeTurns(ms)
}

// takeTurns gives the place of the track without levels that has spoken longest to
// the one that has waited longest.
func (l *Loudest) takeTurns(ms int64) {
	var next *Candidate
	for c := range l.candidates {
		since := c.waiting.Load()
		switch {
		case since == 0:
		case c.muted.Load() || ms-c.heard.Load() > stillThere:
			c.waiting.Store(0)
		case next == nil || before(c, next):
			next = c
		}
	}
	var longest *Candidate
	for i := range l.places {
		h := l.places[i].Load()
		if h != nil && !h.levels.Load() && (longest == nil || h.since.Load() < longest.since.Load()) {
			longest = h
		}
	}
	if next == nil || longest == nil || ms-longest.since.Load() < turn {
		return
	}
	i := longest.place()
	l.stand(longest, Displaced)
	l.seat(next, i, Turn, ms)
}

// before orders those who wait.
func before(a, b *Candidate) bool {
	return cmp.Or(cmp.Compare(a.waiting.Load(), b.waiting.Load()), cmp.Compare(a.id, b.id)) < 0
}

// contend takes a place for a track that sounds, if it may have one.
func (l *Loudest) contend(c *Candidate, loud int64, ms int64) {
	i, _ := l.choose(c, loud, ms)
	if i < 0 {
		c.refused(ms)
		return
	}
	if !l.mu.TryLock() {
		return // the next packet tries again, and PreRoll covers it
	}
	defer l.mu.Unlock()
	i, why := l.choose(c, loud, ms)
	if i < 0 || c.muted.Load() {
		return
	}
	if h := l.places[i].Load(); h != nil {
		l.stand(h, Displaced)
	}
	l.seat(c, i, why, ms)
}

// choose returns the place that a track may take, the one that is missed least,
// or -1.
func (l *Loudest) choose(c *Candidate, loud, ms int64) (place int, why Reason) {
	place = -1
	without := l.withoutLevels()
	kept := without == 1 && len(l.places) > 1 // theirs is the last of its kind
	best := int64(0)
	for i := range l.places {
		h := l.places[i].Load()
		if h == nil || l.over(h, ms) {
			return i, FreePlace
		}
		if surplus, r := l.surplus(c, h, loud, ms, kept, without); surplus > best {
			place, why, best = i, r, surplus
		}
	}
	return place, why
}

// surplus is how much a track has more than it needs for the place of h, 0 or less
// for not enough.
func (l *Loudest) surplus(c, h *Candidate, loud, ms int64, kept bool, without int) (int64, Reason) {
	const certain = 1000 * decibel // above all comparisons of loudness
	envelope, pauses := h.loudness(ms), ms-h.heard.Load() > pause
	if pauses {
		envelope -= pauseCosts
	}
	switch {
	case !c.levels.Load() && (without > 0 || len(l.places) == 1):
		return 0, NoPlace
	case !c.levels.Load():
		return certain - envelope, NoLevel
	case !h.levels.Load() && kept:
		return 0, NoPlace
	case !h.levels.Load():
		return certain + ms - h.heard.Load(), Louder
	case pauses:
		return loud - envelope, InPause
	case ms-h.since.Load() < settling:
		return c.loudness(ms) - envelope - 2*margin, Louder
	}
	return c.loudness(ms) - envelope - margin, Louder
}

func (l *Loudest) withoutLevels() (n int) {
	for i := range l.places {
		if h := l.places[i].Load(); h != nil && !h.levels.Load() {
			n++
		}
	}
	return n
}

// over reports whether a track's hangover has ended.
func (l *Loudest) over(h *Candidate, ms int64) bool {
	return ms-h.heard.Load() > l.cfg.Hangover.Milliseconds()
}

// seat gives a free place to a track. The caller holds mu.
func (l *Loudest) seat(c *Candidate, i int, why Reason, ms int64) {
	c.since.Store(ms)
	c.waiting.Store(0)
	c.why.Store(uint32(why))
	l.places[i].Store(c)
	c.seated.Store(true)
}

// stand takes a track's place, if it has one. The caller holds mu.
func (l *Loudest) stand(c *Candidate, why Reason) {
	if i := c.place(); i >= 0 {
		l.places[i].Store(nil)
	}
	c.seated.Store(false)
	c.why.Store(uint32(why))
}

// Place is a place in the selection, for those who ask why.
type Place struct {
	ID    string
	Why   Reason
	Since time.Time // when the track took it
	Heard time.Time // when it last sounded
	DBov  float64   // its smoothed level now; 0 is the loudest
}

// Places returns who is selected, in the order of their entry; nobody, if places
// are open to everybody and nobody speaks.
func (l *Loudest) Places(now time.Time) []Place {
	var list []Place
	for i := range l.places {
		h := l.places[i].Load()
		if h == nil {
			continue
		}
		list = append(list, Place{ID: h.id, Why: h.Why(), Since: time.UnixMilli(h.since.Load()), Heard: time.UnixMilli(h.heard.Load()),
			DBov: float64(h.loudness(now.UnixMilli()))/decibel - float64(Silence)})
	}
	slices.SortFunc(list, func(a, b Place) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return list
}
