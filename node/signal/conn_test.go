package signal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// pair connects a real WebSocket client to a Conn over loopback.
func pair(t *testing.T, opts Options) (*Conn, *websocket.Conn) {
	t.Helper()
	conns := make(chan *Conn, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, opts)
		if err != nil {
			t.Errorf("Accept: %v", err)
		}
		conns <- c
	}))
	t.Cleanup(s.Close)
	client, resp, err := websocket.Dial(t.Context(), s.URL, &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}},
	})
	if err != nil {
		t.Fatalf("dial: %v (%v)", err, resp)
	}
	client.SetReadLimit(-1)
	c := <-conns
	t.Cleanup(func() {
		_ = client.CloseNow() // most tests have closed it
		c.Close("end of the test")
	})
	return c, client
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ping(n int64) *livekit.SignalRequest {
	return &livekit.SignalRequest{Message: &livekit.SignalRequest_Ping{Ping: n}}
}

func pong(n int64) *livekit.SignalResponse {
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_Pong{Pong: n}}
}

// big is a message of about n bytes.
func big(n int) *livekit.SignalResponse {
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_RefreshToken{RefreshToken: strings.Repeat("x", n)}}
}

func write(t *testing.T, client *websocket.Conn, kind websocket.MessageType, m proto.Message) {
	t.Helper()
	marshal := proto.Marshal
	if kind == websocket.MessageText {
		marshal = protojson.Marshal
	}
	data, err := marshal(m)
	must(t, err)
	must(t, client.Write(t.Context(), kind, data))
}

func read(t *testing.T, client *websocket.Conn) (websocket.MessageType, *livekit.SignalResponse) {
	t.Helper()
	kind, data, err := client.Read(t.Context())
	must(t, err)
	m := new(livekit.SignalResponse)
	if kind == websocket.MessageText {
		must(t, protojson.Unmarshal(data, m))
	} else {
		must(t, proto.Unmarshal(data, m))
	}
	return kind, m
}

// TestAnswersInTheClientsFormat: protobuf at first, then as the last frame was.
func TestAnswersInTheClientsFormat(t *testing.T) {
	c, client := pair(t, Options{})
	must(t, c.Send(pong(0)))
	if kind, m := read(t, client); kind != websocket.MessageBinary || m.GetPong() != 0 {
		t.Errorf("before the client has spoken: %v %v", kind, m)
	}
	for i, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary, websocket.MessageText} {
		n := int64(i + 1)
		write(t, client, kind, ping(n))
		req, err := c.Recv(t.Context())
		must(t, err)
		if req.GetPing() != n {
			t.Errorf("received %v, want ping %d", req, n)
		}
		must(t, c.Send(pong(n)))
		if got, m := read(t, client); got != kind || m.GetPong() != n {
			t.Errorf("answer to %v: %v %v", kind, got, m)
		}
	}
}

func TestUnknownFieldsArePassedOver(t *testing.T) {
	c, client := pair(t, Options{})
	must(t, client.Write(t.Context(), websocket.MessageText, []byte(`{"newer":{"a":1},"ping":"7"}`)))
	must(t, client.Write(t.Context(), websocket.MessageBinary, []byte{0xfa, 0x3f, 0x01, 'x'})) // field 1023
	must(t, client.Write(t.Context(), websocket.MessageBinary, nil))
	for _, want := range []int64{7, 0, 0} {
		req, err := c.Recv(t.Context())
		must(t, err)
		if req.GetPing() != want || (want == 0 && req.Message != nil) {
			t.Errorf("received %v, want ping %d", req, want)
		}
	}
}

func TestLargeFramesPass(t *testing.T) {
	c, client := pair(t, Options{})
	sdp := strings.Repeat("a=x\r\n", 200_000) // just under 1 MiB
	go write(t, client, websocket.MessageBinary, &livekit.SignalRequest{
		Message: &livekit.SignalRequest_Offer{Offer: &livekit.SessionDescription{Type: "offer", Sdp: sdp}},
	})
	req, err := c.Recv(t.Context())
	must(t, err)
	if req.GetOffer().GetSdp() != sdp {
		t.Errorf("offer of %d bytes", len(req.GetOffer().GetSdp()))
	}
}

