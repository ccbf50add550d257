package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// A peer that does not answer is dialled again after 100 ms, then after twice
// as long each time up to 3 s, each wait shortened by a random part of its half
// so that nodes that lost each other together do not come back together.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 3 * time.Second
)

// maxAccepting bounds connections whose HELLO is still to come.
const maxAccepting = 64

// dialLoop holds a link to the peer up until ctx ends.
func (f *Fabric) dialLoop(ctx context.Context, name residency.NodeName) {
	wait, last := firstBackoff, ""
	for ctx.Err() == nil {
		l, err := f.dial(ctx, name)
		switch {
		case err == nil:
			began := time.Now()
			f.runLink(ctx, l) // logs and reports its own end
			if last = ""; time.Since(began) > lastBackoff {
				wait = firstBackoff
			}
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			f.cfg.Log.Warn("relay: no link", "peer", name, "err", err)
		}
		pause(ctx, wait-rand.N(wait/2))
		wait = min(2*wait, lastBackoff)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// dial connects to the peer and agrees on the wire version.
func (f *Fabric) dial(ctx context.Context, name residency.NodeName) (*Link, error) {
	addr, ok := f.peerAddr(name)
	if !ok {
		return nil, fmt.Errorf("relay: dial node %q: it is no peer", name)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := f.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), f.cfg.ClientTLS, f.quicConfig())
	if err != nil {
		return nil, fmt.Errorf("relay: dial node %q: %w", name, err)
	}
	peer, err := f.checkPeer(conn)
	if err == nil && peer.Name != name {
		err = fmt.Errorf("its certificate is for node %q", peer.Name)
	}
	if err != nil {
		refuse(conn, wire.CodePeer, err)
		return nil, fmt.Errorf("relay: dial node %q: %w", name, err)
	}
	control, err := conn.OpenStreamSync(ctx)
	if err == nil {
		err = f.greet(control, peer.Name, true)
	}
	if err != nil {
		err = explain(peer.Name, err)
		refuse(conn, codeOf(err), err)
		return nil, err
	}
	return newLink(f, conn, control, peer), nil
}

// accept answers callers until ctx ends, and waits for the links they became.
func (f *Fabric) accept(ctx context.Context, ln *quic.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxAccepting)
	for {
		conn, err := ln.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("relay: accept: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			refuse(conn, wire.CodeOverload, errors.New("too many callers at once"))
			continue
		}
		wg.Go(func() {
			l, err := f.answer(ctx, conn)
			<-slots
			if err != nil {
				f.cfg.Log.Warn("relay: caller refused", "err", err)
				return
			}
			f.runLink(ctx, l) // logs and reports its own end
		})
	}
}

// answer checks a caller and agrees on the wire version.
func (f *Fabric) answer(ctx context.Context, conn *quic.Conn) (*Link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	peer, err := f.checkPeer(conn)
	if err == nil {
		err = f.checkCaller(peer.Name)
	}
	if err != nil {
		refuse(conn, wire.CodePeer, err)
		return nil, fmt.Errorf("relay: answer: %w", err)
	}
	control, err := conn.AcceptStream(ctx)
	if err == nil {
		err = f.greet(control, peer.Name, false)
	}
	if err != nil {
		err = explain(peer.Name, err)
		refuse(conn, codeOf(err), err)
		return nil, err
	}
	return newLink(f, conn, control, peer), nil
}

// checkPeer reads the node from the connection's certificate, which TLS has
// verified, and checks that it is valid now and that datagrams pass.
func (f *Fabric) checkPeer(conn *quic.Conn) (residency.Node, error) {
	state := conn.ConnectionState()
	peer, err := f.cfg.PeerNode(state.TLS)
	switch {
	case err != nil:
		return residency.Node{}, fmt.Errorf("certificate: %w", err)
	case peer.Name == "" || peer.Name == f.cfg.Self.Name:
		return residency.Node{}, fmt.Errorf("certificate is for node %q, which is no other node", peer.Name)
	case !peer.ValidAt(f.cfg.Now()):
		return residency.Node{}, fmt.Errorf("certificate of node %q is not valid now", peer.Name)
	case !state.SupportsDatagrams.Remote:
		return residency.Node{}, fmt.Errorf("node %q takes no datagrams", peer.Name)
	}
	return peer, nil
}

