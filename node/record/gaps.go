package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/domicile/domicile/residency/vault"
)

// Cause says why something is missing in a track.
type Cause byte

// The causes. Their numbers are in files: new ones come last.
const (
	Muted     Cause = 1 + iota // by its publisher or a moderator
	Away                       // the connection of its publisher, or of the node that serves them, was lost
	Paused                     // nothing came, although its publisher was there: the way carried no more, louder voices did, or the source stood still
	Loss                       // packets were lost on their way and never came again
	DiskLate                   // the disk did not keep up, and what waited for it was dropped
	Consent                    // its publisher has taken the consent to be recorded back
	Permitted                  // its publisher has picked who may have it
	Moved                      // the recording was moved to another origin; of whole recordings, not in files
	causes
)

// String names the cause as people and programs see it.
func (c Cause) String() string {
	names := [causes]string{"", "muted", "away", "paused", "loss", "disk", "consent", "permission", "moved"}
	if c == 0 || c >= causes {
		return fmt.Sprintf("cause %d", byte(c))
	}
	return names[c]
}

// MarshalText implements encoding.TextMarshaler.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Gap is a stretch of a track in which something is missing. Its times are on the
// recording's timeline, by the clock of the node that recorded.
type Gap struct {
	Cause   Cause `json:"cause"`
	FromMS  int64 `json:"from_ms"`
	ToMS    int64 `json:"to_ms"`             // OpenGap: to the end of the track
	Packets int   `json:"packets,omitempty"` // that are missing, as far as is known
}

// OpenGap is the end of a gap after which nothing came any more.
const OpenGap = -1

// State is what the room knows of a track that is recorded.
type State struct {
	Muted bool
	Away  bool // nothing is heard of its publisher
}

const (
	// mutedAfter is how long nothing must have come of a muted track: the room tells of a
	// mute, and of its end, a moment after the media plane.
	mutedAfter = 200 * time.Millisecond
	// pausedAfter is how long nothing must have come of any other: a microphone in which
	// it is quiet sends a packet every 400 ms, a screen that stands still one a second.
	pausedAfter = 2 * time.Second
	// lossApart joins losses that are closer: a bad minute is a few gaps, not hundreds.
	lossApart = time.Second
)

// gap is a Gap as it is written. One that is written again, under its number, has
// become longer, has ended, or its cause is known better.
type gap struct {
	number   uint32
	cause    Cause
	from, to int64 // µs; to OpenGap while it lasts
	packets  uint32
}

// gapFinder says what is missing in a track, and why (a plain value: arrivals, states
// and losses in, gaps out). A gap lasts from the last packet before it to the first
// behind it.
type gapFinder struct {
	zero  time.Time
	write func(g gap, now time.Time)

	numbers uint32
	last    time.Time // when something came last
	silence gap       // the newest stretch in which nothing came
	quiet   bool      // it lasts
	unmuted time.Time // since when a muted one that lasts is not muted any more
	lost    gap       // the newest loss
}

func (f *gapFinder) at(t time.Time) int64 { return max(0, t.Sub(f.zero).Microseconds()) }

// goesOn takes note that the track is a part of one of which nothing came since.
func (f *gapFinder) goesOn(since time.Time) {
	f.last = since
	f.begin(Away, since, since)
}

// came takes note of a packet.
func (f *gapFinder) came(at time.Time) {
	if !at.After(f.last) {
		return
	}
	if f.last = at; f.quiet {
		f.end(at, at)
	}
}

// tick looks at how long nothing has come, and why that may be.
func (f *gapFinder) tick(now time.Time, s State) {
	if f.last.IsZero() {
		f.last = now // the track begins
	}
	why := f.why(now.Sub(f.last), s)
	switch {
	case f.quiet && f.silence.cause == Muted && !s.Muted:
		f.doUnmuted(now, s)
	case why == 0 || f.quiet && (f.silence.cause == why || f.silence.cause == Away && why == Paused):
		f.unmuted = time.Time{} // nothing new: who was away may be back before anything comes
	case !f.quiet:
		f.begin(why, f.last, now)
	case why == Muted:
		f.end(now, now)
		f.begin(Muted, now, now)
	default: // what was a pause is an absence
		f.silence.cause = why
		f.write(f.silence, now)
	}
}

