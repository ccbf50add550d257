package rtc

import (
	"slices"
	"testing"

	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/sfu"
)

const group = "a=ssrc-group:FID 1 2\r\na=ssrc:1 cname:a\r\na=ssrc:2 cname:a"

func TestLossesAreAskedForAndRepaired(t *testing.T) {
	for name, tt := range map[string]struct {
		section string
		layer   sfu.Layer
		names   []any // of the media
		repairs []any // of the repairs
	}{
		"SSRC group":   {camera("v", "cam", group), 0, nil, nil},
		"repaired RID": {camera("v", "cam", simulcast), 1, []any{idMID, "v", idRID, "h"}, []any{idMID, "v", idRepaired, "h"}},
		"MID":          {camera("v", "cam"), 0, []any{idMID, "v"}, []any{idMID, "v"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newPublisher(t, SessionConfig{}, offerOf(tt.section))
			b.take(0, media(1, 96, 100, tt.names...))
			b.ready(1)
			b.take(10, media(1, 96, 101, tt.names...))
			b.take(10, media(1, 96, 103, tt.names...), media(1, 96, 106, tt.names...), media(1, 96, 107, tt.names...))
			if got := nacked(b.reports())[1]; !slices.Equal(got, []uint16{102, 104}) {
				t.Fatalf("asked for %d, want 102 and 104: three later ones came", got)
			}
			lost := media(1, 96, 102)
			r := repeated(lost, 2, 97, 7)
			for i := 0; i < len(tt.repairs); i += 2 {
				if err := r.SetExtension(uint8(tt.repairs[i].(int)), []byte(tt.repairs[i+1].(string))); err != nil {
					t.Fatal(err)
				}
			}
			b.came()
			b.take(10, r, r)
			want := map[sfu.Layer]string{0: "0:102", 1: "1:102"}[tt.layer]
			if got := b.came(); got != want {
				t.Errorf("of a repair that came twice the media plane got %q, want %q", got, want)
			}
			b.p.tick(b.now.Add(60e6), b.out) // asks again for what did not come, and for what was found young
			got := nacked(b.reports())[1]
			slices.Sort(got)
			if !slices.Equal(got, []uint16{104, 105}) {
				t.Errorf("then asked for %d, want 104 and 105", got)
			}
		})
	}
}

// A layer whose SSRC changes is repaired by the same stream as before.
func TestRepairsFollowTheSSRC(t *testing.T) {
	names := []any{idMID, "v", idRID, "q"}
	repairs := []any{idMID, "v", idRepaired, "q"}
	b := newPublisher(t, SessionConfig{}, offerOf(camera("v", "cam", simulcast)))
	b.take(0, media(1, 96, 100, names...))
	b.ready(1)
	first := repeated(media(0, 0, 99, repairs...), 2, 97, 1)
	b.take(1, first)
	b.take(10, media(3, 96, 5000, names...), media(3, 96, 5002, names...))
	b.came()
	b.take(10, repeated(media(0, 0, 5001, repairs...), 2, 97, 2))
	b.mu.Lock()
	got := b.got
	b.mu.Unlock()
	if len(got) != 1 || got[0].Seq != 5001 || ssrcOf(got[0].Raw) != 3 {
		t.Errorf("the repair came out as %v, want packet 5001 of SSRC 3", got)
	}
}

func TestOddRetransmissionsAreDropped(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("v", "cam", group)))
	b.take(0, repeated(media(1, 96, 101), 2, 97, 1)) // before any media
	if len(b.published) != 0 {
		t.Error("a retransmission made a track")
	}
	b.take(1, media(1, 96, 100), media(1, 96, 102))
	b.ready(1)
	b.take(1)
	b.came()
	other := repeated(media(1, 96, 101), 2, 99, 2) // of H.264
	short := media(2, 97, 3)
	short.Payload = []byte{0}
	empty := media(2, 97, 4)
	empty.Payload = nil
	padding := media(2, 97, 5)
	padding.Payload, padding.Padding, padding.PaddingSize = nil, true, 200
	codec := media(1, 98, 103) // the other codec under the same SSRC
	b.take(1, other, short, empty, padding, codec)
	if got := b.came(); got != "" {
		t.Errorf("the media plane got %q", got)
	}
	b.take(1, repeated(media(1, 96, 101), 2, 97, 6))
	if got := b.came(); got != "0:101" {
		t.Errorf("after that the media plane got %q, want the repair", got)
	}
}

