//go:build linux

package netlab

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/domicile/domicile/bench/netlab/impair"
)

// A path of a lab with impairments is a program:
//
//	namespace: TUN ⇄ outbound, inbound ⇄ TUN :host
//
// Each direction is a thread that reads packets from one TUN device, asks the
// core when they leave, and writes them to the other device when they do.
type path struct {
	inside, outside int // TUN devices
	in, out         *direction
	toIn, toOut     *exit
	running         sync.WaitGroup
}

const (
	mtu = 1500
	// deviceQueue keeps the devices themselves from dropping: a frame for a
	// thousand subscribers comes at once.
	deviceQueue = 10_000
	// maxHeld bounds what a direction holds; beyond it packets are dropped as by a
	// full queue. 50 Mbit/s for half a second are 2,600.
	maxHeld = 20_000
)

// newTUN makes a TUN device in the namespace of the calling thread. It lives as
// long as its descriptor.
func newTUN(name string) (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make TUN device %q: %w", name, err)
	}
	return fd, nil
}

func tuneTUN(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %q: %w", name, err)
	}
	if err := h.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("size %q: %w", name, err)
	}
	if err := h.LinkSetTxQLen(link, deviceQueue); err != nil {
		return fmt.Errorf("queue of %q: %w", name, err)
	}
	return nil
}

// run starts the two threads; stop ends them and closes the devices.
func (p *path) run(seed uint64) (err error) {
	p.toOut, p.toIn = &exit{p.outside, impair.New(seed)}, &exit{p.inside, impair.New(seed + 1)}
	if p.out, err = newDirection(p.inside, func([]byte) *exit { return p.toOut }); err != nil {
		return err
	}
	if p.in, err = newDirection(p.outside, func([]byte) *exit { return p.toIn }); err != nil {
		return err
	}
	p.running.Go(p.out.run)
	p.running.Go(p.in.run)
	return nil
}

func (p *path) stop() {
	for _, d := range []*direction{p.in, p.out} {
		if d != nil {
			d.end()
		}
	}
	p.running.Wait()
	for _, d := range []*direction{p.in, p.out} {
		if d != nil {
			unix.Close(d.wake)
		}
	}
	unix.Close(p.inside)
	unix.Close(p.outside)
}

// exit is the device where packets of a direction come out, and what decides when.
type exit struct {
	to   int
	core *impair.Path
}

// direction moves packets from one device to others.
type direction struct {
	from  int
	wake  int                       // an eventfd that ends run
	route func(packet []byte) *exit // nil: there is none

	mu     sync.Mutex // guards the cores; held for one decision
	failed uint64     // packets that the other device did not take, or that found no room here

	// Owned by run.
	held  held
	order uint64
	spare [][]byte
}

func newDirection(from int, route func(packet []byte) *exit) (*direction, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	return &direction{from: from, wake: wake, route: route}, nil
}

func (d *direction) set(e *exit, p impair.Profile) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return e.core.Set(p, time.Now())
}

func (d *direction) counts(e *exit) Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Counts{Passed: e.core.Count(impair.Passed) - d.failed, Lost: e.core.Count(impair.Lost),
		QueueFull: e.core.Count(impair.QueueFull), Failed: d.failed}
}

func (d *direction) end() { _, _ = unix.Write(d.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// run is the direction's thread. It waits in ppoll, which is exact to
// microseconds where the runtime's timers are to a millisecond, and comes before
// the browsers and nodes of the test in the scheduler, or it would measure their
// hunger for CPU time instead of impairing their network.
func (d *direction) run() {
	runtime.LockOSThread() // never unlocked: the priority ends with the thread
	const ahead = -10
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), ahead)
	fds := []unix.PollFd{{Fd: int32(d.from), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	for {
		if _, err := unix.Ppoll(fds, d.wait(time.Now()), nil); err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("netlab: ppoll: %v", err)) // only for arguments that cannot be
		}
		if fds[1].Revents != 0 {
			return
		}
		d.take()
		d.release(time.Now())
	}
}

