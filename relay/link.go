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
	peer    residency.Node
	started time.Time
	ctx     context.Context // ends with the link; its cause is a *LinkError
	cancel  context.CancelCauseFunc
	gone    chan struct{} // closed after LinkDown returned

	outbox chan outgoing // control messages, in order

	datagrams datagramSender
	receiver  receiver
	heart     heart
	count     counters // of what belongs to no track that is open

	// Guarded by mu.
	mu        sync.Mutex
	ended     bool // no goroutine may be started any more
	tracks    map[uint32]*Track
	lastAlias uint32

	audio atomic.Pointer[[]*Track] // snapshot of tracks for the datagram sender
	wg    sync.WaitGroup
}

func newLink(f *Fabric, conn *quic.Conn, control *quic.Stream, peer residency.Node) *Link {
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &Link{
		cfg:     &f.cfg,
		f:       f,
		conn:    conn,
		control: control,
		peer:    peer,
		started: time.Now(),
		ctx:     ctx,
		cancel:  cancel,
		gone:    make(chan struct{}),
		outbox:  make(chan outgoing, controlQueue),
		tracks:  make(map[uint32]*Track),
	}
	l.datagrams.init()
	l.receiver.init()
	l.audio.Store(new([]*Track))
	control.SetPriority(urgencyControl, true)
	return l
}

// Urgencies of QUIC streams (RFC 9218): lower goes first. Small layers go before
// large ones, so that congestion takes the large ones.
const (
	urgencyControl = 0
	urgencyRequest = 1
	urgencyMedia   = 2 // and one more for each layer
)

// Peer returns the node at the other end, as its certificate states it.
func (l *Link) Peer() residency.Node { return l.peer }

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
	f.cfg.Handler.LinkUp(l)
	for _, loop := range []func() error{
		l.readControl, l.writeControl, l.serveRequests, l.sendDatagrams, l.receiveDatagrams, l.receiveFrames, l.beat,
	} {
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

// outgoing is an envelope in the outbox. Of permit and track one is set; it is
// asked once more when the envelope leaves.
type outgoing struct {
	permit   residency.Permit
	track    *Track
	envelope []byte
}

// Send sends a message, in the order of the calls. It waits while the queue is
// full; when the queue stays full for SendTimeout, the link is closed. A nil
// error means that the message is queued, not that it has arrived.
func (l *Link) Send(p residency.Permit, kind Kind, body []byte) error {
	if err := l.admit(p); err != nil {
		return err
	}
	m := wire.Message{Kind: uint16(kind), Class: string(p.Class()), Room: p.Room(), Body: body}
	if err := m.Check(); err != nil {
		return fmt.Errorf("relay: send to node %q: %w", l.peer.Name, err)
	}
	if err := l.ctx.Err(); err != nil {
		return context.Cause(l.ctx)
	}
	out := outgoing{permit: p, envelope: wire.AppendMessage(nil, wire.TypeMessage, m)}
	select {
	case l.outbox <- out:
		return nil
	default:
	}
	t := time.NewTimer(l.cfg.SendTimeout)
	defer t.Stop()
	select {
	case l.outbox <- out:
		return nil
	case <-t.C:
		l.fail(wire.CodeOverload, "%d messages waited for %s", controlQueue, l.cfg.SendTimeout)
	case <-l.ctx.Done():
	}
	return context.Cause(l.ctx)
}

// writeControl sends what is in the outbox.
func (l *Link) writeControl() error {
	for {
		select {
		case out := <-l.outbox:
			if err := l.writeOne(out); err != nil {
				return err
			}
		case <-l.ctx.Done():
			return nil
		}
	}
}

func (l *Link) writeOne(out outgoing) error {
	if out.track != nil {
		if !out.track.valid(l.cfg.Now()) {
			return nil
		}
	} else if err := l.admit(out.permit); err != nil {
		l.count.drop(DropRefused, 1)
		l.cfg.Log.Warn("relay: queued message refused", "peer", l.peer.Name, "err", err)
		return nil
	}
	l.control.SetWriteDeadline(time.Now().Add(l.cfg.SendTimeout))
	_, err := l.control.Write(out.envelope)
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
			l.cfg.Handler.Message(l, Kind(m.Kind), m.Room, residency.Class(m.Class), m.Body)
		case wire.TypeReport:
			r, err := wire.ParseReport(payload)
			if err != nil {
				return protocolError(err)
			}
			l.receiver.report(r, l.cfg.Now())
		default:
			return protocolError(fmt.Errorf("%s on the control stream", t))
		}
	}
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
