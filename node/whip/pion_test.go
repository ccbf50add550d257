package whip

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// pionRooms is a media server of one room that pion carries: what is published
// goes to whoever watches.
type pionRooms struct {
	t    *testing.T
	api  *webrtc.API
	mu   sync.Mutex
	play *webrtc.TrackLocalStaticRTP
}

func (p *pionRooms) Publish(_ context.Context, _ Join, offer Offer) (Session, Answer, error) {
	s := p.session()
	s.pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			pkt, _, err := t.ReadRTP()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.play.WriteRTP(pkt)
			p.mu.Unlock()
		}
	})
	answer, err := s.answer(offer.SDP)
	return s, Answer{SDP: answer}, err
}

func (p *pionRooms) Watch(_ context.Context, _ Join, _ string, offer Offer) (Session, Answer, error) {
	s := p.session()
	if _, err := s.pc.AddTrack(p.play); err != nil {
		return nil, Answer{}, err
	}
	answer, err := s.answer(offer.SDP)
	return s, Answer{SDP: answer}, err
}

func (p *pionRooms) session() *pionSession {
	pc, err := p.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		p.t.Fatal(err)
	}
	s := &pionSession{pc: pc, connected: make(chan struct{}), done: make(chan struct{})}
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			s.up.Do(func() { close(s.connected) })
		}
	})
	return s
}

type pionSession struct {
	pc              *webrtc.PeerConnection
	offer           string
	up, down        sync.Once
	connected, done chan struct{}
}

func (s *pionSession) answer(offer string) (string, error) {
	s.offer = offer
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	answer, err := s.pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(s.pc)
	if err := s.pc.SetLocalDescription(answer); err != nil {
		return "", err
	}
	<-gathered
	return s.pc.LocalDescription().SDP, nil
}

var (
	ufragLine     = regexp.MustCompile(`a=ice-ufrag:\S+`)
	pwdLine       = regexp.MustCompile(`a=ice-pwd:\S+`)
	candidateLine = regexp.MustCompile(`(?m)^a=candidate:(.*?)\r?$`)
)

// withICE puts other credentials into a description.
func withICE(sdp string, c Credentials) string {
	return pwdLine.ReplaceAllString(ufragLine.ReplaceAllString(sdp, "a=ice-ufrag:"+c.Ufrag), "a=ice-pwd:"+c.Pwd)
}

func credentialsOf(sdp string) Credentials {
	return Credentials{strings.TrimPrefix(ufragLine.FindString(sdp), "a=ice-ufrag:"), strings.TrimPrefix(pwdLine.FindString(sdp), "a=ice-pwd:")}
}

func (s *pionSession) Restart(c Credentials) (Restarted, error) {
	answer, err := s.answer(withICE(s.offer, c))
	r := Restarted{Credentials: credentialsOf(answer)}
	for _, m := range candidateLine.FindAllStringSubmatch(answer, -1) {
		r.Candidates = append(r.Candidates, m[1])
	}
	return r, err
}

func (s *pionSession) Connected() <-chan struct{} { return s.connected }
func (s *pionSession) Done() <-chan struct{}      { return s.done }
func (s *pionSession) Close() {
	s.down.Do(func() {
		s.pc.Close()
		close(s.done)
	})
}

// client is a WHIP client or WHEP player made of pion.
type client struct {
	t             *testing.T
	url, auth     string
	pc            *webrtc.PeerConnection
	session, etag string
	answer        string
}

// connect POSTs the offer of what has been added to the peer connection.
func (c *client) connect(path string) {
	c.t.Helper()
	offer, err := c.pc.CreateOffer(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(c.pc)
	if err := c.pc.SetLocalDescription(offer); err != nil {
		c.t.Fatal(err)
	}
	<-gathered
	code, h, body := c.send("POST", c.url+path, typeSDP, "", c.pc.LocalDescription().SDP)
	if code != 201 {
		c.t.Fatalf("POST %s: %d %s", path, code, body)
	}
	c.session, c.etag, c.answer = h.Get("Location"), h.Get("ETag"), body
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: body}); err != nil {
		c.t.Fatal(err)
	}
}

