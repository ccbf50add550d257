package rtc

import (
	"sync"

	"github.com/domicile/domicile/node/transport"
)

// loans knows the batches that goroutines have which are no worker, so that a mute
// can wait until what they hold has left.
type loans struct {
	mu       sync.Mutex // guards the rest
	returned *sync.Cond
	turn     uint64 // counts calls of settle
	out      map[*transport.Batch]uint64
}

func newLoans() *loans {
	l := &loans{out: make(map[*transport.Batch]uint64)}
	l.returned = sync.NewCond(&l.mu)
	return l
}

func (l *loans) begin(b *transport.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out[b] = l.turn
}

func (l *loans) end(b *transport.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.out, b)
	l.returned.Broadcast()
}

// settle returns when all batches are back that are lent now; not those of later, or
// it might never.
func (l *loans) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.turn
	l.turn++
	for l.before(now) {
		l.returned.Wait()
	}
}

// before reports whether a batch is out since a turn or longer.
func (l *loans) before(turn uint64) bool {
	for _, t := range l.out {
		if t <= turn {
			return true
		}
	}
	return false
}
