package reach

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// offer is that of a browser for one data channel.
const offer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n" +
	"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sctp-port:5000\r\n"

var here = netip.MustParseAddr("192.0.2.1")

// engine is a fake that remembers.
type engine struct {
	mu    sync.Mutex
	conns map[string]*conn
	void  []string
	fail  error
}

type conn struct {
	peer   Peer
	echoed []string
	closed atomic.Int32
}

func (e *engine) Connect(owner, _ string, peer Peer) (Conn, string, error) {
	if e.fail != nil {
		return nil, "", e.fail
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		e.conns = map[string]*conn{}
	}
	e.conns[owner] = &conn{peer: peer}
	return e.conns[owner], "answer", nil
}

func (e *engine) Ways(owner string) []ICEServer {
	return []ICEServer{{URLs: []string{"turns:node"}, Username: owner}}
}

func (e *engine) Void(owner string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.void = append(e.void, owner)
}

func (c *conn) Echo(label string, b []byte) { c.echoed = append(c.echoed, label+":"+string(b)) }
func (c *conn) Close()                      { c.closed.Add(1) }

// running runs a server in a bubble.
func running(t *testing.T, test func(*Server, *engine)) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{}
		s := New(Config{Engine: e})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		test(s, e)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for id, c := range e.conns {
			if c.closed.Load() != 1 {
				t.Errorf("session %s is closed %d times", id, c.closed.Load())
			}
		}
		if n := s.Sessions(); n != 0 {
			t.Errorf("%d places are taken at the end", n)
		}
	})
}

// one opens a session and finds its connection.
func one(t *testing.T, s *Server, e *engine) *conn {
	t.Helper()
	a, err := s.Open(here, offer)
	if err != nil {
		t.Fatal(err)
	}
	if a.SDP != "answer" || a.Seconds != 20 || len(a.ICEServers) != 1 {
		t.Fatalf("answer %+v", a)
	}
	return e.conns[a.ICEServers[0].Username]
}

func TestSessionEchoesAndEnds(t *testing.T) {
	running(t, func(s *Server, e *engine) {
		c := one(t, s, e)
		c.peer.Message("_reliable", []byte("a"))
		if len(c.echoed) != 1 || c.echoed[0] != "_reliable:a" {
			t.Errorf("echoed %q", c.echoed)
		}
		time.Sleep(Life - time.Second)
		if c.closed.Load() != 0 {
			t.Error("it ended early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c.closed.Load() != 1 || s.Sessions() != 0 || len(e.void) != 1 {
			t.Errorf("after %s: closed %d times, %d places, %d credentials void", Life, c.closed.Load(), s.Sessions(), len(e.void))
		}
		c.peer.Gone()
		c.peer.Message("_reliable", []byte("late"))
	})
}

func TestSessionEndsWithItsTester(t *testing.T) {
	running(t, func(s *Server, e *engine) {
		c := one(t, s, e)
		c.peer.Gone()
		c.peer.Gone()
		synctest.Wait()
		if c.closed.Load() != 1 || s.Sessions() != 0 {
			t.Errorf("closed %d times, %d places", c.closed.Load(), s.Sessions())
		}
	})
}

func TestSessionThatWantsTooMuchEnds(t *testing.T) {
	for name, flood := range map[string]func(Peer){
		"many": func(p Peer) {
			for range maxEchoes + 1 {
				p.Message("_lossy", []byte("x"))
			}
		},
		"large": func(p Peer) { p.Message("_lossy", make([]byte, MaxMessage+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			running(t, func(s *Server, e *engine) {
				c := one(t, s, e)
				flood(c.peer)
				synctest.Wait()
				if len(c.echoed) > maxEchoes || c.closed.Load() != 1 {
					t.Errorf("%d messages echoed, closed %d times", len(c.echoed), c.closed.Load())
				}
			})
		})
	}
}

func TestOpenIsDenied(t *testing.T) {
	cause := func(err error) Cause {
		var d *Denial
		if !errors.As(err, &d) {
			t.Errorf("%v is no denial", err)
			return -1
		}
		return d.Cause
	}
	running(t, func(s *Server, e *engine) {
		for range 16 {
			one(t, s, e)
		}
		if _, err := s.Open(here, offer); cause(err) != SourceBusy {
			t.Errorf("the 17th from one source: %v", err)
		}
		if _, err := s.Open(netip.MustParseAddr("192.0.2.2"), offer); err != nil {
			t.Errorf("another source: %v", err)
		}
		e.fail = errors.New("no")
		before := s.Sessions()
		if _, err := s.Open(netip.MustParseAddr("192.0.2.2"), offer); cause(err) != Unusable || s.Sessions() != before {
			t.Errorf("an offer that cannot be answered: %v, %d places", err, s.Sessions()-before)
		}
		s.cfg.Full = func() bool { return true }
		if _, err := s.Open(here, offer); cause(err) != NodeBusy || !strings.Contains(err.Error(), "full") {
			t.Errorf("a full node: %v", err)
		}
	})
	s := New(Config{Engine: &engine{}})
	s.close()
	if _, err := s.Open(here, offer); cause(err) != NodeBusy {
		t.Errorf("after the end: %v", err)
	}
}

func TestOffers(t *testing.T) {
	section := offer[strings.Index(offer, "m="):]
	if err := checkOffer(offer); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing":    "",
		"no SDP":     "hello",
		"cut":        offer[:strings.Index(offer, "s=-")],
		"no section": offer[:strings.Index(offer, "m=")],
		"two":        offer + section,
		"many":       offer + strings.Repeat(section, 5000),
		"huge":       offer + strings.Repeat("a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n", 1000),
		"audio":      strings.ReplaceAll(offer, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=audio 9 UDP/TLS/RTP/SAVPF 111"),
		"refused":    strings.ReplaceAll(offer, "m=application 9", "m=application 0"),
	} {
		var d *Denial
		if err := checkOffer(bad); !errors.As(err, &d) || d.Cause != Unusable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOffer(f *testing.F) {
	f.Add(offer)
	f.Add(strings.ReplaceAll(offer, "\r\n", "\n"))
	f.Fuzz(func(t *testing.T, s string) {
		if checkOffer(s) == nil && strings.Count(s, "m=application") == 0 {
			t.Error("an offer without a data channel is taken")
		}
	})
}

func TestSocketEchoes(t *testing.T) {
	s := New(Config{Engine: &engine{}})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.ServeSocket(w, r, here); err != nil {
			http.Error(w, err.Error(), http.StatusTooManyRequests)
		}
	}))
	defer web.Close()
	defer s.close()
	ctx := t.Context()
	ws, _, err := websocket.Dial(ctx, web.URL, nil) //nolint:bodyclose // the library closes it
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"ping", "again"} {
		if err := ws.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != m {
			t.Fatalf("echo of %q: %q, %v", m, got, err)
		}
	}
	if err := ws.Write(ctx, websocket.MessageText, make([]byte, MaxMessage+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(ctx); err == nil {
		t.Error("a long message is echoed")
	}
	s.opening.Wait() // it has left its place, which would let another in
	for range 16 {
		if _, err := s.admit(here); err != nil {
			break
		}
		s.opening.Done()
	}
	if _, resp, err := websocket.Dial(ctx, web.URL, nil); err == nil || resp.StatusCode != http.StatusTooManyRequests { //nolint:bodyclose // the library closes it
		t.Errorf("beyond the limit: %v", err)
	}
}
