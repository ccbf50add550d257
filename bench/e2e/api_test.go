package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node"
)

// eventually waits until ok holds, patiently.
func eventually(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience * within)
	defer deadline.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// token mints a token for a room as a platform does.
func (m *mesh) token(room, identity, policy string) string {
	m.t.Helper()
	return m.mint(control.Grants{Identity: identity, Name: identity, RoomPreset: policy,
		Video: &auth.VideoGrant{RoomJoin: true, Room: room, RoomRecord: true}}, time.Now())
}

func (m *mesh) mint(g control.Grants, now time.Time) string {
	m.t.Helper()
	s, err := control.MintToken(m.Key, m.Secret, g, time.Hour, now)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// client trusts the mesh's CA and nobody else.
func (m *mesh) client() *http.Client {
	m.t.Helper()
	pem, err := os.ReadFile(m.CA)
	if err != nil {
		m.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := &http.Client{Timeout: patience * 15 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, KeyLogWriter: m.keyLog}}}
	m.t.Cleanup(c.CloseIdleConnections)
	return c
}

// answer is an HTTP answer, read.
type httpAnswer struct {
	status int
	body   string
}

func (m *mesh) do(method, url, bearer string, body any) httpAnswer {
	m.t.Helper()
	var b []byte
	if body != nil {
		b, _ = json.Marshal(body)
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(b))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := m.client().Do(req)
	if err != nil {
		m.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return httpAnswer{resp.StatusCode, string(got)}
}

// validate asks a node whether a token may join, as clients do after a refusal.
func (m *mesh) validate(node, token string) httpAnswer {
	m.t.Helper()
	return m.do(http.MethodGet, m.origin(node)+"/rtc/validate?access_token="+token, "", nil)
}

// origin is the node's HTTPS address without a path.
func (m *mesh) origin(node string) string { return strings.TrimSuffix(m.node(node).Page, "/") }

// twirp calls the RoomService on a node.
func (m *mesh) twirp(node, method string, req map[string]any, into any) {
	m.t.Helper()
	room, _ := req["room"].(string)
	token := m.mint(control.Grants{Video: &auth.VideoGrant{RoomCreate: true, RoomList: true, RoomAdmin: true, Room: room}}, time.Now())
	a := m.do(http.MethodPost, m.origin(node)+"/twirp/livekit.RoomService/"+method, token, req)
	if a.status != http.StatusOK {
		m.t.Fatalf("%s on %s: %d %s", method, node, a.status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(a.body), into); err != nil {
			m.t.Fatalf("%s on %s: %v in %s", method, node, err, a.body)
		}
	}
}

// state is what `domicile state` shows of a node.
func (m *mesh) state(name string) (s node.NodeState) {
	m.t.Helper()
	out, code := m.domicile("state", "--node", name)
	if code != 0 {
		m.t.Fatalf("domicile state --node %s: exit code %d", name, code)
	}
	return parseState(m.t, out)
}

func parseState(t testing.TB, out string) (s node.NodeState) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("domicile state: %v in %s", err, out)
	}
	return s
}

// wire is a signalling connection of a client that this test plays by itself.
type wire struct {
	t  testing.TB
	ws *websocket.Conn
}

// dial connects to a node's signalling with a token.
func (m *mesh) dial(node, token string) *wire {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience*10*time.Second)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, m.node(node).WS+"/rtc?access_token="+token,
		&websocket.DialOptions{HTTPClient: m.client()})
	if err != nil {
		body := ""
		if resp != nil && resp.Body != nil {
			b, _ := io.ReadAll(resp.Body)
			body = string(b)
		}
		m.t.Fatalf("signalling on %s: %v %s", node, err, body)
	}
	ws.SetReadLimit(4 << 20)
	m.t.Cleanup(func() { ws.CloseNow() })
	return &wire{t: m.t, ws: ws}
}

func (w *wire) send(m *livekit.SignalRequest) {
	w.t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience*5*time.Second)
	defer cancel()
	if err := w.ws.Write(ctx, websocket.MessageBinary, b); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

// until reads messages up to the first that ok accepts, or the end of the
// connection, which it returns as an error.
func (w *wire) until(within time.Duration, ok func(*livekit.SignalResponse) bool) (*livekit.SignalResponse, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		_, b, err := w.ws.Read(ctx)
		if err != nil {
			return nil, err
		}
		m := &livekit.SignalResponse{}
		if err := proto.Unmarshal(b, m); err != nil {
			w.t.Fatalf("a message of the node: %v", err)
		}
		if ok(m) {
			return m, nil
		}
	}
}

// join waits for the node's greeting.
func (w *wire) join() *livekit.JoinResponse {
	w.t.Helper()
	m, err := w.until(patience*5*time.Second, func(m *livekit.SignalResponse) bool { return m.GetJoin() != nil })
	if err != nil {
		w.t.Fatalf("no greeting: %v", err)
	}
	return m.GetJoin()
}
