package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/whip"
)

// directClient is a client of WHIP or WHEP: HTTP and one peer connection.
type directClient struct {
	t       *testing.T
	node    *testNode
	token   string
	pc      *webrtc.PeerConnection
	session string // URL
	etag    string
	answer  string
	got     [2]atomic.Uint64 // packets of audio, video
	last    atomic.Int32     // last byte of the last picture
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

func newDirectClient(t *testing.T, n *testNode, room, identity string, edit func(*control.Grants)) *directClient {
	t.Helper()
	c := &directClient{t: t, node: n, token: tokenFor(t, room, identity, edit), pc: newPeer(t)}
	c.stop = func() {}
	c.pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			if n := len(p.Payload); n > 0 && tr.Kind() == webrtc.RTPCodecTypeVideo {
				c.last.Store(int32(p.Payload[n-1]))
			}
			if tr.Kind() == webrtc.RTPCodecTypeAudio {
				c.got[0].Add(1)
			} else {
				c.got[1].Add(1)
			}
		}
	})
	t.Cleanup(func() { c.close() })
	return c
}

func (c *directClient) close() {
	c.stop()
	c.pc.GracefulClose() //nolint:errcheck // it may be closed already
	c.wg.Wait()
	http.DefaultClient.CloseIdleConnections()
}

// request makes one of the protocol's requests.
func (c *directClient) request(method, url, kind, match, body string) (*http.Response, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", kind)
	if match != "" {
		req.Header.Set("If-Match", match)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, string(b)
}

// post sends the peer connection's offer to a path and applies the answer.
func (c *directClient) post(path string) {
	c.t.Helper()
	res, body := c.tryPost(path)
	if res.StatusCode != http.StatusCreated {
		c.t.Fatalf("POST %s: %s %s", path, res.Status, body)
	}
	c.session, c.etag, c.answer = "http://"+c.node.addr.String()+res.Header.Get("Location"), res.Header.Get("ETag"), body
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: body}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *directClient) tryPost(path string) (*http.Response, string) {
	c.t.Helper()
	if c.pc.LocalDescription() == nil {
		offer, err := c.pc.CreateOffer(nil)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := c.pc.SetLocalDescription(offer); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.request("POST", "http://"+c.node.addr.String()+path, "application/sdp", "", c.pc.LocalDescription().SDP)
}

// sends adds a camera and a microphone that never stop.
func (c *directClient) sends() *directClient {
	c.t.Helper()
	for _, cap := range []webrtc.RTPCodecCapability{
		{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, {MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}} {
		track, err := webrtc.NewTrackLocalStaticRTP(cap, "id of "+cap.MimeType, "stream")
		if err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			c.t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		before := c.stop
		c.stop = func() { stop(); before() }
		c.wg.Go(func() { (&client{ctx: ctx}).stream(track) })
	}
	return c
}

// receives adds a section for audio and one for video.
func (c *directClient) receives() *directClient {
	c.t.Helper()
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if _, err := c.pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			c.t.Fatal(err)
		}
	}
	return c
}

// plays waits until more of both kinds arrive.
func (c *directClient) plays() {
	c.t.Helper()
	from := [2]uint64{c.got[0].Load(), c.got[1].Load()}
	eventually(c.t, "more sound and picture arrive", func() bool {
		return c.got[0].Load() > from[0]+5 && c.got[1].Load() > from[1]+5
	})
}

var (
	ufrag = regexp.MustCompile(`a=ice-ufrag:(\S+)`)
	pwd   = regexp.MustCompile(`a=ice-pwd:(\S+)`)
)

// restart changes the ICE credentials of both sides by PATCH alone.
func (c *directClient) restart() {
	c.t.Helper()
	offer, err := c.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.pc.SetLocalDescription(offer); err != nil {
		c.t.Fatal(err)
	}
	res, body := c.request("PATCH", c.session, "application/trickle-ice-sdpfrag", "*", ufrag.FindString(offer.SDP)+"\r\n"+pwd.FindString(offer.SDP)+"\r\n")
	if res.StatusCode != 200 || res.Header.Get("ETag") == c.etag || !strings.Contains(body, "a=candidate:") || !strings.Contains(body, "a=ice-lite") {
		c.t.Fatalf("restart: %s %v %s", res.Status, res.Header, body)
	}
	c.etag = res.Header.Get("ETag")
	answer := ufrag.ReplaceAllString(pwd.ReplaceAllString(c.answer, pwd.FindString(body)), ufrag.FindString(body))
	if answer == c.answer {
		c.t.Fatal("the node's credentials are the old ones")
	}
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *directClient) delete() int {
	res, _ := c.request("DELETE", c.session, "", "", "")
	return res.StatusCode
}

