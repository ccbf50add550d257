package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// proxy is an HTTP proxy as companies have them: it connects to port 443 of what
// is on its list (CONNECT, RFC 9110 section 9.3.6), and passes TLS and nothing else.
type proxy struct {
	listener net.Listener
	allowed  string
	running  sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	tunnels int            // opened to what is allowed
	refused map[string]int // other requests, by target: the browser's own business
	notTLS  int            // tunnels closed for what was said in them
	bytes   int            // passed to clients through tunnels that are closed
}

// startProxy runs a proxy on an address of the host; it connects to the node alone.
func startProxy(t *testing.T, host netip.Addr, node netip.AddrPort) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, allowed: node.String(), refused: map[string]int{}}
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.keep(c)
			p.running.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.running.Wait()
	})
	return p
}

func (p *proxy) addr() netip.AddrPort { return p.listener.Addr().(*net.TCPAddr).AddrPort() }

func (p *proxy) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
}

// serve answers one CONNECT.
func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	allowed := req.Method == http.MethodConnect && req.Host == p.allowed
	p.mu.Lock()
	if allowed {
		p.tunnels++
	} else {
		p.refused[req.Host]++
	}
	p.mu.Unlock()
	if !allowed {
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	server, err := net.DialTimeout("tcp", p.allowed, 5*time.Second)
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	p.keep(server)
	defer server.Close()
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	const handshake = 22 // TLS, the type of the first record
	if first, err := in.Peek(1); err != nil || first[0] != handshake {
		p.mu.Lock()
		p.notTLS++
		p.mu.Unlock()
		return
	}
	c.SetReadDeadline(time.Time{})
	p.running.Go(func() {
		io.Copy(server, in)
		server.(*net.TCPConn).CloseWrite()
	})
	n, _ := io.Copy(c, server)
	p.mu.Lock()
	p.bytes += int(n)
	p.mu.Unlock()
}
