package transport

import (
	"net/netip"
	"slices"
	"testing"
)

func (r *recorder) whats() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.events {
		all = append(all, e.what)
	}
	return all
}

// TestDrainedComesOnce for each connection, after all that one read brought, on
// whatever paths.
func TestDrainedComesOnce(t *testing.T) {
	e := listen(t)
	first, second := newRecorder(), newRecorder()
	addrs := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("127.0.0.1:10"), netip.MustParseAddrPort("127.0.0.1:11")}
	a, b := standing(t, e, first, addrs[0]), standing(t, e, second, addrs[1])
	defer a.Close()
	defer b.Close()
	third := nameOf(addrs[2])
	if a.proved(tableKey{group: e.groups[0], name: third}, false, a.local, e.now()) == nil {
		t.Fatal("no second path")
	}
	w, seal := newWorker(e, e.groups[0], e.groups[0].socks[0], 0), clientSeal(t)
	for seq, from := range []int{0, 1, 0, 2} { // the keys are the same in this test
		name := nameOf(addrs[from])
		w.datagram(&name, seal(packet(1, uint16(seq), nil)), e.now())
	}
	w.drained()
	w.drained()
	if got, want := first.whats(), []string{"rtp", "rtp", "rtp", "drained"}; !slices.Equal(got, want) {
		t.Errorf("first connection: %v, want %v", got, want)
	}
	if got, want := second.whats(), []string{"rtp", "drained"}; !slices.Equal(got, want) {
		t.Errorf("second connection: %v, want %v", got, want)
	}
}

// TestAnAddressChangesHands: a worker that has seen the one finds the other.
func TestAnAddressChangesHands(t *testing.T) {
	e := listen(t)
	at := netip.MustParseAddrPort("127.0.0.1:9")
	name := nameOf(at)
	w, seal := newWorker(e, e.groups[0], e.groups[0].socks[0], 0), clientSeal(t)
	old := newRecorder()
	a := standing(t, e, old, at)
	w.datagram(&name, seal(packet(1, 1, nil)), e.now())
	a.Close()
	w.datagram(&name, seal(packet(1, 2, nil)), e.now())
	w.drained()
	if got := old.whats(); !slices.Equal(got, []string{"rtp"}) {
		t.Errorf("a closed connection was told %v", got)
	}
	if n := e.Stats().Drops["no_path"]; n != 1 || len(w.paths) != 0 {
		t.Errorf("%d drops, %d paths remembered; want 1 and 0", n, len(w.paths))
	}
	fresh := newRecorder()
	b := standing(t, e, fresh, at)
	defer b.Close()
	w.datagram(&name, seal(packet(1, 3, nil)), e.now())
	w.drained()
	if got := fresh.whats(); !slices.Equal(got, []string{"rtp", "drained"}) {
		t.Errorf("the next connection was told %v", got)
	}
}

// TestWorkersForget addresses from which nothing comes any more.
func TestWorkersForget(t *testing.T) {
	e := listen(t)
	w, seal := newWorker(e, e.groups[0], e.groups[0].socks[0], 0), clientSeal(t)
	for port := range uint16(2 * sweepEvery) {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port+1)
		name := nameOf(at)
		c := standing(t, e, silent{}, at)
		w.datagram(&name, seal(packet(1, 1, nil)), e.now())
		c.Close()
		w.drained()
	}
	if n := len(w.paths); n > sweepEvery {
		t.Errorf("%d addresses remembered, all of them gone", n)
	}
}
