package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Inside a sealed cluster, all numbers big-endian:
//
//	+---------+---------+---------+---
//	| version | entry 0 | entry 1 | …
//	|  1 (=1) |         |         |
//	+---------+---------+---------+---
//
//	+------+------------------+--------+----------------+
//	| kind | media time in µs | length |      data      |   entry
//	|  1   |        8         |   4    | (length bytes) |
//	+------+------------------+--------+----------------+
//
//	kind 0x1k  frame, k a set of flags: 1 keyframe, 2 frames before it were lost
//	kind 0x20  arrival: data is the least (arrival - media time) of the second
//	           or so that starts here, 8 bytes, µs
//	kind 0x30  report: data is the publisher's wall clock at this media time and
//	           the arrival of the report, 8 bytes each, µs
//	kind 0x40  gap: something is missing here, and why; see gaps.go. Its time is on
//	           the recording's timeline
//
// Media time runs with the publisher's media clock and starts on the recording's
// timeline where the first packet arrived. It is never corrected while recording:
// the arrival and report entries are the evidence from which export aligns tracks.
const (
	clusterVersion = 1
	entryHead      = 1 + 8 + 4

	entryFrame   = 0x10
	entryArrival = 0x20
	entryReport  = 0x30
	entryGap     = 0x40

	flagKeyframe = 1
	flagGap      = 2
)

// frame is one encoded picture or audio packet.
type frame struct {
	pts      int64 // media time, µs
	keyframe bool
	gap      bool // what was directly before it is missing
	data     []byte
}

// anchor ties media time to another clock.
type anchor struct {
	media   int64 // µs
	offset  int64 // arrival - media, µs (arrival entries)
	wall    int64 // publisher's wall clock, µs since 1900 (report entries)
	arrival int64 // on the recording's timeline, µs (report entries)
}

// entry is one decoded entry: exactly one field is set.
type entry struct {
	frame   *frame
	arrival *anchor
	report  *anchor
	gap     *gap
}

func appendEntry(b []byte, kind byte, media int64, data ...[]byte) []byte {
	n := 0
	for _, d := range data {
		n += len(d)
	}
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, uint64(media))
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	for _, d := range data {
		b = append(b, d...)
	}
	return b
}

func appendFrame(b []byte, f frame) []byte {
	kind := byte(entryFrame)
	if f.keyframe {
		kind |= flagKeyframe
	}
	if f.gap {
		kind |= flagGap
	}
	return appendEntry(b, kind, f.pts, f.data)
}

func appendArrival(b []byte, a anchor) []byte {
	return appendEntry(b, entryArrival, a.media, be64(a.offset))
}

func appendReport(b []byte, a anchor) []byte {
	return appendEntry(b, entryReport, a.media, be64(a.wall), be64(a.arrival))
}

func be64(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

var errShortCluster = errors.New("cluster ends inside an entry")

// entries decodes a cluster. Frames point into it.
func entries(cluster []byte) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		if len(cluster) == 0 || cluster[0] != clusterVersion {
			yield(entry{}, errors.New("cluster of an unknown version"))
			return
		}
		for b := cluster[1:]; len(b) > 0; {
			e, n, err := parseEntry(b)
			if !yield(e, err) || err != nil {
				return
			}
			b = b[n:]
		}
	}
}

func parseEntry(b []byte) (e entry, n int, err error) {
	if len(b) < entryHead {
		return e, 0, errShortCluster
	}
	kind, media := b[0], int64(binary.BigEndian.Uint64(b[1:]))
	length := binary.BigEndian.Uint32(b[9:])
	if uint64(length) > uint64(len(b)-entryHead) {
		return e, 0, errShortCluster
	}
	data := b[entryHead : entryHead+int(length)]
	switch {
	case kind&^(flagKeyframe|flagGap) == entryFrame:
		e.frame = &frame{pts: media, keyframe: kind&flagKeyframe != 0, gap: kind&flagGap != 0, data: data}
	case kind == entryArrival && len(data) == 8:
		e.arrival = &anchor{media: media, offset: int64(binary.BigEndian.Uint64(data))}
	case kind == entryReport && len(data) == 16:
		e.report = &anchor{media: media, wall: int64(binary.BigEndian.Uint64(data)), arrival: int64(binary.BigEndian.Uint64(data[8:]))}
	case kind == entryGap && len(data) == gapData:
		if e.gap, err = parseGap(media, data); err != nil {
			return e, 0, err
		}
	default:
		return e, 0, fmt.Errorf("cluster entry of kind %#02x with %d bytes is unknown", kind, len(data))
	}
	return e, entryHead + int(length), nil
}

const (
	// A cluster closes at clusterSpan of media, or when it would have waited for longer
	// at the next tick of Track.Run: a dying process loses that, and 50 ms less than it
	// may (G9).
	clusterSpan = 200 * time.Millisecond
	clusterWait = clusterSpan - tickEvery
	// clusterBytes closes a cluster early; one frame may still be larger.
	clusterBytes = 1 << 20
)

// clusterBuilder gathers entries until the cluster is due.
type clusterBuilder struct {
	buf    []byte
	opened time.Time // when the first entry came
	first  int64     // media time of the first frame
	frames int
}

func (c *clusterBuilder) open(now time.Time) {
	if len(c.buf) == 0 {
		c.buf, c.opened, c.frames = append(c.buf, clusterVersion), now, 0
	}
}

func (c *clusterBuilder) addFrame(f frame, now time.Time) {
	c.open(now)
	if c.frames == 0 {
		c.first = f.pts
	}
	c.frames++
	c.buf = appendFrame(c.buf, f)
}

func (c *clusterBuilder) addArrival(a anchor, now time.Time) {
	c.open(now)
	c.buf = appendArrival(c.buf, a)
}

func (c *clusterBuilder) addReport(a anchor, now time.Time) {
	c.open(now)
	c.buf = appendReport(c.buf, a)
}

func (c *clusterBuilder) addGap(g gap, now time.Time) {
	c.open(now)
	c.buf = appendGap(c.buf, g)
}

// dueBefore reports whether the cluster must close before a frame at pts.
func (c *clusterBuilder) dueBefore(pts int64) bool {
	return c.frames > 0 && pts-c.first >= clusterSpan.Microseconds()
}

// due reports whether the cluster must close at now.
func (c *clusterBuilder) due(now time.Time) bool {
	return len(c.buf) > 0 && (now.Sub(c.opened) >= clusterWait || len(c.buf) >= clusterBytes)
}

// take returns the cluster, valid until the next entry is added, nil if there is none.
func (c *clusterBuilder) take() []byte {
	b := c.buf
	c.buf = c.buf[:0]
	c.frames = 0
	if len(b) == 0 {
		return nil
	}
	return b
}
