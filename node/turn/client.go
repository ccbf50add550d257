package turn

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/logging"
	pion "github.com/pion/turn/v4"
)

// maxBefore is how many messages a connection may send before it has an
// allocation. An honest client needs two, three with a stale nonce; the bound
// also limits what an unauthenticated client gets back.
const maxBefore = 8

// client is one TURN connection. To pion it is a packet socket with one peer:
// pion's own framing of streams recurses on each short read and overflows on
// long ones.
type client struct {
	server *Server
	conn   net.Conn
	remote net.Addr // as pion wants it
	local  net.Addr
	in     *bufio.Reader

	readDone chan struct{} // closed when pion's read loop has ended
	ending   chan struct{} // closed to end the connection
	endOnce  sync.Once
	readOnce sync.Once
	relays   sync.WaitGroup // relay sockets somebody still reads

	allocated atomic.Bool
	socket    atomic.Pointer[relay] // of the allocation

	// Owned by pion's read loop.
	before int
	answer []byte

	// Guarded by server.mu.
	session  tag
	reserved bool
}

func newClient(s *Server, conn net.Conn) *client {
	return &client{
		server:   s,
		conn:     conn,
		remote:   tcpAddr(conn.RemoteAddr()),
		local:    tcpAddr(conn.LocalAddr()),
		in:       bufio.NewReaderSize(conn, 4096),
		readDone: make(chan struct{}),
		ending:   make(chan struct{}),
	}
}

// tcpAddr makes sure that pion gets an address it can put into an answer.
func tcpAddr(a net.Addr) net.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
}

// serve runs the connection to its end. When it returns, the relay socket is
// closed and nobody reads it or the connection any more.
func (c *client) serve() {
	c.conn.SetReadDeadline(time.Now().Add(c.server.cfg.FirstAllocate))
	server, err := pion.NewServer(c.config())
	if err != nil { // only a wrong configuration of ours
		c.server.cfg.Log.Error("turn connection not served", "error", err)
		c.conn.Close()
		return
	}
	select {
	case <-c.readDone:
	case <-c.ending:
	}
	c.end()
	server.Close() // closes the connection
	<-c.readDone
	c.relays.Wait()
}

// end stops relaying at once and has serve close the connection. A TLS
// connection may take seconds to close, a relay socket does not.
func (c *client) end() {
	c.endOnce.Do(func() { close(c.ending) })
	if r := c.socket.Load(); r != nil {
		r.Close()
	}
}

func (c *client) ended() bool {
	select {
	case <-c.ending:
		return true
	default:
		return false
	}
}

func (c *client) config() pion.ServerConfig {
	return pion.ServerConfig{
		Realm:         c.server.cfg.Realm,
		AuthHandler:   c.authenticate,
		QuotaHandler:  c.quota,
		LoggerFactory: silence{},
		EventHandler: pion.EventHandler{
			OnAllocationCreated: func(_, _ net.Addr, _, _, _ string, _ net.Addr, _ int) { c.created() },
			OnAllocationDeleted: func(_, _ net.Addr, _, _, _ string) { c.deleted() },
		},
		PacketConnConfigs: []pion.PacketConnConfig{{
			PacketConn:            c,
			RelayAddressGenerator: generator{c},
			PermissionHandler: func(_ net.Addr, ip net.IP) bool {
				a, ok := netip.AddrFromSlice(ip) // 16 bytes stay IPv6, which no peer is
				return ok && c.server.peers.permits(a)
			},
		}},
	}
}

func (c *client) authenticate(username, realm string, _ net.Addr) ([]byte, bool) {
	who, err := parse(username)
	if err != nil || realm != c.server.cfg.Realm || !c.server.admits(c, who) {
		return nil, false
	}
	return c.server.creds.key(username, realm), true
}

// quota is asked with authenticated user names only.
func (c *client) quota(username, _ string, _ net.Addr) bool {
	who, err := parse(username)
	return err == nil && c.server.reserve(c, who)
}

