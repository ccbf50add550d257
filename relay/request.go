package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Request asks the peer and waits for its answer, each request on a stream of
// its own, so that a slow one holds up no other. It ends with ctx, or after
// RequestTimeout. An error of the peer's handler is a *RemoteError.
func (l *Link) Request(ctx context.Context, p residency.Permit, kind Kind, body []byte) ([]byte, error) {
	if err := l.admit(p); err != nil {
		return nil, err
	}
	m := wire.Message{Kind: uint16(kind), Class: string(p.Class()), Room: p.Room(), Body: body}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("relay: request to node %q: %w", l.peer.Name, err)
	}
	a, err := l.account(p)
	if err != nil {
		return nil, err
	}
	defer a.release()
	m.Account = a.id.Number
	ctx, cancel := context.WithTimeout(ctx, l.cfg.RequestTimeout)
	defer cancel()
	s, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, l.requestError(ctx, err)
	}
	defer s.CancelRead(wire.StreamDone)
	if err := l.admit(p); err != nil { // opening may have waited
		s.CancelWrite(wire.StreamRefused)
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		s.CancelWrite(wire.StreamDone)
		s.CancelRead(wire.StreamDone)
	})
	defer stop()
	s.SetPriority(urgencyRequest, true)
	under := l.passes(p, s)
	reply, err := l.exchange(s, wire.AppendMessage(nil, wire.TypeRequest, m), func() {
		a.count(len(m.Body))
		l.written(under)
	})
	if l.passed(under) && err != nil {
		return nil, l.takenBack(p)
	}
	if err == nil && !reply.Failed && len(reply.Body) > 0 {
		err = l.countReceived(reply.Account, p.Class(), p.Room(), len(reply.Body))
		if late := l.admit(p); err == nil && late != nil {
			l.count.drop(DropRefused, 1) // what may not be asked any more may not be answered
			return nil, late
		}
	}
	if err != nil {
		return nil, l.requestError(ctx, err)
	}
	if reply.Failed {
		return nil, &RemoteError{Peer: l.peer.Name, Text: string(reply.Body)}
	}
	return reply.Body, nil
}

// exchange calls sent when the request may arrive, even if nobody waits for the
// answer any more.
func (l *Link) exchange(s *quic.Stream, request []byte, sent func()) (wire.Response, error) {
	if _, err := s.Write(request); err != nil {
		return wire.Response{}, err
	}
	sent()
	s.Close()
	t, payload, err := readEnvelope(s)
	if err == nil && t != wire.TypeResponse {
		err = protocolError(fmt.Errorf("%s where RESPONSE is due", t))
	}
	if err != nil {
		return wire.Response{}, err
	}
	r, err := wire.ParseResponse(payload)
	if err != nil {
		return wire.Response{}, protocolError(err)
	}
	return r, nil
}

// requestError names the true cause: the caller's context, the link's end, or
// what the peer did. A peer that breaks the protocol loses the link.
func (l *Link) requestError(ctx context.Context, err error) error {
	var v *violation
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case l.conn.Context().Err() != nil:
		return explain(l.peer.Name, err)
	case errors.As(err, &v):
		l.end(err)
	}
	return fmt.Errorf("relay: request to node %q: %w", l.peer.Name, err)
}

// serveRequests answers the peer's requests. QUIC's stream limit bounds how many
// are at work at once.
func (l *Link) serveRequests() error {
	for {
		s, err := l.conn.AcceptStream(l.ctx)
		if err != nil {
			return l.unlessEnded(err)
		}
		l.spawn(func() { l.end(l.serveRequest(s)) })
	}
}

// unlessEnded hides the error of an accept that the link's own end interrupted.
func (l *Link) unlessEnded(err error) error {
	if l.ctx.Err() != nil {
		return nil
	}
	return err
}

// serveRequest answers one request; an error ends the link.
func (l *Link) serveRequest(s *quic.Stream) error {
	defer s.CancelRead(wire.StreamDone)
	s.SetReadDeadline(time.Now().Add(l.cfg.RequestTimeout))
	t, n, err := readHead(s)
	if err == nil && t == wire.TypeOffer {
		return l.serveOffer(s, n)
	}
	var m wire.Message
	if err == nil {
		m, err = readRequest(s, t, n)
	}
	var v *violation
	switch {
	case errors.As(err, &v):
		s.CancelWrite(wire.StreamRefused)
		return err
	case err != nil: // the requester gave up, or was too slow
		s.CancelWrite(wire.StreamDone)
		return nil
	}
	if err := l.countReceived(m.Account, residency.Class(m.Class), m.Room, len(m.Body)); err != nil {
		s.CancelWrite(wire.StreamRefused)
		return err
	}
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	stop := context.AfterFunc(s.Context(), cancel)
	defer stop()
	s.SetPriority(urgencyRequest, true)
	body, permit, err := l.cfg.Handler.Request(ctx, l, Kind(m.Kind), m.Room, residency.Class(m.Class), m.Body)
	s.SetWriteDeadline(time.Now().Add(l.cfg.RequestTimeout))
	a, reply := l.response(m, body, permit, err)
	if a != nil {
		defer a.release()
		under := l.passes(permit, s)
		defer l.written(under)
	}
	if _, err := s.Write(wire.AppendResponse(nil, reply)); err != nil {
		s.CancelWrite(wire.StreamDone)
		return nil
	}
	if a != nil {
		a.count(len(reply.Body))
	}
	s.Close()
	return nil
}

// readHead reads what a stream of the peer's is about.
func readHead(r io.Reader) (wire.Type, int, error) {
	t, n, err := readEnvelopeHead(r)
	if errors.Is(err, io.EOF) {
		err = protocolError(fmt.Errorf("request stream without a request"))
	}
	return t, n, err
}

func readRequest(r io.Reader, t wire.Type, n int) (wire.Message, error) {
	if t != wire.TypeRequest {
		return wire.Message{}, protocolError(fmt.Errorf("%s where REQUEST is due", t))
	}
	payload, err := readPayload(r, t, n)
	if err != nil {
		return wire.Message{}, err
	}
	m, err := wire.ParseMessage(payload)
	if err != nil {
		return wire.Message{}, protocolError(err)
	}
	return m, nil
}

// response is the handler's answer if the gate lets it leave, with the account
// under which it is counted, and otherwise an error that says so.
func (l *Link) response(m wire.Message, body []byte, p residency.Permit, err error) (*account, wire.Response) {
	if err == nil && len(body) == 0 {
		return nil, wire.Response{} // nothing of any room
	}
	if err == nil {
		err = l.admit(p)
	}
	if err == nil && (p.Room() != m.Room || p.Class() != residency.Class(m.Class)) {
		err = errors.New("relay: reply refused: its permit is for another room or class")
	}
	if err == nil && len(body) > wire.MaxMessage {
		err = fmt.Errorf("relay: reply of %d bytes, at most %d are allowed", len(body), wire.MaxMessage)
	}
	var a *account
	if err == nil {
		a, err = l.account(p)
	}
	if err != nil {
		var refused *RefusedError
		if errors.As(err, &refused) {
			l.count.drop(DropRefused, 1)
		}
		return nil, wire.Response{Failed: true, Body: []byte(err.Error())}
	}
	return a, wire.Response{Account: a.id.Number, Body: body}
}
