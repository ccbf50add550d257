package bwe

import "time"

const (
	// bucket times buckets is the window of a rate: half a second, so that a
	// keyframe is no new rate; the short one is for falls, where the bottleneck
	// spaces packets evenly and old rates would only delay the fall.
	bucket       = 20 * time.Millisecond
	buckets      = 25
	shortBuckets = 8
	// shortPackets are needed in the short window for it to mean anything.
	shortPackets = 5
)

// throughput measures bit/s over a sliding window.
type throughput struct {
	bytes   [buckets]int64
	packets [buckets]int32
	head    int64 // number of the newest bucket
	since   int64 // number of the first bucket that counts
	started bool
}

func (t *throughput) add(at time.Duration, bytes int) {
	n := int64(at / bucket)
	if !t.started || n > t.head+10*buckets || n < t.head-10*buckets {
		*t = throughput{head: n, since: n, started: true}
	}
	for t.head < n {
		t.head++
		i := index(t.head)
		t.bytes[i], t.packets[i] = 0, 0
	}
	if n <= t.head-buckets {
		return
	}
	i := index(n)
	t.bytes[i] += int64(bytes)
	t.packets[i]++
}

func index(n int64) int { return int(((n % buckets) + buckets) % buckets) }

// over returns bit/s and packets of the last n whole buckets; the newest is
// still filling and left out unless it is all there is.
func (t *throughput) over(n int64) (rate float64, packets int32) {
	if !t.started {
		return 0, 0
	}
	from := max(t.head-n, t.since)
	if from >= t.head {
		return 0, 0
	}
	var bytes int64
	for b := from; b < t.head; b++ {
		bytes += t.bytes[index(b)]
		packets += t.packets[index(b)]
	}
	return float64(bytes*8) / (time.Duration(t.head-from) * bucket).Seconds(), packets
}

// long is the rate of half a second.
func (t *throughput) long() float64 {
	rate, _ := t.over(buckets - 1)
	return rate
}

// now is the rate of the last moment, if enough arrived to tell.
func (t *throughput) now() float64 {
	if short, packets := t.over(shortBuckets); packets >= shortPackets {
		return short
	}
	return t.long()
}
