package node

import (
	"net/netip"
	"net/url"
	"strconv"

	"github.com/domicile/domicile/node/front"
	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn"
)

// door takes what reaches the media sockets and is not media: TURN, and HTTP/3 for
// the front door. It is called by the engine's workers and never waits.
type door struct {
	turn *turn.Server
	quic *front.Datagrams[transport.Tuple] // nil without a certificate
}

// STUN has what is no connectivity check.
func (d door) STUN(w *transport.Worker, from transport.Tuple, b []byte) { d.turn.STUN(w, from, b) }

// QUIC has a datagram of a page's connection.
func (d door) QUIC(from transport.Tuple, b []byte) {
	if d.quic != nil {
		d.quic.Deliver(from, b)
	}
}

// frontConfig says what the front door does on this node.
func (n *Node) frontConfig() front.Config {
	cfg := front.Config{
		Plain: n.cfg.Listen.HTTP, Redirect: n.cfg.Listen.Redirect, Proxies: n.cfg.Proxies, Log: n.log,
		HTTP: n.handler(), ICE: n.serveICE, Bind: n.cfg.Sockets.Listen,
	}
	var host string
	host, cfg.PublicPort = n.publicAddress()
	cfg.Names = append(cfg.Names, host)
	for _, ip := range n.cfg.PublicIPs {
		cfg.Names = append(cfg.Names, ip.String())
	}
	if n.cfg.ServerCertificate == nil {
		return cfg
	}
	cfg.Listen, cfg.Certificate = n.cfg.Listen.HTTPS, n.cfg.ServerCertificate
	if n.cfg.Certificates != nil {
		cfg.Challenge = n.cfg.Certificates.HTTP
		cfg.Names = append(cfg.Names, n.cfg.Certificates.State().Names...)
	}
	n.quic = front.NewDatagrams(n.engine.MediaAddrs()[0], n.engine.Transport().SendTo)
	cfg.QUIC = n.quic
	if n.samePort(cfg.PublicPort) {
		cfg.AltSvc = cfg.PublicPort
	}
	return cfg
}

// publicAddress is the host and port of the public URL, or of the address that
// HTTPS is served on.
func (n *Node) publicAddress() (string, uint16) {
	local := n.cfg.Listen.HTTPS
	u, err := url.Parse(n.cfg.PublicURL)
	if err != nil || u.Host == "" {
		return local.Addr().String(), local.Port()
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return u.Hostname(), 443
	}
	return u.Hostname(), uint16(port)
}

// samePort tells whether a browser that reaches the page over TCP finds HTTP/3 on
// the same address and port: media is there, and no router changes the port of one
// and not of the other.
func (n *Node) samePort(public uint16) bool {
	tcp := n.cfg.Listen.HTTPS
	for _, udp := range n.engine.MediaAddrs() {
		if udp.Port() == public && tcp.Port() == public && together(udp.Addr(), tcp.Addr()) {
			return true
		}
	}
	return false
}

func together(a, b netip.Addr) bool {
	return a.Unmap() == b.Unmap() || a.IsUnspecified() || b.IsUnspecified()
}
