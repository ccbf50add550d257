// Package quality judges how good a participant's connection is, from what the
// media plane counted: packets, loss, jitter, round-trip time, rates and layers.
//
// It judges streams (Stream), and a participant by the worst of them (Worst);
// every verdict names its reason. It measures nothing, starts no goroutine and
// reads no clock.
package quality

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Interval is how often a stream is judged. Shorter, and a single burst of loss
// makes the indicator jump; longer, and it tells of the past.
const Interval = 5 * time.Second

// Level is what clients show, LiveKit's ConnectionQuality; a higher one is better.
type Level uint8

// The levels.
const (
	Lost Level = iota
	Poor
	Good
	Excellent
)

// String returns the level's name.
func (l Level) String() string { return [...]string{"lost", "poor", "good", "excellent"}[l] }

// Points are a score from 0 to 100 in the manner of the E-model (ITU-T G.107),
// as LiveKit's server uses it. A level's scores lie above the number here.
const (
	excellentAbove = 80
	goodAbove      = 40
	lostPoints     = 20
	// floor is the worst score of a stream that lives: from further down the way
	// back up would take too long.
	floor = 30
	// rise is how far above a level's lower end a score must be to come up to it:
	// one that wavers around the line would change its level with every verdict.
	rise = 3
	// A score falls fast and rises slowly: these parts of the way at once.
	fallFactor, riseFactor = 0.8, 0.4
)

// Media says how much a stream suffers from loss.
type Media uint8

// The kinds of stream.
const (
	Video    Media = iota // no repair of its own: 2 % of loss are no longer excellent
	Opus                  // conceals a little: 2.5 %
	OpusFEC               // carries the last frame again at a low rate: 3.75 %
	OpusRED               // carries whole frames twice: 5 %
	OpusBoth              // FEC in RED: 7.5 %
)

// lossCosts is how many points a percent of loss costs.
func (m Media) lossCosts() float64 { return [...]float64{10, 8, 8 / 1.5, 4, 4 / 1.5}[m] }

// State says whether a stream is to be judged.
type State uint8

// The states.
const (
	On      State = iota
	Off           // muted, or nobody wants it: says nothing about the connection
	Starved       // paused because the bandwidth does not carry it
)

// Window is what happened to a stream since the verdict before.
type Window struct {
	State State
	Span  time.Duration // the length of the window
	On    time.Duration // for how much of it the state was On; 0 means all of it

	Received uint64        // packets that arrived at last, retransmitted ones included
	Lost     uint64        // packets that did not
	RTT      time.Duration // the longest; 0: unknown
	Jitter   time.Duration // the largest (RFC 3550 section 6.4.1) beyond that of the way before

	Bits         uint64 // of payload that came
	ExpectedBits uint64 // that should have come; 0: unknown
	// Missing is how many spatial layers the picture was below what is wanted and
	// exists, on average.
	Missing float64
	// Alive says that something came from the other side: media, RTCP, a STUN check.
	Alive bool
}

// Reason names what a verdict rests on.
type Reason string

// The reasons.
const (
	None      Reason = "nothing is wrong"
	ByLoss    Reason = "packets are lost"
	ByDelay   Reason = "packets come late"
	ByRate    Reason = "less comes than is sent"
	ByLayers  Reason = "the picture is smaller than wanted"
	ByDry     Reason = "no packet comes"
	ByLost    Reason = "nothing is heard"
	ByStarved Reason = "the bandwidth does not carry it"
)

// Verdict is the quality of a stream or a participant.
type Verdict struct {
	Level  Level
	Points float64 // 0 to 100
	Reason Reason  // for what the newest window alone was worth
	Figure string  // the figure behind the reason
}

// MOS is the verdict as a mean opinion score, 1 to 4.5 (ITU-T G.107 annex B).
func (v Verdict) MOS() float32 {
	p := v.Points
	return float32(min(max(1+0.035*p+7e-6*p*(p-60)*(100-p), 1), 4.5))
}

// Fine is the verdict on what has not been judged.
var Fine = Verdict{Level: Excellent, Points: 100, Reason: None}

// Worst returns the worst of a participant's streams, Fine without any.
func Worst(list ...Verdict) Verdict {
	if len(list) == 0 {
		return Fine
	}
	return slices.MinFunc(list, func(a, b Verdict) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Points, b.Points))
	})
}

// Stream judges one stream, window after window.
type Stream struct {
	media   Media
	verdict Verdict
	usual   float64 // packets/s when the sender is not pausing
}

// NewStream returns a stream without fault.
func NewStream(m Media) *Stream { return &Stream{media: m, verdict: Fine} }

// Verdict returns the last verdict.
func (s *Stream) Verdict() Verdict { return s.verdict }

// Update judges a window.
func (s *Stream) Update(w Window) Verdict {
	if next, settled := s.special(w); settled {
		s.verdict = next
		return next
	}
	points, why, figure := s.points(w)
	factor := riseFactor
	if points < s.verdict.Points {
		factor = fallFactor
	}
	points = max(floor, s.verdict.Points+factor*(points-s.verdict.Points))
	s.verdict = Verdict{Level: levelOf(points, s.verdict.Level), Points: points, Reason: why, Figure: figure}
	return s.verdict
}

