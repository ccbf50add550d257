package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/node/stream"
)

const (
	// proveWithin is how long a TCP client may be without a good check. Clients send
	// one as soon as they are connected, and repeat it every 250 ms.
	proveWithin = 10 * time.Second
	// idleAfter is how long it may then be silent: a connection is given up after
	// failedAfter, and nobody comes back to its stream after that.
	idleAfter = failedAfter + proveWithin
	// maxUnproved bounds the streams without a good check, some 16 KB each, and
	// maxUnprovedFrom those of an IPv4 address or IPv6 /64: an office that joins at
	// once proves itself within a round trip.
	maxUnproved, maxUnprovedFrom = 4096, 128
	// frameBuffer takes what one read of a quiet client brings, in bytes. One that
	// fills it gets burstBuffer, for a whole picture.
	frameBuffer = 2 * (maxDatagram + 2)
	burstBuffer = 8 * (maxDatagram + 2)
)

var (
	errNotTCP   = errors.New("serve ICE-TCP: no TCP address")
	errBadFrame = errors.New("frame is longer than any datagram")
	errUnproved = errors.New("serve ICE-TCP: too many streams without a check")
)

// ServeTCP carries an ICE-TCP client (RFC 6544): it reads frames until the client
// ends the stream, is silent for too long or makes no sense, or the engine is
// closed, and cuts it then.
func (e *Engine) ServeTCP(conn *stream.Conn) error {
	defer conn.Cut()
	client, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return errNotTCP
	}
	from := client.AddrPort()
	from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	leave, ok := e.unproved.enter(from.Addr())
	if !ok {
		e.drops.add(DropUnproved)
		return errUnproved
	}
	defer leave()
	t, err := e.OpenTunnel(TunnelConfig{Client: from, Stream: conn, Wrap: WrapLength})
	if err != nil {
		return err
	}
	defer t.Close()
	if !e.serve(t, conn) {
		return errClosed
	}
	defer e.served(t)
	if err := t.readFrames(conn, leave); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// serve remembers a stream that Close has to cut.
func (e *Engine) serve(t *Tunnel, conn *stream.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.streams[t] = conn
	e.running.Add(1)
	return true
}

func (e *Engine) served(t *Tunnel) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, t)
	e.running.Done()
}

func (e *Engine) cutStreams() {
	e.mu.RLock()
	open := slices.Collect(maps.Values(e.streams))
	e.mu.RUnlock()
	for _, conn := range open {
		_ = conn.Cut()
	}
}

// readFrames reads until the end. It calls proved after the first good check.
func (t *Tunnel) readFrames(conn *stream.Conn, proved func()) error {
	f := frames{buf: make([]byte, frameBuffer)}
	limit := watch{conn: conn, proved: proved}
	limit.restart(proveWithin)
	all, more := f.all, f.more // made once
	for {
		n, err := conn.ReadBurst(f.room(), more)
		if n > 0 {
			f.filled(n)
			t.DeliverAll(all)
			if f.bad {
				t.engine.drops.add(DropBadFrame)
				return errBadFrame
			}
			f.compact()
		}
		if err != nil {
			return err
		}
		p := t.path.Load()
		limit.heard(p != nil && p.conn.Load() != nil)
	}
}

// watch is the deadline of a stream: that of the first good check, and from then on
// that of the next sign of life. It is that of a check again when the stream's
// connection has ended.
type watch struct {
	conn   *stream.Conn
	proved func() // called at the first good check
	stands bool   // a connection
	moved  time.Time
}

func (w *watch) restart(d time.Duration) {
	w.moved = time.Now()
	_ = w.conn.SetReadDeadline(w.moved.Add(d))
}

func (w *watch) heard(stands bool) {
	switch before := w.stands; {
	case !stands && !before:
		return // what comes meanwhile gives no more time
	case !stands:
		w.restart(proveWithin)
	case !before:
		w.proved()
		w.restart(idleAfter)
	case time.Since(w.moved) > time.Second: // moving it costs more than reading the clock
		w.restart(idleAfter)
	}
	w.stands = stands
}

// sources counts streams by where they come from.
type sources struct {
	mu  sync.Mutex // guards what follows
	all int
	by  map[netip.Prefix]int
}

// enter counts one in unless there are too many; leave counts it out, once.
func (s *sources) enter(addr netip.Addr) (leave func(), ok bool) {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	from, _ := addr.Prefix(bits) // fails for no valid address
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxUnproved || s.by[from] >= maxUnprovedFrom {
		return nil, false
	}
	s.all++
	s.by[from]++
	return sync.OnceFunc(func() { s.leave(from) }), true
}

func (s *sources) leave(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[from]--; s.by[from] == 0 {
		delete(s.by, from)
	}
}

// frames takes a stream apart (RFC 4571 section 2):
//
//	0       2              2+n
//	| n     | datagram …   | n' | …
//
// A frame without data is nothing; one that is longer than any datagram of ours is
// the sign of a stream that is something else, and cannot be left out.
type frames struct {
	buf      []byte // has room for one frame of the greatest length, at least
	from, to int    // what was read and not yet taken
	bad      bool
}

func (f *frames) room() []byte { return f.buf[f.to:] }

func (f *frames) filled(n int) { f.to += n }

// more tells whether n bytes in the room are likely to be followed by others at once:
// they end in the middle of a frame, or with a packet in the middle of a picture.
func (f *frames) more(n int) bool {
	b := f.buf[f.from : f.to+n]
	for len(b) >= 2 {
		whole := 2 + int(binary.BigEndian.Uint16(b))
		if len(b) == whole {
			return Unfinished(b[2:])
		}
		if len(b) < whole {
			return true
		}
		b = b[whole:]
	}
	return len(b) > 0
}

// all yields the datagrams that are complete.
func (f *frames) all(yield func([]byte) bool) {
	for f.to-f.from >= 2 {
		n := int(binary.BigEndian.Uint16(f.buf[f.from:]))
		if n > maxDatagram {
			f.bad = true
			return
		}
		if f.to-f.from < 2+n {
			return
		}
		b := f.buf[f.from+2 : f.from+2+n : f.from+2+n]
		f.from += 2 + n
		if n > 0 && !yield(b) {
			return
		}
	}
}

// compact makes room for what follows.
func (f *frames) compact() {
	into := f.buf
	if f.to == len(f.buf) && len(f.buf) < burstBuffer {
		into = make([]byte, burstBuffer)
	}
	f.to = copy(into, f.buf[f.from:f.to])
	f.buf, f.from = into, 0
}
