package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Quantiles against sorting everything.
func TestQuantilesAgainstSorting(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var h histogram
		var all []time.Duration
		for range 1 + rng.IntN(2000) {
			d := time.Duration(rng.Int64N(int64(time.Microsecond) << rng.IntN(30)))
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.99, 1} {
			want := all[int(q*float64(len(all)-1))]
			got := h.quantile(q)
			if diff := (got - want).Abs(); diff > want/16+time.Microsecond {
				t.Fatalf("seed %d: quantile %v of %d is %v, want %v", seed, q, len(all), got, want)
			}
		}
	}
}

func TestBucketsCoverTheirRange(t *testing.T) {
	for us := range uint64(100_000) {
		b := bucketOf(us)
		if lower(b) > us || lower(b+1) <= us {
			t.Fatalf("%d µs is in bucket %d from %d to %d", us, b, lower(b), lower(b+1))
		}
	}
}

func TestHistogramOfNothing(t *testing.T) {
	var h histogram
	if d := h.quantile(0.5); d != 0 {
		t.Errorf("median of nothing is %v", d)
	}
	h.add(-time.Second)
	if d := h.quantile(1); d > time.Microsecond {
		t.Errorf("a negative duration counts as %v", d)
	}
	h.add(1 << 62)
	if d := h.quantile(1); d < time.Hour {
		t.Errorf("a huge duration counts as %v", d)
	}
}
