package reach

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func at(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }

// causeOf is 0 for an admission, else the denial's cause and one.
func causeOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return "in"
	}
	var d *Denial
	if !errors.As(err, &d) || d.RetryAfter == 0 {
		t.Fatalf("%v: want a denial that says when to come again", err)
	}
	return [...]string{"unusable", "source busy", "node busy"}[d.Cause]
}

func TestDesk(t *testing.T) {
	d := newDesk(Limits{AtOnce: 5, AtOnceFrom: 2, Every: 10 * time.Second, Burst: 3, Life: 20 * time.Second})
	var ids []string
	steps := []struct {
		at   int
		from string
		want string
	}{
		{0, "203.0.113.1", "in"},
		{0, "::ffff:203.0.113.1", "in"},
		{1, "203.0.113.1", "source busy"},       // two at once
		{1, "2001:db8:1:2::1", "in"},            //
		{1, "2001:db8:1:2:9::9", "in"},          // the same /64
		{1, "2001:db8:1:2:8::8", "source busy"}, //
		{1, "2001:db8:1:3::1", "in"},            // another one
		{1, "198.51.100.1", "node busy"},        // five at once
	}
	for i, s := range steps {
		id, err := d.admit(netip.MustParseAddr(s.from), at(s.at))
		if got := causeOf(t, err); got != s.want {
			t.Fatalf("step %d, %s: %s, want %s", i, s.from, got, s.want)
		}
		if err == nil {
			ids = append(ids, id)
		}
	}
	if due := d.due(at(19)); len(due) != 0 {
		t.Errorf("after 19 s %d are due", len(due))
	}
	if due := d.due(at(20)); len(due) != 2 {
		t.Errorf("after 20 s %d are due, want 2", len(due))
	}
	d.leave(ids[0])
	d.leave(ids[0]) // again: nothing
	d.leave("nobody")
	if _, err := d.admit(netip.MustParseAddr("203.0.113.1"), at(2)); err != nil {
		t.Errorf("the third of the burst: %v", err)
	}
	d.leave(ids[1])
	if _, err := d.admit(netip.MustParseAddr("203.0.113.1"), at(3)); causeOf(t, err) != "source busy" {
		t.Errorf("a fourth within 10 s is let in")
	}
	if _, err := d.admit(netip.MustParseAddr("203.0.113.1"), at(11)); err != nil {
		t.Errorf("one more after 10 s: %v", err)
	}
}

// A flood from ever new sources is turned away once too many are remembered,
// and they are forgotten.
func TestDeskForgetsSources(t *testing.T) {
	d := newDesk(Limits{AtOnce: maxSources + 1})
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range maxSources {
		id, err := d.admit(addr(i), at(0))
		if err != nil {
			t.Fatal(err)
		}
		d.leave(id)
	}
	if _, err := d.admit(addr(maxSources), at(0)); causeOf(t, err) != "node busy" {
		t.Error("there is no bound")
	}
	if _, err := d.admit(addr(maxSources), at(3)); err != nil {
		t.Errorf("after all have their burst again: %v", err)
	}
	if len(d.sources) != 1 {
		t.Errorf("%d sources are remembered, want 1", len(d.sources))
	}
}

// Whatever comes and goes, the counts are those of a plain list.
func TestDeskRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	d := newDesk(Limits{AtOnce: 7, AtOnceFrom: 3, Every: time.Nanosecond, Burst: 1000})
	type held struct {
		id   string
		from netip.Addr
	}
	var list []held
	for i := range 20000 {
		if len(list) > 0 && r.IntN(2) == 0 {
			k := r.IntN(len(list))
			d.leave(list[k].id)
			list = append(list[:k], list[k+1:]...)
			continue
		}
		from := netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", r.IntN(4)))
		own := 0
		for _, h := range list {
			if h.from == from {
				own++
			}
		}
		id, err := d.admit(from, at(i))
		if want := len(list) < 7 && own < 3; (err == nil) != want {
			t.Fatalf("step %d: %d held, %d from there: %v", i, len(list), own, err)
		}
		if err == nil {
			list = append(list, held{id, from})
		}
	}
}
