package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

// The queue against a slow one: the same packets in, the same packets out.
func TestQueueAgainstSlice(t *testing.T) {
	const maxPackets, maxBytes, room = 20, 4000, wire.FrameSize
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var now time.Time
		q := newQueue(maxPackets, maxBytes, room, func() time.Time { return now })
		var want []uint32            // timestamps of the packets that wait
		var sizes []int              // of their records
		pushed := map[uint32]int64{} // first push of each timestamp
		var b batch
		for ts := uint32(1); ts < 400; {
			if rng.IntN(30) == 0 {
				q.take(&b)
				checkBatch(t, &b, want, pushed)
				want, sizes = nil, nil
				continue
			}
			if rng.IntN(3) == 0 {
				ts++
			}
			now = now.Add(time.Millisecond)
			if _, ok := pushed[ts]; !ok {
				pushed[ts] = now.UnixNano()
			}
			rtp := make([]byte, wire.MinPacket+rng.IntN(600))
			binary.BigEndian.PutUint32(rtp[4:], ts)
			dropped := q.push(nil, rtp, false)
			want, sizes = append(want, ts), append(sizes, wire.PacketOverhead+len(rtp))
			n := 0
			for len(want)-n > maxPackets || sum(sizes[n:]) > maxBytes {
				n++
			}
			if dropped != n {
				t.Fatalf("seed %d: dropped %d, want %d", seed, dropped, n)
			}
			want, sizes = want[n:], sizes[n:]
			if q.len() != len(want) {
				t.Fatalf("seed %d: %d packets wait, want %d", seed, q.len(), len(want))
			}
		}
	}
}

func sum(a []int) (n int) {
	for _, v := range a {
		n += v
	}
	return n
}

func checkBatch(t *testing.T, b *batch, want []uint32, pushed map[uint32]int64) {
	t.Helper()
	if len(want) > 0 && b.head < wire.FrameSize {
		t.Fatalf("%d bytes in front of the first record, want %d", b.head, wire.FrameSize)
	}
	var got []uint32
	for records := b.buf[b.head:]; len(want) > 0; {
		rtp, _, rest, err := wire.NextPacket(records)
		if err != nil {
			t.Fatal(err)
		}
		if rtp == nil {
			break
		}
		got, records = append(got, timestamp(rtp)), rest
	}
	if !slices.Equal(got, want) || b.n != len(want) {
		t.Fatalf("took %v, want %v", got, want)
	}
	for _, ts := range slices.Compact(got) {
		if at, ok := b.since(ts); !ok || at.UnixNano() < pushed[ts] {
			t.Fatalf("timestamp %d waits since %v (known: %v), which is before it was pushed", ts, at, ok)
		}
	}
}

// Offer's own work allocates nothing once the queue has grown.
func TestQueueAllocatesNothing(t *testing.T) {
	for _, clock := range []func() time.Time{nil, time.Now} {
		q := newQueue(audioPackets, audioBytes, wire.FrameSize, clock)
		rtp := make([]byte, 1000)
		var b batch
		ts := uint32(0)
		round := func() {
			for range 40 {
				ts++
				binary.BigEndian.PutUint32(rtp[4:], ts)
				q.push(nil, rtp, false)
			}
			q.take(&b)
		}
		round()
		round()
		if n := testing.AllocsPerRun(100, round); n > 0 {
			t.Errorf("%v allocations in 40 packets", n)
		}
	}
}
