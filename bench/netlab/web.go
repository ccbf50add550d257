//go:build linux

package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/domicile/domicile/bench/netlab/impair"
)

// Web is a network of several namespaces and of the host in which each ordered pair of
// them has a path of its own, as the nodes of a mesh in several towns have:
//
//	namespace ─ TUN ─┐
//	namespace ─ TUN ─┼─ a program: package impair decides for each pair ─ TUN ─ host
//	namespace ─ TUN ─┘
//
// There is no way out of the network. A path does nothing to packets until Impair.
type Web struct {
	Host  netip.Addr
	Ports []*Lab // Host is the web's

	link    string // the host's end
	exits   map[netip.Addr]map[netip.Addr]*exit
	from    map[netip.Addr]*direction
	fds     []int
	running sync.WaitGroup
}

// NewWeb makes a network of n namespaces, 12 at most, and has the test remove it.
func NewWeb(t testing.TB, n int) *Web {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("netlab: network namespaces need root: run the tests as root")
	}
	unlock, err := lock()
	if err != nil {
		t.Fatalf("netlab: %v", err)
	}
	defer unlock()
	id := fmt.Sprintf("%x-%x", os.Getpid(), serial.Add(1))
	w := &Web{link: "dv" + id, exits: map[netip.Addr]map[netip.Addr]*exit{}, from: map[netip.Addr]*direction{}}
	t.Cleanup(func() {
		if err := w.remove(); err != nil {
			t.Errorf("netlab: remove %q: %v", w.link, err)
		}
	})
	if err := w.create("dom-"+id, n); err != nil {
		t.Fatalf("netlab: create %q: %v", w.link, err)
	}
	return w
}

func (w *Web) create(name string, n int) error {
	subnet, err := freeIn(switchBlock, switchBits)
	if err != nil {
		return err
	}
	w.Host = subnet.Addr().Next()
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	ends := map[netip.Addr]int{}
	if ends[w.Host], err = w.end(here, w.link, w.Host); err != nil {
		return err
	}
	at := w.Host
	for i := range n {
		at = at.Next()
		l := &Lab{Name: fmt.Sprintf("%s-%d", name, i), Host: w.Host, Inside: at}
		w.Ports = append(w.Ports, l)
		if ends[at], err = w.join(l); err != nil {
			return err
		}
	}
	return w.weave(ends)
}

// end makes a TUN device of the calling thread's namespace.
func (w *Web) end(h *netlink.Handle, name string, at netip.Addr) (fd int, err error) {
	if fd, err = newTUN(name); err != nil {
		return -1, err
	}
	w.fds = append(w.fds, fd)
	return fd, errors.Join(tuneTUN(h, name), upWithin(h, name, switchBits, at))
}

func (w *Web) join(l *Lab) (fd int, err error) {
	inside, err := newNamespace(l.Name)
	if err != nil {
		return -1, err
	}
	defer inside.Close()
	there, err := netlink.NewHandleAt(inside)
	if err != nil {
		return -1, err
	}
	defer there.Close()
	if err := up(there, "lo"); err != nil {
		return -1, err
	}
	err = l.Do(func() (err error) {
		fd, err = w.end(there, meshLink, l.Inside)
		return err
	})
	return fd, err
}

// weave makes the paths and starts a thread for what comes from each end.
func (w *Web) weave(ends map[netip.Addr]int) error {
	seed := uint64(serial.Load()) << 16
	for from, fd := range ends {
		exits := map[netip.Addr]*exit{}
		for to, other := range ends {
			if to != from {
				seed++
				exits[to] = &exit{to: other, core: impair.New(seed)}
			}
		}
		d, err := newDirection(fd, func(packet []byte) *exit { return exits[destination(packet)] })
		if err != nil {
			return err
		}
		w.exits[from], w.from[from] = exits, d
	}
	for _, d := range w.from {
		w.running.Go(d.run)
	}
	return nil
}

// destination is where an IPv4 packet goes (RFC 791 section 3.1).
func destination(packet []byte) netip.Addr {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return netip.Addr{}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(packet[16:]))
	return netip.AddrFrom4(b)
}

// Impair exchanges what the path from one address to another does; packets that are
// under way leave as was decided.
func (w *Web) Impair(from, to netip.Addr, p impair.Profile) error {
	e := w.exits[from][to]
	if e == nil {
		return fmt.Errorf("netlab: no path from %s to %s", from, to)
	}
	return w.from[from].set(e, p)
}

// ImpairAll is Impair for every path, those of the host too.
func (w *Web) ImpairAll(p impair.Profile) error {
	for from, exits := range w.exits {
		for to := range exits {
			if err := w.Impair(from, to, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Web) remove() error {
	for _, d := range w.from {
		d.end()
	}
	w.running.Wait()
	for _, d := range w.from {
		unix.Close(d.wake)
	}
	for _, fd := range w.fds {
		unix.Close(fd)
	}
	var errs []error
	for _, l := range w.Ports {
		errs = append(errs, l.remove())
	}
	return errors.Join(errs...)
}

// Cut is what a firewall drops of all that passes a namespace's interface.
type Cut string

// The cuts there are.
const (
	CutBoth Cut = "both"
	CutIn   Cut = "in"  // the namespace hears nothing, and is heard
	CutOut  Cut = "out" // the namespace is heard by nobody, and hears
)

// Cut drops packets by a firewall in the namespace, of all addresses or of those named,
// until Mend.
func (l *Lab) Cut(c Cut, peers ...netip.Addr) error {
	chain := func(hook, device, side string) string {
		rule := device + ` != "lo" drop`
		if len(peers) > 0 {
			names := make([]string, len(peers))
			for i, p := range peers {
				names[i] = p.String()
			}
			rule = fmt.Sprintf("ip %s { %s } drop", side, strings.Join(names, ", "))
		}
		return fmt.Sprintf("chain %s { type filter hook %s priority 0; policy accept; %s; }\n", hook, hook, rule)
	}
	rules := "table inet cut\ndelete table inet cut\ntable inet cut {\n"
	if c != CutOut {
		rules += chain("input", "iifname", "saddr")
	}
	if c != CutIn {
		rules += chain("output", "oifname", "daddr")
	}
	return l.nft(rules + "}\n")
}

// Mend takes a cut back.
func (l *Lab) Mend() error { return l.nft("table inet cut\ndelete table inet cut\n") }

// nft enters the namespace by itself: ip netns exec takes longer than a failure is
// detected.
func (l *Lab) nft(rules string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var out []byte
	err := l.Do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}
