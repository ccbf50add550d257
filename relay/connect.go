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
	offer := f.newest()
	for ctx.Err() == nil {
		l, err := f.dial(ctx, name, offer)
		switch {
		case err == nil:
			began := time.Now()
			f.runLink(ctx, l)  // logs and reports its own end
			offer = f.newest() // it may come back as another release
			if last = ""; time.Since(began) > lastBackoff {
				wait = firstBackoff
			}
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			f.cfg.Log.Warn("relay: no link", "peer", name, "err", err)
		}
		if err != nil {
			var retry bool
			if offer, retry = f.lower(offer, err); retry {
				continue
			}
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

// newest is the wire version that is offered first.
func (f *Fabric) newest() uint16 {
	if f.cfg.OnlyVersion != 0 {
		return f.cfg.OnlyVersion
	}
	return wire.Version
}

// lower is what is offered to a peer that has refused a version: the one before, at
// once. After the oldest it is the newest again, for the next time.
func (f *Fabric) lower(offer uint16, err error) (next uint16, retry bool) {
	var le *LinkError
	if !errors.As(err, &le) || le.Code != wire.CodeVersion || offer <= wire.MinVersion || f.cfg.OnlyVersion != 0 {
		return f.newest(), false
	}
	return offer - 1, true
}

// dial connects to the peer and agrees on the wire version.
func (f *Fabric) dial(ctx context.Context, name residency.NodeName, offer uint16) (*Link, error) {
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
		refuse(conn, codeOr(err, wire.CodePeer), err)
		return nil, fmt.Errorf("relay: dial node %q: %w", name, err)
	}
	var version uint16
	control, err := conn.OpenStreamSync(ctx)
	if err == nil {
		version, err = f.greet(control, peer.Name, offer)
	}
	if err != nil {
		err = explain(peer.Name, err)
		refuse(conn, codeOf(err), err)
		return nil, err
	}
	return newLink(f, conn, control, peer, version), nil
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
		refuse(conn, codeOr(err, wire.CodePeer), err)
		return nil, fmt.Errorf("relay: answer: %w", err)
	}
	var version uint16
	control, err := conn.AcceptStream(ctx)
	if err == nil {
		version, err = f.greeted(control, peer.Name)
	}
	if err != nil {
		err = explain(peer.Name, err)
		refuse(conn, codeOf(err), err)
		return nil, err
	}
	return newLink(f, conn, control, peer, version), nil
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
	return peer, f.admitPeer(peer)
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

// greet says HELLO to a peer that was dialled, and takes the version that it chooses:
// the one offered, or an older one that is spoken still.
func (f *Fabric) greet(control *quic.Stream, peer residency.NodeName, offer uint16) (uint16, error) {
	control.SetDeadline(time.Now().Add(handshakeTimeout))
	defer control.SetDeadline(time.Time{})
	if _, err := control.Write(wire.AppendHello(nil, wire.Hello{Version: offer})); err != nil {
		return 0, err
	}
	h, err := readHello(control)
	if err == nil && (h.Version > offer || h.Version < wire.MinVersion || f.cfg.OnlyVersion != 0 && h.Version != offer) {
		err = f.otherVersion(peer, h.Version)
	}
	return h.Version, err
}

// greeted answers a caller's HELLO with the version that counts.
func (f *Fabric) greeted(control *quic.Stream, peer residency.NodeName) (uint16, error) {
	control.SetDeadline(time.Now().Add(handshakeTimeout))
	defer control.SetDeadline(time.Time{})
	h, err := readHello(control)
	if err != nil {
		return 0, err
	}
	version, ok := wire.Agree(f.newest(), h.Version)
	if !ok || f.cfg.OnlyVersion != 0 && h.Version != f.cfg.OnlyVersion {
		return 0, f.otherVersion(peer, h.Version)
	}
	_, err = control.Write(wire.AppendHello(nil, wire.Hello{Version: version}))
	return version, err
}

// otherVersion refuses a peer with which there is no common version.
func (f *Fabric) otherVersion(peer residency.NodeName, theirs uint16) error {
	return &LinkError{Peer: peer, Code: wire.CodeVersion,
		Text: fmt.Sprintf("node %q speaks wire versions up to %d, node %q version %d", f.cfg.Self.Name, f.newest(), peer, theirs)}
}

func readHello(control io.Reader) (wire.Hello, error) {
	t, payload, err := readEnvelope(control)
	if err != nil {
		return wire.Hello{}, err
	}
	if t != wire.TypeHello {
		return wire.Hello{}, protocolError(fmt.Errorf("%s where HELLO is due", t))
	}
	h, err := wire.ParseHello(payload)
	if err != nil {
		return wire.Hello{}, protocolError(err)
	}
	return h, nil
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

func codeOf(err error) wire.Code { return codeOr(err, wire.CodeDone) }

// codeOr is the code of a LinkError, or another.
func codeOr(err error, other wire.Code) wire.Code {
	var le *LinkError
	if errors.As(err, &le) {
		return le.Code
	}
	return other
}

// readEnvelope reads one envelope. Its payload grows as it arrives, so that a
// length alone costs no memory.
func readEnvelope(r io.Reader) (wire.Type, []byte, error) {
	t, n, err := readEnvelopeHead(r)
	if err != nil {
		return 0, nil, err
	}
	payload, err := readPayload(r, t, n)
	return t, payload, err
}

func readEnvelopeHead(r io.Reader) (wire.Type, int, error) {
	var head [wire.EnvelopeSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, 0, protocolError(fmt.Errorf("read envelope: %w", wire.ErrCut))
		}
		return 0, 0, err // io.EOF as it is: the stream ended between two envelopes
	}
	t, n, err := wire.ParseEnvelope(head[:])
	if err != nil {
		return 0, 0, protocolError(err)
	}
	return t, n, nil
}

func readPayload(r io.Reader, t wire.Type, n int) ([]byte, error) {
	payload, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(payload) < n {
		err = protocolError(fmt.Errorf("read %s: %w", t, wire.ErrCut))
	}
	return payload, err
}
