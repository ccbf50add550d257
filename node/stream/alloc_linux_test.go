package stream

import (
	"io"
	"testing"
)

// TestSendingAllocatesNothing to a client that reads.
func TestSendingAllocatesNothing(t *testing.T) {
	s, client := pair(t)
	c := New(s)
	c.Unwait()
	defer c.Close()
	frame, got := make([]byte, 6600), make([]byte, 6600)
	allocs := testing.AllocsPerRun(500, func() {
		if err := c.Send(frame); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, got); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a write, want none", allocs)
	}
}
