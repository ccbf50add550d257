package bucket

import (
	"context"
	"net"
	"time"
)

// stallsAfter is how long a connection may carry nothing, in either direction, while
// something is waited for. What goes on, however slowly, has no end: a recording may
// have many gigabytes. Longer than a store needs to answer, and than TCP needs to get
// over a short outage of the way.
const stallsAfter = 30 * time.Second

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// patiently has connections end that stall.
func patiently(dial dialer, stalls time.Duration) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return patient{c, stalls}, nil
	}
}

// patient is a connection whose deadline is always so far off, from when somebody began
// to wait or something was carried. HTTP/1 waits for an answer while it sends: what is
// sent keeps that waiting up, too. One that nobody has used for so long ends, which its
// pool makes good.
type patient struct {
	net.Conn
	stalls time.Duration
}

// Read is net.Conn's.
func (p patient) Read(b []byte) (int, error) {
	if err := p.on(); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

// patientPiece is what is written at once, so that progress is seen.
const patientPiece = 16 << 10

// Write is net.Conn's.
func (p patient) Write(b []byte) (n int, err error) {
	for {
		if err := p.on(); err != nil {
			return n, err
		}
		piece := b[n:min(n+patientPiece, len(b))]
		m, err := p.Conn.Write(piece)
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}

func (p patient) on() error { return p.SetDeadline(time.Now().Add(p.stalls)) }
