package transport

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/webrtc/v4"
)

func TestAnotherCertificateIsRefused(t *testing.T) {
	e := listen(t)
	events, pc := newRecorder(), newPeer(t)
	if _, err := pc.CreateDataChannel("_reliable", nil); err != nil {
		t.Fatal(err)
	}
	c, err := e.NewConn(events, ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, r := offer(t, pc, nil)
	value := []byte(r.Fingerprints[0].Value)
	value[0] = map[bool]byte{true: '1', false: '0'}[value[0] == '0']
	r.Fingerprints[0].Value = string(value)
	if err := c.SetRemote(r); err != nil {
		t.Fatal(err)
	}
	answer(t, pc, d, e, c.Local(), "passive")
	events.awaitState(t, Failed)
	if _, err := c.NewStream(); err == nil {
		t.Error("there are keys all the same")
	}
	if got := events.states(); !slices.Equal(got, []State{Connecting, Failed}) {
		t.Errorf("states %v", got)
	}
}

// TestClientsMayBePassive: then we begin the handshake.
func TestClientsMayBePassive(t *testing.T) {
	e := listen(t)
	s := &session{events: newRecorder(), pc: newPeer(t)}
	if _, err := s.pc.CreateDataChannel("_reliable", nil); err != nil {
		t.Fatal(err)
	}
	none := uint16(0)
	c, err := e.NewConn(s.events, ConnConfig{Channels: []Channel{{Label: "_lossy", MaxRetransmits: &none}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	opened := make(chan string, 4)
	s.pc.OnDataChannel(func(dc *webrtc.DataChannel) { opened <- dc.Label() })
	d, r := offer(t, s.pc, nil)
	r.Setup = "passive"
	if err := c.SetRemote(r); err != nil {
		t.Fatal(err)
	}
	answer(t, s.pc, d, e, c.Local(), "active")
	s.events.awaitState(t, Connected)
	s.events.await(t, "their channel", func(e event) bool { return e.what == "opened" && e.label == "_reliable" })
	select {
	case label := <-opened:
		if label != "_lossy" {
			t.Errorf("opened %q", label)
		}
	case <-time.After(patience):
		t.Error("our channel did not open")
	}
}

// TestProfileOfBefore begins the handshake with a client that would choose another profile
// of SRTP: it gets the one that it has had.
func TestProfileOfBefore(t *testing.T) {
	e := listen(t)
	for _, want := range []Profile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
		pc := newPeer(t, func(s *webrtc.SettingEngine) {
			s.SetSRTPProtectionProfiles(dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AEAD_AES_128_GCM)
		})
		if _, err := pc.CreateDataChannel("_reliable", nil); err != nil {
			t.Fatal(err)
		}
		events := newRecorder()
		c, err := e.NewConn(events, ConnConfig{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		d, r := offer(t, pc, nil)
		r.Setup, r.Profile = "passive", want
		if err := c.SetRemote(r); err != nil {
			t.Fatal(err)
		}
		if got := c.Profile(); got != 0 {
			t.Errorf("profile %d before there are keys", got)
		}
		answer(t, pc, d, e, c.Local(), "active")
		events.awaitState(t, Connected)
		if got := c.Profile(); got != want {
			t.Errorf("profile %d, want %d", got, want)
		}
	}
}

func TestDescriptionsAreChecked(t *testing.T) {
	e := listen(t)
	c := newConn(t, e)
	good := Remote{Setup: "actpass", Fingerprints: []Fingerprint{{"SHA-256", "AB:CD"}}}
	for _, bad := range []struct {
		name   string
		change func(*Remote)
		want   string
	}{
		{"setup", func(r *Remote) { r.Setup = "holdconn" }, `unknown setup "holdconn"`},
		{"weak hash", func(r *Remote) { r.Fingerprints = []Fingerprint{{"sha-1", "AB"}} }, "no fingerprint"},
		{"profile", func(r *Remote) { r.Profile = 99 }, "unknown profile"},
		{"no hash", func(r *Remote) { r.Fingerprints = nil }, "no fingerprint"},
	} {
		r := good
		bad.change(&r)
		if err := c.SetRemote(r); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want %q", bad.name, err, bad.want)
		}
	}
	if err := c.SetRemote(good); err != nil {
		t.Fatal(err)
	}
	again := good
	again.Fingerprints = []Fingerprint{{"sha-256", "ab:cd"}} // the same
	again.Ufrag = "restarted"
	if err := c.SetRemote(again); err != nil {
		t.Error(err)
	}
	again.Fingerprints = []Fingerprint{{"sha-256", "AB:CE"}}
	if err := c.SetRemote(again); err == nil {
		t.Error("another certificate is taken in mid-session")
	}
	c.Close()
	if err := c.SetRemote(good); err == nil {
		t.Error("a closed connection takes a description")
	}
}

func TestGoodbyeAndClose(t *testing.T) {
	e := listen(t)
	s := connect(t, e, ConnConfig{})
	_ = s.pc.Close()
	s.events.awaitState(t, Closed)

	s = connect(t, e, ConnConfig{})
	gone := make(chan struct{})
	s.pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateClosed {
			close(gone)
		}
	})
	defer s.publish("still")()
	s.events.await(t, "packet", func(e event) bool { return e.what == "rtp" })
	s.conn.Close()
	s.events.mu.Lock()
	told := len(s.events.events)
	s.events.mu.Unlock()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the client was not told")
	}
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	if n := len(s.events.events); n != told {
		t.Errorf("%d events after Close", n-told)
	}
	s.conn.Close() // again does nothing
}

// TestSilence follows a client that is cut off and comes back.
func TestSilence(t *testing.T) {
	clock := newClock()
	e := listen(t, func(c *Config) { c.Now = clock.now })
	s := connect(t, e, ConnConfig{})
	clock.advance(silentAfter)
	s.conn.tick(clock.now())
	s.events.awaitState(t, Disconnected)
	stop := s.publish("here again")
	defer stop()
	s.events.await(t, "packet", func(e event) bool { return e.what == "rtp" })
	s.conn.tick(clock.now())
	connected := func() (n int) {
		for _, st := range s.events.states() {
			if st == Connected {
				n++
			}
		}
		return n
	}
	if connected() != 2 {
		t.Errorf("states %v, want connected again", s.events.states())
	}
	stop()
	clock.advance(failedAfter)
	s.conn.tick(clock.now())
	s.events.awaitState(t, Failed)
}

// TestAClientMoves changes the client's socket in mid-session, with an ICE restart.
func TestAClientMoves(t *testing.T) {
	e := listen(t)
	s := connect(t, e, ConnConfig{})
	before := s.conn.sendsTo()
	stop := s.publish("before")
	s.events.await(t, "packet", func(e event) bool { return e.what == "rtp" })
	stop()
	local := s.conn.Restart()
	d, r := offer(t, s.pc, &webrtc.OfferOptions{ICERestart: true})
	if err := s.conn.SetRemote(r); err != nil {
		t.Fatal(err)
	}
	answer(t, s.pc, d, e, local, "passive")
	defer s.publish("after")()
	s.events.await(t, "packet after the restart", func(e event) bool {
		return e.what == "rtp" && strings.HasSuffix(string(e.payload), "after")
	})
	deadline := time.Now().Add(patience)
	for s.conn.sendsTo() == before && time.Now().Before(deadline) {
		s.events.await(t, "more", func(event) bool { return true })
		time.Sleep(time.Millisecond)
	}
	if s.conn.sendsTo() == before {
		t.Error("we still send to where the client was")
	}
	if got := s.events.states(); !slices.Equal(got, []State{Connecting, Connected}) {
		t.Errorf("states %v: the move was noticed", got)
	}
}

// TestFiftyJoinAtOnce on several sockets of one port.
func TestFiftyJoinAtOnce(t *testing.T) {
	const clients = 50
	e := listen(t, func(c *Config) { c.Workers = 2 })
	var all sync.WaitGroup
	took := make([]time.Duration, clients)
	for i := range clients {
		all.Go(func() {
			begun := time.Now()
			s := begin(t, e, ConnConfig{})
			s.events.awaitState(t, Connected)
			took[i] = time.Since(begun)
			<-s.up // so that closing is quick
		})
	}
	all.Wait()
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	t.Logf("join of %d clients at once, theirs included: median %v, last %v", clients, took[clients/2], took[clients-1])
}

func TestTwoNodesDoNotShareAPort(t *testing.T) {
	e := listen(t, func(c *Config) { c.Workers = 2 })
	for _, workers := range []int{1, 2} {
		if other, err := Listen(Config{Media: e.MediaAddrs(), Workers: workers}); err == nil {
			other.Close()
			t.Errorf("a second engine with %d workers took half of the clients", workers)
		}
	}
	if _, err := Listen(Config{}); err == nil {
		t.Error("an engine without an address")
	}
}
