package node

import (
	"net/netip"
	"strconv"

	"github.com/domicile/domicile/node/stream"
)

// serveICE carries an attendee's media over TCP on the HTTPS port.
func (n *Node) serveICE(conn *stream.Conn) {
	_ = n.engine.Transport().ServeTCP(conn) // what ends a stream is counted as a drop
}

// tcpAddrs are where attendees reach serveICE: the HTTPS address with the port that
// they see, which is another one behind a router that forwards ports.
func (n *Node) tcpAddrs() []netip.AddrPort {
	bound := n.front.Addr()
	if !bound.IsValid() {
		return nil
	}
	_, public := n.publicHost()
	port, err := strconv.ParseUint(public, 10, 16)
	if err != nil || port == 0 {
		return []netip.AddrPort{bound}
	}
	return []netip.AddrPort{netip.AddrPortFrom(bound.Addr().Unmap(), uint16(port))}
}
