package jsep

import (
	"fmt"
	"strings"
	"testing"
)

// exchange offers and has everything answered.
func exchange(t testing.TB, p *Peer) (Change, string) {
	t.Helper()
	o := offer(t, p)
	c, err := p.TakeAnswer(clientAnswer(o))
	must(t, err)
	return c, o
}

func TestSectionsAreUsedAgain(t *testing.T) {
	p := New(Config{Data: true, FirstSSRC: 3})
	add(t, p, sender("a", vp8Codec), sender("mic", opusCodec))
	c, _ := exchange(t, p)
	first := c.Bound[0]
	p.RemoveSender("a")
	add(t, p, sender("b", vp8Codec))
	c, o := exchange(t, p)
	if len(c.Bound) != 1 || c.Bound[0].MID == first.MID {
		t.Fatalf("the client never saw section %q empty: %+v", first.MID, c.Bound)
	}
	if a, v := p.Missing(); a+v != 0 {
		t.Errorf("missing %d, %d where the node offers", a, v)
	}
	if !strings.Contains(sectionsOf(o)[2], "a=inactive\r\n") {
		t.Errorf("the section of a track that is gone:\n%s", sectionsOf(o)[2])
	}
	add(t, p, sender("c", av1Codec))
	c, o = exchange(t, p)
	b := c.Bound[0]
	if b.MID != first.MID || b.SSRC == first.SSRC || b.RTXSSRC == first.RTXSSRC {
		t.Errorf("bound %+v, want section %q under other numbers", b, first.MID)
	}
	if !strings.Contains(o, "a=msid:PA_a|TR_c TR_c\r\n") || !strings.HasPrefix(sectionsOf(o)[2], "m=video 9 UDP/TLS/RTP/SAVPF 45 46 96 97 ") {
		t.Errorf("section %q:\n%s", first.MID, sectionsOf(o)[2])
	}
	if p.Sections() != 4 || p.Pending() {
		t.Errorf("%d sections, pending %v", p.Sections(), p.Pending())
	}
}

func TestPionClientsGetFreshSections(t *testing.T) {
	p := New(Config{Data: true, FreshSections: true})
	for i := range 4 {
		k := Key(fmt.Sprint(i))
		add(t, p, sender(k, vp8Codec))
		exchange(t, p)
		p.RemoveSender(k)
		exchange(t, p)
	}
	if p.Sections() != 5 {
		t.Errorf("%d sections after 4 tracks, one at a time", p.Sections())
	}
}

// TestStreamOfASectionUsedAgain has tracks that share a stream, as LiveKit's do.
func TestStreamOfASectionUsedAgain(t *testing.T) {
	p := New(Config{Data: true})
	s := sender("a", vp8Codec)
	s.StreamID = "PA_a|camera"
	add(t, p, s)
	if _, o := exchange(t, p); !strings.Contains(o, "a=msid:PA_a|camera TR_a\r\n") {
		t.Errorf("offer:\n%s", o)
	}
	p.RemoveSender("a")
	exchange(t, p)
	s.Key, s.TrackID = "b", "TR_b"
	add(t, p, s)
	if _, o := exchange(t, p); !strings.Contains(o, "a=msid:PA_a|TR_b TR_b\r\n") {
		t.Errorf("a browser calls this track TR_a, clients know it by its stream alone:\n%s", o)
	}
	s.Key, s.TrackID, s.StreamID = "c", "TR_c", "PA_a|my stream"
	add(t, p, s)
	if _, o := exchange(t, p); !strings.Contains(o, "a=msid:PA_a|TR_c TR_c\r\n") {
		t.Errorf("a stream with a blank in its name:\n%s", o)
	}
}