func TestHostileFrames(t *testing.T) {
	whole, err := proto.Marshal(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{
		Offer: &livekit.SessionDescription{Type: "offer", Sdp: "secret words"},
	}})
	must(t, err)
	for name, f := range map[string]struct {
		kind websocket.MessageType
		data []byte
		code websocket.StatusCode
		bad  bool // ErrBadFrame, otherwise the library's error
	}{
		"cut protobuf":      {websocket.MessageBinary, whole[:len(whole)-3], websocket.StatusInvalidFramePayloadData, true},
		"not UTF-8":         {websocket.MessageBinary, []byte{0x0a, 0x03, 0x0a, 0x01, 0xff}, websocket.StatusInvalidFramePayloadData, true},
		"garbage":           {websocket.MessageBinary, []byte("GET / HTTP/1.1"), websocket.StatusInvalidFramePayloadData, true},
		"text garbage":      {websocket.MessageText, []byte("secret words"), websocket.StatusInvalidFramePayloadData, true},
		"cut JSON":          {websocket.MessageText, []byte(`{"offer":{"sdp":"secret words`), websocket.StatusInvalidFramePayloadData, true},
		"JSON, 10,000 deep": {websocket.MessageText, []byte(strings.Repeat(`{"offer":`, 10_000)), websocket.StatusInvalidFramePayloadData, true},
		"2 MiB":             {websocket.MessageBinary, make([]byte, 2<<20), websocket.StatusMessageTooBig, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, client := pair(t, Options{})
			closed := make(chan error, 1)
			go func() {
				// The server may close before it has taken in all of it.
				_ = client.Write(t.Context(), f.kind, f.data)
				_, _, err := client.Read(t.Context())
				closed <- err
			}()
			_, err := c.Recv(t.Context())
			if err == nil || errors.Is(err, ErrBadFrame) != f.bad || errors.Is(err, io.EOF) {
				t.Errorf("Recv: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error repeats the message: %v", err)
			}
			if err := <-closed; websocket.CloseStatus(err) != f.code {
				t.Errorf("the client sees %v, want status %d", err, f.code)
			}
			if _, err := c.Recv(t.Context()); err == nil {
				t.Error("Recv after the end succeeded")
			}
		})
	}
}

// TestSlowReader: a client that reads nothing is ended, and Send never blocks.
func TestSlowReader(t *testing.T) {
	for name, opts := range map[string]Options{
		"too many frames": {QueueFrames: 4, QueueBytes: 1 << 40, WriteTimeout: 50 * time.Millisecond, CloseTimeout: 50 * time.Millisecond},
		"too many bytes":  {QueueFrames: 1 << 20, QueueBytes: 1 << 20, WriteTimeout: 50 * time.Millisecond, CloseTimeout: 50 * time.Millisecond},
		"write timeout":   {QueueFrames: 1 << 20, QueueBytes: 1 << 40, WriteTimeout: 50 * time.Millisecond, CloseTimeout: 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := pair(t, opts)
			m := big(64 << 10)
			var err error
			// Loopback buffers a few megabytes; the write timeout case needs the
			// deadline to pass while there is still room in the queue.
			for sent := 0; err == nil && sent < 1<<14; sent++ {
				err = c.Send(m)
				if name == "write timeout" && sent == 1<<9 {
					<-c.done
				}
			}
			if !errors.Is(err, ErrSlowClient) {
				t.Fatalf("Send: %v, want ErrSlowClient", err)
			}
			if _, err := c.Recv(t.Context()); !errors.Is(err, ErrSlowClient) {
				t.Errorf("Recv: %v, want ErrSlowClient", err)
			}
		})
	}
}

// TestBurstIsToldWhy: a queue that overflows while the client still reads gets
// the reason across.
func TestBurstIsToldWhy(t *testing.T) {
	c, client := pair(t, Options{QueueBytes: 100})
	if err := c.Send(big(200)); !errors.Is(err, ErrSlowClient) {
		t.Fatalf("Send: %v", err)
	}
	_, _, err := client.Read(t.Context())
	var ce websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != websocket.StatusPolicyViolation || ce.Reason != ErrSlowClient.Error() {
		t.Errorf("the client sees %v", err)
	}
}

