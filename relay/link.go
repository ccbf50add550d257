package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Link is a connection to one peer, from the moment both agreed on a wire
// version until it ends. It is not revived: when the peer comes back, there is a
// new Link.
type Link struct {
	// Static after newLink.
	cfg     *Config
	f       *Fabric
	conn    *quic.Conn
	control *quic.Stream
	peer    residency.Node // as the handshake showed it; only the name is for good
	book    *book
	started time.Time
	ctx     context.Context // ends with the link; its cause is a *LinkError
	cancel  context.CancelCauseFunc
	gone    chan struct{} // closed after LinkDown returned

	outbox   *outbox       // control messages, in order
	stating  chan struct{} // holds a token while the latest statement has not left
	offers   sync.Mutex    // held while an offer of the peer's is read and judged
	doubting chan struct{} // holds a token while the peer may not know what is told of others
	proving  chan struct{} // holds a token while this node's certificate is to be proven

	node   atomic.Pointer[residency.Node] // the peer as last proven; written by readControl
	proofs proofCount                     // owned by readControl

	version   uint16 // of the wire, as both ends agreed
	hop       *hop   // the carriage on UDP, nil if there is none
	datagrams datagramSender
	receiver  receiver
	heart     heart
	count     counters // of what belongs to no track that is open

	suspect    atomic.Bool // written by watch
	suspicions atomic.Uint64

	// Guarded by mu.
	mu        sync.Mutex
	ended     bool // no goroutine may be started any more
	tracks    map[uint32]*Track
	lastAlias uint32
	passing   []*passing // oldest first

	audio atomic.Pointer[[]*Track] // snapshot of tracks for the datagram sender
	wg    sync.WaitGroup
}

func newLink(f *Fabric, conn *quic.Conn, control *quic.Stream, peer residency.Node, version uint16) *Link {
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &Link{
		cfg:      &f.cfg,
		f:        f,
		conn:     conn,
		control:  control,
		peer:     peer,
		book:     f.book(peer.Name),
		started:  time.Now(),
		ctx:      ctx,
		cancel:   cancel,
		gone:     make(chan struct{}),
		outbox:   newOutbox(),
		stating:  make(chan struct{}, 1),
		doubting: make(chan struct{}, 1),
		proving:  make(chan struct{}, 1),
		tracks:   make(map[uint32]*Track),
		version:  version,
	}
	l.node.Store(&peer)
	l.datagrams.init()
	l.receiver.init()
	l.audio.Store(new([]*Track))
	control.SetPriority(urgencyControl, true)
	l.hop = newHop(l)
	l.state()
	l.doubt()
	return l
}

// Urgencies of QUIC streams (RFC 9218): lower goes first. Small layers go before
// large ones, so that congestion takes the large ones.
const (
	urgencyControl = 0
	urgencyRequest = 1
	urgencyMedia   = 2 // and one more for each layer
)

// Peer returns the node at the other end, as the newest certificate states it that
// it has shown on this link. The facts of it never change, validity and serial
// number do.
func (l *Link) Peer() residency.Node { return *l.node.Load() }

// Done is closed when the link ends. Nothing leaves afterwards.
func (l *Link) Done() <-chan struct{} { return l.ctx.Done() }

// runLink registers l, works it until it ends and returns why.
func (f *Fabric) runLink(ctx context.Context, l *Link) error {
	if err := f.register(l); err != nil {
		refuse(l.conn, wire.CodePeer, err)
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.fail(wire.CodeDone, "node %q stops", f.cfg.Self.Name) })
	defer stop()
	f.cfg.Log.Info("relay: link up", "peer", l.peer.Name, "country", l.peer.Country)
	if f.renewed.Load() {
		l.proveSoon() // the handshake may have shown the old one
	}
	f.cfg.Handler.LinkUp(l)
	loops := []func() error{
		l.readControl, l.writeControl, l.serveRequests, l.sendDatagrams, l.receiveDatagrams, l.receiveFrames, l.watch, l.beat,
	}
	if l.hop != nil {
		loops = append(loops, l.hop.run)
	}
	for _, loop := range loops {
		l.spawn(func() { l.end(loop()) })
	}
	<-l.ctx.Done()
	err := l.close()
	f.unregister(l)
	f.cfg.Log.Info("relay: link down", "peer", l.peer.Name, "err", err)
	f.cfg.Handler.LinkDown(l, err)
	close(l.gone)
	return err
}

