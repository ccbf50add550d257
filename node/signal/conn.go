package signal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
)

// Errors that Recv and Send return, wrapped.
var (
	// ErrGone: the page was closed or left (RFC 6455 section 7.4.1, 1001); whoever
	// was on it does not come back to this session.
	ErrGone       = errors.New("client's page is gone")
	ErrClosed     = errors.New("signalling connection is closed")
	ErrSlowClient = errors.New("client does not read its signalling messages")
	ErrBadFrame   = errors.New("signalling frame cannot be decoded")
)

// Options bound one connection. A zero field has its default.
type Options struct {
	// ReadLimit is the largest message in bytes that a client may send; 1 MiB.
	// The library's own limit of 32 KiB is less than one large SDP.
	ReadLimit int64

	// QueueFrames and QueueBytes bound what waits to be sent; 1024 and 4 MiB.
	// A client that lets more pile up is closed: dropping single messages
	// would leave it with a wrong picture of the room for good.
	QueueFrames int
	QueueBytes  int64

	// WriteTimeout is how long one message may take to leave; 5 s. It also
	// bounds the flush in Close.
	WriteTimeout time.Duration

	// CloseTimeout is how long the client has to answer a close frame before
	// the socket is cut; 1 s. Clients that answer do so in one round trip.
	CloseTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.ReadLimit <= 0 {
		o.ReadLimit = 1 << 20
	}
	if o.QueueFrames <= 0 {
		o.QueueFrames = 1024
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 4 << 20
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 5 * time.Second
	}
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = time.Second
	}
	return o
}

// Conn is one client's signalling connection. Recv is for one goroutine, Send
// and Close for any. Every Conn must be closed: Close waits for its writer.
type Conn struct {
	// Static after construction.
	ws     *websocket.Conn
	socket net.Conn // below ws, only ever closed
	opts   Options
	out    chan frame    // to the writer, bounded by Options
	stop   chan struct{} // closed when the connection is to end
	done   chan struct{} // closed when the writer has ended and the socket is closed

	json    atomic.Bool  // the client's last frame was text: answer in JSON
	pending atomic.Int64 // bytes in out and in the writer's hands

	stopOnce sync.Once
	ending   ending // why and how to end; written before stop is closed
}

// frame is one encoded message; its bytes may be in the queues of other Conns too.
type frame struct {
	kind websocket.MessageType
	data []byte
}

// ending says how a connection ends.
type ending struct {
	code   websocket.StatusCode
	reason string
	flush  bool // send what is queued first
	cause  error
}

// Accept upgrades the request to a WebSocket and starts its writer. Pages of any
// origin may connect: the token is the protection, and there are no cookies. On
// an error it has answered the request.
func Accept(w http.ResponseWriter, r *http.Request, opts Options) (*Conn, error) {
	opts = opts.withDefaults()
	keeper := &socketKeeper{ResponseWriter: w}
	ws, err := websocket.Accept(keeper, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,                          // that is: any origin
		CompressionMode:    websocket.CompressionDisabled, // no decompression bombs, and SDP is sent once
	})
	if err != nil {
		return nil, fmt.Errorf("accept signalling connection: %w", err)
	}
	ws.SetReadLimit(opts.ReadLimit)
	c := &Conn{
		ws:     ws,
		socket: keeper.socket,
		opts:   opts,
		out:    make(chan frame, opts.QueueFrames),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go c.writeLoop()
	return c, nil
}

// socketKeeper remembers the socket that the upgrade takes over. The library
// waits 5 s for the answer to a close frame and offers no way to cut that short.
type socketKeeper struct {
	http.ResponseWriter
	socket net.Conn
}

// Hijack implements http.Hijacker.
func (k *socketKeeper) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	socket, rw, err := http.NewResponseController(k.ResponseWriter).Hijack()
	k.socket = socket
	return socket, rw, err
}

// RoundTrip asks the client for a pong and waits for it (RFC 6455 section 5.5.2). It
// needs somebody who receives meanwhile. A client can answer late, and one that
// means to can answer before: it is a hint.
func (c *Conn) RoundTrip(ctx context.Context) (time.Duration, error) {
	from := time.Now()
	if err := c.ws.Ping(ctx); err != nil {
		return 0, fmt.Errorf("measure signalling connection: %w", err)
	}
	return time.Since(from), nil
}

