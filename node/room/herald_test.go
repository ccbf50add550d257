package room

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
)

// listener is a client that hears what the room says and remembers it, or only counts.
type listener struct {
	press *press
	heard []*livekit.SignalResponse
	n     int // messages
}

// press encodes as signal.Conn does: each message that goes to one client, and a
// prepared one once.
type press struct {
	last  *signal.Prepared
	size  int
	bytes int
}

func (e *listener) Recv(context.Context) (*livekit.SignalRequest, error) { return nil, io.EOF }
func (e *listener) Close(string)                                         {}

func (e *listener) Send(m *livekit.SignalResponse) error {
	e.n++
	if e.press == nil {
		e.heard = append(e.heard, m)
		return nil
	}
	b, err := proto.Marshal(m)
	e.press.bytes += len(b)
	return err
}

func (e *listener) SendPrepared(m *signal.Prepared) error {
	if e.press == nil || e.press.last != m {
		if err := e.Send(m.Message()); e.press == nil {
			return err
		}
		e.press.last, e.press.size = m, proto.Size(m.Message())
		return nil
	}
	e.n++
	e.press.bytes += e.press.size
	return nil
}

// updates are the records that the client was sent after its greeting, message by message.
func (e *listener) updates() (list [][]*livekit.ParticipantInfo) {
	for _, m := range e.heard {
		if u := m.GetUpdate(); u != nil {
			list = append(list, u.Participants)
		}
	}
	return list
}

// enters lets somebody into a room whose actor does not run.
func (s *stage) enters(t testing.TB, sid, identity string, c conn) *Participant {
	t.Helper()
	yes := true
	p := &Participant{room: s.Room, log: s.log, sid: sid, identity: identity, country: "DE",
		join: signal.Join{Identity: identity, Room: "town", AutoSubscribe: true, SDK: "js", Protocol: 17,
			Token: &control.Grants{Identity: identity, Name: identity, Video: &auth.VideoGrant{RoomJoin: true, Room: "town",
				CanPublish: &yes, CanSubscribe: &yes, CanPublishData: &yes}}},
		inbox: make(chan func(), participantQ), gone: make(chan struct{}), done: make(chan struct{}),
		stop: func(error) {}, pending: newPendingTracks(), renamed: rate.NewLimiter(updateRate, updateBurst),
		wanted: map[sfu.TrackID]bool{}, muted: map[sfu.TrackID]bool{}, refused: map[sfu.TrackID]bool{},
		cannot: map[string]bool{}, lacking: map[sfu.TrackID]bool{}, hopeless: map[sfu.TrackID]bool{},
	}
	p.token.Store(p.join.Token)
	p.line.Store(newLine(c, time.Now))
	if err := s.doAdmit(p, Attendee{Sid: sid, Country: "DE"}); err != nil {
		t.Fatal(err)
	}
	return p
}

// changes gives somebody another name.
func (s *stage) changes(p *Participant, name string) {
	p.change(func(i *livekit.ParticipantInfo) { i.Name = name })
	s.doUpdated(p)
}

// elapses lets time pass in the room, tick by tick.
func (s *stage) elapses(d time.Duration) {
	for ; d > 0; d -= tickEvery {
		s.later(tickEvery)
		s.doTick(s.deps.Now())
	}
}

// crowd fills a room.
func (s *stage) crowd(t testing.TB, n int) []*listener {
	var ears []*listener
	for i := range n {
		e := &listener{}
		s.enters(t, fmt.Sprintf("PA_%d", i), fmt.Sprintf("guest-%d", i), e)
		ears = append(ears, e)
	}
	s.elapses(tickEvery)
	return ears
}

// TestManyJoin bounds what the join of many costs everybody else.
func TestManyJoin(t *testing.T) {
	s := newStage(t, "edge")
	ears := s.crowd(t, 60)
	before := make([]int, len(ears))
	for i, e := range ears {
		before[i] = len(e.updates())
	}
	for i := range 60 {
		e := &listener{}
		s.enters(t, fmt.Sprintf("PA_x%d", i), fmt.Sprintf("late-%d", i), e)
		ears, before = append(ears, e), append(before, 0)
	}
	s.elapses(tickEvery)
	for i, e := range ears {
		told := map[string]bool{}
		list := e.updates()[before[i]:]
		for _, u := range list {
			for _, p := range u {
				told[p.Identity] = true
			}
		}
		want := 60
		if i >= 60 {
			want = 120 - i // itself, and those after it
		}
		if len(list) > 3 || len(told) != want {
			t.Fatalf("attendee %d: %d updates of %d people, want at most 3 of %d", i, len(list), len(told), want)
		}
	}
}

