package rtc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/domicile/domicile/node/sfu"
)

func TestWhosePacketItIs(t *testing.T) {
	announced := "a=ssrc-group:SIM 1 2 3\r\na=ssrc-group:FID 1 11\r\na=ssrc:1 cname:a\r\na=ssrc:2 cname:a\r\na=ssrc:3 cname:a\r\na=ssrc:11 cname:a"
	b := newPublisher(t, SessionConfig{}, offerOf(
		camera("a", "announced", announced), camera("n", "named"), camera("l", "layered", simulcast),
		microphone("m", "microphone")))
	for _, tt := range []struct {
		what string
		pkt  rtp.Packet
		want string // track and layer; empty: nobody's
	}{
		{"SSRC", media(1, 96, 1), "announced 0"},
		{"SSRC of the third layer", media(3, 96, 1), "announced 2"},
		{"SSRC, the MID of another", media(2, 96, 1, idMID, "n"), "announced 1"},
		{"MID", media(20, 96, 1, idMID, "n"), "named 0"},
		{"MID, a RID that was not offered", media(21, 98, 1, idMID, "n", idRID, "f"), "named 0"},
		{"MID and RID", media(30, 96, 1, idMID, "l", idRID, "h"), "layered 1"},
		{"MID without RID of simulcast", media(31, 96, 1, idMID, "l"), ""},
		{"MID, another RID than those offered", media(32, 96, 1, idMID, "l", idRID, "x"), ""},
		{"RID alone", media(33, 96, 1, idRID, "h"), ""},
		{"payload type of one section", media(40, 111, 1), "microphone 0"},
		{"payload type of several", media(41, 96, 1), ""},
		{"payload type of none", media(42, 100, 1, idMID, "n"), ""},
		{"audio on a video section", media(43, 111, 1, idMID, "n"), ""},
		{"a MID that is none", media(44, 96, 1, idMID, "zzz"), ""},
		{"empty MID", media(45, 96, 1, idMID, []byte{0}), ""},
		{"payload type 0", media(46, 0, 1, idMID, "n"), ""},
	} {
		b.take(1, tt.pkt)
		b.p.recv.mu.Lock()
		got := ""
		if s := b.p.recv.streams[tt.pkt.SSRC]; s != nil {
			got = fmt.Sprintf("%s %d", s.track.about.CID, s.layer)
		}
		b.p.recv.mu.Unlock()
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// Of two cameras nobody knows which one it is that says no name.
func TestPayloadTypeOfTwoSectionsSaysNothing(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("a", "A"), camera("b", "B")))
	b.take(1, media(1, 96, 1), media(2, 97, 1))
	if got := b.s.Stats(); got.Published != 0 || got.Unknown != 2 {
		t.Errorf("%+v", got)
	}
}

// The first keyframe comes before the room has answered.
func TestPacketsWaitForTheRoom(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("v", "cam", simulcast), microphone("m", "mic")))
	answers, take := make(chan bool), b.answer
	b.answer = func(in Incoming) *sfu.UpTrack {
		<-answers
		return take(in)
	}
	b.take(0, media(1, 96, 65534, idMID, "v", idRID, "q"), media(2, 96, 7, idMID, "v", idRID, "f"))
	b.take(5, media(1, 96, 65535), media(1, 96, 0))
	if got := b.came(); got != "" {
		t.Fatalf("%q came before the answer", got)
	}
	answers <- true
	b.ready(1)
	b.take(5, media(1, 96, 1), media(2, 96, 8))
	got := strings.Fields(b.came())
	slices.Sort(got) // which layer comes first does not matter
	want := []string{"0:0", "0:1", "0:65534", "0:65535", "2:7", "2:8"}
	if !slices.Equal(got, want) {
		t.Errorf("came %q, want %q", got, want)
	}
	if pli := of[*rtcp.PictureLossIndication](b.reports()); len(pli) > 0 {
		t.Error("a keyframe was asked for although everything was there")
	}
}

func TestWaitingPacketsAreBounded(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("v", "cam", group)))
	answers, take := make(chan bool), b.answer
	b.answer = func(in Incoming) *sfu.UpTrack {
		<-answers
		return take(in)
	}
	for i := range uint16(3 * maxEarlyPackets) {
		b.take(1, media(1, 96, i))
	}
	answers <- true
	b.ready(1)
	if got := len(strings.Fields(b.came())); got != maxEarlyPackets {
		t.Errorf("%d packets waited, want %d", got, maxEarlyPackets)
	}
	eventually(t, "a keyframe to be asked for, since what follows cannot be shown", func() bool {
		return len(of[*rtcp.PictureLossIndication](b.reports())) == 1
	})
}