// Recv waits for the client's next message. A message whose oneof is nil is of a
// kind newer than this server and should be passed over. io.EOF means that the
// client closed in order, ErrGone that its page is gone; after any error the connection is finished, and the
// same goes for a ctx that ends during the wait.
func (c *Conn) Recv(ctx context.Context) (*livekit.SignalRequest, error) {
	kind, data, err := c.ws.Read(ctx)
	if err != nil {
		return nil, c.readError(err)
	}
	req, err := decodeRequest(kind, data)
	if err != nil {
		c.end(ending{code: websocket.StatusInvalidFramePayloadData, reason: ErrBadFrame.Error(), cause: err})
		return nil, fmt.Errorf("receive: %w", err)
	}
	c.json.Store(kind == websocket.MessageText)
	return req, nil
}

// readError puts the end of the connection in our words: our own reason if we
// ended it, io.EOF if the client did.
func (c *Conn) readError(err error) error {
	select {
	case <-c.stop:
		return fmt.Errorf("receive: %w", c.ending.cause)
	default:
	}
	switch websocket.CloseStatus(err) {
	case websocket.StatusGoingAway:
		return ErrGone
	case websocket.StatusNormalClosure, websocket.StatusNoStatusRcvd:
		return io.EOF
	}
	return fmt.Errorf("receive: %w", err)
}

// Send queues a message and never blocks. It is encoded before Send returns, in
// protobuf until the client has sent a text frame and then as its last frame
// was, which is what LiveKit's server does. nil means queued, not delivered.
func (c *Conn) Send(m *livekit.SignalResponse) error {
	return c.queue(func() (frame, error) { return encodeResponse(c.json.Load(), m) })
}

// SendPrepared is Send for a message that goes to others too.
func (c *Conn) SendPrepared(m *Prepared) error {
	return c.queue(func() (frame, error) { return m.frame(c.json.Load()) })
}

func (c *Conn) queue(encode func() (frame, error)) error {
	select {
	case <-c.stop:
		return fmt.Errorf("send: %w", c.ending.cause)
	default:
	}
	f, err := encode()
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if c.pending.Add(int64(len(f.data))) > c.opts.QueueBytes {
		return c.overflow()
	}
	select {
	case c.out <- f:
		return nil
	default:
		return c.overflow()
	}
}

// overflow ends the connection of a client that does not read.
func (c *Conn) overflow() error {
	c.end(ending{code: websocket.StatusPolicyViolation, reason: ErrSlowClient.Error(), cause: ErrSlowClient})
	return fmt.Errorf("send: %w", ErrSlowClient)
}

// Close sends what is queued, tells the client the reason (cut to the 123 bytes
// that a close frame holds) and returns when the socket is closed and the writer
// has ended. A client that neither reads nor answers can draw that out for
// twice WriteTimeout and then CloseTimeout. Further calls wait for the same end.
func (c *Conn) Close(reason string) {
	c.end(ending{code: websocket.StatusNormalClosure, reason: reason, flush: true, cause: ErrClosed})
	<-c.done
}

// end makes the writer finish the connection; the first ending counts.
func (c *Conn) end(e ending) {
	c.stopOnce.Do(func() {
		c.ending = e
		close(c.stop)
	})
}

// writeLoop is the connection's one writer.
func (c *Conn) writeLoop() {
	defer close(c.done)
	for {
		select {
		case <-c.stop:
			c.finish()
			return
		case f := <-c.out:
			if err := c.write(context.Background(), f); err != nil {
				c.end(ending{code: websocket.StatusPolicyViolation, reason: ErrSlowClient.Error(), cause: writeError(err)})
			}
		}
	}
}

// writeError tells a client that did not read from one that has gone.
func writeError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return ErrSlowClient
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

// write sends one frame within the write timeout. After an error the library
// has closed the socket.
func (c *Conn) write(ctx context.Context, f frame) error {
	defer c.pending.Add(-int64(len(f.data)))
	ctx, cancel := context.WithTimeout(ctx, c.opts.WriteTimeout)
	defer cancel()
	return c.ws.Write(ctx, f.kind, f.data)
}

// finish flushes if the ending asks for it, then closes the socket. The errors
// of closing are of no use to anybody: the client may be gone.
func (c *Conn) finish() {
	if c.ending.flush {
		c.flush()
	}
	cut := time.AfterFunc(c.opts.CloseTimeout, func() { _ = c.socket.Close() })
	defer cut.Stop()
	_ = c.ws.Close(c.ending.code, closeReason(c.ending.reason))
}

// flush sends what is queued, all of it within one write timeout.
func (c *Conn) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), c.opts.WriteTimeout)
	defer cancel()
	for {
		select {
		case f := <-c.out:
			if c.write(ctx, f) != nil {
				return
			}
		default:
			return
		}
	}
}

// maxCloseReason is what a close frame holds beside its code (RFC 6455 section 5.5).
const maxCloseReason = 123

// closeReason cuts a reason to size between two characters.
func closeReason(s string) string {
	if len(s) <= maxCloseReason {
		return s
	}
	n := maxCloseReason
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
