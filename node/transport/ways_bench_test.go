//go:build linux

package transport

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/srtp/v3"
	"golang.org/x/sys/unix"

	"github.com/domicile/domicile/node/stream"
)

// The clients of BenchmarkWays are in a process of their own, so that what the node
// costs can be told from what they cost.
const (
	wayClients  = 24
	wayBurst    = 6    // packets of a picture
	wayPayload  = 1100 // bytes of each
	wayPictures = 120  // at 30 in a second
	wayEnv      = "TRANSPORT_BENCH_CLIENTS"
)

func TestMain(m *testing.M) {
	if way := os.Getenv(wayEnv); way != "" {
		if err := wayMain(way, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// echo sends each packet back to who sent it.
type echo struct {
	silent
	out *Stream
}

func (e *echo) RTP(w *Worker, pkt []byte, _ time.Time) {
	room := w.Batch().Reserve(len(pkt))
	_ = e.out.Write(w.Batch(), room[:copy(room, pkt)])
}

// BenchmarkWays has clients send pictures and get them back, over each way in, and
// reports what a packet costs the node, in or out, in microseconds of CPU time. Run
// it with -benchtime 1x: how long it takes is given.
func BenchmarkWays(b *testing.B) {
	for _, way := range []string{"direct", "channel", "tcp", "tls"} {
		b.Run(way, func(b *testing.B) {
			for b.Loop() {
				benchWay(b, way)
			}
		})
	}
}

func benchWay(b *testing.B, way string) {
	e := listen(b, func(c *Config) { c.Workers = 2 })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	target := e.MediaAddrs()[0].String()
	if way == "tcp" || way == "tls" {
		target = l.Addr().String()
	}
	cmd := exec.Command(os.Args[0], target)
	cmd.Env, cmd.Stderr = append(os.Environ(), wayEnv+"="+way), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var conns []*Conn
	var reading sync.WaitGroup
	for range wayClients {
		h := &echo{}
		c := standingAt(b, e, h, wayKey(b, e, way, l, lines, &reading))
		if h.out, err = c.NewStream(); err != nil {
			b.Fatal(err)
		}
		conns = append(conns, c)
	}
	before := cpuTime(b)
	fmt.Fprintln(in, "go")
	if !lines.Scan() {
		b.Fatal("the clients are gone")
	}
	spent := cpuTime(b) - before
	var packets, drops uint64
	for _, c := range conns {
		s := c.Stats()
		packets += s.PacketsIn + s.PacketsOut
		for _, n := range s.Drops {
			drops += n
		}
	}
	s := e.Stats()
	b.ReportMetric(float64(spent.Microseconds())/float64(packets), "cpu-µs/packet")
	b.ReportMetric(float64(s.PacketsSent)/float64(s.MessagesSent), "packets/message")
	b.ReportMetric(float64(drops), "drops")
	var got int
	if _, err := fmt.Sscan(lines.Text(), &got); err != nil || got < wayClients*wayBurst*wayPictures*99/100 {
		b.Errorf("%q of %d packets came back", lines.Text(), wayClients*wayBurst*wayPictures)
	}
	in.Close()
	_ = cmd.Wait()
	for _, c := range conns {
		c.Close()
	}
	reading.Wait()
}

// wayKey finds where the next client is.
func wayKey(b *testing.B, e *Engine, way string, l net.Listener, lines *bufio.Scanner, reading *sync.WaitGroup) tableKey {
	if way == "direct" || way == "channel" {
		if !lines.Scan() {
			b.Fatal("the clients are gone")
		}
		at := Tuple{e.groups[0], nameOf(netip.MustParseAddrPort(lines.Text()))}
		if way == "direct" {
			return tableKey{group: at.group, name: at.name}
		}
		t, err := e.OpenTunnel(TunnelConfig{Client: relayed, Tuple: at, Wrap: WrapChannel(channelNumber, false)})
		if err != nil {
			b.Fatal(err)
		}
		return t.key
	}
	near, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	base := stream.New(near)
	s := stream.Over(base, base)
	if way == "tls" {
		secure := tls.Server(base, &tls.Config{Certificates: []tls.Certificate{e.ident.cert}, DynamicRecordSizingDisabled: true})
		if err := secure.Handshake(); err != nil {
			b.Fatal(err)
		}
		s = stream.Over(secure, base)
	}
	t, err := e.OpenTunnel(TunnelConfig{Client: relayed, Stream: s, Wrap: WrapLength})
	if err != nil {
		b.Fatal(err)
	}
	reading.Go(func() { _ = t.readFrames(s, func() {}); s.Cut() })
	return t.key
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// wayMain is the clients: it connects them, waits for a word, sends and counts what
// comes back.
func wayMain(way, target string) error {
	var conns []net.Conn
	for range wayClients {
		network := "udp"
		if way == "tcp" || way == "tls" {
			network = "tcp"
		}
		c, err := net.Dial(network, target)
		if err != nil {
			return err
		}
		if way == "tls" {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if err := c.(*tls.Conn).Handshake(); err != nil {
				return err
			}
		}
		if network == "udp" {
			fmt.Println(c.LocalAddr())
		}
		conns = append(conns, c)
	}
	word, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(word) != "go" {
		return err
	}
	k := testKeys(srtp.ProtectionProfileAeadAes128Gcm)
	var running sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for i, c := range conns {
		seal, err := k.sealer()
		if err != nil {
			return err
		}
		running.Go(func() {
			time.Sleep(time.Second / 30 * time.Duration(i) / wayClients)
			waySend(c, way, seal)
		})
		running.Go(func() {
			n := wayReceive(c, way)
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	running.Wait()
	fmt.Println(total)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the other process has looked at its clock
	return nil
}

func waySend(c net.Conn, way string, seal *srtp.Context) {
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	for seq := uint16(0); seq < wayPictures*wayBurst; {
		for n := range wayBurst {
			p := packet(1, seq, make([]byte, wayPayload))
			if n == wayBurst-1 {
				p[1] |= 0x80 // ends the picture
			}
			seq++
			b, err := seal.EncryptRTP(nil, p, nil)
			if err != nil {
				return
			}
			switch way {
			case "channel":
				b = channelData(channelNumber, b)
			case "tcp", "tls":
				b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
			}
			_, _ = c.Write(b)
		}
		<-tick.C
	}
}

func wayReceive(c net.Conn, way string) (n int) {
	r, room := bufio.NewReaderSize(c, 1<<16), make([]byte, 1<<16)
	for n < wayPictures*wayBurst {
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		var err error
		if way == "tcp" || way == "tls" {
			_, err = readFrame(r, room)
		} else {
			_, err = c.Read(room)
		}
		if err != nil {
			return n
		}
		n++
	}
	return n
}