// close ends the connection with the cause of the link's end and waits for
// every goroutine of the link.
func (l *Link) close() error {
	err := context.Cause(l.ctx)
	refuse(l.conn, codeOf(err), err)
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.wg.Wait()
	l.settle()
	return err
}

// spawn runs fn in a goroutine that close waits for; not at all when the link
// has ended.
func (l *Link) spawn(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.wg.Go(fn)
	return true
}

// end ends the link because of err; the first cause stays. A nil err is a loop
// that saw the link end.
func (l *Link) end(err error) {
	if err != nil {
		l.cancel(explain(l.peer.Name, err))
	}
}

// fail ends the link for a reason of this node's.
func (l *Link) fail(code wire.Code, format string, a ...any) {
	l.end(&LinkError{Peer: l.peer.Name, Code: code, Text: fmt.Sprintf(format, a...)})
}

// admit is the gate's last word before bytes are queued or leave.
func (l *Link) admit(p residency.Permit) error {
	epoch := l.cfg.Epoch()
	if p.Allows(l.peer.Name, epoch, l.cfg.Now()) {
		return nil
	}
	return &RefusedError{Peer: l.peer.Name, Epoch: epoch, Until: p.Until(), Verdict: p.Verdict()}
}

// outgoing is an envelope in the outbox. Of permit, track and tally one is set;
// permit and track are asked once more when the envelope leaves, and a tally
// carries nothing but figures.
type outgoing struct {
	permit   residency.Permit
	track    *Track
	tally    bool
	account  *account // counts the body, or is what the envelope tells of
	message  bool     // of body bytes
	body     int
	envelope []byte
}

// Send sends a message, in the order of the calls. It never waits: when more than
// the outbox holds waits for the peer, the link is closed. A nil error means that
// the message is queued, not that it has arrived.
func (l *Link) Send(p residency.Permit, kind Kind, body []byte) error {
	if err := l.admit(p); err != nil {
		return err
	}
	m := wire.Message{Kind: uint16(kind), Class: string(p.Class()), Room: p.Room(), Body: body}
	if err := m.Check(); err != nil {
		return fmt.Errorf("relay: send to node %q: %w", l.peer.Name, err)
	}
	a, err := l.account(p)
	if err != nil {
		return err
	}
	m.Account = a.id.Number
	err = l.enqueue(outgoing{permit: p, account: a, message: true, body: len(body), envelope: wire.AppendMessage(nil, wire.TypeMessage, m)})
	if err != nil {
		a.release()
	}
	return err
}

// enqueue puts an envelope into the outbox, as Send says.
func (l *Link) enqueue(out outgoing) error {
	if err := l.ctx.Err(); err != nil {
		return context.Cause(l.ctx)
	}
	if l.outbox.put(out) {
		return nil
	}
	l.fail(wire.CodeOverload, "%d messages wait", l.outbox.len())
	return context.Cause(l.ctx)
}

// writeControl sends what is in the outbox.
func (l *Link) writeControl() error {
	for {
		select {
		case <-l.outbox.ready:
			if out, ok := l.outbox.take(); ok {
				if err := l.writeOne(out); err != nil {
					return err
				}
			}
		case <-l.doubting:
			if err := l.writeDoubts(); err != nil {
				return err
			}
		case <-l.stating:
			if err := l.write(wire.AppendStated(nil, l.cfg.Policies.Statement())); err != nil {
				return err
			}
		case <-l.proving:
			if err := l.prove(); err != nil {
				return err
			}
		case <-l.ctx.Done():
			return nil
		}
	}
}

