package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"github.com/pion/stun/v3"
	"github.com/pion/turn/v5"
	"github.com/quic-go/quic-go/http3"
)

// visit comes to the one port and says whether the right part of the node
// answered.
type visit func(ctx context.Context) error

// visits are programs, and clients of libraries that have nothing to do with the
// node's own code.
func (o *onePort) visits() map[string]visit {
	url := "https://" + o.at.String() + "/"
	list := map[string]visit{
		"curl, HTTP/2":                  runs("HTTP/2 200", "curl", "-skI", "-X", "GET", url),
		"curl, HTTP/1.1":                runs("HTTP/1.1 200", "curl", "-skI", "--http1.1", "-X", "GET", url),
		"curl without ALPN":             runs("HTTP/1.1 200", "curl", "-skI", "--no-alpn", "-X", "GET", url),
		"curl without TLS":              runs("Location: https://"+o.at.Addr().String()+"/", "curl", "-sI", "-X", "GET", "http://"+o.at.String()+"/"),
		"openssl s_client":              runs("ALPN protocol: h2", "openssl", "s_client", "-connect", o.at.String(), "-alpn", "h2"),
		"openssl s_client without ALPN": runs("No ALPN negotiated", "openssl", "s_client", "-connect", o.at.String()),
		"HTTP/3":                        o.http3,
		"garbage":                       o.garbage,
	}
	for _, network := range []string{"udp", "tcp", "tls"} {
		list["TURN over "+network] = func(ctx context.Context) error { return o.turn(ctx, network) }
	}
	return list
}

func runs(want, name string, args ...string) visit {
	return func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if !bytes.Contains(out, []byte(want)) {
			return fmt.Errorf("no %q in %.300s", want, out)
		}
		return nil
	}
}

func (o *onePort) http3(ctx context.Context) error {
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+o.at.String()+"/", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.ProtoMajor != 3 || !bytes.Contains(page, []byte("<html"))) {
		err = fmt.Errorf("%s %s: %.100q", resp.Proto, resp.Status, page)
	}
	return err
}

// garbage is closed without an answer.
func (o *onePort) garbage(ctx context.Context) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", o.at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	b := append([]byte{0xfe}, make([]byte, 100)...)
	rand.Read(b[1:])
	if _, err := c.Write(b); err != nil {
		return err
	}
	n, err := c.Read(b)
	if n > 0 || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("answered with %x (%v)", b[:n], err)
	}
	return nil
}

// turn is a client of pion's: it allocates with the credentials of the call's
// publisher and gives the allocation up.
func (o *onePort) turn(ctx context.Context, network string) error {
	server := o.publisher.Servers()[0]
	conn, err := o.turnConn(ctx, network)
	if err != nil {
		return err
	}
	defer conn.Close()
	c, err := turn.NewClient(&turn.ClientConfig{STUNServerAddr: o.at.String(), TURNServerAddr: o.at.String(), Conn: conn,
		Username: server.User, Password: server.Password})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Listen(); err != nil {
		return err
	}
	relayed, err := c.Allocate()
	if err != nil {
		return err
	}
	return relayed.Close()
}

