package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// udpRemote is a client of the test's socket.
type udpRemote struct{ addr netip.AddrPort }

func (r udpRemote) AddrPort() netip.AddrPort { return r.addr }

// wire is a UDP socket whose datagrams all are QUIC's.
type wire struct {
	*Datagrams[udpRemote]
	sock *net.UDPConn
	saw  func(netip.AddrPort, []byte) // what leaves
}

func newWire(t *testing.T) *wire {
	t.Helper()
	sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{sock: sock, saw: func(netip.AddrPort, []byte) {}}
	w.Datagrams = NewDatagrams(w.addr(), func(to udpRemote, b []byte) {
		w.saw(to.addr, b)
		sock.WriteToUDPAddrPort(b, to.addr)
	})
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 2048)
		for {
			n, from, err := sock.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			w.Deliver(udpRemote{from}, b[:n])
		}
	}()
	t.Cleanup(func() {
		sock.Close()
		<-read
	})
	return w
}

func (w *wire) addr() netip.AddrPort { return w.sock.LocalAddr().(*net.UDPAddr).AddrPort() }

func h3Client(t *testing.T) *http3.Transport {
	tr := &http3.Transport{TLSClientConfig: clientTLS(t)}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func getH3(t *testing.T, tr *http3.Transport, url string) (string, http.Header) {
	t.Helper()
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), resp.Header
}

func TestHTTP3(t *testing.T) {
	w := newWire(t)
	var clear atomic.Uint64
	w.saw = func(_ netip.AddrPort, b []byte) {
		if b[0]&0x40 == 0 {
			clear.Add(1)
		}
	}
	large := strings.Repeat("domicile ", 100_000)
	f := start(t, func(c *Config) {
		c.QUIC, c.AltSvc = w, 443
		c.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				io.Copy(w, r.Body)
				io.WriteString(w, large)
				return
			}
			describe(w, r)
			fmt.Fprintf(w, " from=%s", r.RemoteAddr)
		})
	})
	url := "https://" + w.addr().String()
	got, header := getH3(t, h3Client(t), url)
	if !strings.HasPrefix(got, `HTTP/3.0 tls="h3" 304 from=127.0.0.1:`) {
		t.Errorf("got %q", got)
	}
	if alt := header.Get("Alt-Svc"); alt != "" {
		t.Errorf("over HTTP/3 it says Alt-Svc: %s", alt)
	}
	resp, err := (&http.Client{Transport: h3Client(t)}).Post(url+"/large", "text/plain", strings.NewReader(large))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != large+large {
		t.Errorf("%d bytes there and back, %v; want %d", len(b), err, 2*len(large))
	}
	if n := clear.Load(); n > 0 {
		t.Errorf("%d datagrams without the QUIC bit: on this port they are somebody else's", n)
	}
	tr := &http.Transport{TLSClientConfig: clientTLS(t)}
	defer tr.CloseIdleConnections()
	tcp, err := (&http.Client{Transport: tr}).Get("https://" + f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tcp.Body.Close()
	if alt := tcp.Header.Get("Alt-Svc"); alt != `h3=":443"; ma=3600` {
		t.Errorf("over TCP it says Alt-Svc: %q", alt)
	}
	if s := f.Stats(); s.HTTP3 != 2 {
		t.Errorf("%d requests over HTTP/3, want 2", s.HTTP3)
	}
}

func TestAltSvcIsNotSaidWithoutAPort(t *testing.T) {
	f := start(t, nil)
	tr := &http.Transport{TLSClientConfig: clientTLS(t)}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if alt := resp.Header.Get("Alt-Svc"); alt != "" {
		t.Errorf("it says Alt-Svc: %s", alt)
	}
}

// initial is a client's first datagram, which begins a handshake and no more.
func initial(t *testing.T) []byte {
	t.Helper()
	sent := make(chan []byte, 16)
	d := NewDatagrams(netip.MustParseAddrPort("127.0.0.1:1"), func(_ udpRemote, b []byte) { sent <- bytes.Clone(b) })
	tr := &quic.Transport{Conn: d}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.Dial(ctx, &remoteAddr[udpRemote]{udpRemote{netip.MustParseAddrPort("127.0.0.1:2")}}, clientTLS(t, "h3"), nil)
	}()
	b := <-sent
	stop()
	<-done
	tr.Close()
	d.Close()
	return b
}