func (l *Link) writeOne(out outgoing) error {
	switch {
	case out.tally:
	case out.track != nil:
		if !out.track.valid(l.cfg.Now()) {
			return nil
		}
	default:
		err := l.admit(out.permit)
		if err == nil {
			break
		}
		if !out.message {
			l.unintroduce(out.account)
			return nil
		}
		l.count.drop(DropRefused, 1)
		out.account.release()
		l.cfg.Log.Warn("relay: queued message refused", "peer", l.peer.Name, "err", err)
		return nil
	}
	err := l.writeFor(out)
	if out.message {
		if err == nil {
			out.account.count(out.body)
		}
		out.account.release()
	}
	return err
}

// writeFor writes what the permit of out lets leave, for as long as it does.
func (l *Link) writeFor(out outgoing) error {
	if out.tally || out.track != nil {
		return l.write(out.envelope)
	}
	x := l.passes(out.permit, nil)
	defer l.written(x)
	return l.write(out.envelope)
}

// write puts an envelope on the control stream.
func (l *Link) write(envelope []byte) error {
	l.control.SetWriteDeadline(time.Now().Add(l.cfg.SendTimeout))
	_, err := l.control.Write(envelope)
	if isTimeout(err) {
		return &LinkError{Peer: l.peer.Name, Code: wire.CodeOverload,
			Text: fmt.Sprintf("control stream was blocked for %s", l.cfg.SendTimeout)}
	}
	return err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	var app *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	return errors.As(err, &t) && t.Timeout() && !errors.As(err, &app) && !errors.As(err, &idle)
}

// readControl hands over what arrives on the control stream.
func (l *Link) readControl() error {
	for {
		t, payload, err := readEnvelope(l.control)
		if err != nil {
			return l.controlEnded(err)
		}
		switch t {
		case wire.TypeMessage:
			m, err := wire.ParseMessage(payload)
			if err != nil {
				return protocolError(err)
			}
			if err := l.countReceived(m.Account, residency.Class(m.Class), m.Room, len(m.Body)); err != nil {
				return err
			}
			l.cfg.Handler.Message(l, Kind(m.Kind), m.Room, residency.Class(m.Class), m.Body)
		case wire.TypeDoubts:
			if err := l.readDoubts(payload); err != nil {
				return err
			}
		case wire.TypeStated:
			s, err := wire.ParseStated(payload)
			if err != nil {
				return protocolError(err)
			}
			if l.cfg.Policies != nil {
				l.cfg.Policies.Stated(l, s)
			}
		case wire.TypeIdentity:
			if err := l.takeProof(payload); err != nil {
				return err
			}
		case wire.TypeReport:
			r, err := wire.ParseReport(payload)
			if err != nil {
				return protocolError(err)
			}
			l.receiver.report(r, l.cfg.Now())
		default:
			if err := l.readCount(t, payload); err != nil {
				return err
			}
		}
	}
}

// readCount handles what the ends count by.
func (l *Link) readCount(t wire.Type, payload []byte) error {
	switch t {
	case wire.TypeAccount:
		return take(payload, wire.ParseAccount, l.takeAccount)
	case wire.TypeTrack:
		return take(payload, wire.ParseTrack, l.takeTrack)
	case wire.TypeTally:
		return take(payload, wire.ParseTally, l.takeTally)
	case wire.TypeCarriage:
		return take(payload, wire.ParseCarriage, l.takeCarriage)
	}
	return protocolError(fmt.Errorf("%s on the control stream", t))
}

func take[T any](payload []byte, parse func([]byte) (T, error), do func(T) error) error {
	v, err := parse(payload)
	if err != nil {
		return protocolError(err)
	}
	return do(v)
}

// controlEnded tells a stream that the peer ended, which it must not, from a
// connection that ended under it.
func (l *Link) controlEnded(err error) error {
	var reset *quic.StreamError
	if l.conn.Context().Err() == nil && (errors.As(err, &reset) || errors.Is(err, io.EOF)) {
		return protocolError(fmt.Errorf("control stream ended: %w", err))
	}
	return err
}