// restart exchanges ICE credentials and candidates by PATCH alone.
func (c *client) restart() {
	c.t.Helper()
	offer, err := c.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.pc.SetLocalDescription(offer); err != nil {
		c.t.Fatal(err)
	}
	own := credentialsOf(offer.SDP)
	code, h, body := c.send("PATCH", c.url+c.session, typeFragment, "*", "a=ice-ufrag:"+own.Ufrag+"\r\na=ice-pwd:"+own.Pwd+"\r\n")
	if code != 200 || h.Get("ETag") == c.etag {
		c.t.Fatalf("restart: %d %v %s", code, h, body)
	}
	c.etag = h.Get("ETag")
	fresh := withICE(candidateLine.ReplaceAllString(c.answer, "a=x"), credentialsOf(body))
	for _, m := range candidateLine.FindAllString(body, -1) {
		fresh += strings.TrimSpace(m) + "\r\n"
	}
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: fresh}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) send(method, url, kind, match, body string) (int, http.Header, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", c.auth)
	req.Header.Set("Content-Type", kind)
	if match != "" {
		req.Header.Set("If-Match", match)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// A publisher and a player of another make go through the whole protocol, with
// media, over a real connection.
func TestPionPublishesAndPlays(t *testing.T) {
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(media))
	track := func(id string) *webrtc.TrackLocalStaticRTP {
		tr, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, id, "stream")
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	r := newRig(t, func(c *Config) {
		c.Rooms = &pionRooms{t: t, api: api, play: track("played")}
		c.Base, c.Now = "", func() time.Time { return start }
	})
	server := httptest.NewServer(r.mux)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	newClient := func(identity string) *client {
		pc, err := api.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			t.Fatal(err)
		}
		return &client{t: t, url: server.URL, auth: "Bearer " + token(t, identity, nil), pc: pc}
	}

	publisher, player := newClient("alice"), newClient("bob")
	defer publisher.pc.Close()
	defer player.pc.Close()
	sent := track("camera")
	if _, err := publisher.pc.AddTransceiverFromTrack(sent, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		t.Fatal(err)
	}
	publisher.connect("/whip/studio")

	heard := make(chan string, 100)
	player.pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			select {
			case heard <- string(p.Payload):
			default:
			}
		}
	})
	if _, err := player.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	player.connect("/whep/studio/alice")

	stop := make(chan struct{})
	var sending sync.WaitGroup
	say := make(chan string, 1)
	sending.Go(func() {
		payload, tick := "", time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for n := uint16(0); ; n++ {
			select {
			case <-stop:
				return
			case payload = <-say:
			case <-tick.C:
			}
			sent.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: n, Timestamp: uint32(n) * 900}, Payload: []byte(payload)})
		}
	})
	defer sending.Wait()
	defer close(stop)
	arrives := func(word string) {
		t.Helper()
		say <- word
		deadline := time.After(20 * time.Second)
		for {
			select {
			case got := <-heard:
				if got == word {
					return
				}
			case <-deadline:
				t.Fatalf("%q does not arrive", word)
			}
		}
	}
	arrives("\x10\x01 before")
	publisher.restart()
	player.restart()
	arrives("\x10\x01 after the restarts")

	for _, c := range []*client{publisher, player} {
		if code, _, _ := c.send("PATCH", c.url+c.session, typeFragment, c.etag, "a=end-of-candidates\r\n"); code != 204 {
			t.Errorf("the end of candidates: %d", code)
		}
		if code, _, _ := c.send("DELETE", c.url+c.session, "", "", ""); code != 200 {
			t.Errorf("DELETE: %d", code)
		}
		if code, _, _ := c.send("DELETE", c.url+c.session, "", "", ""); code != 404 {
			t.Errorf("DELETE again: %d", code)
		}
	}
	if r.s.Sessions() != 0 {
		t.Errorf("%d sessions are left", r.s.Sessions())
	}
}