func TestSendersAreBounded(t *testing.T) {
	p := New(Config{Data: true})
	for i := range maxSections - 1 {
		add(t, p, sender(Key(fmt.Sprint(i)), opusCodec))
	}
	if err := p.AddSender(sender("more", opusCodec)); err == nil || !strings.Contains(err.Error(), "all 512 media sections") {
		t.Errorf("one more: %v", err)
	}
	c, o := exchange(t, p)
	if len(c.Bound) != maxSections-1 {
		t.Errorf("%d bound in %d bytes", len(c.Bound), len(o))
	}
	p.RemoveSender("7")
	exchange(t, p)
	add(t, p, sender("more", opusCodec))
	if c, _ = exchange(t, p); len(c.Bound) != 1 || c.Bound[0].MID != "8" {
		t.Errorf("bound %+v", c.Bound)
	}
	for _, bad := range []Sender{sender("more", opusCodec), sender("", opusCodec), {Key: "x", Kind: data}, {Key: "x", StreamID: "a b|s", TrackID: "c"}, {Key: "x", StreamID: "a", TrackID: "c\r\n"}} {
		if err := p.AddSender(bad); err == nil {
			t.Errorf("%+v was added", bad)
		}
	}
	if p.RemoveSender("nobody") {
		t.Error("removed what is not there")
	}
}

func TestOffersMustBeWhole(t *testing.T) {
	p := New(Config{})
	if _, err := p.Offer(local); err == nil {
		t.Error("an offer of nothing")
	}
	add(t, p, sender("a", vp8Codec))
	for _, l := range []Local{{}, {Ufrag: "a", Pwd: "b"}, {Ufrag: "a b", Pwd: "c", Fingerprint: local.Fingerprint}} {
		if _, err := p.Offer(l); err == nil {
			t.Errorf("%+v was offered", l)
		}
	}
	offer(t, p)
}

func TestSingleConnection(t *testing.T) {
	p := New(Config{FirstSSRC: 9})
	add(t, p, sender("mic", opusCodec), sender("cam", vp8Codec), sender("cam2", vp8Codec), sender("screen", av1Codec))
	if a, v := p.Missing(); a != 1 || v != 3 || !p.Pending() {
		t.Errorf("missing %d, %d before an offer", a, v)
	}
	c, text := answer(t, p, recvonly(Audio, Video))
	if a, v := p.Missing(); a != 0 || v != 2 || !p.Pending() {
		t.Errorf("missing %d, %d, pending %v", a, v, p.Pending())
	}
	if got := fmt.Sprint(p.MIDs()); got != "map[0:TR_mic 1:TR_cam]" || len(c.Bound) != 2 {
		t.Errorf("MIDs %s, bound %+v", got, c.Bound)
	}
	if !strings.Contains(text, "a=msid:PA_a|TR_cam TR_cam\r\na=ssrc-group:FID ") {
		t.Errorf("answer:\n%s", text)
	}
	c, text = answer(t, p, recvonly(Audio, Video, Video, Video))
	if len(c.Bound) != 2 || c.Bound[0].Unsupported || !c.Bound[1].Unsupported || c.Bound[1].Codec != av1Codec {
		t.Errorf("bound %+v, want AV1 not to be", c.Bound)
	}
	if !strings.Contains(sectionsOf(text)[4], "a=inactive\r\n") || p.MIDs()["3"] != "" {
		t.Errorf("the section of what the client cannot decode:\n%s", sectionsOf(text)[4])
	}
	if a, v := p.Missing(); a+v != 0 || p.Pending() {
		t.Errorf("missing %d, %d, pending %v at the end", a, v, p.Pending())
	}
}

func TestRolesAndGlare(t *testing.T) {
	p := New(Config{Data: true})
	if _, err := p.Answer(local); err == nil {
		t.Error("an answer without an offer")
	}
	if _, err := p.TakeAnswer(recvonly(Audio)); err == nil {
		t.Error("an answer to nothing was taken")
	}
	o := offer(t, p)
	if _, err := p.Offer(local); err == nil {
		t.Error("a second offer while the first waits")
	}
	if _, err := p.TakeOffer(recvonly(Audio)); err == nil {
		t.Error("the client's offer was taken while ours waits")
	}
	if _, err := p.TakeAnswer(strings.Replace(clientAnswer(o), "m=application", "m=audio", 1)); err == nil {
		t.Error("an answer with audio for data was taken")
	}
	_, err := p.TakeAnswer(clientAnswer(o))
	must(t, err)
	if _, err := p.TakeOffer(recvonly(Audio)); err == nil {
		t.Error("the client offers where the node does")
	}
}