// special judges windows in which loss and delay say nothing.
func (s *Stream) special(w Window) (Verdict, bool) {
	switch {
	case w.State == Off && s.verdict.Level == Lost && !w.Alive:
		return s.verdict, true // to mute does not bring a connection back
	case w.State == Off:
		return Fine, true
	case w.State == Starved:
		return Verdict{Level: Poor, Points: floor, Reason: ByStarved}, true
	case w.Span <= 0, w.On > 0 && w.On < w.Span/2:
		return s.verdict, true // too short to say anything
	case w.Received == 0 && !w.Alive:
		return Verdict{Level: Lost, Points: lostPoints, Reason: ByLost, Figure: "for " + w.Span.String()}, true
	case w.Received == 0:
		return Verdict{Level: Poor, Points: floor, Reason: ByDry, Figure: "for " + w.Span.String()}, true
	}
	return Verdict{}, false
}

// points is what a window alone is worth: the least that loss and delay, the
// rate, and the layers allow.
func (s *Stream) points(w Window) (points float64, why Reason, figure string) {
	loss, percent := s.lossCosts(w)
	delay := delayCosts(w.RTT, w.Jitter)
	rate := rateCosts(w.Bits, w.ExpectedBits)
	layers := layerCosts * max(w.Missing, 0)
	switch worst := max(loss+delay, rate, layers); {
	case worst < 100-excellentAbove:
		why = None
	case worst == loss+delay && loss >= delay:
		why, figure = ByLoss, fmt.Sprintf("%.1f %%", percent)
	case worst == loss+delay:
		why, figure = ByDelay, fmt.Sprintf("round trip %s, jitter %s", w.RTT.Round(time.Millisecond), w.Jitter.Round(time.Millisecond))
	case worst == rate:
		why, figure = ByRate, fmt.Sprintf("%d of %d kbit", w.Bits/1000, w.ExpectedBits/1000)
	default:
		why, figure = ByLayers, fmt.Sprintf("by %.1f layers", w.Missing)
	}
	return max(0, 100-max(loss+delay, rate, layers)), why, figure
}

// lossCosts weighs the loss. A sender in a pause sends a few packets only (Opus
// with DTX 2.5 instead of 50 a second, a screen that stands still), and one of
// them lost is a large part of nothing: the weight falls with the root of the
// packet rate. The rate is that of the sender, so that loss does not excuse itself.
func (s *Stream) lossCosts(w Window) (points, percent float64) {
	sent := float64(w.Received) + float64(w.Lost)
	rate := sent / w.Span.Seconds()
	s.usual = max(rate, s.usual*usualFades)
	percent = 100 * float64(w.Lost) / sent
	return percent * s.media.lossCosts() * math.Sqrt(rate/s.usual), percent
}

// usualFades lets the usual rate of a stream that has become smaller be
// forgotten, by half in 24 windows or two minutes.
var usualFades = math.Pow(0.5, 1.0/24)

// delayCosts is the E-model's loss by delay, simplified: a jitter buffer of twice
// the jitter on top of one way; up to 160 ms people hardly notice, beyond each
// 10 ms cost a point.
func delayCosts(rtt, jitter time.Duration) float64 {
	ms := (float64(max(rtt, 0))/2 + 2*float64(max(jitter, 0))) / float64(time.Millisecond)
	if ms <= 160 {
		return ms / 40
	}
	return (ms - 120) / 10
}

// rateCosts compares rates by their ratio: at a third of what is expected the
// stream is no longer excellent, at a twentieth poor.
func rateCosts(bits, expected uint64) float64 {
	switch {
	case expected == 0 || bits >= expected:
		return 0
	case bits == 0:
		return 100
	}
	return min(100, 20*math.Log(float64(expected)/float64(bits)))
}

// layerCosts makes each missing layer cost most of a level.
const layerCosts = 35

// levelOf is the level of a score, given the level before.
func levelOf(points float64, before Level) Level {
	switch {
	case points > excellentAbove && (before == Excellent || points > excellentAbove+rise):
		return Excellent
	case points > goodAbove && (before >= Good || points > goodAbove+rise):
		return Good
	case points > lostPoints:
		return Poor
	}
	return Lost
}

// Board remembers what was told of whom, so that only changes are told.
type Board[ID comparable] struct{ told map[ID]Level }

// Update notes a participant's verdict and reports whether others are to be told:
// at first, and whenever the level is another.
func (b *Board[ID]) Update(id ID, v Verdict) bool {
	if b.told == nil {
		b.told = map[ID]Level{}
	}
	before, known := b.told[id]
	b.told[id] = v.Level
	return !known || before != v.Level
}

// Remove forgets a participant.
func (b *Board[ID]) Remove(id ID) { delete(b.told, id) }
