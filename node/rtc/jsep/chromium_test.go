package jsep

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// conversation is one with a Chromium. With -update it is a real one, and what
// was said is kept; without, what we say is compared with what it was, and
// Chromium says again what it said then.
type conversation struct {
	t       *testing.T
	said    *txtar.Archive
	next    int // file of the archive
	browser *browser
}

// step is one turn of it, as testdata/browser.mjs describes.
type step struct {
	JS     string  `json:"js,omitempty"`
	Offer  *string `json:"offer,omitempty"`
	Answer *string `json:"answer,omitempty"`
}

type reply struct {
	SDP    string          `json:"sdp,omitempty"`
	Value  json.RawMessage `json:"value"`
	Tracks []string        `json:"tracks"` // "mid kind track stream" of tracks that began
	Error  string          `json:"error"`
}

func converse(t *testing.T) *conversation {
	file := filepath.Join("testdata", "conversations", strings.ReplaceAll(t.Name(), "/", "-")+".txt")
	c := &conversation{t: t, said: &txtar.Archive{}}
	if *update {
		c.browser = startBrowser(t)
		t.Cleanup(func() {
			if t.Failed() {
				return
			}
			must(t, os.MkdirAll(filepath.Dir(file), 0o755))
			must(t, os.WriteFile(file, txtar.Format(c.said), 0o644))
		})
		return c
	}
	var err error
	c.said, err = txtar.ParseFile(file)
	must(t, err)
	t.Cleanup(func() {
		if c.next != len(c.said.Files) && !t.Failed() {
			t.Errorf("the conversation ended after %d of %d turns", c.next, len(c.said.Files))
		}
	})
	return c
}

// offers has Chromium run something and offer.
func (c *conversation) offers(js string) reply { return c.turn(step{JS: js}) }

// answers gives Chromium our offer, runs something, and has it answer.
func (c *conversation) answers(offer, js string) reply { return c.turn(step{JS: js, Offer: &offer}) }

// takes gives Chromium our answer and runs something.
func (c *conversation) takes(answer, js string) reply { return c.turn(step{JS: js, Answer: &answer}) }

func (c *conversation) turn(s step) (r reply) {
	c.t.Helper()
	c.say("the page runs", s.JS+"\n")
	switch {
	case s.Offer != nil:
		c.say("Chromium is offered", strings.ReplaceAll(*s.Offer, "\r\n", "\n"))
	case s.Answer != nil:
		c.say("Chromium is answered", strings.ReplaceAll(*s.Answer, "\r\n", "\n"))
	}
	if c.browser != nil {
		r = c.browser.turn(c.t, s)
	}
	heard, err := json.Marshal(reply{Value: r.Value, Tracks: r.Tracks, Error: r.Error})
	must(c.t, err)
	must(c.t, json.Unmarshal([]byte(c.hear("Chromium found", string(heard)+"\n")), &r))
	if s.Answer == nil {
		r.SDP = strings.ReplaceAll(c.hear("Chromium says", strings.ReplaceAll(r.SDP, "\r\n", "\n")), "\n", "\r\n")
	}
	if r.Error != "" {
		c.t.Fatalf("Chromium: %s", r.Error)
	}
	return r
}

// say notes what we say, or compares it with what we said.
func (c *conversation) say(name, text string) {
	c.t.Helper()
	if f := c.file(name, text); string(f.Data) != text {
		c.t.Fatalf("turn %d, %s: said\n%s\ninstead of\n%s", c.next, name, text, f.Data)
	}
}

// hear notes what Chromium says, or returns what it said.
func (c *conversation) hear(name, text string) string {
	c.t.Helper()
	return string(c.file(name, text).Data)
}

func (c *conversation) file(name, text string) txtar.File {
	c.t.Helper()
	if c.browser != nil {
		c.said.Files = append(c.said.Files, txtar.File{Name: name, Data: []byte(text)})
	}
	if c.next >= len(c.said.Files) || c.said.Files[c.next].Name != name {
		c.t.Fatalf("turn %d was not %q", c.next, name)
	}
	c.next++
	return c.said.Files[c.next-1]
}

// browser is a Chromium with one peer connection.
type browser struct {
	in  *json.Encoder
	out *bufio.Reader
}

func startBrowser(t *testing.T) *browser {
	cmd := exec.Command("node", "testdata/browser.mjs")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, in.Close())
		must(t, cmd.Wait())
	})
	return &browser{json.NewEncoder(in), bufio.NewReader(out)}
}

