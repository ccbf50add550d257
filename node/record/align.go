package record

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Aligning tracks. A track's media time runs with its publisher's media clock
// and starts where its first packet arrived, late by the delay of that packet and
// by what the publisher's encoder took. Two kinds of evidence correct it:
//
//   - Sender reports tie media time to the publisher's wall clock, the same for
//     its audio and its video. The least (arrival - wall clock) over all its
//     reports ties that to ours; one value for all its tracks keeps them in sync.
//   - The least delay of each second shows where a media clock stood still, as
//     it does with publishers that stop it while muted.
//
// A track is divided where its media clock stood still; inside each part a line
// is fitted, which also takes out the drift between the two clocks.

const (
	// stepLimit tells a media clock that stood still from a jam in the network.
	stepLimit = 400 * time.Millisecond
	// refWindows is how many windows a step is judged against: long enough to
	// hold one without delay, short enough that clock drift does not count.
	refWindows = 10
	// reportTrust is how far a report may contradict the arrivals.
	reportTrust = 2 * time.Second
	// delayWindow is the time around a report in which the least delay is looked for.
	delayWindow = time.Minute
	// slopeSpan is the time over which a drift can be told from jitter.
	slopeSpan = time.Minute
	// maxSlope bounds the drift: crystals keep within 100 ppm, virtual machines
	// and soundcards within 1000.
	maxSlope = 1e-3
)

// timeline maps a track's media time to the recording's.
type timeline []segment

// segment is a part in which the media clock ran evenly.
type segment struct {
	from   int64 // media time, µs; the first segment holds before it too
	offset float64
	slope  float64
}

func (t timeline) at(media int64) int64 {
	if len(t) == 0 {
		return max(media, 0)
	}
	i, _ := slices.BinarySearchFunc(t, media+1, func(s segment, m int64) int { return cmp.Compare(s.from, m) })
	s := t[max(i-1, 0)]
	return max(media+int64(s.offset+s.slope*float64(media-s.from)), 0)
}

// align gives every track its timeline. Tracks of one publisher share a clock.
func align(scans []*scan) {
	byPublisher := map[string][]*scan{}
	for _, s := range scans {
		p := s.track.Meta.Participant
		byPublisher[p] = append(byPublisher[p], s)
	}
	for _, tracks := range byPublisher {
		delays := leastDelays(tracks)
		for _, s := range tracks {
			s.timeline = fit(s.arrivals, s.reports, delays)
		}
	}
}

// delayCurve is the least (arrival - publisher's wall clock) around each report.
type delayCurve []anchor // arrival and offset are used, in order of arrival

func leastDelays(tracks []*scan) delayCurve {
	var all delayCurve
	for _, s := range tracks {
		for _, r := range s.reports {
			all = append(all, anchor{arrival: r.arrival, offset: r.arrival - r.wall})
		}
	}
	slices.SortFunc(all, func(a, b anchor) int { return cmp.Compare(a.arrival, b.arrival) })
	least := slices.Clone(all)
	from := 0
	for i := range all {
		for all[i].arrival-all[from].arrival > delayWindow.Microseconds() {
			from++
		}
		for _, a := range all[from:] {
			if a.arrival-all[i].arrival > delayWindow.Microseconds() {
				break
			}
			least[i].offset = min(least[i].offset, a.offset)
		}
	}
	return least
}

func (d delayCurve) at(arrival int64) int64 {
	i, _ := slices.BinarySearchFunc(d, arrival, func(a anchor, t int64) int { return cmp.Compare(a.arrival, t) })
	return d[min(i, len(d)-1)].offset
}

// part is a segment in the making.
type part struct {
	windows []anchor
	ref     int64 // least offset of the newest windows
}

// split divides a track where its media clock stood still.
func split(arrivals []anchor) []part {
	var parts []part
	for i, a := range arrivals {
		if len(parts) == 0 {
			parts = append(parts, part{windows: []anchor{a}, ref: a.offset})
			continue
		}
		cur := &parts[len(parts)-1]
		late := func(a anchor) bool { return a.offset-cur.ref > stepLimit.Microseconds() }
		if late(a) && (i+1 == len(arrivals) || late(arrivals[i+1])) {
			parts = append(parts, part{windows: []anchor{a}, ref: a.offset})
			continue
		}
		if n := len(parts); n > 1 && a.offset < parts[n-2].ref+stepLimit.Microseconds()/2 {
			// Back where it was: what looked like a halt was a jam.
			parts[n-2].windows = append(parts[n-2].windows, cur.windows...)
			parts = parts[:n-1]
			cur = &parts[n-2]
		}
		cur.windows = append(cur.windows, a)
		cur.ref = a.offset
		for _, w := range cur.windows[max(0, len(cur.windows)-refWindows):] {
			cur.ref = min(cur.ref, w.offset)
		}
	}
	return parts
}

// fit makes the timeline of one track.
func fit(arrivals, reports []anchor, delays delayCurve) timeline {
	parts := split(arrivals)
	if len(parts) == 0 { // died before the first window was whole
		parts = []part{{windows: []anchor{{}}}}
	}
	var t timeline
	for i, p := range parts {
		begin, end := int64(math.MinInt64), int64(math.MaxInt64)
		if i > 0 {
			begin = p.windows[0].media + p.windows[0].offset
		}
		if i+1 < len(parts) {
			end = parts[i+1].windows[0].media + parts[i+1].windows[0].offset
		}
		points := reportPoints(reports, delays, begin, end, leastOffset(p.windows))
		line := fitLine(points, medianOffset)
		if len(points) == 0 {
			line = fitLine(p.windows, leastOffset)
		}
		line.offset += line.slope * float64(p.windows[0].media-line.from)
		line.from = p.windows[0].media
		t = append(t, line)
	}
	return t
}

// reportPoints turns the reports that arrived in [begin, end) into offsets of
// media time, leaving out those that contradict the arrivals.
func reportPoints(reports []anchor, delays delayCurve, begin, end, near int64) (points []anchor) {
	for _, r := range reports {
		if r.arrival < begin || r.arrival >= end {
			continue
		}
		offset := r.wall + delays.at(r.arrival) - r.media
		if d := offset - near; d <= reportTrust.Microseconds() && d >= -reportTrust.Microseconds() {
			points = append(points, anchor{media: r.media, offset: offset})
		}
	}
	return points
}

// fitLine fits offset over media time: a line where the points span enough time
// to show a drift, else the constant that level finds.
func fitLine(points []anchor, level func([]anchor) int64) segment {
	n := len(points)
	if n == 0 {
		return segment{}
	}
	from := points[0].media
	if n < 10 || points[n-1].media-from < slopeSpan.Microseconds() {
		return segment{from: from, offset: float64(level(points))}
	}
	var sx, sy, sxx, sxy float64
	for _, p := range points {
		x, y := float64(p.media-from), float64(p.offset)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	den := float64(n)*sxx - sx*sx
	if den == 0 {
		return segment{from: from, offset: float64(level(points))}
	}
	slope := min(max((float64(n)*sxy-sx*sy)/den, -maxSlope), maxSlope)
	return segment{from: from, offset: (sy - slope*sx) / float64(n), slope: slope}
}

func leastOffset(points []anchor) int64 {
	return slices.MinFunc(points, func(a, b anchor) int { return cmp.Compare(a.offset, b.offset) }).offset
}

func medianOffset(points []anchor) int64 {
	s := slices.Clone(points)
	slices.SortFunc(s, func(a, b anchor) int { return cmp.Compare(a.offset, b.offset) })
	return s[len(s)/2].offset
}
