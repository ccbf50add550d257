package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets that are 1/16 of their size wide, from
// 1 µs to hours, so that quantiles are right to 6 % in constant memory. All
// methods may be called from any goroutine.
type histogram struct {
	count   atomic.Uint64
	buckets [64 * subBuckets]atomic.Uint64
}

const subBuckets = 16

// add counts a duration; clocks that disagree can make it negative, which counts
// as 0.
func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)/time.Microsecond))].Add(1)
	h.count.Add(1)
}

// bucketOf returns the bucket of a number of microseconds: exact up to 16, then
// by the four bits after the highest.
func bucketOf(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - 5
	return (shift+1)*subBuckets + int(us>>shift) - subBuckets
}

// lower returns the smallest number of microseconds in a bucket.
func lower(bucket int) uint64 {
	if bucket < 2*subBuckets {
		return uint64(bucket)
	}
	shift := bucket/subBuckets - 1
	return uint64(bucket%subBuckets+subBuckets) << shift
}

// quantile returns the duration below which a share q of all lies, as the middle
// of its bucket; 0 if nothing was counted.
func (h *histogram) quantile(q float64) time.Duration {
	want := uint64(q*float64(h.count.Load()-min(h.count.Load(), 1))) + 1
	var seen uint64
	for i := range h.buckets {
		if seen += h.buckets[i].Load(); seen >= want {
			us := float64(lower(i)+lower(i+1)) / 2
			return time.Duration(us * float64(time.Microsecond))
		}
	}
	return 0
}

// milliseconds is a duration as results state it.
func milliseconds(d time.Duration) float64 { return round(float64(d)/float64(time.Millisecond), 2) }
