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