// wait is the time until the next packet leaves; nil: there is none.
func (d *direction) wait(now time.Time) *unix.Timespec {
	if len(d.held) == 0 {
		return nil
	}
	ts := unix.NsecToTimespec(max(d.held[0].leave.Sub(now), 0).Nanoseconds())
	return &ts
}

// take reads what has come, but not so much that others leave late.
func (d *direction) take() {
	const atOnce = 16
	for range atOnce {
		b := d.buffer()
		n, err := unix.Read(d.from, b)
		if err != nil {
			d.spare = append(d.spare, b)
			return
		}
		e := d.route(b[:n])
		if e == nil {
			d.spare = append(d.spare, b)
			continue
		}
		if v := d.decide(e, time.Now(), n); v.Fate != impair.Passed {
			d.spare = append(d.spare, b)
		} else {
			d.order++
			d.held.push(parcel{leave: v.Leave, order: d.order, to: e.to, packet: b[:n]})
		}
	}
}

func (d *direction) decide(e *exit, now time.Time, n int) impair.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := e.core.Enter(now, n)
	if v.Fate == impair.Passed && len(d.held) >= maxHeld {
		d.failed++
		v.Fate = impair.QueueFull
	}
	return v
}

// release writes what is due.
func (d *direction) release(now time.Time) {
	for len(d.held) > 0 && !d.held[0].leave.After(now) {
		p := d.held.pop()
		if _, err := unix.Write(p.to, p.packet); err != nil {
			d.mu.Lock()
			d.failed++
			d.mu.Unlock()
		}
		d.spare = append(d.spare, p.packet[:cap(p.packet)])
	}
}

func (d *direction) buffer() []byte {
	if n := len(d.spare); n > 0 {
		b := d.spare[n-1]
		d.spare = d.spare[:n-1]
		return b[:cap(b)]
	}
	return make([]byte, mtu)
}

// parcel is a packet on its way.
type parcel struct {
	leave  time.Time
	order  uint64
	to     int
	packet []byte
}

// held is a heap by the time of leaving; packets of one time leave as they came.
type held []parcel

func (h held) before(i, j int) bool {
	if h[i].leave.Equal(h[j].leave) {
		return h[i].order < h[j].order
	}
	return h[i].leave.Before(h[j].leave)
}

func (h *held) push(p parcel) {
	*h = append(*h, p)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !s.before(i, up) {
			return
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (h *held) pop() parcel {
	s := *h
	top := s[0]
	last := len(s) - 1
	s[0], s[last] = s[last], parcel{}
	s = s[:last]
	*h = s
	for i := 0; ; {
		least := i
		for _, down := range []int{2*i + 1, 2*i + 2} {
			if down < len(s) && s.before(down, least) {
				least = down
			}
		}
		if least == i {
			return top
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
}

// Counts is what became of the packets of one direction.
type Counts struct {
	Passed, Lost, QueueFull uint64
	Failed                  uint64 // not the profile's doing: held too many, or refused by a device
}

// Impair exchanges what the lab's network does, in both directions; packets that
// are under way leave as was decided. The lab must be made by NewImpaired.
func (l *Lab) Impair(p impair.Profile) error {
	return errors.Join(l.ImpairInbound(p), l.ImpairOutbound(p))
}

// ImpairInbound is Impair for what goes to the namespace.
func (l *Lab) ImpairInbound(p impair.Profile) error {
	return l.impair(func(w *path) (*direction, *exit) { return w.in, w.toIn }, p)
}

// ImpairOutbound is Impair for what leaves the namespace.
func (l *Lab) ImpairOutbound(p impair.Profile) error {
	return l.impair(func(w *path) (*direction, *exit) { return w.out, w.toOut }, p)
}

func (l *Lab) impair(which func(*path) (*direction, *exit), p impair.Profile) error {
	if l.path == nil {
		return errors.New("netlab: the lab has no program in its path: make it with NewImpaired")
	}
	d, e := which(l.path)
	return d.set(e, p)
}

// Counts reads what became of the packets to the namespace and from it.
func (l *Lab) Counts() (inbound, outbound Counts) {
	if l.path == nil {
		return Counts{}, Counts{}
	}
	return l.path.in.counts(l.path.toIn), l.path.out.counts(l.path.toOut)
}