func TestArrivalsAreReported(t *testing.T) {
	b := newPublisher(t, SessionConfig{MaxTracks: 1}, offerOf(camera("v", "cam"), camera("w", "cam2")))
	seq := uint16(0)
	reported := map[uint16]int{}
	reports := 0
	note := func() {
		for _, r := range of[*rtcp.TransportLayerCC](b.reports()) {
			reports++
			for i := range r.PacketStatusCount {
				reported[r.BaseSequenceNumber+i]++
			}
		}
	}
	for range 200 { // two seconds
		seq += 3
		b.take(10, media(1, 96, seq, idMID, "v", idTransport, stampOf(seq)),
			media(2, 96, seq, idMID, "w", idTransport, stampOf(seq+1)), // one track too many
			media(3, 96, seq, idMID, "x", idTransport, stampOf(seq+2))) // nobody's
		note()
	}
	b.p.tick(b.now.Add(stampInterval), b.out)
	note()
	for n := uint16(3); n < seq+3; n++ {
		if reported[n] != 1 {
			t.Fatalf("packet %d is reported %d times: whatever came was not lost", n, reported[n])
		}
	}
	if reports < 35 || reports > 45 {
		t.Errorf("%d reports in two seconds, want one in 50 ms", reports)
	}
	if got := b.s.Stats(); got.Published != 1 || got.Ignored != 1 || got.Unknown == 0 {
		t.Errorf("%+v", got)
	}
}

func TestReceiverReportsReachThePublisher(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("v", "cam", group)))
	b.take(0, media(1, 96, 0))
	b.ready(1)
	reports := 0
	for i := range uint16(300) { // three seconds
		if i%4 != 3 {
			b.take(10, media(1, 96, i+1))
		} else {
			b.take(10)
		}
		if i%10 == 0 {
			b.p.tick(b.now, b.out)
		}
		for _, r := range of[*rtcp.ReceiverReport](b.reports()) {
			for _, rep := range r.Reports {
				reports++
				if rep.SSRC != 1 || i > 100 && (rep.FractionLost < 55 || rep.FractionLost > 72) {
					t.Errorf("report %+v, want a quarter lost", rep)
				}
			}
		}
	}
	if reports < 3 || reports > 4 {
		t.Errorf("%d receiver reports in three seconds", reports)
	}
}

// Whatever the room does not want costs the client's way nothing either.
func TestRefusedTrackCostsNothing(t *testing.T) {
	b := newPublisher(t, SessionConfig{}, offerOf(camera("v", "cam", group)))
	b.answer = func(Incoming) *sfu.UpTrack { return nil }
	b.take(0, media(1, 96, 1))
	b.ready(1)
	b.p.tick(b.now, b.out)
	b.reports() // of what came before
	for i := range uint16(300) {
		b.take(10, media(1, 96, 3*i+10), repeated(media(1, 96, 3*i+9), 2, 97, i))
		if i%10 == 0 {
			b.p.tick(b.now, b.out)
		}
	}
	for _, r := range b.reports() {
		t.Fatalf("the client is sent %T %v", r, r)
	}
	b.p.recv.mu.Lock()
	defer b.p.recv.mu.Unlock()
	for _, s := range b.p.recv.streams {
		if len(s.early) > 0 || len(s.pending) > 0 {
			t.Errorf("%d packets wait", len(s.early)+len(s.pending))
		}
	}
	if len(b.published) != 1 {
		t.Errorf("the room was asked %d times", len(b.published))
	}
}
