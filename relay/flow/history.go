package flow

import "time"

// Bounds of a History. It begins small and grows while what it forgets is younger
// than remember: at 20 datagrams a second it has firstSlots, at 8,000 lastSlots.
const (
	firstSlots = 128
	lastSlots  = 4096
	remember   = 500 * time.Millisecond // what is older comes too late
)

// History keeps what was sent, for whoever asks for it again. Make it with
// NewHistory. Its memory is used again and again.
type History struct {
	slots []slot
}

type slot struct {
	number uint64
	at     time.Time
	body   []byte
	used   bool
}

// NewHistory returns a History that holds nothing.
func NewHistory() *History { return &History{slots: slots(firstSlots)} }

// Add keeps a copy of what datagram n holds; nil: nothing that is sent again.
func (h *History) Add(n uint64, body []byte, now time.Time) {
	s := &h.slots[n%uint64(len(h.slots))]
	if s.used && len(s.body) > 0 && now.Sub(s.at) < remember && len(h.slots) < lastSlots {
		h.grow()
		s = &h.slots[n%uint64(len(h.slots))]
	}
	s.number, s.at, s.used = n, now, true
	s.body = append(s.body[:0], body...)
}

// slots are n of them, with their memory in one piece.
func slots(n int) []slot {
	list, memory := make([]slot, n), make([]byte, n*MaxLength)
	for i := range list {
		list[i].body = memory[i*MaxLength : i*MaxLength : (i+1)*MaxLength]
	}
	return list
}

// grow doubles the slots. What is kept moves to its place among them.
func (h *History) grow() {
	old := h.slots
	h.slots = slots(2 * len(old))
	for _, s := range old {
		if s.used {
			n := &h.slots[s.number%uint64(len(h.slots))]
			*n = slot{number: s.number, at: s.at, body: append(n.body, s.body...), used: true}
		}
	}
}

// Get returns what datagram n held and when it left, nil if that is not known any
// more. It is valid until the next Add.
func (h *History) Get(n uint64, now time.Time) (body []byte, at time.Time) {
	s := &h.slots[n%uint64(len(h.slots))]
	if !s.used || s.number != n || now.Sub(s.at) >= remember {
		return nil, time.Time{}
	}
	return s.body, s.at
}