func TestRoomForATrackThatWasTooMany(t *testing.T) {
	b := newPublisher(t, SessionConfig{MaxTracks: 2}, offerOf(camera("a", "A"), camera("b", "B"), camera("c", "C")))
	each := func() {
		for i, mid := range []string{"a", "b", "c"} {
			b.take(1, media(uint32(i+1), 96, 1, idMID, mid), media(uint32(i+1), 96, 2, idMID, mid))
		}
	}
	each()
	b.ready(2)
	if got := b.s.Stats(); got.Published != 2 || got.Ignored != 1 {
		t.Fatalf("%+v, want two and one ignored", got)
	}
	inactive := strings.ReplaceAll(camera("b", "B"), "a=sendonly", "a=inactive")
	b.offer(offerOf(camera("a", "A"), inactive, camera("c", "C")))
	if up := wait(t, b.ended, "the end of B"); up.ID() != "B" {
		t.Errorf("%q ended", up.ID())
	}
	each()
	b.ready(2)
	if got := b.s.Stats(); got.Published != 2 || got.Ignored != 1 {
		t.Errorf("%+v after one has ended, want two", got)
	}
	var cids []string
	for range 3 {
		cids = append(cids, wait(t, b.published, "a track").CID)
	}
	if !slices.Contains(cids, "C") {
		t.Errorf("published were %q", cids)
	}
}

func TestTracksSwapSections(t *testing.T) {
	ssrc := func(n int) string { return fmt.Sprintf("a=ssrc:%d cname:a", n) }
	b := newPublisher(t, SessionConfig{}, offerOf(camera("a", "A", ssrc(1)), camera("b", "B", ssrc(2))))
	b.take(1, media(1, 96, 1), media(2, 96, 1))
	b.ready(2)
	b.offer(offerOf(camera("a", "B", ssrc(2)), camera("b", "A", ssrc(1))))
	ended := []string{string(wait(t, b.ended, "an end").ID()), string(wait(t, b.ended, "an end").ID())}
	if slices.Sort(ended); !slices.Equal(ended, []string{"A", "B"}) {
		t.Errorf("%q ended", ended)
	}
	b.take(1, media(1, 96, 2), media(2, 96, 2))
	b.ready(2)
	mids := map[string]string{}
	for range 4 {
		in := wait(t, b.published, "a track")
		mids[in.CID] = in.MID
	}
	if mids["A"] != "b" || mids["B"] != "a" {
		t.Errorf("the sections are %v", mids)
	}
	if len(b.published) != 0 {
		t.Error("more tracks were published than there are")
	}
}

// A description that gives an SSRC to another track is believed at once.
func TestSSRCMovesToAnotherTrack(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("a", "A", "a=ssrc:1 cname:a")))
	b.take(1, media(1, 96, 1))
	b.ready(1)
	b.offer(offerOf(camera("a", "A", "a=ssrc:3 cname:a"), camera("b", "B", "a=ssrc:1 cname:a")))
	b.take(1, media(1, 96, 2))
	b.ready(2)
	wait(t, b.published, "A")
	if in := wait(t, b.published, "B"); in.CID != "B" {
		t.Errorf("published %q", in.CID)
	}
	b.p.recv.mu.Lock()
	defer b.p.recv.mu.Unlock()
	if s := b.p.recv.streams[1]; s == nil || s.track.about.CID != "B" {
		t.Error("the SSRC still feeds the track that had it before")
	}
}

// Whoever hears of an end may ask the session for something: no lock is held.
func TestEndIsToldWithoutLocks(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("a", "A", "a=ssrc:1 cname:a")))
	asked := make(chan error, 1)
	go func() {
		up := <-b.ended
		up.RequestKeyframe(0, b.now) // of a track that is over: asks nobody
		asked <- b.s.Prefer("A", "video/VP8")
	}()
	told := make(chan struct{})
	b.onEnd = func() {
		if err := wait(t, asked, "the session's answer during the event"); err != nil {
			t.Error(err)
		}
		close(told)
	}
	b.take(1, media(1, 96, 1))
	b.ready(1)
	b.offer(offerOf(strings.ReplaceAll(camera("a", "A"), "a=sendonly", "a=inactive")))
	wait(t, told, "the end")
	if pli := of[*rtcp.PictureLossIndication](b.reports()); len(pli) > 0 {
		t.Errorf("a stream that is over is asked for a keyframe: %v", pli)
	}
}

// A client that sends under ever new numbers makes nothing grow.
func TestStrangeNumbersMakeNothingGrow(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("v", "cam", simulcast), camera("w", "cam2")))
	for i := range uint32(3000) {
		b.take(1, media(i, 96, uint16(i), idMID, "v", idRID, []string{"q", "h", "f"}[i%3]),
			repeated(media(0, 0, 1, idMID, "v", idRepaired, "q"), 1e6+i, 97, 1),
			media(2e6+i, 96, 1, idMID, "w"), media(3e6+i, 96, 1, idMID, "x"), media(4e6+i, 96, 1))
	}
	b.ready(2)
	b.p.recv.mu.Lock()
	defer b.p.recv.mu.Unlock()
	// Three layers and one, with a stream of repairs for the first.
	if n := len(b.p.recv.streams); n != 5 {
		t.Errorf("%d streams", n)
	}
	if b.p.recv.unknown != 6000 {
		t.Errorf("%d packets belong to nobody, want 6000", b.p.recv.unknown)
	}
	if len(b.published) != 2 {
		t.Errorf("%d tracks were published", len(b.published))
	}
}
