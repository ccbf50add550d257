package signal

import (
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/proto"
)

// TestPrepared sends one message to clients of both forms, each in its own, and
// encodes it once for each form.
func TestPrepared(t *testing.T) {
	m := Prepare(big(1000))
	for range 3 {
		for _, kind := range []websocket.MessageType{websocket.MessageBinary, websocket.MessageText} {
			c, client := pair(t, Options{})
			write(t, client, kind, ping(1))
			if _, err := c.Recv(t.Context()); err != nil {
				t.Fatal(err)
			}
			must(t, c.SendPrepared(m))
			if got, what := read(t, client); got != kind || !proto.Equal(what, m.Message()) {
				t.Errorf("a client of form %v got %v %v", kind, got, what)
			}
		}
	}
	for _, json := range []bool{false, true} {
		a, err := m.frame(json)
		must(t, err)
		b, err := m.frame(json)
		must(t, err)
		if &a.data[0] != &b.data[0] {
			t.Errorf("json %v: encoded for each", json)
		}
	}
}

// TestPreparedIsBounded keeps a client's bounds for shared bytes as for its own.
func TestPreparedIsBounded(t *testing.T) {
	c, _ := pair(t, Options{QueueBytes: 500})
	if err := c.SendPrepared(Prepare(big(1000))); err == nil {
		t.Error("more than the queue holds is queued")
	}
	if err := c.SendPrepared(Prepare(pong(1))); err == nil {
		t.Error("sent on a connection that has ended")
	}
}

// BenchmarkEverybody encodes an update for 300 clients.
func BenchmarkEverybody(b *testing.B) {
	m := big(300)
	b.Run("one by one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for range 300 {
				if _, err := encodeResponse(false, m); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("prepared", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p := Prepare(m)
			for range 300 {
				if _, err := p.frame(false); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
