package record

import (
	"math"
	"time"
)

const (
	// arrivalWindow is the time over which the least delay is looked for.
	arrivalWindow = time.Second
	// arrivalPause starts a new window, since the media clock may have stood still.
	arrivalPause = 500 * time.Millisecond
	// futureLimit is how far media time may run ahead of the clock on the wall
	// before the publisher is taken to have started another RTP clock.
	futureLimit = 2 * time.Second
	// reportLimit is how far a report may lie from the last packet.
	reportLimit = 10 * time.Minute
)

// mediaClock turns RTP timestamps into media time, which never runs backwards.
// Packets reach it in sequence.
type mediaClock struct {
	rate    int64     // Hz
	zero    time.Time // the recording's start
	started bool
	lastTS  uint32
	base    int64 // media time in µs at tick 0
	ticks   int64 // of lastTS

	win      window
	baseline int64 // least offset of the last whole window
}

// window looks for the packet that was delayed least.
type window struct {
	open   bool
	media  int64 // of its first packet
	from   int64 // arrival of its first packet
	last   int64 // arrival of its last packet
	offset int64 // least arrival - media time
}

func (c *mediaClock) micros(ticks int64) int64 {
	return c.base + ticks/c.rate*1e6 + ticks%c.rate*1e6/c.rate
}

// place returns the media time of a packet. A window that ended with it is
// returned too.
func (c *mediaClock) place(ts uint32, arrival time.Time) (media int64, done *anchor) {
	now := arrival.Sub(c.zero).Microseconds()
	if !c.started {
		c.started, c.lastTS, c.base, c.baseline = true, ts, now, 0
	}
	delta := int64(int32(ts - c.lastTS))
	media = c.micros(c.ticks + delta)
	if delta < 0 || now-media < c.leastOffset()-futureLimit.Microseconds() {
		// Another RTP clock: go on where the packet arrived.
		last := c.micros(c.ticks)
		c.base, c.ticks = max(now-c.leastOffset(), last+1), 0
		media = c.base
	} else {
		c.ticks += delta
	}
	c.lastTS = ts
	return media, c.observe(media, now)
}

func (c *mediaClock) leastOffset() int64 {
	if c.win.open {
		return min(c.baseline, c.win.offset)
	}
	return c.baseline
}

func (c *mediaClock) observe(media, now int64) (done *anchor) {
	w := &c.win
	if w.open && (now-w.from >= arrivalWindow.Microseconds() || now-w.last >= arrivalPause.Microseconds()) {
		done = c.finish()
	}
	if !w.open {
		*w = window{open: true, media: media, from: now, offset: math.MaxInt64}
	}
	w.last = now
	w.offset = min(w.offset, now-media)
	return done
}

// finish closes the current window and returns it, nil if there is none.
func (c *mediaClock) finish() *anchor {
	if !c.win.open {
		return nil
	}
	c.win.open = false
	c.baseline = c.win.offset
	return &anchor{media: c.win.media, offset: c.win.offset}
}

// report places a sender report, nil if it fits to nothing that was heard.
func (c *mediaClock) report(ntp uint64, ts uint32, arrival time.Time) *anchor {
	delta := int64(int32(ts - c.lastTS))
	limit := int64(reportLimit/time.Second) * c.rate
	if !c.started || ntp == 0 || delta > limit || delta < -limit {
		return nil
	}
	return &anchor{
		media:   c.micros(c.ticks + delta),
		wall:    int64(ntp>>32)*1e6 + int64((ntp&0xffffffff)*1e6>>32),
		arrival: arrival.Sub(c.zero).Microseconds(),
	}
}
