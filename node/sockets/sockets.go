// Package sockets carries a node's listening sockets from one process to the next:
// it takes those that systemd or the process before has opened, opens what is
// missing, and hands all of them to the process that this one becomes. A socket
// that is carried never stops listening: who connects meanwhile waits in its queue.
//
// It reads and writes nothing through them, and does not decide when a process ends.
package sockets

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// Set is the sockets of a process, by name. The nil *Set was given none and keeps none.
type Set struct {
	mu    sync.Mutex            // guards what follows
	given map[string][]*os.File // from whoever was before us, and not asked for yet
	kept  map[string][]*os.File // for whoever comes after us
}

// Inherit takes what stands in the environment and removes it from there: the
// sockets of systemd (sd_listen_fds(3), by FileDescriptorName=) or of the process
// that this one was before Exec.
func Inherit() (*Set, error) {
	s := &Set{given: map[string][]*os.File{}, kept: map[string][]*os.File{}}
	for _, f := range activation.Files(true) {
		s.given[f.Name()] = append(s.given[f.Name()], f)
	}
	before, err := fromPredecessor()
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("sockets of the process before: %w", err)
	}
	for _, f := range before {
		s.given[f.Name()] = append(s.given[f.Name()], f)
	}
	return s, nil
}

// Listen returns the TCP listener of this name that was given, or opens one at
// addr. Either is kept for the next process.
func (s *Set) Listen(name string, addr netip.AddrPort) (net.Listener, error) {
	given := s.take(name)
	if len(given) > 1 {
		return nil, fmt.Errorf("%d sockets are called %q, want one", len(given), name)
	}
	var l net.Listener
	var err error
	if len(given) == 1 {
		l, err = listener(given[0], name, addr)
	} else {
		l, err = net.Listen("tcp", addr.String())
	}
	if err != nil || s == nil {
		return l, err
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.Keep(name, []*os.File{f})
	return l, nil
}

// listener makes a listener of a given file, and closes the file.
func listener(f *os.File, name string, addr netip.AddrPort) (net.Listener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %q that was given: %w", name, err)
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("socket %q that was given is one of %s, want TCP", name, l.Addr().Network()), l.Close())
	}
	if err := agrees(name, tcp.AddrPort(), addr); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Packets returns the UDP sockets of this name that were given, all at one
// address. There may be none. Whoever binds them says so with Keep.
func (s *Set) Packets(name string, addr netip.AddrPort) ([]*net.UDPConn, error) {
	var all []*net.UDPConn
	var errs []error
	for _, f := range s.take(name) {
		c, err := packets(f, name, addr)
		errs = append(errs, err)
		if err == nil {
			all = append(all, c)
		}
	}
	if err := errors.Join(errs...); err != nil {
		for _, c := range all {
			c.Close()
		}
		return nil, err
	}
	return all, nil
}

func packets(f *os.File, name string, addr netip.AddrPort) (*net.UDPConn, error) {
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket %q that was given: %w", name, err)
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("socket %q that was given is one of %s, want UDP", name, c.LocalAddr().Network()), c.Close())
	}
	if err := agrees(name, udp.LocalAddr().(*net.UDPAddr).AddrPort(), addr); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return udp, nil
}

// agrees holds a given socket against the configuration: whoever opens another
// port than the node announces is not reached.
func agrees(name string, got, want netip.AddrPort) error {
	g, w := got.Addr().Unmap(), want.Addr().Unmap()
	if (want.Port() == 0 || got.Port() == want.Port()) && (g == w || g.IsUnspecified() || w.IsUnspecified()) {
		return nil
	}
	return fmt.Errorf("socket %q that was given is at %s, the configuration says %s", name, got, want)
}

// Keep holds sockets for the next process; they are the Set's from now on.
func (s *Set) Keep(name string, files []*os.File) {
	if s == nil {
		for _, f := range files {
			f.Close()
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[name] = append(s.kept[name], files...)
}

func (s *Set) take(name string) []*os.File {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.given[name]
	delete(s.given, name)
	return files
}

// Unused are the names of given sockets that nobody has asked for.
func (s *Set) Unused() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.given))
}

// Close gives everything up: there will be no next process.
func (s *Set) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range []map[string][]*os.File{s.given, s.kept} {
		for _, files := range m {
			for _, f := range files {
				f.Close()
			}
		}
		clear(m)
	}
}