func (c *client) created() {
	c.server.counts.allocated.Add(1)
	c.allocated.Store(true)
	c.conn.SetReadDeadline(time.Time{})
}

// deleted is called when the allocation was given up, has run out, or has lost
// its socket. Without one the connection has little time again.
func (c *client) deleted() {
	c.allocated.Store(false)
	c.server.release(c)
	c.conn.SetReadDeadline(time.Now().Add(c.server.cfg.FirstAllocate))
}

// ReadFrom hands pion the next message that it may see.
func (c *client) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.next(b)
	if err != nil {
		c.readOnce.Do(func() { close(c.readDone) })
		return 0, nil, err
	}
	return n, c.remote, nil
}

var errTooManyBefore = errors.New("too many messages before the first allocation")

func (c *client) next(b []byte) (int, error) {
	for {
		n, err := readFrame(c.in, b)
		if err != nil {
			return 0, err
		}
		if !c.allocated.Load() {
			if c.before++; c.before > maxBefore {
				return 0, errTooManyBefore
			}
		}
		if b[0] >= 0x40 { // ChannelData: pion knows the channel, the relay the peer
			return n, nil
		}
		v, err := inspect(b[:n], c.server.peers)
		switch {
		case err != nil:
			return 0, err
		case v == pass:
			return n, nil
		}
		c.server.counts.refused.Add(1)
		if v == drop {
			continue
		}
		c.answer = appendError(c.answer[:0], b[:n], v)
		if _, err := c.WriteTo(c.answer, nil); err != nil {
			return 0, err
		}
	}
}

// WriteTo writes a message to the client; pion pads ChannelData itself. A
// client that does not read is cut off: half a message cannot be taken back.
func (c *client) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.conn.SetWriteDeadline(time.Now().Add(c.server.cfg.WriteTimeout))
	n, err := c.conn.Write(b)
	if err != nil {
		c.end()
	}
	return n, err
}

func (c *client) Close() error                       { return c.conn.Close() }
func (c *client) LocalAddr() net.Addr                { return c.local }
func (c *client) SetDeadline(t time.Time) error      { return c.conn.SetDeadline(t) }
func (c *client) SetReadDeadline(t time.Time) error  { return c.conn.SetReadDeadline(t) }
func (c *client) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// generator makes the relay socket of a client's allocation.
type generator struct{ client *client }

func (g generator) Validate() error { return nil }

var (
	errPort  = errors.New("a client may not choose its port")
	errEnded = errors.New("the connection is ending")
	errTCP   = errors.New("TCP is not relayed")
)

func (g generator) AllocatePacketConn(_ string, port int) (net.PacketConn, net.Addr, error) {
	c := g.client
	if port != 0 {
		return nil, nil, errPort
	}
	c.relays.Add(1)
	r, err := c.server.newRelay(c.relays.Done)
	if err != nil {
		c.relays.Done()
		c.server.release(c)
		c.server.cfg.Log.Warn("turn allocation failed", "error", err)
		return nil, nil, err
	}
	c.socket.Store(r)
	if c.ended() { // end may have come before the socket was there
		r.Close()
	}
	return r, r.LocalAddr(), nil
}

func (g generator) AllocateConn(string, int) (net.Conn, net.Addr, error) { return nil, nil, errTCP }

// silence swallows pion's log, whose lines carry addresses and user names.
type silence struct{}

func (silence) NewLogger(string) logging.LeveledLogger { return silence{} }

func (silence) Trace(string)          {}
func (silence) Tracef(string, ...any) {}
func (silence) Debug(string)          {}
func (silence) Debugf(string, ...any) {}
func (silence) Info(string)           {}
func (silence) Infof(string, ...any)  {}
func (silence) Warn(string)           {}
func (silence) Warnf(string, ...any)  {}
func (silence) Error(string)          {}
func (silence) Errorf(string, ...any) {}
