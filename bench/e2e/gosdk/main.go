// Command gosdk has two clients of LiveKit's own Go SDK meet on two nodes. It
// plays one meeting from joining to leaving, each step waiting for what the
// other client is told, and prints how long the steps took as one line of JSON.
//
// It is a module of its own: the SDK is no dependency of the product.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

// patience bounds each step.
const patience = 60 * time.Second

func main() {
	var p play
	flag.StringVar(&p.urls[0], "a", "", "WebSocket URL of the first client's node")
	flag.StringVar(&p.urls[1], "b", "", "WebSocket URL of the second client's node")
	flag.StringVar(&p.key, "key", "", "API key")
	flag.StringVar(&p.room, "room", "gosdk", "room")
	flag.Parse()
	p.secret = os.Getenv("API_SECRET")
	lksdk.SetLogger(logger.GetDiscardLogger())
	if err := p.run(); err != nil {
		fmt.Fprintln(os.Stderr, "gosdk:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(p.took); err != nil {
		fmt.Fprintln(os.Stderr, "gosdk:", err)
		os.Exit(1)
	}
}

// play is the meeting.
type play struct {
	urls              [2]string
	key, secret, room string
	one, two          *client
	opus, vp8         *lksdk.LocalTrackPublication
	took              map[string]string
}

func (p *play) run() error {
	p.took = map[string]string{}
	defer func() {
		for _, c := range []*client{p.one, p.two} {
			if c != nil && c.room != nil {
				c.room.Disconnect()
			}
		}
	}()
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"join", p.join}, {"publish", p.publish}, {"receive", p.receive}, {"egress", p.egress}, {"mute", p.mute}, {"unmute", p.unmute},
		{"data", p.data}, {"addressed data", p.addressed}, {"unpublish", p.unpublish}, {"leave", p.leave},
	} {
		began := time.Now()
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		p.took[s.name] = time.Since(began).Round(time.Millisecond).String()
	}
	return nil
}

func (p *play) join() (err error) {
	if p.one, err = p.connect(0, "one"); err != nil {
		return err
	}
	if p.two, err = p.connect(1, "two"); err != nil {
		return err
	}
	for _, c := range []*client{p.one, p.two} {
		other := map[string]string{"one": "two", "two": "one"}[c.name]
		if err := c.until("sees "+other, func() bool { return c.present[other] }); err != nil {
			return err
		}
		if e := c.room.ServerInfo().GetEdition(); e != livekit.ServerInfo_Standard {
			return fmt.Errorf("server edition is %s", e)
		}
	}
	return nil
}

func (p *play) connect(i int, name string) (*client, error) {
	c := newClient(name)
	info := lksdk.ConnectInfo{APIKey: p.key, APISecret: p.secret, RoomName: p.room, ParticipantIdentity: name,
		ParticipantName: "Client " + name}
	var err error
	if c.room, err = lksdk.ConnectToRoom(p.urls[i], info, c.callbacks()); err != nil {
		return nil, fmt.Errorf("client %s: %w", name, err)
	}
	c.change(func() {
		for _, r := range c.room.GetRemoteParticipants() {
			c.present[r.Identity()] = true
		}
	})
	return c, nil
}

func (p *play) publish() (err error) {
	if p.opus, err = p.one.publish(webrtc.MimeTypeOpus, &source{frame: 20 * time.Millisecond, make: opusFrame}); err != nil {
		return err
	}
	p.vp8, err = p.one.publish(webrtc.MimeTypeVP8, &source{frame: 33 * time.Millisecond, make: vp8Frame})
	return err
}

func (p *play) receive() error {
	for _, mime := range []string{webrtc.MimeTypeOpus, webrtc.MimeTypeVP8} {
		if err := p.two.until("gets 50 packets of "+mime, func() bool { return p.two.packets[mime] >= 50 }); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) mute() error {
	p.opus.SetMuted(true)
	return p.two.until("is told of the mute", func() bool { return p.two.muted[p.opus.SID()] })
}

func (p *play) unmute() error {
	var before int
	p.two.change(func() { before = p.two.packets[webrtc.MimeTypeOpus] })
	p.opus.SetMuted(false)
	if err := p.two.until("is told of the unmute", func() bool { return !p.two.muted[p.opus.SID()] }); err != nil {
		return err
	}
	return p.two.until("hears again", func() bool { return p.two.packets[webrtc.MimeTypeOpus] >= before+20 })
}

// data goes reliably, both ways, larger than one SCTP packet.
func (p *play) data() error {
	for _, way := range [][2]*client{{p.one, p.two}, {p.two, p.one}} {
		from, to := way[0], way[1]
		text := bytes.Repeat([]byte(from.name+" says hello. "), 500)
		if err := from.room.LocalParticipant.PublishDataPacket(lksdk.UserData(text), lksdk.WithDataPublishReliable(true),
			lksdk.WithDataPublishTopic("greeting")); err != nil {
			return err
		}
		err := to.until("gets the data of "+from.name, func() bool { return to.data[from.name+"/greeting"] == string(text) })
		if err != nil {
			return err
		}
	}
	return nil
}

// addressed data reaches the one it is for.
func (p *play) addressed() error {
	err := p.one.room.LocalParticipant.PublishDataPacket(lksdk.UserData([]byte("psst")), lksdk.WithDataPublishReliable(true),
		lksdk.WithDataPublishTopic("private"), lksdk.WithDataPublishDestination([]string{"two"}))
	if err != nil {
		return err
	}
	return p.two.until("gets what is for it", func() bool { return p.two.data["one/private"] == "psst" })
}

func (p *play) unpublish() error {
	sid := p.vp8.SID()
	if err := p.one.room.LocalParticipant.UnpublishTrack(sid); err != nil {
		return err
	}
	return p.two.until("is told that the track is gone", func() bool { return p.two.gone[sid] })
}

func (p *play) leave() error {
	p.one.room.Disconnect()
	return p.two.until("sees the other leave", func() bool { return !p.two.present["one"] })
}

// client is one participant and what it was told.
type client struct {
	name string
	room *lksdk.Room

	mu      sync.Mutex
	changed chan struct{} // closed and renewed at every change
	present map[string]bool
	packets map[string]int // by MIME type
	muted   map[string]bool
	gone    map[string]bool
	data    map[string]string // by "sender/topic"
}

func newClient(name string) *client {
	return &client{name: name, changed: make(chan struct{}), present: map[string]bool{}, packets: map[string]int{},
		muted: map[string]bool{}, gone: map[string]bool{}, data: map[string]string{}}
}

func (c *client) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// until waits for a condition on what the client was told.
func (c *client) until(what string, ok func() bool) error {
	timeout := time.After(patience)
	for {
		c.mu.Lock()
		done, changed := ok(), c.changed
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-timeout:
			return fmt.Errorf("client %s: not within %s: %s", c.name, patience, what)
		}
	}
}