// TestWHIP publishes over plain HTTP into a room that people see on other nodes.
func TestWHIP(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	bob := enter(t, m.node("fra"), "studio", "bob", nil)
	encoder := newDirectClient(t, m.node("waw"), "studio", "encoder", func(g *control.Grants) {
		g.Attributes = map[string]string{"whip.video.source": "screen_share", "whip.video.name": "slides"}
	}).sends()
	encoder.post("/whip")
	bob.sees("encoder")

	sids := map[livekit.TrackSource]string{}
	bob.await("both tracks are there", func() bool {
		p := bob.people["encoder"]
		for _, ti := range p.Tracks {
			sids[ti.Source] = ti.Sid
			if ti.Source == livekit.TrackSource_SCREEN_SHARE && ti.Name != "slides" {
				t.Errorf("the video is called %q", ti.Name)
			}
		}
		return len(p.Tracks) == 2 && p.Kind == livekit.ParticipantInfo_INGRESS && p.State == livekit.ParticipantInfo_ACTIVE
	})
	screen, voice := sids[livekit.TrackSource_SCREEN_SHARE], sids[livekit.TrackSource_MICROPHONE]
	bob.hears(screen)
	bob.hears(voice)

	t.Run("ICE restarts while it publishes", func(t *testing.T) {
		encoder.restart()
		bob.hears(screen)
		if res, body := encoder.request("PATCH", encoder.session, "application/trickle-ice-sdpfrag", encoder.etag, "a=end-of-candidates\r\n"); res.StatusCode != 204 {
			t.Errorf("PATCH: %s %s", res.Status, body)
		}
	})
	t.Run("the same identity again takes its place", func(t *testing.T) {
		second := newDirectClient(t, m.node("waw"), "studio", "encoder", nil).sends()
		second.post("/whip/studio")
		eventually(t, "the first session is gone", func() bool {
			res, _ := encoder.request("GET", encoder.session, "", "", "")
			return res.StatusCode == 404
		})
		bob.await("the second is there", func() bool {
			p := bob.people["encoder"]
			return p != nil && len(p.Tracks) == 2 && p.Tracks[0].Sid != screen && p.Tracks[1].Sid != screen
		})
		if code := second.delete(); code != 200 {
			t.Errorf("DELETE: %d", code)
		}
		bob.sees()
	})
	t.Run("the room sends it away", func(t *testing.T) {
		third := newDirectClient(t, m.node("waw"), "studio", "third", nil).sends()
		third.post("/whip")
		bob.sees("third")
		if err := (service{m.node("fra").Node}).DeleteRoom(context.Background(), "studio"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its session is gone", func() bool {
			res, _ := third.request("GET", third.session, "", "", "")
			return res.StatusCode == 404
		})
	})
}