// TestCloseFlushes: what was sent before Close arrives, then the reason. The
// messages are more than loopback buffers, so the writer still has most of them
// when Close begins.
func TestCloseFlushes(t *testing.T) {
	c, client := pair(t, Options{QueueBytes: 1 << 30, WriteTimeout: time.Minute})
	for range 32 {
		must(t, c.Send(big(1<<20)))
	}
	must(t, c.Send(pong(1)))
	go c.Close("removed by the host: " + strings.Repeat("é", 100))
	<-c.stop
	for i := range 32 {
		if _, m := read(t, client); len(m.GetRefreshToken()) != 1<<20 {
			t.Fatalf("message %d has %d bytes", i, len(m.GetRefreshToken()))
		}
	}
	if _, m := read(t, client); m.GetPong() != 1 {
		t.Fatalf("the last message is %v", m)
	}
	_, _, err := client.Read(t.Context())
	var ce websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != websocket.StatusNormalClosure {
		t.Fatalf("the client sees %v", err)
	}
	if want := "removed by the host: " + strings.Repeat("é", 51); ce.Reason != want {
		t.Errorf("reason %q, want %q", ce.Reason, want)
	}
	c.Close("again")
	if err := c.Send(pong(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	if _, err := c.Recv(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Recv after Close: %v", err)
	}
}

// TestCloseIsBounded: a client that does not even answer the close frame cannot
// keep the node waiting.
func TestCloseIsBounded(t *testing.T) {
	c, _ := pair(t, Options{CloseTimeout: 50 * time.Millisecond})
	started := time.Now()
	c.Close("bye") // nobody reads at the other end
	if d := time.Since(started); d > 3*time.Second {
		t.Errorf("Close took %s", d)
	}
}

func TestClientLeaves(t *testing.T) {
	t.Run("in order", func(t *testing.T) {
		c, client := pair(t, Options{})
		go func() { _ = client.Close(websocket.StatusNormalClosure, "bye") }()
		if _, err := c.Recv(t.Context()); err != io.EOF {
			t.Errorf("Recv: %v, want io.EOF", err)
		}
	})
	t.Run("with its page", func(t *testing.T) {
		c, client := pair(t, Options{})
		go func() { _ = client.Close(websocket.StatusGoingAway, "") }()
		if _, err := c.Recv(t.Context()); err != ErrGone {
			t.Errorf("Recv: %v, want ErrGone", err)
		}
	})
	t.Run("cut off", func(t *testing.T) {
		c, client := pair(t, Options{})
		must(t, client.CloseNow())
		if _, err := c.Recv(t.Context()); err == nil || err == io.EOF {
			t.Errorf("Recv: %v, want another error than io.EOF", err)
		}
	})
	t.Run("node gives up waiting", func(t *testing.T) {
		c, _ := pair(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Recv(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Recv: %v", err)
		}
	})
}

func TestAcceptRefusesPlainHTTP(t *testing.T) {
	w := httptest.NewRecorder()
	if c, err := Accept(w, get("/rtc"), Options{}); err == nil || c != nil || w.Code != http.StatusUpgradeRequired {
		t.Errorf("conn %v, error %v, status %d", c, err, w.Code)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	offer := &livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{Offer: &livekit.SessionDescription{Type: "offer", Sdp: "v=0"}}}
	binary, err := proto.Marshal(offer)
	if err != nil {
		f.Fatal(err)
	}
	text, err := protojson.Marshal(offer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, binary)
	f.Add(false, binary[:len(binary)-1])
	f.Add(true, text)
	f.Add(true, []byte(`{"ping":"9223372036854775808"}`))
	f.Fuzz(func(t *testing.T, isText bool, data []byte) {
		kind := websocket.MessageBinary
		if isText {
			kind = websocket.MessageText
		}
		req, err := decodeRequest(kind, data)
		if (req == nil) != (err != nil) || (err != nil && !errors.Is(err, ErrBadFrame)) {
			t.Fatalf("%v with error %v", req, err)
		}
		if err != nil {
			return
		}
		if isText && !json.Valid(data) {
			t.Fatalf("%q is no JSON", data)
		}
		if _, err := proto.Marshal(req); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}
