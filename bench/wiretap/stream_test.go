package wiretap_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/domicile/domicile/bench/wiretap"
)

var here, there = netip.MustParseAddrPort("192.0.2.1:50000"), netip.MustParseAddrPort("192.0.2.2:443")

// cable is a pipe that keeps what passes it as segments of TCP.
type cable struct {
	net.Conn
	src, dst netip.AddrPort
	all      *segments
	number   uint32
}

type segments struct {
	mu   sync.Mutex
	list []wiretap.Segment
}

func (c *cable) Write(b []byte) (int, error) {
	c.all.mu.Lock()
	for part := range slicesOf(b, 1000) {
		c.all.list = append(c.all.list, wiretap.Segment{Src: c.src, Dst: c.dst, Number: c.number, ACK: true, Payload: bytes.Clone(part)})
		c.number += uint32(len(part))
	}
	c.all.mu.Unlock()
	return c.Conn.Write(b)
}

func slicesOf(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 && yield(b[:min(n, len(b))]) {
			b = b[min(n, len(b)):]
		}
	}
}

// cabled is a pipe whose two ends begin with a handshake of TCP.
func cabled() (client, server net.Conn, all *segments) {
	a, b := net.Pipe()
	all = &segments{list: []wiretap.Segment{{Src: here, Dst: there, Number: 1<<32 - 500, SYN: true}, {Src: there, Dst: here, Number: 7, SYN: true, ACK: true}}}
	return &cable{a, here, there, all, 1<<32 - 499}, &cable{b, there, here, all, 8}, all
}

// listen gives all segments, twice and two by two in the wrong order, to a tap.
func listen(s *wiretap.Streams, all *segments) (text string, messages []string) {
	take := func(g wiretap.Segment) {
		s.Take(g, func(plain []byte, message bool) {
			if message {
				messages = append(messages, string(plain))
				return
			}
			text += string(plain)
		})
	}
	take(all.list[0])
	take(all.list[1])
	rest := all.list[2:]
	for i := 0; i < len(rest); i += 2 {
		if i+1 < len(rest) {
			take(rest[i+1])
		}
		take(rest[i])
		take(rest[i])
	}
	return text, messages
}

func serverConfig(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// overTLS has a client say things and a server answer with their capitals.
func overTLS(t *testing.T, log io.Writer, words ...string) *segments {
	t.Helper()
	a, b, all := cabled()
	server := tls.Server(b, serverConfig(t))
	var running sync.WaitGroup
	running.Go(func() {
		for _, w := range words {
			got := make([]byte, len(w))
			if _, err := io.ReadFull(server, got); err != nil {
				t.Error(err)
				break
			}
			server.Write(bytes.ToUpper(got))
		}
		b.Close()
	})
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: log})
	for _, w := range words {
		if _, err := client.Write([]byte(w)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, len(w))); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	a.Close()
	return all
}

func TestOpensTLS(t *testing.T) {
	var log lockedBuffer
	long := strings.Repeat("a long letter ", 3000)
	all := overTLS(t, &log, "get me the room ", long, "the canary of the end")
	s := wiretap.NewStreams(nil)
	s.Learn(log.b.Bytes())
	text, messages := listen(s, all)
	for _, want := range []string{"get me the room ", "GET ME THE ROOM ", "the canary of the end", "THE CANARY OF THE END", "a long letter a long"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q was not found", want)
		}
	}
	if s.Closed > 0 || len(messages) > 0 {
		t.Errorf("%d records stayed closed, %d were opened; messages: %d", s.Closed, s.Opened, len(messages))
	}
	blind := wiretap.NewStreams(nil)
	if text, _ := listen(blind, all); text != "" || blind.Closed == 0 {
		t.Errorf("without secrets: %d opened, %d closed, %q", blind.Opened, blind.Closed, text)
	}
}

// TestOpensTURNInTLS cuts frames out of what TLS carries: a request in the clear and
// channel data, padded.
func TestOpensTURNInTLS(t *testing.T) {
	var log lockedBuffer
	allocate := "\x00\x03\x00\x04\x21\x12\xa4\x42" + strings.Repeat("i", 12) + "attr"
	data := "\x40\x00\x00\x05hello\x00\x00\x00"
	s := wiretap.NewStreams(nil)
	all := overTLS(t, &log, allocate, data+data)
	s.Learn(log.b.Bytes())
	_, messages := listen(s, all)
	if len(messages) < 3 || messages[0] != allocate || messages[2] != data && messages[1] != data {
		t.Errorf("messages %q", messages)
	}
}