// TestLittleGoesBackToWhoIsNotProved (A7): clients whose address may be forged get
// at most one and a half times what they sent, whatever it is, and nothing is kept.
func TestLittleGoesBackToWhoIsNotProved(t *testing.T) {
	hello := initial(t)
	version := bytes.Clone(hello)
	copy(version[1:], "\x0a\x1a\x2a\x3a")
	short := append([]byte{0x41}, bytes.Repeat([]byte{7}, 60)...)
	const headers = 28 // of IPv4 and UDP
	for _, c := range []struct {
		name     string
		say      []byte
		answered bool
	}{
		{"a first datagram", hello, true},
		{"another version", version, true},
		{"an unknown connection", short, true},
		{"the smallest", []byte{0x41, 1, 2}, false},
		{"half a header", hello[:30], false},
	} {
		w := newWire(t)
		from := netip.MustParseAddrPort("203.0.113.1:4711") // what goes there is lost
		var back atomic.Int64
		w.saw = func(to netip.AddrPort, b []byte) {
			if to == from {
				back.Add(int64(len(b) + headers))
			}
		}
		f := start(t, func(c *Config) { c.QUIC = w })
		const times = 20
		for range times {
			w.Deliver(udpRemote{from}, c.say)
		}
		getH3(t, h3Client(t), "https://"+w.addr().String()) // by now it has been looked at
		if c.answered {
			waitFor(t, c.name+" is answered", func() bool { return back.Load() > 0 })
		}
		got, sent := back.Load(), int64(times*(len(c.say)+headers))
		if 2*got > 3*sent {
			t.Errorf("%s: %d bytes for %d", c.name, got, sent)
		}
		if n := f.Stats().QUICPending; n != 0 {
			t.Errorf("%s: %d handshakes under way", c.name, n)
		}
	}
}

func TestQUICConnectionsOfASourceAreBounded(t *testing.T) {
	w := newWire(t)
	f := start(t, func(c *Config) {
		now := time.Now() // for good, so that no rate comes back meanwhile
		c.QUIC, c.Now = w, func() time.Time { return now }
	})
	var conns []*quic.Conn
	defer func() {
		for _, c := range conns {
			c.CloseWithError(0, "")
		}
	}()
	dial := func() error {
		c, err := quic.DialAddr(context.Background(), w.addr().String(), clientTLS(t, "h3"), nil)
		if err == nil {
			conns = append(conns, c)
		}
		return err
	}
	for i := range quicLimits.Burst {
		if err := dial(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	var refused *quic.TransportError
	if err := dial(); err != nil && !errors.As(err, &refused) {
		t.Fatal(err)
	}
	if refused == nil || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("connections beyond the bound end with %v", refused)
	}
	if n := f.Stats().QUICRefused["rate"]; n == 0 {
		t.Error("nobody was counted as refused")
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.NewTimer(20 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func TestDatagramsNeverWait(t *testing.T) {
	d := NewDatagrams(netip.MustParseAddrPort("127.0.0.1:1"), func(udpRemote, []byte) {})
	from := udpRemote{netip.MustParseAddrPort("203.0.113.1:1")}
	for i := range queuedDatagrams + 3 {
		d.Deliver(from, []byte{byte(i)})
	}
	d.Deliver(from, make([]byte, maxQUIC+1))
	if drops := d.Drops(); drops["quic_queue_full"] != 3 || drops["quic_too_long"] != 1 {
		t.Errorf("drops %v, want 3 of a full queue and one too long", drops)
	}
	b := make([]byte, maxQUIC)
	for i := range queuedDatagrams {
		n, addr, err := d.ReadFrom(b)
		if err != nil || n != 1 || b[0] != byte(i) || addr.String() != "203.0.113.1:1" {
			t.Fatalf("datagram %d: %v from %v, %v", i, b[:n], addr, err)
		}
	}
	allocs := testing.AllocsPerRun(1000, func() {
		for range 2 * queuedDatagrams { // full: as in a flood
			d.Deliver(from, b)
		}
	})
	if allocs > 0.1 {
		t.Errorf("%v allocations for datagrams that are dropped", allocs)
	}
	d.Close()
	if _, _, err := d.ReadFrom(b); err == nil {
		for err == nil { // what was queued
			_, _, err = d.ReadFrom(b)
		}
	}
	if _, err := d.WriteTo(b, &remoteAddr[udpRemote]{from}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func TestDatagramsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDatagrams(netip.MustParseAddrPort("127.0.0.1:1"), func(udpRemote, []byte) {})
		begin := time.Now()
		read := func() error { _, _, err := d.ReadFrom(make([]byte, 1)); return err }
		d.SetReadDeadline(begin.Add(time.Second))
		var timeout net.Error
		if err := read(); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(begin) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		d.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			d.SetReadDeadline(time.Now()) // wakes who reads
		}()
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Hour+time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		d.Close()
	})
}

// TestEarlyDataIsNotTaken: it can be replayed.
func TestEarlyDataIsNotTaken(t *testing.T) {
	w := newWire(t)
	start(t, func(c *Config) { c.QUIC = w })
	tr := &http3.Transport{TLSClientConfig: clientTLS(t), QUICConfig: &quic.Config{TokenStore: quic.NewLRUTokenStore(1, 1)}}
	tr.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	defer tr.Close()
	for range 2 {
		req, err := http.NewRequest(http3.MethodGet0RTT, "https://"+w.addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if !resp.TLS.HandshakeComplete {
			t.Error("answered before the handshake was complete")
		}
		tr.CloseIdleConnections()
	}
}