func (b *browser) turn(t *testing.T, s step) (r reply) {
	t.Helper()
	must(t, b.in.Encode(s))
	line, err := b.out.ReadBytes('\n')
	must(t, err)
	must(t, json.Unmarshal(line, &r))
	return r
}

// subscribed has an offer of ours answered.
func (c *conversation) subscribed(p *Peer, js string) (Change, reply) {
	c.t.Helper()
	r := c.answers(offer(c.t, p), js)
	change, err := p.TakeAnswer(r.SDP)
	must(c.t, err)
	return change, r
}

func TestChromiumSubscribes(t *testing.T) {
	c := converse(t)
	p := New(Config{SessionID: 4, FirstSSRC: 100, Data: true, RED: true})
	change, _ := c.subscribed(p, "")
	if r := change.Remote; r.SCTPPort != 5000 || r.Setup != "active" || r.MaxMessage < defaultMaxMessage {
		t.Errorf("remote %+v", r)
	}

	stereo := sender("music", opusCodec)
	stereo.Stereo = true
	add(t, p, sender("mic", redCodec), stereo, sender("cam", vp8Codec), sender("screen", av1Codec), sender("phone", h264Codec))
	change, r := c.subscribed(p, "")
	want := []string{
		"1 audio TR_mic PA_a|TR_mic", "2 audio TR_music PA_a|TR_music", "3 video TR_cam PA_a|TR_cam",
		"4 video TR_screen PA_a|TR_screen", "5 video TR_phone PA_a|TR_phone",
	}
	if !slices.Equal(r.Tracks, want) {
		t.Errorf("tracks %q", r.Tracks)
	}
	for i, pt := range []uint8{63, 111, 96, 45, 106} {
		b := change.Bound[i]
		if b.PayloadType != pt || b.Unsupported || (b.RTXPayloadType == pt+1 && b.RTXSSRC != 0) != (i > 1) {
			t.Errorf("binding %+v, want payload type %d", b, pt)
		}
		if e := b.Extensions; e.MID != 4 || (e.TransportCC == 3) != (i > 1) || e.AbsSendTime != 0 {
			t.Errorf("extensions %+v", e)
		}
	}
	if b := change.Bound[0]; b.OpusPayloadType != 111 {
		t.Errorf("Opus beside RED is %d", b.OpusPayloadType)
	}
	if !change.Bound[2].Feedback.TransportCC || change.Bound[1].Feedback.TransportCC || !change.Bound[3].Feedback.NACK {
		t.Errorf("feedback of %+v", change.Bound)
	}

	// Another track takes the section of one that is gone.
	p.RemoveSender("cam")
	c.subscribed(p, "")
	add(t, p, sender("cam2", vp9Codec))
	change, r = c.subscribed(p, "")
	if len(change.Bound) != 1 || change.Bound[0].MID != "3" || change.Bound[0].PayloadType != 98 {
		t.Errorf("bound %+v", change.Bound)
	}
	if len(r.Tracks) != 1 || !strings.HasSuffix(r.Tracks[0], " PA_a|TR_cam2") {
		t.Errorf("tracks %q", r.Tracks)
	}

	// The client wants one no more, for good.
	change, _ = c.subscribed(p, "pc.getTransceivers().find((t) => t.mid === '4').stop()")
	if !slices.Equal(change.Unbound, []Key{"screen"}) || p.MIDs()["4"] != "" {
		t.Errorf("unbound %q after the client stopped a section", change.Unbound)
	}
	add(t, p, sender("screen2", av1Codec))
	if change, _ = c.subscribed(p, ""); len(change.Bound) != 1 || change.Bound[0].MID != "6" {
		t.Errorf("bound %+v after the client stopped a section", change.Bound)
	}

	// ICE restarts.
	o, err := p.Offer(Local{Ufrag: "again", Pwd: "another-password-of-ours", Fingerprint: local.Fingerprint})
	must(t, err)
	change, err = p.TakeAnswer(c.answers(o, "").SDP)
	must(t, err)
	if !change.ICERestarted || len(change.Bound)+len(change.Unbound) != 0 {
		t.Errorf("after an ICE restart: %+v", change)
	}
}