func (f *Fabric) checkCaller(name residency.NodeName) error {
	if _, ok := f.peerAddr(name); !ok {
		return fmt.Errorf("node %q does not link with node %q", f.cfg.Self.Name, name)
	}
	if f.cfg.Self.Name < name {
		return fmt.Errorf("node %q dials node %q, not the other way round", f.cfg.Self.Name, name)
	}
	return nil
}

// greet exchanges HELLO, the caller's first, and insists on one version.
func (f *Fabric) greet(control *quic.Stream, peer residency.NodeName, caller bool) error {
	control.SetDeadline(time.Now().Add(handshakeTimeout))
	defer control.SetDeadline(time.Time{})
	hello := wire.AppendHello(nil, wire.Hello{Version: wire.Version})
	if caller {
		if _, err := control.Write(hello); err != nil {
			return err
		}
	}
	if err := f.readHello(control, peer); err != nil {
		return err
	}
	if !caller {
		_, err := control.Write(hello)
		return err
	}
	return nil
}

func (f *Fabric) readHello(control io.Reader, peer residency.NodeName) error {
	t, payload, err := readEnvelope(control)
	if err != nil {
		return err
	}
	if t != wire.TypeHello {
		return protocolError(fmt.Errorf("%s where HELLO is due", t))
	}
	h, err := wire.ParseHello(payload)
	if err != nil {
		return protocolError(err)
	}
	if h.Version != wire.Version {
		return &LinkError{Peer: peer, Code: wire.CodeVersion,
			Text: fmt.Sprintf("node %q speaks wire version %d, node %q version %d", f.cfg.Self.Name, wire.Version, peer, h.Version)}
	}
	return nil
}

// refuse closes a connection that never became a link.
func refuse(conn *quic.Conn, code wire.Code, err error) {
	text := err.Error()
	var le *LinkError
	if errors.As(err, &le) {
		text = le.Text
	}
	conn.CloseWithError(quic.ApplicationErrorCode(code), text)
}

// violation marks an error as the peer's breach of the wire protocol.
type violation struct{ cause error }

func (v *violation) Error() string { return v.cause.Error() }
func (v *violation) Unwrap() error { return v.cause }

func protocolError(err error) error { return &violation{err} }

// explain turns whatever ended a connection into a LinkError.
func explain(peer residency.NodeName, err error) error {
	var le *LinkError
	if errors.As(err, &le) {
		return le
	}
	le = &LinkError{Peer: peer, Text: err.Error()}
	var v *violation
	var app *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	var transport *quic.TransportError
	switch {
	case errors.As(err, &v):
		le.Code = wire.CodeProtocol
	case errors.As(err, &app):
		le.Code, le.Remote, le.Text = wire.Code(app.ErrorCode), app.Remote, app.ErrorMessage
	case errors.As(err, &idle):
		le.Code = wire.CodeSilent
	case errors.As(err, &transport):
		le.Code, le.Remote = wire.CodeProtocol, transport.Remote
	}
	return le
}

func codeOf(err error) wire.Code {
	var le *LinkError
	if errors.As(err, &le) {
		return le.Code
	}
	return wire.CodeDone
}

// readEnvelope reads one envelope. Its payload grows as it arrives, so that a
// length alone costs no memory.
func readEnvelope(r io.Reader) (wire.Type, []byte, error) {
	var head [wire.EnvelopeSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, protocolError(fmt.Errorf("read envelope: %w", wire.ErrCut))
		}
		return 0, nil, err // io.EOF as it is: the stream ended between two envelopes
	}
	t, n, err := wire.ParseEnvelope(head[:])
	if err != nil {
		return 0, nil, protocolError(err)
	}
	payload, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(payload) < n {
		err = protocolError(fmt.Errorf("read %s: %w", t, wire.ErrCut))
	}
	return t, payload, err
}
