package room

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/livekit"
	"golang.org/x/time/rate"

	"github.com/domicile/domicile/node/signal"
)

// conn is a client's signalling connection; *signal.Conn is one.
type conn interface {
	Recv(context.Context) (*livekit.SignalRequest, error)
	Send(*livekit.SignalResponse) error
	SendPrepared(*signal.Prepared) error
	Close(reason string)
}

// line is one signalling connection of a participant. A participant has one at
// a time and, after a loss, none for a while: see resume.go.
type line struct {
	conn     conn
	requests chan *livekit.SignalRequest // closed when the connection is lost
	stop     chan struct{}               // closed when it is to end
	once     sync.Once
	reason   string       // for the client, written before stop is closed
	gone     atomic.Bool  // the client's page is
	offered  atomic.Int64 // when the client's last offer was read, in ns of Unix time
	now      func() time.Time
	wg       sync.WaitGroup // reader and closer
}

func newLine(c conn, now func() time.Time) *line {
	return &line{conn: c, now: now, requests: make(chan *livekit.SignalRequest, requestQueue), stop: make(chan struct{})}
}

// start begins to read. What the client has to be told leaves before its socket
// closes; a read that is cancelled would cut the socket at once.
func (l *line) start(limit *rate.Limiter) {
	ctx, cancel := context.WithCancel(context.Background())
	l.wg.Go(func() { l.read(ctx, limit) }) //nolint:errcheck // the closed channel says it
	l.wg.Go(func() {
		defer cancel()
		<-l.stop
		l.conn.Close(l.reason)
	})
}

// end makes the connection close; the first reason counts.
func (l *line) end(reason string) {
	l.once.Do(func() {
		l.reason = reason
		close(l.stop)
	})
}

// wait returns when the connection is closed and nobody reads it any more.
func (l *line) wait() { l.wg.Wait() }

// read takes requests off the connection. A client that sends more than its
// share waits, and its socket with it.
func (l *line) read(ctx context.Context, limit *rate.Limiter) error {
	defer close(l.requests)
	for {
		if err := limit.Wait(ctx); err != nil {
			return err
		}
		req, err := l.conn.Recv(ctx)
		if err != nil {
			l.gone.Store(errors.Is(err, signal.ErrGone))
			return err
		}
		if req.GetOffer() != nil {
			l.offered.Store(l.now().UnixNano())
		}
		select {
		case l.requests <- req:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