// TestManySectionsStayInBounds sends Chromium more video than a screen holds.
func TestManySectionsStayInBounds(t *testing.T) {
	c := converse(t)
	p := New(Config{SessionID: 4, FirstSSRC: 100, Data: true})
	for i := range 2 * wideSections {
		add(t, p, sender(Key(fmt.Sprint("cam", i)), []Codec{vp8Codec, h264Codec, vp9Codec, av1Codec}[i%4]))
	}
	if change, _ := c.subscribed(p, ""); len(change.Bound) != 2*wideSections {
		t.Errorf("%d bound", len(change.Bound))
	}
	p.RemoveSender(Key(fmt.Sprint("cam", wideSections+1)))
	c.subscribed(p, "")
	add(t, p, sender("last", av1Codec)) // where H.264 was the only codec
	change, r := c.subscribed(p, "")
	if len(change.Bound) != 1 || change.Bound[0].Codec.MimeType != mimeAV1 || change.Bound[0].MID != fmt.Sprint(wideSections+2) {
		t.Errorf("bound %+v", change.Bound)
	}
	if len(r.Tracks) != 1 {
		t.Errorf("tracks %q", r.Tracks)
	}
}

// published has an offer of Chromium's answered.
func (c *conversation) published(p *Peer, js, then string) (Change, reply) {
	c.t.Helper()
	change, a := answer(c.t, p, c.offers(js).SDP)
	return change, c.takes(a, then)
}

const sendingCodec = `return pc.getSenders().filter((s) => s.track).map((s) => {
	const p = s.getParameters()
	return [p.codecs[0]?.mimeType, p.encodings.length, p.encodings.filter((e) => e.active).length].join(' ')
}).join(', ')`

func TestChromiumPublishes(t *testing.T) {
	c := converse(t)
	p := New(Config{SessionID: 4, RED: true})
	change, r := c.published(p, `channels(); window.s = new MediaStream()
		pc.addTransceiver(audio(), { direction: 'sendonly', streams: [s] })
		pc.addTransceiver(video(), { direction: 'sendonly', streams: [s], sendEncodings: rids })`, sendingCodec)
	if string(r.Value) != `"audio/opus 1 1, video/VP8 3 3"` {
		t.Errorf("Chromium sends %s", r.Value)
	}
	if in := change.Incoming[1]; !slices.Equal(in.RIDs, []string{"q", "h", "f"}) || in.TrackID == "" || len(in.Streams) != 0 || !in.New {
		t.Errorf("camera %+v", in)
	}

	// The node chooses codecs that it was told of, among them RED.
	must(t, p.Prefer(change.Incoming[0].TrackID, "audio/red"))
	offered := c.offers(`window.screen = video(); window.backup = video()
		window.t = pc.addTransceiver(screen, { direction: 'sendonly', sendEncodings: [{ scalabilityMode: 'L3T3_KEY' }] })
		window.u = pc.addTransceiver(backup, { direction: 'sendonly' })`).SDP
	tracks := strings.Split(offered, "a=msid:- ")
	for i, mime := range []string{"video/VP9", "video/AV1"} {
		id, _, _ := strings.Cut(tracks[i+1], "\r\n")
		must(t, p.Prefer(id, mime))
	}
	change, text := answer(t, p, offered)
	r = c.takes(text, sendingCodec)
	if string(r.Value) != `"audio/red 1 1, video/VP8 3 3, video/VP9 1 1, video/AV1 1 1"` {
		t.Errorf("Chromium sends %s", r.Value)
	}
	if len(change.Incoming) != 4 || change.Incoming[0].New || !change.Incoming[3].New || len(change.Gone) != 0 {
		t.Errorf("incoming %+v", change.Incoming)
	}
	if s := change.Incoming[2].Streams; len(s) != 1 || s[0].RTX == 0 {
		t.Errorf("streams %+v", s)
	}

	// A track ends, another one pauses a layer, and ICE restarts.
	change, _ = c.published(p, `pc.removeTrack(t.sender); pc.restartIce()
		const s = pc.getSenders()[1], params = s.getParameters(); params.encodings[2].active = false; await s.setParameters(params)`, "")
	if len(change.Gone) != 1 || change.Gone[0].MID != change.Incoming[1].MID && change.Gone[0].Formats[0].Codec.MimeType != mimeVP9 || !change.ICERestarted {
		t.Errorf("gone %+v, ICE restarted %v", change.Gone, change.ICERestarted)
	}
	if len(change.Incoming[1].RIDs) != 3 {
		t.Errorf("RIDs %q, one paused", change.Incoming[1].RIDs)
	}

	// A section that is stopped keeps its place and comes back as another one.
	change, _ = c.published(p, `pc.getTransceivers()[1].stop()`, "")
	if len(change.Gone) != 1 || len(change.Incoming) != 2 {
		t.Errorf("incoming %+v, gone %+v", change.Incoming, change.Gone)
	}
	n := p.Sections()
	change, _ = c.published(p, `pc.addTransceiver(audio(), { direction: 'sendonly' })`, "")
	if p.Sections() != n || len(change.Incoming) != 3 {
		t.Errorf("%d sections, incoming %+v", p.Sections(), change.Incoming)
	}
}