// BenchmarkJoins is what 300 attendees cost who join within eight seconds, or at once.
func BenchmarkJoins(b *testing.B) {
	for name, gap := range map[string]time.Duration{"in 8 s": 8 * time.Second / 300, "at once": 0} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var n, size int
			for b.Loop() {
				n, size = joins(b, 300, gap)
			}
			b.ReportMetric(float64(n), "messages")
			b.ReportMetric(float64(size)/1e6, "MB")
		})
	}
}

func joins(b *testing.B, n int, gap time.Duration) (messages, size int) {
	s := newStage(b, "edge")
	press := &press{}
	var ears []*listener
	var ticked time.Duration
	var here []*Participant
	for i := range n {
		e := &listener{press: press}
		ears = append(ears, e)
		here = append(here, s.enters(b, fmt.Sprintf("PA_%d", i), fmt.Sprintf("guest-%d", i), e))
		s.later(gap)
		if ticked += gap; ticked >= tickEvery {
			ticked -= tickEvery
			s.doTick(s.deps.Now())
		}
		if i > 2 {
			p := here[i-3]
			p.change(func(i *livekit.ParticipantInfo) { i.State = livekit.ParticipantInfo_ACTIVE })
			s.doUpdated(p)
		}
	}
	s.elapses(tickEvery)
	for _, e := range ears {
		messages += e.n
	}
	return messages, press.bytes
}

// TestIntroduced lets nobody get a track or data of somebody they have not been
// told of: their clients would drop it.
func TestIntroduced(t *testing.T) {
	for name, happens := range map[string]func(*stage){
		"nothing": func(s *stage) { s.enters(t, "PA_new", "new", &listener{}) },
		"a track of another node": func(s *stage) {
			s.has(t, "waw", false, person("PA_new", "new", "TR_new"))
		},
		"data": func(s *stage) {
			s.enters(t, "PA_new", "new", &listener{})
			s.deliver(false, &livekit.DataPacket{ParticipantSid: "PA_new"}, []byte{1})
		},
	} {
		s := newStage(t, "edge")
		ears := s.crowd(t, 2*tellAtOnce)
		s.enters(t, "PA_first", "first", &listener{}) // what comes next has to wait
		happens(s)
		list := ears[0].updates()
		last := list[len(list)-1]
		if got := last[len(last)-1].Identity; (got == "new") != (name != "nothing") {
			t.Errorf("%s: told of %q last", name, got)
		}
	}
}

// TestLargeRoomIsQuick tells of a change at once where there was none for a moment,
// of everything with the next tick, and of much without waiting.
func TestLargeRoomIsQuick(t *testing.T) {
	s := newStage(t, "edge")
	ears := s.crowd(t, 2*tellAtOnce)
	s.later(tellEvery)
	anna := s.enters(t, "PA_anna", "anna", &listener{})
	told := func() int { return len(ears[0].updates()) }
	before := told()
	s.changes(anna, "a")
	if n := told() - before; n != 0 {
		t.Fatalf("%d updates, the second change within a tick does not wait", n)
	}
	s.elapses(tellEvery)
	if n := told() - before; n != 1 {
		t.Fatalf("%d updates with the tick", n)
	}
	s.later(tellEvery)
	s.changes(anna, "b")
	if n := told() - before; n != 2 {
		t.Fatalf("%d updates, the first change after a pause waits", n-1)
	}
	s.changes(anna, "c")
	s.later(tellEvery / 2)
	s.doTick(s.deps.Now())
	if n := told() - before; n != 3 {
		t.Fatalf("%d updates, a tick leaves something waiting", n-2)
	}
	for i := range maxHeldBytes / (60 << 10) {
		p := s.enters(t, fmt.Sprintf("PA_big%d", i), fmt.Sprintf("big%d", i), &listener{})
		p.change(func(i *livekit.ParticipantInfo) { i.Metadata = strings.Repeat("x", 60<<10) })
		s.doUpdated(p)
	}
	if n := told() - before; n != 3 {
		t.Fatalf("%d updates, less than the bound does not wait", n)
	}
	s.changes(s.locals["big0"], strings.Repeat("x", 20<<10))
	if n := told() - before; n != 4 {
		t.Fatalf("%d updates, more than the bound waits", n)
	}
}
