package transport

import (
	"testing"
	"time"
)

func TestStates(t *testing.T) {
	const s = time.Second
	begin := time.Unix(1000, 0)
	var f facts
	f.started = begin
	state := Connecting
	for _, step := range []struct {
		at   time.Duration
		do   func()
		want State
	}{
		{0, nil, Connecting},
		{1 * s, func() { f.heard = begin.Add(1 * s) }, Connecting},
		{2 * s, func() { f.secured = true }, Connected},
		{5 * s, nil, Connected},
		{6 * s, nil, Disconnected},
		{7 * s, func() { f.heard = begin.Add(7 * s) }, Connected},
		{12 * s, nil, Disconnected},
		{31 * s, nil, Disconnected},
		{32 * s, nil, Failed},
		{33 * s, func() { f.heard = begin.Add(33 * s) }, Failed}, // final
	} {
		if step.do != nil {
			step.do()
		}
		if state = state.next(f, begin.Add(step.at)); state != step.want {
			t.Fatalf("after %v: %v, want %v", step.at, state, step.want)
		}
	}
	for _, c := range []struct {
		name string
		f    facts
		at   time.Duration
		want State
	}{
		{"nobody comes", facts{started: begin}, 25 * s, Failed},
		{"checks but no handshake", facts{started: begin, heard: begin.Add(25 * s)}, 25 * s, Failed},
		{"another certificate", facts{started: begin, broken: true}, s, Failed},
		{"goodbye", facts{started: begin, heard: begin, secured: true, goodbye: true}, s, Closed},
	} {
		if got := Connecting.next(c.f, begin.Add(c.at)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got := Closed.next(facts{started: begin, secured: true}, begin); got != Closed {
		t.Errorf("closed becomes %v", got)
	}
}
