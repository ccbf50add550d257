package front

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/node/stream"
)

// pipe offers a connection to a front without sockets and returns its far end.
func pipe(t *testing.T, f *Front) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	f.admit(near, f.route, func(g func()) { go g() })
	return far
}

func quiet(t *testing.T) Config {
	return Config{
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return testPair(t), nil },
		HTTP:        http.HandlerFunc(describe),
		TURN:        func(c *stream.Conn) { io.Copy(io.Discard, c) },
	}
}

// closedAfter reads until the front closes, and returns how long that took.
func closedAfter(c net.Conn) time.Duration {
	begin := time.Now()
	io.Copy(io.Discard, c)
	return time.Since(begin)
}

func TestBudgetCoversPeekAndHandshake(t *testing.T) {
	tests := []struct {
		name  string
		speak func(net.Conn)
	}{
		{"says nothing", func(net.Conn) {}},
		{"one byte of STUN", func(c net.Conn) { c.Write([]byte{0}) }},
		{"a byte every second", func(c net.Conn) {
			for _, b := range []byte(stunHead[:7]) {
				c.Write([]byte{b})
				time.Sleep(time.Second) // the bubble's clock
			}
		}},
		{"stops inside the ClientHello", func(c net.Conn) { c.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc")) }},
		{"shakes hands and says nothing", func(c net.Conn) {
			tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pair := testPair(t) // outside of the bubble: made once, used by all
			synctest.Test(t, func(t *testing.T) {
				cfg := quiet(t)
				cfg.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair, nil }
				f := build(cfg)
				begin := time.Now()
				c := pipe(t, f)
				tt.speak(c)
				closedAfter(c)
				if took := time.Since(begin); took != 7*time.Second {
					t.Errorf("closed after %s, want 7s", took)
				}
				synctest.Wait()
				if s := f.Stats(); s.Outcomes["silent"] != 1 || s.Pending != 0 || s.Open != 0 {
					t.Errorf("stats %+v: want 1 silent, none pending or open", s)
				}
			})
		})
	}
}

func TestBudgetEndsWithTheHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := build(quiet(t))
		c := pipe(t, f)
		io.WriteString(c, stunHead)
		time.Sleep(time.Hour) // the bubble's clock
		if _, err := io.WriteString(c, "still here"); err != nil {
			t.Errorf("after an hour: %v", err)
		}
		c.Close()
		synctest.Wait()
		if s := f.Stats(); s.Outcomes["turn"] != 1 || s.Open != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestHalfOpenConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet(t)
		cfg.Limits = DefaultLimits
		cfg.Limits.Pending = 3
		f := build(cfg)
		var held []net.Conn
		for range 3 {
			held = append(held, pipe(t, f))
		}
		if took := closedAfter(pipe(t, f)); took != 0 {
			t.Errorf("the fourth was closed after %s, want at once", took)
		}
		// One that is handed over makes room for another.
		io.WriteString(held[0], stunHead)
		synctest.Wait()
		if took := closedAfter(pipe(t, f)); took != 7*time.Second {
			t.Errorf("after a handover: closed after %s, want its budget", took)
		}
		held[0].Close()
		synctest.Wait()
		if s := f.Stats(); s.Refused["pending"] != 1 || s.Pending != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// flakyListener fails a number of times before it is closed.
type flakyListener struct {
	net.Listener
	fails int
	times []time.Time
}

func (l *flakyListener) Accept() (net.Conn, error) {
	l.times = append(l.times, time.Now())
	if l.fails--; l.fails >= 0 {
		return nil, errors.New("too many open files")
	}
	return nil, net.ErrClosed
}

func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := build(quiet(t))
		l := &flakyListener{fails: 10}
		if err := f.acceptLoop(context.Background(), l, f.route); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("acceptLoop: %v", err)
		}
		if gap := l.times[1].Sub(l.times[0]); gap != 5*time.Millisecond {
			t.Errorf("first pause %s, want 5ms", gap)
		}
		if gap := l.times[10].Sub(l.times[9]); gap != time.Second {
			t.Errorf("last pause %s, want 1s", gap)
		}
	})
}
