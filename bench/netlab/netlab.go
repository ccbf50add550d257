//go:build linux

// Package netlab builds small networks for tests out of the kernel's own parts:
// a network namespace for an attendee, a veth pair to it, and a firewall in it
// that lets out what a test allows and counts what it does not.
//
// It needs root, changes nothing in the host's own namespace but one interface
// of its own, and removes everything when the test ends. The kernel's netem is
// not everywhere, so delay, loss and bottlenecks are made by a program in the
// path: NewImpaired has one, which does what package impair decides.
package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// block is where the networks of labs lie: TEST-NET-3 (RFC 5737), which looks
// public to browsers and is nobody's. Each lab has a /29 of it: an address of
// the host and a few to be inside, one after the other.
var block = netip.MustParsePrefix("203.0.113.0/24")

const subnetBits = 29

// block6 is the same for IPv6: the documentation prefix (RFC 3849). A lab has the
// /64 of its number among the IPv4 networks.
var block6 = netip.MustParsePrefix("2001:db8::/32")

// Lab is a namespace with one way out, to an address of the host.
type Lab struct {
	Name   string     // of the namespace, for ip netns exec
	Host   netip.Addr // on the host's end of the veth pair: what servers listen on
	Inside netip.Addr // on the other end, until Renumber

	Host6, Inside6 netip.Addr // the same in IPv6, if the lab was made by NewDual

	link string // the host's end
	path *path  // the program in between; nil: a veth pair
}

var serial atomic.Uint32

// New makes a lab and has the test remove it. All is open until Firewall is
// called.
func New(t testing.TB) *Lab {
	t.Helper()
	return newLab(t, (*Lab).joinByVeth)
}

// NewDual is New with IPv6 beside IPv4.
func NewDual(t testing.TB) *Lab {
	t.Helper()
	return newLab(t, func(l *Lab, inside netns.NsHandle) error {
		l.Host6 = sixth(l.Host)
		l.Inside6 = l.Host6.Next()
		return l.joinByVeth(inside)
	})
}

// sixth is the IPv6 address of a lab's host: 2001:db8:0:NUMBER::1.
func sixth(host netip.Addr) netip.Addr {
	b := block6.Addr().As16()
	b[7], b[15] = host.As4()[3]>>(32-subnetBits), 1
	return netip.AddrFrom16(b)
}

// NewImpaired is New with a program in the path, which does nothing to packets
// until Impair is called. Its way out is the namespace's default route.
func NewImpaired(t testing.TB) *Lab {
	t.Helper()
	return newLab(t, (*Lab).joinByProgram)
}

func newLab(t testing.TB, join func(l *Lab, inside netns.NsHandle) error) *Lab {
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
	l := &Lab{Name: "dom-" + id, link: "dv" + id}
	t.Cleanup(func() {
		if err := l.remove(); err != nil {
			t.Errorf("netlab: remove %q: %v", l.Name, err)
		}
	})
	if err := l.create(join); err != nil {
		t.Fatalf("netlab: create %q: %v", l.Name, err)
	}
	return l
}

// lock keeps two test processes from choosing the same network.
func lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "domicile-netlab.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func (l *Lab) create(join func(l *Lab, inside netns.NsHandle) error) error {
	subnet, err := freeSubnet()
	if err != nil {
		return err
	}
	l.Host = subnet.Addr().Next()
	l.Inside = l.Host.Next()
	inside, err := newNamespace(l.Name)
	if err != nil {
		return err
	}
	defer inside.Close()
	return join(l, inside)
}

func (l *Lab) joinByVeth(inside netns.NsHandle) error {
	peer := l.link + "p"
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: l.link}, PeerName: peer, PeerNamespace: netlink.NsFd(inside)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %q: %w", l.link, err)
	}
	return l.configure(inside, peer, func(*netlink.Handle, string) error { return nil })
}

func (l *Lab) joinByProgram(inside netns.NsHandle) (err error) {
	p := &path{inside: -1, outside: -1}
	l.path = p
	peer := l.link + "p"
	if p.outside, err = newTUN(l.link); err != nil {
		return err
	}
	if err := l.Do(func() (err error) {
		p.inside, err = newTUN(peer)
		return err
	}); err != nil {
		return err
	}
	if err := l.configure(inside, peer, tuneTUN); err != nil {
		return err
	}
	return p.run(uint64(serial.Load()))
}

// configure gives both ends their addresses.
func (l *Lab) configure(inside netns.NsHandle, peer string, tune func(*netlink.Handle, string) error) error {
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	there, err := netlink.NewHandleAt(inside)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := errors.Join(tune(here, l.link), tune(there, peer)); err != nil {
		return err
	}
	if err := up(here, l.link, l.Host, l.Host6); err != nil {
		return err
	}
	if err := up(there, "lo"); err != nil {
		return err
	}
	if err := up(there, peer, l.Inside, l.Inside6); err != nil || l.path == nil {
		return err
	}
	return l.route(there, peer)
}

