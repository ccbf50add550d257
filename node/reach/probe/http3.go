package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"syscall"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// http3 is tested where the node says that it has it, by a connection of its own.
func (p *prober) http3(ctx context.Context, l *lane) {
	p.mu.Lock()
	offered := p.h3
	p.mu.Unlock()
	if !offered || l.over == Proxy {
		p.without(l, HTTP3, NotOffered, "")
		return
	}
	p.test(ctx, l, HTTP3, func(ctx context.Context, r *Result) error {
		c, err := net.ListenUDP("udp", nil)
		if err != nil {
			return err
		}
		t := &quic.Transport{Conn: lossy{c}}
		defer c.Close()
		defer t.Close()
		h3 := &http3.Transport{TLSClientConfig: p.tlsConfig(), Dial: func(ctx context.Context, _ string, cfg *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return t.DialEarly(ctx, net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.addr, p.cfg.Port)), cfg, q)
		}}
		defer h3.Close()
		return p.ask(ctx, &http.Client{Transport: h3}, r)
	})
}

// lossy takes what this machine's own firewall drops for lost.
type lossy struct{ *net.UDPConn }

// WriteMsgUDP is what QUIC sends by.
func (c lossy) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, to)
	if errors.Is(err, syscall.EPERM) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}