func TestChromiumPublishesOneLayer(t *testing.T) {
	c := converse(t)
	change, r := c.published(New(Config{SessionID: 4}), "pc.addTransceiver(video(), { direction: 'sendonly', sendEncodings: [{ rid: 'f' }] })", sendingCodec)
	if string(r.Value) != `"video/VP8 1 1"` || len(change.Incoming[0].RIDs)+len(change.Incoming[0].Streams) != 1 {
		t.Errorf("Chromium sends %s, incoming %+v", r.Value, change.Incoming)
	}
}

func TestChromiumOnOneConnection(t *testing.T) {
	c := converse(t)
	p := New(Config{SessionID: 4, FirstSSRC: 100, RED: true})
	add(t, p, sender("mic", opusCodec))
	change, r := c.published(p, "channels(); receive('audio', 3); receive('video', 3)", "")
	if len(r.Tracks) != 1 || !strings.HasSuffix(r.Tracks[0], " PA_a|TR_mic") || len(change.Bound) != 1 {
		t.Fatalf("tracks %q, bound %+v", r.Tracks, change.Bound)
	}
	if p.MIDs()[change.Bound[0].MID] != "TR_mic" {
		t.Errorf("MIDs %v", p.MIDs())
	}

	for i, codec := range []Codec{vp8Codec, vp9Codec, av1Codec, h264Codec, vp8Codec} {
		add(t, p, sender(Key(fmt.Sprint("cam", i)), codec))
	}
	audio, video := p.Missing()
	if audio != 0 || video != 2 || !p.Pending() {
		t.Errorf("missing %d, %d", audio, video)
	}
	change, r = c.published(p, fmt.Sprintf(`receive('video', %d)
		pc.addTransceiver(video(), { direction: 'sendonly', sendEncodings: rids })`, video), sendingCodec)
	if len(change.Bound) != 5 || len(r.Tracks) != 5 || p.Pending() || string(r.Value) != `"video/VP8 3 3"` {
		t.Errorf("bound %+v, tracks %q, Chromium sends %s", change.Bound, r.Tracks, r.Value)
	}
	for i, mime := range []string{mimeVP8, mimeVP9, mimeAV1, mimeH264, mimeVP8} {
		b := change.Bound[i]
		if b.Codec.MimeType != mime || b.RTXSSRC == 0 || b.Extensions.DependencyDescriptor == 0 || b.Extensions.TransportCC == 0 {
			t.Errorf("binding %+v", b)
		}
	}
	if len(change.Incoming) != 1 || change.Incoming[0].Extensions.RepairedRID == 0 {
		t.Errorf("incoming %+v", change.Incoming)
	}

	// One leaves, one comes: the section of the first is seen empty before it is
	// used again, so a fresh one is needed.
	p.RemoveSender("cam1")
	add(t, p, sender("cam9", vp8Codec))
	if _, video = p.Missing(); video != 1 {
		t.Errorf("missing %d", video)
	}
	c.published(p, "receive('video', 1)", "")
	p.RemoveSender("cam9")
	add(t, p, sender("cam10", vp9Codec))
	if _, video = p.Missing(); video != 0 || !p.Pending() {
		t.Errorf("missing %d", video)
	}
	change, r = c.published(p, "", "")
	if len(change.Bound) != 1 || len(r.Tracks) != 1 || !strings.HasSuffix(r.Tracks[0], " PA_a|TR_cam10") {
		t.Errorf("bound %+v, tracks %q", change.Bound, r.Tracks)
	}

	// The client stops to receive one: it waits for another section.
	change, _ = c.published(p, fmt.Sprintf("pc.getTransceivers().find((t) => t.mid === '%s').direction = 'inactive'", change.Bound[0].MID), "")
	if len(change.Unbound)+len(change.Bound) == 0 {
		t.Errorf("got %+v", change)
	}
}

func TestChromiumWatchesOverWHEP(t *testing.T) {
	c := converse(t)
	p := New(Config{SessionID: 4, FirstSSRC: 100})
	add(t, p, sender("mic", redCodec), sender("cam", h264Codec))
	change, r := c.published(p, "pc.addTransceiver('audio', { direction: 'recvonly' }); pc.addTransceiver('video', { direction: 'recvonly' })", "")
	if len(r.Tracks) != 2 || len(change.Bound) != 2 || !change.Bound[0].PlainOpus || change.Remote.SCTPPort != 0 {
		t.Errorf("tracks %q, %+v", r.Tracks, change)
	}
}