func (c *client) callbacks() *lksdk.RoomCallback {
	return &lksdk.RoomCallback{
		OnParticipantConnected: func(p *lksdk.RemoteParticipant) {
			c.change(func() { c.present[p.Identity()] = true })
		},
		OnParticipantDisconnected: func(p *lksdk.RemoteParticipant) {
			c.change(func() { delete(c.present, p.Identity()) })
		},
		ParticipantCallback: lksdk.ParticipantCallback{
			OnTrackSubscribed: func(t *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, _ *lksdk.RemoteParticipant) {
				go c.read(t)
			},
			OnTrackUnpublished: func(p *lksdk.RemoteTrackPublication, _ *lksdk.RemoteParticipant) {
				c.change(func() { c.gone[p.SID()] = true })
			},
			OnTrackMuted: func(p lksdk.TrackPublication, _ lksdk.Participant) {
				c.change(func() { c.muted[p.SID()] = true })
			},
			OnTrackUnmuted: func(p lksdk.TrackPublication, _ lksdk.Participant) {
				c.change(func() { delete(c.muted, p.SID()) })
			},
			OnDataPacket: func(d lksdk.DataPacket, from lksdk.DataReceiveParams) {
				if u, ok := d.(*lksdk.UserDataPacket); ok {
					c.change(func() { c.data[from.SenderIdentity+"/"+u.Topic] = string(u.Payload) })
				}
			},
		},
	}
}

// read counts the packets of a track until it ends.
func (c *client) read(t *webrtc.TrackRemote) {
	for {
		if _, _, err := t.ReadRTP(); err != nil {
			return
		}
		c.change(func() { c.packets[t.Codec().MimeType]++ })
	}
}

func (c *client) publish(mime string, s *source) (*lksdk.LocalTrackPublication, error) {
	t, err := lksdk.NewLocalTrack(webrtc.RTPCodecCapability{MimeType: mime})
	if err != nil {
		return nil, err
	}
	bound := make(chan struct{})
	t.OnBind(sync.OnceFunc(func() { close(bound) }))
	pub, err := c.room.LocalParticipant.PublishTrack(t, &lksdk.TrackPublicationOptions{Name: mime})
	if err != nil {
		return nil, fmt.Errorf("publish %s: %w", mime, err)
	}
	select {
	case <-bound:
	case <-time.After(patience):
		return nil, fmt.Errorf("publish %s: %w", mime, errors.New("the track was not negotiated"))
	}
	return pub, t.StartWrite(s, nil)
}

// source makes samples in real time.
type source struct {
	frame time.Duration
	make  func(n int) []byte
	n     int
}

// NextSample implements lksdk.SampleProvider.
func (s *source) NextSample(context.Context) (media.Sample, error) {
	s.n++
	return media.Sample{Data: s.make(s.n - 1), Duration: s.frame}, nil
}

// OnBind implements lksdk.SampleProvider.
func (s *source) OnBind() error { return nil }

// OnUnbind implements lksdk.SampleProvider.
func (s *source) OnUnbind() error { return nil }

// Close implements lksdk.SampleProvider.
func (s *source) Close() error { return nil }

// opusFrame is 20 ms of silence (RFC 6716: CELT, full band, one frame).
func opusFrame(int) []byte { return []byte{0xf8, 0xff, 0xfe} }

// vp8Frame has a true header (RFC 6386 section 9.1), a key frame of 64×36 once
// a second, and a body that nobody decodes.
func vp8Frame(n int) []byte {
	b := make([]byte, 600)
	b[0] = 0x11 // an interframe that is shown
	if n%30 == 0 {
		copy(b, []byte{0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 36, 0})
	}
	return b
}
