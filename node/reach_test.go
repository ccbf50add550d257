package node

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/reach"
)

// postReach asks for a test session.
func postReach(t *testing.T, n *testNode, body string) (int, string) {
	t.Helper()
	resp, err := http.Post("http://"+n.addr.String()+"/api/reach", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode, string(b)
}

// testOffer is a data channel's offer, as JSON.
func testOffer(t *testing.T, pc *webrtc.PeerConnection) string {
	t.Helper()
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{"offer": offer.SDP})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A test session needs no token, echoes over a real data channel, and is gone
// when its tester has gone. Nothing about the tester is logged.
func TestReachSession(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	n := m.node("fra")
	pc := newPeer(t)
	defer pc.GracefulClose() //nolint:errcheck // it may be closed already
	dc, err := pc.CreateDataChannel(labelReliable, nil)
	if err != nil {
		t.Fatal(err)
	}
	echo := make(chan []byte, 1)
	dc.OnOpen(func() { dc.Send([]byte("ping")) }) //nolint:errcheck // the echo is awaited
	dc.OnMessage(func(m webrtc.DataChannelMessage) { echo <- bytes.Clone(m.Data) })

	status, body := postReach(t, n, testOffer(t, pc))
	var a reach.Answer
	if status != http.StatusOK || json.Unmarshal([]byte(body), &a) != nil || a.Seconds != 20 {
		t.Fatalf("%d %s", status, body)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.SDP}); err != nil {
		t.Fatal(err)
	}
	if got := <-echo; string(got) != "ping" {
		t.Fatalf("echo of ping: %q", got)
	}
	if n.attendees.Load() != 0 || len(n.rooms.all()) != 0 {
		t.Error("a test counts as an attendee, or has a room")
	}
	if err := pc.GracefulClose(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session ends with its tester", func() bool { return n.reach.Sessions() == 0 })
	for _, word := range []string{ufrag.FindStringSubmatch(a.SDP)[1], "127.0.0.1:", "ping"} {
		for line := range strings.Lines(n.log.String()) {
			if strings.Contains(line, word) && !strings.Contains(line, "front open") && !strings.Contains(line, "gossip") {
				t.Errorf("the log names the tester: %s", line)
			}
		}
	}
}

func TestReachRefusals(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	off := m.config("waw PL")
	off.Page.NoReachTest = true
	silent := m.start(off)
	n := m.node("fra")
	offer := func() string {
		pc := newPeer(t)
		defer pc.GracefulClose() //nolint:errcheck // nothing has begun
		if _, err := pc.CreateDataChannel(labelReliable, nil); err != nil {
			t.Fatal(err)
		}
		return testOffer(t, pc)
	}()
	refused := func(what string, n *testNode, body string, status int, code, words string) {
		t.Helper()
		got, answer := postReach(t, n, body)
		if got != status || !strings.Contains(answer, `"code":"`+code+`"`) || !strings.Contains(answer, words) {
			t.Errorf("%s: %d %s", what, got, answer)
		}
	}
	refused("off", silent, offer, http.StatusPreconditionFailed, CodePrecondition, "switched the connection test off")
	refused("no JSON", n, "offer", http.StatusBadRequest, CodeInvalid, "JSON")
	refused("no offer", n, `{}`, http.StatusBadRequest, CodeInvalid, "no offer")
	refused("huge", n, `{"offer":"`+strings.Repeat("v", maxBody)+`"}`, http.StatusBadRequest, CodeInvalid, "too large")
	refused("no credentials", n, strings.ReplaceAll(offer, "a=ice-ufrag", "a=x-ufrag"), http.StatusBadRequest, CodeInvalid, "cannot be answered")
	for range 16 {
		if got, answer := postReach(t, n, offer); got != http.StatusOK {
			t.Fatalf("within the limits: %d %s", got, answer)
		}
	}
	refused("the 17th at once", n, offer, http.StatusTooManyRequests, CodeBusy, "from your network")
	if resp, err := http.Get("http://" + n.addr.String() + "/api/reach"); err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a WebSocket beyond the limits: %v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}
