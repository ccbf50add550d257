package room

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
)

// Direct is the signalling side of a participant that has none of its own: an
// encoder or player that makes one offer, over WHIP or WHEP. To the room it is a
// client of signalling v1 that lives in the node: Serve takes it as its
// connection, and it says what such a client has to say.
//
//	d := room.NewDirect()
//	go rm.Serve(ctx, d, join, attendee)
//	answer, err := d.Publish(ctx, rm, offer, tracks)   or Watch
//
// Nothing is negotiated later but ICE: a player gets in its sections what its
// source shows at the time (see follow.go), and an encoder publishes what it
// began with.
type Direct struct {
	greeted   chan struct{} // closed when the room has let it in
	connected chan struct{} // closed when media can flow
	leaving   chan struct{} // closed when it is to end
	closed    chan struct{} // closed when the room has ended it
	once      [4]sync.Once  // for each of these

	mu      sync.Mutex
	sid     string // of the participant, once greeted
	refusal string // of the last track that was announced
	offer   string // the client's, once it was answered
}

// Errors of Watch.
var (
	ErrNoSource = errors.New("nobody and nothing of that name is in the room")
	ErrSilent   = errors.New("nothing is published that can be shown now")
	ErrCodec    = errors.New("the offer has no codec for what is published")
)

// ErrTrackRefused is returned by Publish for a track that the token does not grant.
var ErrTrackRefused = errors.New("track is refused")

// ErrOffer is returned for an offer that cannot be used.
var ErrOffer = errOffer

// NewDirect returns a Direct for one participant.
func NewDirect() *Direct {
	return &Direct{greeted: make(chan struct{}), connected: make(chan struct{}), leaving: make(chan struct{}), closed: make(chan struct{})}
}

func (d *Direct) close(n int, c chan struct{}) { d.once[n].Do(func() { close(c) }) }

// Connected is closed once media can flow.
func (d *Direct) Connected() <-chan struct{} { return d.connected }

// Leave ends the participant. It may be called more than once.
func (d *Direct) Leave() { d.close(2, d.leaving) }

// Recv returns what the client has to say: that it is still there, and at the
// end its goodbye.
func (d *Direct) Recv(ctx context.Context) (*livekit.SignalRequest, error) {
	ping := time.NewTimer(pingInterval)
	defer ping.Stop()
	select {
	case <-d.leaving:
		return &livekit.SignalRequest{Message: &livekit.SignalRequest_Leave{Leave: &livekit.LeaveRequest{}}}, nil
	case <-d.closed:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-ping.C:
		return &livekit.SignalRequest{Message: &livekit.SignalRequest_Ping{}}, nil
	}
}

// Send takes what the room tells its participants. There is nobody to tell it
// to, but that the client was let in and that a track was refused.
func (d *Direct) Send(m *livekit.SignalResponse) error {
	switch m := m.Message.(type) {
	case *livekit.SignalResponse_Join:
		d.mu.Lock()
		d.sid = m.Join.GetParticipant().GetSid()
		d.mu.Unlock()
		d.close(0, d.greeted)
	case *livekit.SignalResponse_RequestResponse:
		if m.RequestResponse.GetAddTrack() != nil && m.RequestResponse.Reason != livekit.RequestResponse_OK {
			d.mu.Lock()
			d.refusal = m.RequestResponse.Message
			d.mu.Unlock()
		}
	}
	return nil
}

// SendPrepared takes what the room tells everybody, of which a Direct needs nothing.
func (d *Direct) SendPrepared(*signal.Prepared) error { return nil }

// Close implements the room's side of a connection.
func (d *Direct) Close(string) { d.close(3, d.closed) }

// isDirect reports whether a participant has no signalling of its own, and so no
// use for data either.
func isDirect(c conn) bool {
	_, ok := c.(*Direct)
	return ok
}

// noteMedia follows the media connection: without signalling it is all that
// says that the client has gone.
func (l *line) noteMedia(state string) {
	if l == nil {
		return
	}
	d, ok := l.conn.(*Direct)
	switch {
	case !ok:
	case state == "connected":
		d.close(1, d.connected)
	case state == "closed":
		d.Leave()
	}
}

// Publish announces the tracks of an offer and answers it. It waits until the
// room has let the client in; ctx must end when Serve returns before that.
func (d *Direct) Publish(ctx context.Context, r *Room, offer string, tracks []*livekit.AddTrackRequest) (answer string, err error) {
	err = d.do(ctx, r, func(p *Participant) error {
		for _, t := range tracks {
			p.doAddTrack(t)
			if text := d.takeRefusal(); text != "" {
				return fmt.Errorf("%w: %s", ErrTrackRefused, text)
			}
		}
		a, err := p.session.Publish(offer, 0)
		if err != nil {
			return fmt.Errorf("%w: %w", errOffer, err)
		}
		answer = a.SDP
		return nil
	})
	d.keep(offer)
	return answer, err
}

func (d *Direct) takeRefusal() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := d.refusal
	d.refusal = ""
	return text
}

