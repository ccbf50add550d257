package turn

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	pion "github.com/pion/turn/v5"
)

// crowdEnv tells a process that it is to be clients, and which.
const crowdEnv = "DOMICILE_TURN_CROWD"

// attendance says what clients are to do: each makes an allocation and waits.
type attendance struct {
	Way, Addr      string
	User, Password string
	Peer           netip.AddrPort // to which each binds a channel
	Clients        int
	Churn          int // rounds: each connects and allocates anew so many times
}

// crowd is the clients' process. It says when all have what they want, and leaves
// when it is told.
func crowd(order string) int {
	var a attendance
	if err := json.Unmarshal([]byte(order), &a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	errs := make(chan error, a.Clients)
	for i := range a.Clients {
		go func() { errs <- a.attend(i) }()
	}
	for range a.Clients {
		if err := <-errs; err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// kept holds connections until the process ends: one that is forgotten is closed.
var (
	keeping sync.Mutex
	kept    []net.Conn
)

func (a attendance) attend(i int) error {
	for range a.Churn {
		conn, err := a.allocate(i)
		if err != nil {
			return err
		}
		conn.Close()
	}
	if a.Churn > 0 {
		return nil
	}
	conn, err := a.allocate(i)
	keeping.Lock()
	defer keeping.Unlock()
	kept = append(kept, conn)
	return err
}

// sessions lets churning clients resume TLS, as browsers do.
var sessions = tls.NewLRUClientSessionCache(64)

// connect comes from an address of loopback that few others have: what one source
// may do is bounded.
func (a attendance) connect(i int) (net.Conn, error) {
	from := net.IPv4(127, 0, 1, byte(i%100))
	if a.Way == "udp" {
		return (&net.Dialer{LocalAddr: &net.UDPAddr{IP: from}}).Dial("udp", a.Addr)
	}
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).Dial("tcp", a.Addr)
	if err == nil && a.Way == "tls" {
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: sessions, ServerName: "localhost"}), nil
	}
	return conn, err
}

func (a attendance) allocate(i int) (net.Conn, error) {
	conn, err := a.connect(i)
	if err != nil {
		return nil, err
	}
	kind := stun.NewType(stun.MethodAllocate, stun.ClassRequest)
	m, err := exchange(conn, stun.MustBuild(stun.TransactionID, kind, udpTransport))
	if err != nil {
		return nil, err
	}
	var nonce stun.Nonce
	var realm stun.Realm
	if err := nonce.GetFrom(m); err != nil {
		return nil, err
	}
	if err := realm.GetFrom(m); err != nil {
		return nil, err
	}
	seal := []stun.Setter{stun.NewUsername(a.User), realm, nonce, stun.NewLongTermIntegrity(a.User, realm.String(), a.Password)}
	build := func(method stun.Method, attrs ...stun.Setter) *stun.Message {
		head := []stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}
		return stun.MustBuild(append(append(head, attrs...), seal...)...)
	}
	requests := []*stun.Message{build(stun.MethodAllocate, udpTransport)}
	if a.Peer.IsValid() {
		requests = append(requests, build(stun.MethodChannelBind, number(0x4000), peer(a.Peer)))
	}
	if a.Churn > 0 {
		requests = append(requests, build(stun.MethodRefresh, attribute{stun.AttrLifetime, make([]byte, 4)}))
	}
	for _, q := range requests {
		m, err := exchange(conn, q)
		if err != nil {
			return nil, err
		}
		if m.Type.Class != stun.ClassSuccessResponse {
			return nil, fmt.Errorf("refused: %v", m)
		}
	}
	return conn, nil
}

// exchange sends a request, again where it may be lost, and reads the answer.
func exchange(conn net.Conn, q *stun.Message) (*stun.Message, error) {
	_, udp := conn.(*net.UDPConn)
	b := make([]byte, 1500)
	for range 20 {
		if _, err := conn.Write(q.Raw); err != nil {
			return nil, err
		}
		wait := patience
		if udp {
			wait /= 20
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(b)
		if udp && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m := &stun.Message{Raw: b[:n]}
		if err := m.Decode(); err != nil || m.TransactionID == q.TransactionID {
			return m, err
		}
	}
	return nil, os.ErrDeadlineExceeded
}

// start has another process be clients, and returns when all are there.
func (a attendance) start(t testing.TB) (leave func()) {
	t.Helper()
	order, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crowdEnv+"="+string(order))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("clients: %q, %v", line, err)
	}
	return func() {
		stdin.Close()
		cmd.Wait()
	}
}

// footprint is what a process holds.
type footprint struct{ bytes, goroutines, files int }

func weigh() footprint {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f := footprint{bytes: int(m.HeapInuse + m.StackInuse), goroutines: runtime.NumGoroutine()}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		f.files = len(files)
	}
	return f
}

