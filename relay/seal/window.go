package seal

// windowSize is how many numbers back a datagram is still let in: 200 ms at 40,000
// a second. A power of two.
const windowSize = 8192

// Window remembers which numbers have come (RFC 4303 section 3.4.3). The zero
// value has seen none.
type Window struct {
	bits [windowSize / 64]uint64
	top  uint64 // one more than the greatest number taken; 0: none
}

// May reports whether a number is new, and young enough to tell.
func (w *Window) May(n uint64) bool {
	switch {
	case n >= w.top:
		return true
	case w.top-n > windowSize:
		return false
	}
	return w.bits[n%windowSize/64]>>(n%64)&1 == 0
}

// Take notes a number that may pass.
func (w *Window) Take(n uint64) {
	if n >= w.top {
		if n-w.top >= windowSize {
			w.bits = [windowSize / 64]uint64{}
		} else {
			for i := w.top; i <= n; i++ {
				w.bits[i%windowSize/64] &^= 1 << (i % 64)
			}
		}
		w.top = n + 1
	}
	w.bits[n%windowSize/64] |= 1 << (n % 64)
}

// Top is one more than the greatest number taken.
func (w *Window) Top() uint64 { return w.top }