// TestWHIPEndsWithItsMedia: an encoder that goes without a word is gone.
func TestWHIPEndsWithItsMedia(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	bob := enter(t, m.node("fra"), "studio", "bob", nil)
	encoder := newDirectClient(t, m.node("fra"), "studio", "encoder", nil).sends()
	encoder.post("/whip")
	bob.sees("encoder")
	bob.await("the tracks are there", func() bool { return len(bob.people["encoder"].Tracks) == 2 })
	encoder.pc.Close() //nolint:errcheck // DTLS says that it closes
	bob.sees()
	if n := m.node("fra").whip.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestWHEP plays what one participant publishes, then what the room shows.
func TestWHEP(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	anna := enter(t, m.node("waw"), "studio", "anna", nil)
	player := func(path string, edit func(*control.Grants)) *directClient {
		p := newDirectClient(t, m.node("fra"), "studio", "player", edit).receives()
		p.post(path)
		return p
	}
	refused := func(path, want string, status int) *http.Response {
		t.Helper()
		res, body := newDirectClient(t, m.node("fra"), "studio", "late", nil).receives().tryPost(path)
		if res.StatusCode != status || !strings.Contains(body, want) {
			t.Errorf("POST %s: %s %s", path, res.Status, body)
		}
		return res
	}
	refused("/whep/studio/nobody", "of that name", 404)
	if refused("/whep/studio/anna", "nothing is published", 409).Header.Get("Retry-After") == "" {
		t.Error("409 without Retry-After")
	}
	refused("/whep/studio", "nothing is published", 409)
	anna.sees() // those who were refused are gone again

	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	anna.publish("voice", livekit.TrackType_AUDIO)
	bob := enter(t, m.node("fra"), "studio", "bob", nil)
	bob.hears(camera)

	hidden := func(g *control.Grants) { g.Video.Hidden = true }
	first, second := player("/whep/studio/anna", hidden), player("/whep/studio/anna", hidden)
	first.plays()
	second.plays()
	anna.sees("bob") // and no player, though two came with one token
	if code := second.delete(); code != 200 {
		t.Errorf("DELETE: %d", code)
	}
	first.plays()
	seen := player("/whep/studio/"+camera, nil)
	eventually(t, "the camera alone is played", func() bool { return seen.got[1].Load() > 5 })
	anna.sees("bob", "player")
	if n := seen.got[0].Load(); n > 0 {
		t.Errorf("%d packets of sound came with the camera", n)
	}
	seen.delete()

	t.Run("ICE restarts while it plays", func(t *testing.T) {
		first.restart()
		first.plays()
	})
	// The source comes back, through another node.
	anna.close()
	bob.sees()
	anna = enter(t, m.node("fra"), "studio", "anna", nil)
	anna.publish("camera", livekit.TrackType_VIDEO)
	anna.publish("voice", livekit.TrackType_AUDIO)
	first.plays()
	// Who named nobody sees the room move on to somebody else.
	all := player("/whep", hidden)
	all.plays()
	bob.publish("camera", livekit.TrackType_VIDEO)
	bob.publish("voice", livekit.TrackType_AUDIO)
	anna.close()
	bob.sees()
	all.plays()
}

func TestWHIPRefusals(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "nyc US")
	c := newDirectClient(t, m.node("nyc"), "parliament", "encoder", preset("eea-only")).sends()
	res, body := c.tryPost("/whip")
	var p whip.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if res.StatusCode != 307 || res.Header.Get("Location") != "https://fra.example/whip?redirected=1" || p.Node != "fra" || p.Rule == "" || p.Policy != "eea-only" {
		t.Errorf("%s %v %+v", res.Status, res.Header, p)
	}
	if res, _ := c.tryPost("/whip?redirected=1"); res.StatusCode != 403 {
		t.Errorf("redirected again: %s", res.Status)
	}
	sources := newDirectClient(t, m.node("fra"), "parliament", "encoder", func(g *control.Grants) {
		g.RoomPreset = "eea-only"
		g.Video.CanPublishSources = []string{"microphone"}
	}).sends()
	if res, body := sources.tryPost("/whip"); res.StatusCode != 403 || !strings.Contains(body, "CAMERA") {
		t.Errorf("a camera against the token: %s %s", res.Status, body)
	}
	if n := m.node("fra").whip.Sessions() + m.node("nyc").whip.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// Every error of a room has an answer, and an OBS hears it before it gives up.
func TestAsProblem(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		retry  bool
	}{
		{room.ErrNoSource, 404, false}, {room.ErrSilent, 409, true}, {fmt.Errorf("%w: video/AV1", room.ErrCodec), 422, false},
		{fmt.Errorf("%w: no", room.ErrOffer), 422, false}, {room.ErrTrackRefused, 403, false}, {room.ErrFull, 403, false},
		{errShutdown, 503, true}, {context.DeadlineExceeded, 503, true}, {&Refusal{Code: CodeNotFound, Message: "x"}, 404, false},
	} {
		var p *whip.Problem
		if err := asProblem(fmt.Errorf("join: %w", c.err)); !errors.As(err, &p) || p.Status != c.status || p.RetryAfter > 0 != c.retry {
			t.Errorf("%v: %+v", c.err, err)
		}
	}
	if openWait >= 8*time.Second {
		t.Errorf("an answer may take %s", openWait)
	}
}

// TestEncodersAreAnswered offers a node what known encoders and players offer.
func TestEncodersAreAnswered(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	anna := enter(t, m.node("fra"), "studio", "anna", nil)
	anna.publish("camera", livekit.TrackType_VIDEO)
	anna.publish("voice", livekit.TrackType_AUDIO)
	anna.await("both are in the room", func() bool { return len(anna.self.GetTracks()) == 2 })
	files, err := filepath.Glob("whip/testdata/offers/*.sdp")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d offers: %v", len(files), err)
	}
	for _, file := range files {
		offer, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		path, way := "/whip", "a=recvonly"
		if strings.HasPrefix(filepath.Base(file), "whep") {
			path, way = "/whep/studio/anna", "a=sendonly"
		}
		c := newDirectClient(t, m.node("fra"), "studio", "encoder", nil)
		res, body := c.request("POST", "http://"+c.node.addr.String()+path, "application/sdp", "", string(offer))
		if res.StatusCode != 201 || strings.Count(body, way+"\r\n") != strings.Count(string(offer), "\nm=") {
			t.Errorf("%s: %s %s", filepath.Base(file), res.Status, body)
			continue
		}
		c.session = "http://" + c.node.addr.String() + res.Header.Get("Location")
		if code := c.delete(); code != 200 {
			t.Errorf("%s: DELETE answers %d", filepath.Base(file), code)
		}
	}
}