func (o *onePort) turnConn(ctx context.Context, network string) (net.PacketConn, error) {
	if network == "udp" {
		return net.ListenPacket("udp4", "127.0.0.1:0")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.at.String())
	if err != nil {
		return nil, err
	}
	if network == "tls" { // as Chromium does it, without ALPN
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	return turn.NewSTUNConn(conn), nil
}

// halfOpen stands in everybody's way with n connections that say nothing and n
// that begin a handshake, until it is called off.
func (o *onePort) halfOpen(ctx context.Context, n int) (off func()) {
	var conns []net.Conn
	for i := range 2 * n {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", o.at.String())
		if err != nil {
			o.t.Fatal(err)
		}
		if i%2 == 0 {
			io.WriteString(c, halfHello)
		}
		conns = append(conns, c)
	}
	return func() {
		for _, c := range conns {
			c.Close()
		}
	}
}

// halfHello is the beginning of a TLS record with a ClientHello.
const halfHello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

// legitimate is how many connections a second are a whole school's: what the front
// door takes from one address for as long as they come (front.DefaultLimits).
const legitimate = 50

// flood is many bad visitors.
type flood struct {
	began   time.Time
	running sync.WaitGroup

	mu   sync.Mutex
	sent map[string]int
}

// flood comes with each kind ten times as often as is legitimate. UDP packets come
// ten times as often again: who joins sends about that many before the first media.
func (o *onePort) flood(ctx context.Context) *flood {
	f := &flood{began: time.Now(), sent: map[string]int{}}
	check := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("nobody:nowhere"), stun.NewShortTermIntegrity("none"), stun.Fingerprint).Raw
	bare := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest)).Raw
	noise := make([]byte, 200)
	rand.Read(noise)
	for name, say := range map[string]string{"half handshakes": halfHello, "silence": "", "garbage over TCP": "\xfe" + string(noise), "bare Allocates over TCP": string(bare)} {
		f.each(ctx, name, 10*legitimate, o.connects(say))
	}
	for name, say := range map[string]string{"checks of nobody's": string(check), "bare Allocates": string(bare), "garbage": string(noise)} {
		f.each(ctx, name, 100*legitimate, o.sends(say))
	}
	return f
}

// each calls come at a steady rate with numbers that count up. Who is late catches up.
func (f *flood) each(ctx context.Context, name string, rate int, come func(i int, done func(func()))) {
	f.running.Go(func() {
		var closing []func()
		defer func() {
			for _, c := range closing {
				c()
			}
		}()
		const beat = 10 * time.Millisecond
		tick := time.NewTicker(beat)
		defer tick.Stop()
		n := 0
		for {
			select {
			case <-ctx.Done():
				f.mu.Lock()
				f.sent[name] += n
				f.mu.Unlock()
				return
			case <-tick.C:
			}
			for want := int(time.Since(f.began).Seconds() * float64(rate)); n < want; n++ {
				come(n, func(c func()) { closing = append(closing, c) })
			}
			// The oldest go, so that this process keeps its descriptors.
			if over := len(closing) - 4000; over > 0 {
				for _, c := range closing[:over] {
					c()
				}
				closing = closing[over:]
			}
		}
	})
}

// wait returns how often each kind came, a second.
func (f *flood) wait() map[string]float64 {
	took := time.Since(f.began).Seconds()
	f.running.Wait()
	rates := map[string]float64{}
	for name, n := range f.sent {
		rates[name] = float64(n) / took
	}
	return rates
}

// source is where a bad visitor comes from: every other one from one address, the
// rest from two hundred.
func source(i int) net.IP {
	if i%2 == 0 {
		return net.IPv4(127, 66, 0, 1)
	}
	return net.IPv4(127, 66, 1, byte(1+i/2%200))
}

// connects opens a connection, says something, and stays.
func (o *onePort) connects(say string) func(i int, done func(func())) {
	return func(i int, done func(func())) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: source(i)}, Timeout: time.Second}
		c, err := d.Dial("tcp", o.at.String())
		if err != nil {
			return // refused: it has come all the same
		}
		io.WriteString(c, say)
		done(func() { c.Close() })
	}
}

// sends sends a datagram from one of some sockets.
func (o *onePort) sends(say string) func(i int, done func(func())) {
	sockets := map[string]*net.UDPConn{}
	return func(i int, done func(func())) {
		from := source(i)
		c := sockets[from.String()]
		if c == nil {
			var err error
			if c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: from}); err != nil {
				return
			}
			sockets[from.String()] = c
			done(func() { c.Close() })
		}
		c.WriteToUDPAddrPort([]byte(say), o.at)
	}
}