func (l *Lab) route(there *netlink.Handle, peer string) error {
	link, err := there.LinkByName(peer)
	if err != nil {
		return err
	}
	return there.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: l.Host.AsSlice()})
}

// Renumber takes the namespace's address away and gives it the next one, as when
// an attendee walks from one network into another. The lab must be made by
// NewImpaired.
func (l *Lab) Renumber(t testing.TB) {
	t.Helper()
	if err := l.renumber(); err != nil {
		t.Fatalf("netlab: renumber %q: %v", l.Name, err)
	}
}

func (l *Lab) renumber() error {
	next, peer := l.Inside.Next(), l.link+"p"
	if last := netip.PrefixFrom(l.Host, subnetBits); l.path == nil || !last.Contains(next.Next()) {
		return fmt.Errorf("no address after %s, or no default route", l.Inside)
	}
	inside, err := netns.GetFromName(l.Name)
	if err != nil {
		return err
	}
	defer inside.Close()
	there, err := netlink.NewHandleAt(inside)
	if err != nil {
		return err
	}
	defer there.Close()
	link, err := there.LinkByName(peer)
	if err != nil {
		return err
	}
	mask := net.CIDRMask(subnetBits, 32)
	if err := there.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: l.Inside.AsSlice(), Mask: mask}}); err != nil {
		return err
	}
	if err := there.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: next.AsSlice(), Mask: mask}}); err != nil {
		return err
	}
	l.Inside = next
	return l.route(there, peer)
}

// freeSubnet finds a /29 of the block in which no interface of the host lies.
func freeSubnet() (netip.Prefix, error) { return freeIn(block, subnetBits) }

func freeIn(block netip.Prefix, bits int) (netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	for a := block.Addr(); block.Contains(a); {
		p := netip.PrefixFrom(a, bits)
		if !slices.ContainsFunc(addrs, func(n net.Addr) bool {
			used, err := netip.ParsePrefix(n.String())
			return err == nil && used.Overlaps(p)
		}) {
			return p, nil
		}
		for range 1 << (32 - bits) {
			a = a.Next()
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free network in %s: left behind by killed tests? ip link | grep dv", block)
}

// newNamespace makes a named namespace without leaving the current one.
func newNamespace(name string) (netns.NsHandle, error) {
	var made netns.NsHandle
	err := onOwnThread(func() (err error) {
		made, err = netns.NewNamed(name) // also enters it
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("new namespace: %w", err)
	}
	return made, nil
}

// onOwnThread runs f on a thread of its own, which ends with it: a thread that
// has been in another namespace serves nobody else.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// up gives an interface its addresses, those that are valid, and sets it up.
func up(h *netlink.Handle, name string, addrs ...netip.Addr) error {
	return upWithin(h, name, subnetBits, addrs...)
}

// upWithin is up for an IPv4 network of another size.
func upWithin(h *netlink.Handle, name string, bits int, addrs ...netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %q: %w", name, err)
	}
	if len(addrs) > 0 {
		// No link-local IPv6 address: it comes a second later, and a browser that
		// sees the network change drops what it is loading. A kernel without IPv6
		// has none anyway.
		const none = 1 // IN6_ADDR_GEN_MODE_NONE
		if err := h.LinkSetIP6AddrGenMode(link, none); err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return fmt.Errorf("keep IPv6 off %q: %w", name, err)
		}
	}
	for _, a := range addrs {
		if err := give(h, link, a, bits); err != nil {
			return fmt.Errorf("give %s to %q: %w", a, name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %q up: %w", name, err)
	}
	return nil
}

func give(h *netlink.Handle, link netlink.Link, a netip.Addr, bits int) error {
	switch {
	case a.Is4():
		return h.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}})
	case a.Is6():
		// Nobody else is there to have the same address: usable at once.
		return h.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: syscall.IFA_F_NODAD})
	}
	return nil
}

func (l *Lab) remove() error {
	if l.path != nil {
		l.path.stop()
	}
	if link, err := netlink.LinkByName(l.link); err == nil && l.link != "" { // one of a switch has none
		if err := netlink.LinkDel(link); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join("/etc/netns", l.Name)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join("/run/netns", l.Name)); err != nil {
		return nil // create did not come this far
	}
	return netns.DeleteNamed(l.Name)
}

// Hosts makes names known inside, to processes started with Command.
func (l *Lab) Hosts(t testing.TB, names map[string]netip.Addr) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n")
	for name, a := range names {
		fmt.Fprintf(&b, "%s %s\n", a, name)
	}
	dir := filepath.Join("/etc/netns", l.Name) // ip netns exec mounts it over /etc
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("netlab: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts"), b.Bytes(), 0o644); err != nil {
		t.Fatalf("netlab: %v", err)
	}
}

// Command is exec.Command inside the namespace.
func (l *Lab) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", l.Name, name}, args...)...)
}

// Do runs f inside the namespace; sockets that f opens belong to it and stay
// there. Goroutines that f starts run outside.
func (l *Lab) Do(f func() error) error {
	return onOwnThread(func() error {
		ns, err := netns.GetFromName(l.Name)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}