func (d *Direct) keep(offer string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.offer = offer
}

// Watch answers an offer with what a source shows. kinds are those for which the
// offer has a section.
func (d *Direct) Watch(ctx context.Context, r *Room, offer, source string, kinds ...sfu.Kind) (answer string, err error) {
	list, err := d.find(ctx, r, source, kinds)
	if err != nil {
		return "", err
	}
	err = d.do(ctx, r, func(p *Participant) error {
		for _, s := range list {
			p.doSubscribe(s)
		}
		a, err := p.session.Publish(offer, 0)
		if err != nil {
			return fmt.Errorf("%w: %w", errOffer, err)
		}
		if len(a.Tracks) < len(list) {
			return fmt.Errorf("%w: %s", ErrCodec, codecsOf(list))
		}
		answer = a.SDP
		return nil
	})
	d.keep(offer)
	return answer, err
}

// settleWait bounds the wait for a room that has just begun on this node: a round
// trip to its home, and one to each of its nodes.
const settleWait = 3 * time.Second

// find takes what a source shows, and waits for it in a room that does not know
// yet who is in it.
func (d *Direct) find(ctx context.Context, r *Room, source string, kinds []sfu.Kind) (list []subscription, err error) {
	wait := time.NewTimer(settleWait)
	defer wait.Stop()
	again := time.NewTicker(tickEvery)
	defer again.Stop()
	for {
		settled := true
		err = d.with(ctx, r, func(p *Participant) (err error) {
			list, err = r.doFollow(p, source, kinds)
			settled = r.settled()
			return err
		})
		if err == nil || settled || ctx.Err() != nil {
			return list, err
		}
		select {
		case <-again.C:
		case <-wait.C:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

// settled reports whether this node has heard from every other that has somebody
// in the room.
func (r *Room) settled() bool {
	if r.home.name != r.deps.Self.Name && r.home.seq == 0 {
		return false
	}
	for _, n := range r.nodes() {
		m := r.remotes[n.Node]
		if n.Node != r.deps.Self.Name && n.Participants > 0 && (m == nil || !m.heard) {
			return false
		}
	}
	return true
}

func codecsOf(list []subscription) string {
	var names []string
	for _, s := range list {
		names = append(names, s.up.Codec().MimeType)
	}
	return strings.Join(names, " and ")
}

// ICE is one side of an ICE session.
type ICE struct {
	Ufrag, Pwd string
	Candidates []string // values of a=candidate
}

// Restart takes the client's new ICE credentials and returns our side. The rest
// of what was negotiated stays (RFC 9725, section 4.3.3).
func (d *Direct) Restart(ctx context.Context, r *Room, ufrag, pwd string) (ours ICE, err error) {
	d.mu.Lock()
	offer := replaceICE(d.offer, ufrag, pwd)
	d.mu.Unlock()
	err = d.do(ctx, r, func(p *Participant) error {
		a, err := p.session.Publish(offer, 0)
		if err != nil {
			return fmt.Errorf("restart ICE: %w", err)
		}
		ours = iceOf(a.SDP)
		return nil
	})
	return ours, err
}

// replaceICE puts new credentials into an offer; the client's candidates are not
// needed.
func replaceICE(offer, ufrag, pwd string) string {
	lines := strings.Split(offer, "\n")
	for i, l := range lines {
		switch {
		case strings.HasPrefix(l, "a=ice-ufrag:"):
			lines[i] = "a=ice-ufrag:" + ufrag + "\r"
		case strings.HasPrefix(l, "a=ice-pwd:"):
			lines[i] = "a=ice-pwd:" + pwd + "\r"
		}
	}
	return strings.Join(lines, "\n")
}

// iceOf reads our side from an answer of ours: all sections share one transport.
func iceOf(answer string) (ice ICE) {
	for l := range strings.Lines(answer) {
		name, value, _ := strings.Cut(strings.TrimRight(l, "\r\n"), ":")
		switch name {
		case "a=ice-ufrag":
			ice.Ufrag = value
		case "a=ice-pwd":
			ice.Pwd = value
		case "a=candidate":
			ice.Candidates = append(ice.Candidates, value)
		}
	}
	return ice
}

// with runs f in the room's goroutine, with the participant.
func (d *Direct) with(ctx context.Context, r *Room, f func(*Participant) error) error {
	select {
	case <-d.greeted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return r.call(ctx, func() error {
		d.mu.Lock()
		sid := d.sid
		d.mu.Unlock()
		for _, p := range r.locals {
			if p.sid == sid {
				return f(p)
			}
		}
		return errLost
	})
}

// do runs f in the participant's goroutine, behind what the room has told it.
func (d *Direct) do(ctx context.Context, r *Room, f func(*Participant) error) error {
	done := make(chan error, 1)
	var gone <-chan struct{}
	err := d.with(ctx, r, func(p *Participant) error {
		gone = p.gone
		p.post(func() { done <- f(p) })
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-gone:
		return errLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
