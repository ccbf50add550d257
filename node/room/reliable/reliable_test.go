package reliable

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

func msg(publisher string, seq uint32, to ...string) Message {
	return Message{Publisher: publisher, From: strings.ToLower(publisher), Seq: seq, To: to, Packet: fmt.Appendf(nil, "%s%d", publisher, seq)}
}

func text(list []Message) string {
	var words []string
	for _, m := range list {
		words = append(words, string(m.Packet))
	}
	return strings.Join(words, " ")
}

func (s Step) String() string {
	var words []string
	if len(s.Deliver) > 0 {
		words = append(words, "deliver "+text(s.Deliver))
	}
	if s.Ask {
		words = append(words, fmt.Sprintf("ask after %d", s.After))
	}
	for _, g := range s.Lost {
		words = append(words, fmt.Sprintf("lost %d-%d", g.After+1, g.Upto))
	}
	return strings.Join(words, ", ")
}

// TestSource takes every message of a client once.
func TestSource(t *testing.T) {
	s := NewSource(0)
	for i, c := range []struct {
		seq     uint32
		fresh   bool
		missing uint32
	}{{1, true, 0}, {2, true, 0}, {0, true, 0}, {2, false, 0}, {1, false, 0}, {5, true, 2}, {4, false, 0}, {math.MaxUint32, true, math.MaxUint32 - 6}, {1, false, 0}} {
		if fresh, missing := s.Take(c.seq); fresh != c.fresh || missing != c.missing {
			t.Errorf("%d: number %d: %v, %d missing", i, c.seq, fresh, missing)
		}
	}
	moved := NewSource(7)
	if fresh, _ := moved.Take(7); fresh || moved.Last() != 7 {
		t.Error("a publisher who has moved begins anew")
	}
}

