package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
)

// lane is one way to get to the node's host: an address, or a proxy.
type lane struct {
	over Over
	addr netip.Addr // zero behind a proxy
	dial func(ctx context.Context, host string, port uint16) (net.Conn, error)
}

// addressLane reaches the host at one of its addresses. Other hosts, such as the
// one that a TURN URL names, are reached in the same family.
func (p *prober) addressLane(over Over, addr netip.Addr) *lane {
	l := &lane{over: over, addr: addr}
	l.dial = func(ctx context.Context, host string, port uint16) (net.Conn, error) {
		at, err := p.addressOf(ctx, l, host)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", netip.AddrPortFrom(at, port).String())
	}
	return l
}

// addressOf is where a lane finds a host.
func (p *prober) addressOf(ctx context.Context, l *lane, host string) (netip.Addr, error) {
	if host == p.cfg.Host {
		return l.addr, nil
	}
	list, err := p.resolve(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range list {
		if familyOf(a) == l.over {
			return a, nil
		}
	}
	return netip.Addr{}, fail(NoName, "the node names %s, which has no %s address", host, l.over)
}

func familyOf(a netip.Addr) Over {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// proxyLane reaches any host through an HTTP proxy, which resolves names itself.
func proxyLane(proxy *url.URL) *lane {
	return &lane{over: Proxy, dial: func(ctx context.Context, host string, port uint16) (net.Conn, error) {
		return connect(ctx, proxy, net.JoinHostPort(host, strconv.Itoa(int(port))))
	}}
}

// connect opens a tunnel by CONNECT (RFC 9110 section 9.3.6).
func connect(ctx context.Context, proxy *url.URL, to string) (_ net.Conn, err error) {
	c, err := dialProxy(ctx, proxy)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(c); err != nil {
		return nil, fmt.Errorf("ask the proxy: %w", err)
	}
	answer := bufio.NewReader(c)
	resp, err := http.ReadResponse(answer, req)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("ask the proxy: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return nil, fail(Refused, "the proxy wants a user name and a password (%s)", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, fail(Refused, "the proxy does not connect to %s: %s", to, resp.Status)
	case answer.Buffered() > 0:
		return nil, fail(Broken, "the proxy sends bytes of its own")
	}
	return c, nil
}

func dialProxy(ctx context.Context, proxy *url.URL) (net.Conn, error) {
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[proxy.Scheme]
	}
	if port == "" {
		port = "80"
	}
	at := net.JoinHostPort(proxy.Hostname(), port)
	if proxy.Scheme == "https" {
		d := tls.Dialer{Config: &tls.Config{ServerName: proxy.Hostname()}}
		return d.DialContext(ctx, "tcp", at)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", at)
}