// TestWHEPFollowsTheSpeaker: two people on two nodes speak in turn, and a player
// on a third that named nobody sees who speaks.
func TestWHEPFollowsTheSpeaker(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "nyc US")
	anna := newSpeaker(t, m.node("waw"), "anna", 'A')
	bob := newSpeaker(t, m.node("fra"), "bob", 'B')
	bob.loud.Store(true)
	eventually(t, "both publish", func() bool {
		people := m.node("fra").rooms.get("studio").Snapshot().Participants
		return len(people) == 2 && len(people[0].Tracks) == 2 && len(people[1].Tracks) == 2
	})
	player := newDirectClient(t, m.node("nyc"), "studio", "player", nil).receives()
	player.post("/whep")
	for _, turn := range []*speakingClient{bob, anna, bob} {
		anna.loud.Store(turn == anna)
		bob.loud.Store(turn == bob)
		eventually(t, fmt.Sprintf("the player sees %c", turn.mark), func() bool { return player.last.Load() == int32(turn.mark) })
		player.plays()
	}
}

// speakingClient publishes a picture that tells whose it is, and sound whose
// level it states.
type speakingClient struct {
	*directClient
	mark byte
	loud atomic.Bool
}

func newSpeaker(t *testing.T, n *testNode, identity string, mark byte) *speakingClient {
	t.Helper()
	c := &speakingClient{directClient: newDirectClient(t, n, "studio", identity, nil), mark: mark}
	c.pc.Close() //nolint:errcheck // another takes its place
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: sdp.AudioLevelURI}, webrtc.RTPCodecTypeAudio); err != nil {
		t.Fatal(err)
	}
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	var err error
	if c.pc, err = webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Fatal(err)
	}
	var tracks []*webrtc.TrackLocalStaticRTP
	var sound *webrtc.RTPSender
	for _, mime := range []string{webrtc.MimeTypeVP8, webrtc.MimeTypeOpus} {
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, mime, "stream")
		if err != nil {
			t.Fatal(err)
		}
		tr, err := c.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			t.Fatal(err)
		}
		tracks, sound = append(tracks, track), tr.Sender()
	}
	c.post("/whip")
	ids := sound.GetParameters().HeaderExtensions
	level := slices.IndexFunc(ids, func(h webrtc.RTPHeaderExtensionParameter) bool { return h.URI == sdp.AudioLevelURI })
	if level < 0 {
		t.Fatalf("header extensions: %v", ids)
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.wg.Go(func() { c.speak(ctx, tracks[0], tracks[1], uint8(ids[level].ID)) })
	return c
}

// speak sends a picture and a sound every 20 ms, each picture a key frame.
func (c *speakingClient) speak(ctx context.Context, picture, sound *webrtc.TrackLocalStaticRTP, level uint8) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	payload := append([]byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00}, c.mark)
	for n := uint32(1); ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		picture.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, Marker: true, SequenceNumber: uint16(n), Timestamp: n * 1800}, Payload: payload}) //nolint:errcheck // not connected yet, or not any more
		p := rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(n), Timestamp: n * 960}, Payload: []byte{0xfc, 1, 2, 3}}
		stated := byte(127) // silence
		if c.loud.Load() {
			stated = 0x80 | 20
		}
		p.SetExtension(level, []byte{stated}) //nolint:errcheck // of one byte
		sound.WriteRTP(&p)                    //nolint:errcheck // see above
	}
}

// TestWHEPOnANodeWithoutTheRoom: the first player of a node comes before the node
// knows who is in the room.
func TestWHEPOnANodeWithoutTheRoom(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "nyc US")
	anna := enter(t, m.node("waw"), "studio", "anna", nil)
	anna.publish("camera", livekit.TrackType_VIDEO)
	anna.publish("voice", livekit.TrackType_AUDIO)
	anna.await("both are in the room", func() bool { return len(anna.self.GetTracks()) == 2 })
	for _, path := range []string{"/whep/studio/anna", "/whep"} {
		p := newDirectClient(t, m.node("nyc"), "studio", "player", nil).receives()
		p.post(path)
		p.plays()
		p.delete()
		eventually(t, "the room has left the node", func() bool { return m.node("nyc").rooms.get("studio") == nil })
	}
}
