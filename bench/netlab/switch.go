//go:build linux

package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// switchBlock is where the networks of switches lie: TEST-NET-2 (RFC 5737). Each
// has a /28 of it, the host's address being the first.
var switchBlock = netip.MustParsePrefix("198.51.100.0/24")

const switchBits = 28

// Switch is a network of several namespaces, as the nodes of a mesh are machines
// of their own, and of the host:
//
//	namespace ─ veth ─┐
//	namespace ─ veth ─┼─ bridge, in a namespace of its own ─ veth ─ host
//	namespace ─ veth ─┘
//
// What a process says to anybody passes the one interface of its namespace; there is
// no way out of the network.
type Switch struct {
	Host  netip.Addr
	Ports []*Lab // Host is the switch's

	name string // of the bridge's namespace
	link string // the host's end
}

// meshLink is the interface in each namespace of a switch.
const meshLink = "mesh0"

// NewSwitch makes a network of n namespaces, 12 at most, and has the test remove it.
func NewSwitch(t testing.TB, n int) *Switch {
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
	s := &Switch{name: "dom-" + id, link: "dv" + id}
	t.Cleanup(func() {
		if err := s.remove(); err != nil {
			t.Errorf("netlab: remove %q: %v", s.name, err)
		}
	})
	if err := s.create(n); err != nil {
		t.Fatalf("netlab: create %q: %v", s.name, err)
	}
	return s
}

func (s *Switch) create(n int) error {
	subnet, err := freeIn(switchBlock, switchBits)
	if err != nil {
		return err
	}
	s.Host = subnet.Addr().Next()
	ns, err := newNamespace(s.name)
	if err != nil {
		return err
	}
	defer ns.Close()
	middle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer middle.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := errors.Join(middle.LinkAdd(bridge), up(middle, "br0")); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	if err := plug(here, s.link, s.Host, middle, ns, "p0"); err != nil {
		return err
	}
	at := s.Host
	for i := range n {
		at = at.Next()
		l := &Lab{Name: fmt.Sprintf("%s-%d", s.name, i), Host: s.Host, Inside: at}
		s.Ports = append(s.Ports, l)
		if err := s.join(l, middle, ns, fmt.Sprintf("p%d", i+1)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Switch) join(l *Lab, middle *netlink.Handle, ns netns.NsHandle, port string) error {
	inside, err := newNamespace(l.Name)
	if err != nil {
		return err
	}
	defer inside.Close()
	there, err := netlink.NewHandleAt(inside)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := up(there, "lo"); err != nil {
		return err
	}
	return plug(there, meshLink, l.Inside, middle, ns, port)
}

// plug connects a namespace with the bridge. What is to be captured leaves an
// interface as it comes to the other end, packet by packet: nothing is left to be cut
// up on the way.
func plug(there *netlink.Handle, name string, addr netip.Addr, middle *netlink.Handle, ns netns.NsHandle, port string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: port, PeerNamespace: netlink.NsFd(ns)}
	if err := there.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %q: %w", name, err)
	}
	bridge, err := middle.LinkByName("br0")
	if err != nil {
		return err
	}
	end, err := middle.LinkByName(port)
	if err != nil {
		return err
	}
	own, err := there.LinkByName(name)
	if err != nil {
		return err
	}
	if err := errors.Join(there.LinkSetGSOMaxSegs(own, 1), there.LinkSetTxQLen(own, deviceQueue), middle.LinkSetMaster(end, bridge), up(middle, port)); err != nil {
		return fmt.Errorf("plug %q in: %w", name, err)
	}
	return upWithin(there, name, switchBits, addr)
}

func (s *Switch) remove() error {
	var errs []error
	for _, l := range s.Ports {
		errs = append(errs, l.remove())
	}
	if link, err := netlink.LinkByName(s.link); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	if _, err := os.Stat("/run/netns/" + s.name); err == nil {
		errs = append(errs, netns.DeleteNamed(s.name))
	}
	return errors.Join(errs...)
}
