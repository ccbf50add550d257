package stream

import (
	"errors"
	"time"
)

// lingerFor is how long a burst may take to follow its beginning. Clients write a
// picture packet by packet, each in a record of its own, and who reads the first
// would hand it on alone: a call to the kernel for each packet and receiver. The
// runtime's timers make up to a millisecond of it.
const lingerFor = 50 * time.Microsecond

// nothing says that reading would have to wait. TLS goes on after it, as after a
// deadline: it is Temporary.
type nothing struct{}

func (nothing) Error() string   { return "nothing is there to read" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

var errNothing = nothing{}

// Read reads as from any connection.
func (c *Conn) Read(b []byte) (int, error) {
	if c.top {
		return c.Conn.Read(b)
	}
	return c.base.Read(b)
}

// Read is below all layers.
func (c *carrier) Read(b []byte) (int, error) {
	if c.hasty {
		return c.look.read(b)
	}
	return c.conn.Read(b)
}

// ReadBurst waits for data, and returns with it what else has come, as far as b has
// room. If more says of the first n bytes that the rest is likely to follow at once,
// it lingers for a moment. It may return data and an error. After Unwait only.
func (c *Conn) ReadBurst(b []byte, more func(n int) bool) (int, error) {
	n, err := c.Read(b)
	if err != nil {
		return n, err
	}
	n, err = c.readOn(b, n)
	if err != nil || n == len(b) || !more(n) {
		return n, err
	}
	time.Sleep(lingerFor)
	return c.readOn(b, n)
}

// readOn reads behind the first n bytes what is there.
func (c *Conn) readOn(b []byte, n int) (int, error) {
	c.base.hasty = true
	defer func() { c.base.hasty = false }()
	for n < len(b) {
		k, err := c.Read(b[n:])
		n += k
		if errors.Is(err, errNothing) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
