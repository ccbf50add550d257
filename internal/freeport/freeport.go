// Package freeport finds ports for tests and benches that have to name one before
// anybody listens there. It reserves nothing: between the answer and the use there is
// a moment in which somebody else can take it. So it gives ports that the kernel gives
// nobody by itself, and none twice in a process.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
)

// first and end bound the ports: above those of services, below 32768, where Linux's
// own choice begins (net.ipv4.ip_local_port_range).
const first, end = 22000, 32768

var (
	mu    sync.Mutex
	given = map[int]bool{}
)

// Find returns a port of 127.0.0.1 that is free for TCP and for UDP.
func Find() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range end - first {
		port := first + rand.IntN(end-first)
		if !given[port] && free(port) {
			given[port] = true
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d", first, end-1)
}

func free(port int) bool {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)).String()
	l, err := net.Listen("tcp4", at)
	if err != nil {
		return false
	}
	defer l.Close()
	c, err := net.ListenPacket("udp4", at)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