// each is what one of n allocations costs.
func each(t testing.TB, name string, a attendance) (bytes, goroutines, files float64) {
	t.Helper()
	before := weigh()
	leave := a.start(t)
	after := weigh()
	leave()
	n := float64(a.Clients)
	bytes = float64(after.bytes-before.bytes) / n
	goroutines = float64(after.goroutines-before.goroutines) / n
	files = float64(after.files-before.files) / n
	t.Logf("%-10s %6.0f bytes, %.1f goroutines, %.1f files for each of %d allocations", name, bytes, goroutines, files, a.Clients)
	return bytes, goroutines, files
}

// crowded is the rig with room for a crowd of one participant.
func crowded(t testing.TB) (*rig, attendance) {
	r := newRig(t, func(c *Config) {
		c.MaxPerSession, c.MaxPerSource, c.Now = 1<<14, 1<<14, time.Now
		c.FirstAllocate = patience
	})
	a := attendance{Peer: r.media[0]}
	a.User, a.Password = r.server.Credentials("ada", "blue", MaxTTL)
	return r, a
}

// What an idle attendee behind TURN costs: no goroutine, no file and next to no
// memory over UDP; the connection, its goroutine and at most 40 kB over TLS.
func TestIdleAllocationsAreCheap(t *testing.T) {
	for _, tt := range []struct {
		way                      string
		bytes, goroutines, files float64
	}{{"udp", 2500, 0.1, 0.1}, {"tcp", 20000, 1.1, 1.1}, {"tls", 40000, 1.1, 1.1}} {
		t.Run(tt.way, func(t *testing.T) {
			r, a := crowded(t)
			a.Way, a.Clients, a.Addr = tt.way, 300, r.tcp[tt.way+"4"]
			if tt.way == "udp" {
				a.Addr = r.media[0].String()
			}
			bytes, goroutines, files := each(t, tt.way, a)
			if bytes > tt.bytes || goroutines > tt.goroutines || files > tt.files {
				t.Errorf("%.0f bytes, %.1f goroutines, %.1f files; want at most %.0f, %.1f, %.1f",
					bytes, goroutines, files, tt.bytes, tt.goroutines, tt.files)
			}
		})
	}
}

// BenchmarkAllocate is how often a second attendees connect, shake hands, allocate,
// bind a channel and leave again.
func BenchmarkAllocate(b *testing.B) {
	for _, way := range []string{"udp", "tcp", "tls"} {
		b.Run(way, func(b *testing.B) {
			r, a := crowded(b)
			a.Way, a.Clients, a.Addr = way, 8, r.tcp[way+"4"]
			if way == "udp" {
				a.Addr = r.media[0].String()
			}
			a.Churn = b.N/a.Clients + 1
			spent := cpu()
			b.ResetTimer()
			a.start(b)()
			b.StopTimer()
			n := float64(a.Churn * a.Clients)
			b.ReportMetric(n/(cpu()-spent).Seconds(), "allocations/core-s")
			b.ReportMetric(float64((cpu()-spent).Microseconds())/n, "cpu-µs/allocation")
		})
	}
}

// BenchmarkPion is the same with the server of the library, and what an idle
// allocation costs there: the control of the decision for one of our own.
func BenchmarkPion(b *testing.B) {
	for _, way := range []string{"udp", "tls"} {
		b.Run(way, func(b *testing.B) {
			addr, stop := pionServer(b, way)
			defer stop()
			a := attendance{Way: way, Addr: addr, User: "user", Password: "password", Clients: 300, Peer: netip.MustParseAddrPort("127.0.0.1:9")}
			each(b, "pion "+way, a)
			a.Clients, a.Churn = 8, b.N/8+1
			spent := cpu()
			b.ResetTimer()
			a.start(b)()
			b.StopTimer()
			b.ReportMetric(float64(a.Churn*a.Clients)/(cpu()-spent).Seconds(), "allocations/core-s")
		})
	}
}

func pionServer(t testing.TB, way string) (addr string, stop func()) {
	t.Helper()
	relays := &pion.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"}
	key := pion.GenerateAuthKey("user", "turn", "password")
	cfg := pion.ServerConfig{Realm: "turn", AuthHandler: func(*pion.RequestAttributes) (string, []byte, bool) { return "user", key, true }}
	if way == "udp" {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr = c.LocalAddr().String()
		cfg.PacketConnConfigs = []pion.PacketConnConfig{{PacketConn: c, RelayAddressGenerator: relays}}
	} else {
		pair, _ := selfSigned(t)
		l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*pair}})
		if err != nil {
			t.Fatal(err)
		}
		addr = l.Addr().String()
		cfg.ListenerConfigs = []pion.ListenerConfig{{Listener: l, RelayAddressGenerator: relays}}
	}
	s, err := pion.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return addr, func() { s.Close() }
}
