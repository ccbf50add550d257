package whip

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// start is when the tests' tokens are made.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const key, secret = "APIkey", "a secret of 32 characters, or so"

// token mints one for an identity; change may take grants away.
func token(t testing.TB, identity string, change func(*control.Grants)) string {
	t.Helper()
	g := control.Grants{Identity: identity, Video: &auth.VideoGrant{RoomJoin: true, Room: "studio"}}
	if change != nil {
		change(&g)
	}
	s, err := control.MintToken(key, secret, g, time.Hour, start)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// offerFile is an offer of a known client.
func offerFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "offers", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// answerText is what the fake rooms answer: an ICE-lite answer whose first
// section is refused.
const answerText = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 1\r\na=ice-lite\r\na=ice-options:trickle ice2\r\n" +
	"m=audio 0 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=inactive\r\n" +
	"m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=ice-ufrag:ours\r\na=ice-pwd:ourpasswordof22letters\r\na=recvonly\r\n"

// rooms is a Rooms by hand: every session that it lets in is a fakeSession.
type rooms struct {
	mu       sync.Mutex
	refusal  error
	joins    []Join
	sources  []string
	sessions []*fakeSession
	entered  chan struct{} // when set, a POST reports here and waits for leave
	leave    chan struct{}
}

func (r *rooms) Publish(_ context.Context, join Join, _ Offer) (Session, Answer, error) {
	return r.open(join, "publish")
}

func (r *rooms) Watch(_ context.Context, join Join, source string, _ Offer) (Session, Answer, error) {
	return r.open(join, "watch "+source)
}

func (r *rooms) open(join Join, source string) (Session, Answer, error) {
	if r.entered != nil {
		r.entered <- struct{}{}
		<-r.leave
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusal != nil {
		return nil, Answer{}, r.refusal
	}
	s := &fakeSession{connected: make(chan struct{}), done: make(chan struct{})}
	r.joins, r.sources, r.sessions = append(r.joins, join), append(r.sources, source), append(r.sessions, s)
	return s, Answer{SDP: answerText, ICEServers: []ICEServer{
		{URL: "stun:node.example"},
		{URL: "turns:node.example:443?transport=tcp", Username: `17:"a"`, Credential: `p\w`},
	}}, nil
}

func (r *rooms) last() *fakeSession { return r.sessions[len(r.sessions)-1] }

// fakeSession is a Session by hand.
type fakeSession struct {
	connected, done chan struct{}
	once            sync.Once
	mu              sync.Mutex
	restarts        []Credentials
	takes           time.Duration // for a restart
	busy            bool
	refusal         error
}

func (f *fakeSession) Restart(c Credentials) (Restarted, error) {
	f.mu.Lock()
	if f.busy {
		panic("two restarts of one session at once")
	}
	f.busy = true
	f.mu.Unlock()
	time.Sleep(f.takes)
	defer func() {
		f.mu.Lock()
		f.busy = false
		f.mu.Unlock()
	}()
	if f.refusal != nil {
		return Restarted{}, f.refusal
	}
	f.restarts = append(f.restarts, c)
	return Restarted{Credentials{"new" + c.Ufrag, "newpassword" + c.Pwd}, []string{"1 1 udp 2130706431 198.51.100.1 7882 typ host"}}, nil
}

func (f *fakeSession) Connected() <-chan struct{} { return f.connected }
func (f *fakeSession) Done() <-chan struct{}      { return f.done }
func (f *fakeSession) Close()                     { f.once.Do(func() { close(f.done) }) }

// rig is a server on a mux.
type rig struct {
	t     testing.TB
	rooms *rooms
	s     *Server
	mux   *http.ServeMux
	now   time.Time
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, rooms: &rooms{}, mux: http.NewServeMux(), now: start}
	cfg := Config{Rooms: r.rooms, Keys: control.Keys{key: secret}, Base: "https://node.example",
		Audio: []string{"opus"}, Video: []string{"VP8", "H264", "VP9", "AV1"}, Now: func() time.Time { return r.now }}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.s, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.s.Mount(r.mux)
	t.Cleanup(r.s.Close)
	return r
}

// call makes a request: headers are "Name: value".
func (r *rig) call(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	return w
}

const sdpType, fragType = "Content-Type: application/sdp", "Content-Type: application/trickle-ice-sdpfrag"

func bearer(token string) string { return "Authorization: Bearer " + token }

// publish makes a WHIP session and returns its path and entity tag.
func (r *rig) publish(token string) (path, tag string) {
	r.t.Helper()
	w := r.call("POST", "/whip", offerFile(r.t, "whip-obs-h264.sdp"), sdpType, bearer(token))
	if w.Code != http.StatusCreated {
		r.t.Fatalf("POST /whip: %d %s", w.Code, w.Body)
	}
	return w.Header().Get("Location"), w.Header().Get("ETag")
}

// problem reads an answer that refuses.
func problem(t testing.TB, w *httptest.ResponseRecorder) Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%d is answered as %q: %s", w.Code, got, w.Body)
	}
	var p Problem
	b, _ := io.ReadAll(w.Body)
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if p.Status != w.Code || p.Title != http.StatusText(w.Code) || p.Detail == "" {
		t.Errorf("status %d tells of %+v", w.Code, p)
	}
	return p
}
