package node

import (
	"errors"
	"math"
	"net/http"
	"strconv"

	"github.com/domicile/domicile/node/reach"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/router/geo"
)

// noRoom is the room of test sessions towards TURN: no meeting has that name.
const noRoom = ""

// labelReliable is the channel of a test: one that every session has.
const labelReliable = "_reliable"

func (n *Node) newReach() *reach.Server {
	if n.cfg.Page.NoReachTest {
		return nil
	}
	full := func() bool { return n.cfg.Capacity > 0 && n.attendees.Load() >= int64(n.cfg.Capacity) }
	return reach.New(reach.Config{Engine: testEngine{n}, Full: full, Now: n.now})
}

var errNoTests = &Refusal{Code: CodePrecondition, Message: "this node's operator has switched the connection test off",
	Hint: "page.reach_test in node.yaml"}

// openTest makes a test session for anybody who asks, as far as the limits let it.
func (n *Node) openTest(w http.ResponseWriter, r *http.Request) (*reach.Answer, error) {
	if n.reach == nil {
		return nil, errNoTests
	}
	var q struct {
		Offer string `json:"offer"`
	}
	if err := reading(w, r, &q); err != nil {
		return nil, err
	}
	a, err := n.reach.Open(geo.ClientAddr(r, n.cfg.Geo.TrustedProxies), q.Offer)
	if err != nil {
		return nil, testDenied(w, err)
	}
	return &a, nil
}

// serveTestSocket echoes on a WebSocket.
func (n *Node) serveTestSocket(w http.ResponseWriter, r *http.Request) {
	if n.reach == nil {
		answer(w, nil, errNoTests)
		return
	}
	if err := n.reach.ServeSocket(w, r, geo.ClientAddr(r, n.cfg.Geo.TrustedProxies)); err != nil {
		answer(w, nil, testDenied(w, err))
	}
}

// testDenied is what a tester is told.
func testDenied(w http.ResponseWriter, err error) error {
	var d *reach.Denial
	if !errors.As(err, &d) {
		return err
	}
	if d.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.RetryAfter.Seconds()))))
	}
	switch d.Cause {
	case reach.SourceBusy:
		return &Refusal{Code: CodeBusy, Message: d.Message, Hint: "wait a minute, then test again"}
	case reach.NodeBusy:
		return &Refusal{Code: CodeUnavailable, Message: d.Message, Hint: "test again later"}
	}
	return &Refusal{Code: CodeInvalid, Message: d.Message}
}

// testEngine makes test sessions as every other session is made, so that what
// works for them works for a meeting.
type testEngine struct{ n *Node }

// Connect implements reach.Engine.
func (e testEngine) Connect(owner, offer string, peer reach.Peer) (reach.Conn, string, error) {
	c := &testConn{peer: peer}
	s, err := e.n.engine.NewSession(c, rtc.SessionConfig{Owner: e.n.owner(noRoom, owner), Single: true, MaxTracks: 1})
	if err != nil {
		return nil, "", err
	}
	c.session = s
	a, err := s.Publish(offer, 0)
	if err != nil {
		s.Close()
		return nil, "", err
	}
	return c, a.SDP, nil
}

// Ways implements reach.Engine.
func (e testEngine) Ways(owner string) (ways []reach.ICEServer) {
	for _, s := range e.n.testServers(noRoom, owner) {
		ways = append(ways, reach.ICEServer{URLs: s.Urls, Username: s.Username, Credential: s.Credential})
	}
	return ways
}

// Void implements reach.Engine.
func (e testEngine) Void(owner string) { e.n.endTURN(noRoom, owner) }

// testConn is a session of which nothing is wanted but its echo.
type testConn struct {
	session *rtc.Session // static
	peer    reach.Peer
}

// Echo implements reach.Conn. What the tester does not take is its own loss.
func (c *testConn) Echo(label string, payload []byte) {
	_ = c.session.SendData(label == labelReliable, payload)
}

// Close implements reach.Conn.
func (c *testConn) Close() { c.session.Close() }

// State implements rtc.Events.
func (c *testConn) State(_ rtc.Target, state string) {
	if state == "failed" || state == "closed" {
		c.peer.Gone()
	}
}

// Data implements rtc.Events.
func (c *testConn) Data(label string, payload []byte) { c.peer.Message(label, payload) }

// The rest of rtc.Events is about media, of which there is none.

func (c *testConn) Publish(rtc.Incoming) *sfu.UpTrack       { return nil }
func (c *testConn) Unpublish(*sfu.UpTrack)                  {}
func (c *testConn) Offer(string, uint32, map[string]string) {}
func (c *testConn) Sections(int, int)                       {}
func (c *testConn) StreamState(*sfu.DownTrack, bool)        {}
func (c *testConn) Unsupported(*sfu.DownTrack)              {}
