package wiretap_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/bench/wiretap"
)

// tapped is a socket that keeps what passes it.
type tapped struct {
	net.PacketConn
	mu   sync.Mutex
	seen []passed
}

type passed struct {
	src, dst netip.AddrPort
	b        []byte
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.UDPAddr).AddrPort() }

func (c *tapped) note(src, dst net.Addr, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, passed{addrPort(src), addrPort(dst), bytes.Clone(b)})
}

func (c *tapped) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err == nil {
		c.note(from, c.LocalAddr(), b[:n])
	}
	return n, from, err
}

func (c *tapped) WriteTo(b []byte, to net.Addr) (int, error) {
	c.note(c.LocalAddr(), to, b)
	return c.PacketConn.WriteTo(b, to)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestOpensQUIC sends a thousand numbered datagrams each way, over several updates
// of the keys, and finds every one in what was captured.
func TestOpensQUIC(t *testing.T) {
	var log lockedBuffer
	c := connect(t, &log)
	const n = 1000
	for i := range n {
		for _, conn := range []*quic.Conn{c.client, c.server} {
			for conn.SendDatagram(fmt.Appendf(nil, "canary %d of %s", i, conn.LocalAddr())) != nil {
				time.Sleep(time.Millisecond) // its queue is full
			}
		}
		if i%20 == 0 { // in step, so that nothing is dropped
			for _, conn := range []*quic.Conn{c.client, c.server} {
				if err := drain(conn, i); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, conn := range []*quic.Conn{c.client, c.server} {
		if err := drain(conn, n-1); err != nil {
			t.Fatal(err)
		}
	}
	q := wiretap.NewQUIC()
	q.Learn(log.b.Bytes())
	q.Learn(log.b.Bytes()) // what is known is not learnt again
	var all []byte
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	for _, p := range c.tap.seen {
		if plain, ok := q.Open(p.src, p.dst, p.b); ok {
			all = append(append(all, plain...), '|')
		}
	}
	for i := range n {
		for _, conn := range []*quic.Conn{c.client, c.server} {
			if want := fmt.Appendf(nil, "canary %d of %s", i, conn.LocalAddr()); !bytes.Contains(all, want) {
				t.Fatalf("%q was not found; opened %d, closed %d", want, q.Opened, q.Closed)
			}
		}
	}
	if q.Closed > 0 {
		t.Errorf("%d packets stayed closed, %d were opened", q.Closed, q.Opened)
	}
	if _, ok := wiretap.NewQUIC().Open(c.tap.seen[0].src, c.tap.seen[0].dst, c.tap.seen[len(c.tap.seen)-1].b); ok {
		t.Error("opened without a key")
	}
}

func drain(conn *quic.Conn, last int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		b, err := conn.ReceiveDatagram(ctx)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(b, fmt.Appendf(nil, "canary %d ", last)) {
			return nil
		}
	}
}

type pair struct {
	client, server *quic.Conn
	tap            *tapped
}

func connect(t *testing.T, log *lockedBuffer) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"test"},
		InsecureSkipVerify: true, KeyLogWriter: log, MinVersion: tls.VersionTLS13}
	sockets := [2]net.PacketConn{}
	for i := range sockets {
		if sockets[i], err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	tap := &tapped{PacketConn: sockets[0]}
	one, other := &quic.Transport{Conn: tap}, &quic.Transport{Conn: sockets[1]}
	l, err := other.Listen(config, &quic.Config{EnableDatagrams: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := one.Dial(ctx, sockets[1].LocalAddr(), config, &quic.Config{EnableDatagrams: true})
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.CloseWithError(0, "")
		one.Close()
		other.Close()
		for _, s := range sockets {
			s.Close()
		}
	})
	return pair{client, server, tap}
}
