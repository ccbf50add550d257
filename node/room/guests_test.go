package room

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/signal"
)

// socket is a signalling connection without a network.
type socket struct {
	in chan *livekit.SignalRequest

	mu     sync.Mutex
	out    []*livekit.SignalResponse
	closed chan struct{}
	over   bool
	reason string
}

func newSocket() *socket {
	return &socket{in: make(chan *livekit.SignalRequest, 16), closed: make(chan struct{})}
}

func (w *socket) Recv(ctx context.Context) (*livekit.SignalRequest, error) {
	select {
	case m := <-w.in:
		return m, nil
	case <-w.closed:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *socket) Send(m *livekit.SignalResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return io.ErrClosedPipe
	}
	w.out = append(w.out, m)
	return nil
}

func (w *socket) SendPrepared(m *signal.Prepared) error { return w.Send(m.Message()) }

func (w *socket) Close(reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.over, w.reason = true, reason
		close(w.closed)
	}
}

// sent is what the client has been sent so far.
func (w *socket) sent() []*livekit.SignalResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.out)
}

// last is the last message of a kind, nil if there was none.
func last[T comparable](w *socket, kind func(*livekit.SignalResponse) T) (m T) {
	var none T
	for _, r := range w.sent() {
		if x := kind(r); x != none {
			m = x
		}
	}
	return m
}

// number is how many messages of a kind there were.
func number[T comparable](w *socket, kind func(*livekit.SignalResponse) T) (n int) {
	var none T
	for _, r := range w.sent() {
		if kind(r) != none {
			n++
		}
	}
	return n
}

// guest is a participant of the stage's node, with a signalling connection that
// the test holds and a session that no client has answered.
type guest struct {
	*Participant
	wire  *socket
	join  signal.Join
	ended chan error
	t     *testing.T
	s     *stage
}

// open gives the stage's room its goroutine and an engine, until the test ends.
func (s *stage) open(t *testing.T) {
	t.Helper()
	engine, err := rtc.NewEngine(rtc.Config{Media: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	s.deps.Engine = engine
	stop := s.run(t)
	t.Cleanup(func() {
		stop()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
}

// comes lets somebody join and be connected.
func (s *stage) comes(t *testing.T, identity string, edit ...func(*signal.Join)) *guest {
	t.Helper()
	yes := true
	join := signal.Join{Identity: identity, Room: "town", AutoSubscribe: true, SDK: "js", Protocol: 17,
		Token: &control.Grants{Identity: identity, Video: &auth.VideoGrant{RoomJoin: true, Room: "town",
			CanPublish: &yes, CanSubscribe: &yes, CanPublishData: &yes, CanUpdateOwnMetadata: &yes}}}
	for _, f := range edit {
		f(&join)
	}
	g := &guest{wire: newSocket(), join: join, ended: make(chan error, 1), t: t, s: s}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.ended <- s.Serve(ctx, g.wire, join, Attendee{Sid: "PA_" + identity, Country: "DE"})
	}()
	t.Cleanup(func() { cancel(); <-done })
	awaits(t, identity+" is greeted", func() bool { return last(g.wire, (*livekit.SignalResponse).GetJoin) != nil })
	s.do(t, func() { g.Participant = s.locals[identity] })
	g.media(rtc.TargetSubscriber, "connected")
	awaits(t, identity+" is active", func() bool {
		return s.inRoom(t, identity).GetState() == livekit.ParticipantInfo_ACTIVE
	})
	return g
}

// media reports a state of the guest's connection.
func (g *guest) media(target rtc.Target, state string) { events{g.Participant}.State(target, state) }

// asks hands in a request.
func (g *guest) asks(m *livekit.SignalRequest) {
	g.t.Helper()
	select {
	case g.wire.in <- m:
	case <-time.After(patience):
		g.t.Fatal("nobody reads the requests")
	}
}

// resumes comes back over another connection; the error comes when that ends.
func (g *guest) resumes(edit ...func(*signal.Join)) (*socket, <-chan error) {
	join := g.join
	join.Reconnect, join.SID = true, g.sid
	for _, f := range edit {
		f(&join)
	}
	w, ended := newSocket(), make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := g.s.Resume(context.Background(), w, join, "DE")
		w.Close("") // as the node does
		ended <- err
	}()
	g.t.Cleanup(func() {
		w.Close("")
		<-done
	})
	return w, ended
}

// do runs something in the room's goroutine.
func (s *stage) do(t *testing.T, f func()) {
	t.Helper()
	if err := s.call(t.Context(), func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// inRoom is somebody's record, nil if they are not there.
func (s *stage) inRoom(t *testing.T, identity string) *livekit.ParticipantInfo {
	for _, p := range s.Snapshot().Participants {
		if p.Identity == identity {
			return p
		}
	}
	return nil
}

// patience bounds every wait; nothing waits for it to pass.
const patience = 30 * time.Second

func awaits(t *testing.T, what string, ok func() bool) {
	t.Helper()
	poll, end := time.NewTicker(time.Millisecond), time.NewTimer(patience)
	defer poll.Stop()
	defer end.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-end.C:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func ends(t *testing.T, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
		return nil
	}
}