// TestFeed names to each node the message before.
func TestFeed(t *testing.T) {
	var f Feed
	var got []uint32
	for _, seq := range []uint32{1, 2, 0, 5} {
		got = append(got, f.Next("waw", "P", seq))
	}
	got = append(got, f.Next("nyc", "P", 6), f.Next("waw", "Q", 1), f.Heads("waw")["P"])
	f.ForgetPublisher("P")
	got = append(got, f.Next("waw", "P", 7))
	f.ForgetNode("waw")
	got = append(got, f.Next("waw", "Q", 2))
	if want := []uint32{0, 1, 2, 2, 0, 0, 5, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestOrder is the transcript of a link that breaks.
func TestOrder(t *testing.T) {
	o := &Order{}
	now := start
	after := func(d time.Duration) time.Time { now = now.Add(d); return now }
	for i, c := range []struct {
		got  Step
		want string
	}{
		{o.Take(msg("P", 1), 0, now), "deliver P1"},
		{o.Take(msg("P", 0), 1, now), "deliver P0"},
		{o.Take(msg("P", 4), 1, now), "deliver P4"}, // 2 and 3 were for others
		{o.Take(msg("P", 4), 1, now), ""},           // said twice
		{o.Take(msg("P", 7), 6, now), "ask after 4"},
		{o.Take(msg("P", 0), 7, now), ""}, // keeps its place
		{o.Take(msg("P", 8), 7, now), ""},
		{o.Take(msg("P", 7), 6, now), ""},
		{o.Tick(after(askAgain - 1)), ""},
		{o.Tick(after(1)), "ask after 4"},
		{o.Take(msg("P", 5), 4, now), "deliver P5"},
		{o.Take(msg("P", 6), 5, now), "deliver P6 P7 P0 P8"},
		{o.Skip(8, now), ""},
		{o.Head(8, now), ""},
		{o.Head(9, now), "ask after 8"}, // the last before the break
		{o.Take(msg("P", 9), 8, now), "deliver P9"},
		{o.Take(msg("P", 12), 11, now), "ask after 9"},
		{o.Take(msg("P", 15), 14, now), ""},
		{o.Take(msg("P", 10), 9, now), "deliver P10"},
		{o.Skip(12, now), "deliver P12, lost 11-11"}, // its node has it no more
		{o.Tick(after(patience - 1)), "ask after 12"},
		{o.Tick(after(1)), "deliver P15, lost 13-14"}, // its node does not answer
		{o.Head(17, now), "ask after 15"},
		{o.Tick(after(patience)), "lost 16-17"},
		{o.Take(msg("P", 16), 15, now), ""},           // too late
		{o.Take(msg("P", 18), 0, now), "deliver P18"}, // its node has forgotten us
	} {
		if got := c.got.String(); got != c.want {
			t.Errorf("step %d: got %q, want %q", i, got, c.want)
		}
	}
	if !o.Idle() || o.bytes != 0 {
		t.Errorf("not idle: %+v", o)
	}
}

// TestOrderIsBounded gives up on what is missing rather than hold more and more.
func TestOrderIsBounded(t *testing.T) {
	o := &Order{}
	delivered, lost := 0, 0
	for i := range uint32(10_000) {
		m := msg("P", 3*i+3)
		m.Packet = make([]byte, 10_000)
		step := o.Take(m, 3*i+2, start)
		delivered, lost = delivered+len(step.Deliver), lost+len(step.Lost)
		if o.bytes > maxWaiting+20_000 {
			t.Fatalf("%d bytes wait", o.bytes)
		}
	}
	if delivered < 9000 || lost < 9000 {
		t.Errorf("%d delivered, %d gaps", delivered, lost)
	}
	hostile := &Order{}
	hostile.Take(msg("P", 5), math.MaxUint32, start) // says that it follows what comes later
	hostile.Tick(start.Add(patience))
	if got := hostile.Take(msg("P", 6), 5, start.Add(patience)).String(); got != "deliver P6" {
		t.Errorf("got %q", got)
	}
}

// TestLog is the transcript of a client that is cut off and comes back.
func TestLog(t *testing.T) {
	l := NewLog(DefaultLimits)
	l.Add(msg("P", 1), start) // before it came
	l.Join("anna")
	for _, m := range []Message{msg("P", 2), msg("Q", 1), msg("P", 3, "bob"), msg("P", 0)} {
		l.Add(m, start)
	}
	l.Hold("anna")
	l.Hold("anna")
	if !l.Held("anna") || l.Held("bob") {
		t.Error("held")
	}
	for _, m := range []Message{msg("Q", 2), msg("P", 4), msg("P", 0, "anna"), msg("Q", 3), msg("ANNA", 1)} {
		l.Add(m, start)
		l.Hold("anna") // again, since nobody knows who notices first
	}
	for _, c := range []struct {
		name string
		have map[string]uint32
		want string
	}{
		{"has all from before", map[string]uint32{"P": 2, "Q": 1}, "Q2 P4 P0 Q3"},
		{"has one that was under way", map[string]uint32{"P": 2, "Q": 2}, "P4 P0 Q3"},
		{"lost one that was under way", map[string]uint32{"P": 2}, "Q1 Q2 P4 P0 Q3"},
		{"has none", map[string]uint32{}, "P2 Q1 Q2 P4 P0 Q3"},
		{"does not say", nil, "Q2 P4 P0 Q3"},
		{"names nobody of us, and more than there are", map[string]uint32{"X": 9, "P": 99, "Q": 99}, "P0"},
	} {
		l.receivers["anna"].held = true
		again, lost := l.Resume("anna", c.have, start)
		if got := text(again); got != c.want || len(lost) != 0 || l.Held("anna") {
			t.Errorf("%s: got %q, lost %v", c.name, got, lost)
		}
	}
	if again, _ := l.Resume("anna", nil, start); again != nil {
		t.Errorf("was not held: %q", text(again))
	}
	if again, _ := l.Resume("anna", map[string]uint32{"P": 2, "Q": 3}, start); text(again) != "P4" {
		t.Errorf("was not held: %q", text(again))
	}
	l.Join("anna")
	if again, _ := l.Resume("anna", map[string]uint32{}, start); again != nil {
		t.Errorf("somebody new gets %q", text(again))
	}
	l.Leave("anna")
	if again, lost := l.Resume("anna", nil, start); again != nil || lost != nil {
		t.Error("somebody unknown gets something")
	}
	l.Hold("anna")
}

// TestLogForgets keeps no more than the limits, and tells what is missing.
// TestLogOfWhoComes has somebody come from another node, which has not handed out all that
// came here before: they get that, of those whom they have heard, and nothing from before.
func TestLogOfWhoComes(t *testing.T) {
	l := NewLog(DefaultLimits)
	for _, m := range []Message{msg("P", 1), msg("P", 2), msg("P", 3, "bob"), msg("Q", 1), msg("P", 4)} {
		l.Add(m, start)
	}
	l.Come("anna")
	l.Hold("anna")
	for _, m := range []Message{msg("P", 5), msg("Q", 2)} {
		l.Add(m, start)
	}
	again, lost := l.Resume("anna", map[string]uint32{"P": 1}, start)
	if got := text(again); got != "P2 P4 P5 Q2" || len(lost) > 0 {
		t.Errorf("gets %q, lost %v", got, lost)
	}
	l.Come("anna")
	l.Hold("anna")
	if again, _ := l.Resume("anna", nil, start); len(again) > 0 {
		t.Errorf("who keeps no account gets %q", text(again))
	}
}

func TestLogForgets(t *testing.T) {
	limits := Limits{Age: 10 * time.Second, Publisher: 4 * (overhead + 2), Total: 7 * (overhead + 2)}
	l := NewLog(limits)
	l.Join("anna")
	l.Add(msg("P", 1), start)
	l.Hold("anna")
	now := start
	for i := range uint32(8) {
		l.Add(msg("Q", i+1), now)
	}
	for i := range uint32(3) {
		l.Add(msg("R", i+1), now)
	}
	again, lost := l.Resume("anna", map[string]uint32{"P": 1, "Q": 2}, now)
	if got := text(again); got != "Q6 Q7 Q8 R1 R2 R3" || len(lost) != 1 || lost["Q"] != (Gap{2, 5}) {
		t.Errorf("got %q, lost %v", got, lost)
	}
	if l.Bytes() > limits.Total {
		t.Errorf("%d bytes", l.Bytes())
	}
	if got := text(l.Since("Q", 6, nil)); got != "Q7 Q8" {
		t.Errorf("since 6: %q", got)
	}
	if got := text(l.Since("Q", 0, func(m *Message) bool { return m.Seq%2 == 0 })); got != "Q6 Q8" {
		t.Errorf("even ones: %q", got)
	}
	l.Add(msg("Q", 0), now) // without a number, in a shelf that is full
	l.Add(msg("Q", 9), now)
	for range 4 {
		l.Add(msg("Q", 0), now)
	}
	if _, lost := l.Resume("anna", map[string]uint32{"Q": 2, "R": 3}, now); lost["Q"] != (Gap{2, 9}) {
		t.Errorf("lost %v", lost)
	}
	now = now.Add(limits.Age + 1)
	again, lost = l.Resume("anna", map[string]uint32{"Q": 9, "R": 2}, now)
	if again != nil || len(lost) != 1 || lost["R"] != (Gap{2, 3}) || l.Bytes() != 0 {
		t.Errorf("got %q, lost %v, %d bytes", text(again), lost, l.Bytes())
	}
	if l.Resume("anna", nil, now.Add(2*limits.Age)); len(l.publishers) != 0 || l.Since("Q", 0, nil) != nil {
		t.Errorf("%d publishers are remembered", len(l.publishers))
	}
}