func (f *gapFinder) why(silent time.Duration, s State) Cause {
	switch {
	case s.Muted && silent >= mutedAfter:
		return Muted
	case silent < pausedAfter:
		return 0
	case s.Away:
		return Away
	}
	return Paused
}

// doUnmuted gives what follows a mute a cause of its own if it lasts.
func (f *gapFinder) doUnmuted(now time.Time, s State) {
	if f.unmuted.IsZero() {
		f.unmuted = now
	}
	since := f.unmuted
	if why := f.why(now.Sub(since), s); why != 0 {
		f.end(since, now)
		f.begin(why, since, now)
	}
}

func (f *gapFinder) begin(c Cause, from, now time.Time) {
	f.silence = gap{number: f.number(), cause: c, from: f.at(from), to: OpenGap}
	f.quiet, f.unmuted = true, time.Time{}
	f.write(f.silence, now)
}

func (f *gapFinder) end(at, now time.Time) {
	f.silence.to = max(f.at(at), f.silence.from)
	f.quiet, f.unmuted = false, time.Time{}
	f.write(f.silence, now)
}

func (f *gapFinder) number() uint32 { f.numbers++; return f.numbers }

// missing takes note that what came between two moments is not whole. The numbers of
// packets may jump over a silence, which says already why.
func (f *gapFinder) missing(c Cause, from, to time.Time, packets uint32) {
	g := gap{cause: c, from: f.at(from), packets: packets}
	g.to = max(g.from, f.at(to)) // what comes late, and is in order all the same, may have come after it
	if c == Loss && f.silence.number > 0 && f.silence.from >= g.from && f.silence.from <= g.to {
		return
	}
	if l := f.lost; l.number > 0 && l.cause == c && g.from-l.to <= lossApart.Microseconds() {
		g.number, g.from, g.to, g.packets = l.number, l.from, max(l.to, g.to), l.packets+g.packets
	} else {
		g.number = f.number()
	}
	f.lost = g
	f.write(g, to)
}

// ends says why nothing comes any more.
func (f *gapFinder) ends(c Cause, at time.Time) {
	if f.quiet {
		f.end(at, at)
	}
	f.write(gap{number: f.number(), cause: c, from: f.at(at), to: OpenGap}, at)
}

// The data of a gap's entry, whose time is where the gap begins:
//
//	+--------+-------+------------------+---------+
//	| number | cause |    end in µs     | packets |
//	|   4    |   1   | 8, -1: it lasts  |    4    |
//	+--------+-------+------------------+---------+
const gapData = 4 + 1 + 8 + 4

func appendGap(b []byte, g gap) []byte {
	data := binary.BigEndian.AppendUint32(make([]byte, 0, gapData), g.number)
	data = append(data, byte(g.cause))
	data = binary.BigEndian.AppendUint64(data, uint64(g.to))
	data = binary.BigEndian.AppendUint32(data, g.packets)
	return appendEntry(b, entryGap, g.from, data)
}

func parseGap(from int64, data []byte) (*gap, error) {
	g := &gap{number: binary.BigEndian.Uint32(data), cause: Cause(data[4]), from: from,
		to: int64(binary.BigEndian.Uint64(data[5:])), packets: binary.BigEndian.Uint32(data[13:])}
	if g.to != OpenGap && g.to < g.from {
		return nil, errors.New("a gap ends before it begins")
	}
	return g, nil
}

// gapsOf are a track's gaps as they were written last, in the order of their beginnings.
func gapsOf(written []gap) []Gap {
	newest := map[uint32]gap{}
	for _, g := range written {
		newest[g.number] = g
	}
	var list []Gap
	for _, g := range newest {
		out := Gap{Cause: g.cause, FromMS: g.from / 1000, ToMS: OpenGap, Packets: int(g.packets)}
		if g.to != OpenGap {
			out.ToMS = g.to / 1000
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(a, b Gap) int {
		if a.FromMS != b.FromMS {
			return int(a.FromMS - b.FromMS)
		}
		return int(a.Cause) - int(b.Cause)
	})
	return list
}

// fromStart is how late a track may begin to have been there when its recording did.
const fromStart = 2 * time.Second

// moved is what a track lacks because its recording goes on from another, of a node
// that was lost.
func moved(after *vault.After, t vault.TrackMeta) []Gap {
	if after == nil || t.Start > fromStart {
		return nil
	}
	return []Gap{{Cause: Moved, FromMS: -after.Gap.Milliseconds()}}
}
