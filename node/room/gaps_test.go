package room

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/rtp"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

// TestComesBackInAnotherFile records a track of another node whose link is lost for a
// while, and which comes back then in another codec: each time it goes on in a file of
// its own, which says since when nothing came. Each file is whole.
func TestComesBackInAnotherFile(t *testing.T) {
	keys, err := vault.OpenKeyStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.TempDir(), keys, vault.Options{Disk: residencytest.Disk(residency.ClassRecording)})
	if err != nil {
		t.Fatal(err)
	}
	var id vault.ID
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "edge")
		s.deps.Now = time.Now
		rec, err := v.Create(residencytest.Keep("town", "", residency.ClassRecording), vault.Meta{Room: "town", Node: "fra"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		id = rec.ID()
		anna := person("PA_anna", "anna")
		s.has(t, "waw", false, anna)
		if _, err := s.doStartRecording(vaulted{rec}, nil); err != nil {
			t.Fatal(err)
		}
		vp8 := sfu.Codec{MimeType: "video/VP8", ClockRate: 90000}
		picture := append([]byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00}, make([]byte, 50)...)
		h264 := sfu.Codec{MimeType: "video/H264", ClockRate: 90000, SDPFmtpLine: "packetization-mode=1"}
		idr := []byte{24, 0, 4, 0x67, 1, 2, 3, 0, 2, 0x68, 1, 0, 5, 0x65, 1, 2, 3, 4}
		s.shows(anna, vp8, picture)
		s.dropTrack("TR_a")
		time.Sleep(3 * time.Second)
		s.shows(anna, vp8, picture)
		s.dropTrack("TR_a")
		s.shows(anna, h264, idr)
		<-s.doStopRecording("")
	})
	r, err := v.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	checks, err := record.Verify(t.Context(), r)
	if err != nil || len(checks) != 3 {
		t.Fatalf("%+v, %v", checks, err)
	}
	for i, want := range []struct {
		id   vault.TrackID
		mime string
		part int
	}{{"TR_a", "video/VP8", 0}, {"TR_a-2", "video/VP8", 2}, {"TR_a-3", "video/H264", 3}} {
		c, m := checks[i], r.Tracks[i].Meta
		if c.ID != want.id || m.MimeType != want.mime || m.Part != want.part || m.Participant != "anna" || !c.Finished || c.Frames < 45 {
			t.Errorf("file %d is %+v of %+v, want %+v", i, c, m, want)
		}
	}
	if g := checks[0].Gaps; len(g) != 0 {
		t.Errorf("the first file has gaps: %+v", g)
	}
	if g := checks[1].Gaps; len(g) != 1 || g[0].Cause != record.Away || g[0].FromMS != 1000 || g[0].ToMS != 4000 {
		t.Errorf("the second file says %+v", g)
	}
}

// shows has somebody at another node publish a second of pictures.
func (s *stage) shows(p *livekit.ParticipantInfo, c sfu.Codec, picture []byte) {
	const id = "TR_a"
	s.takeTrack("waw", p, &livekit.TrackInfo{Sid: id, Type: livekit.TrackType_VIDEO}, id, &ParticipantRecord{Media: map[sfu.TrackID]TrackRecord{id: {Codec: c, Available: 1}}})
	var out sfu.Scratch
	h := rtp.Header{Version: 2, PayloadType: 96, SSRC: 7, Marker: true}
	synctest.Wait() // the file is there
	for range 50 {
		h.SequenceNumber++
		h.Timestamp += 1800
		raw, err := (&rtp.Packet{Header: h, Payload: picture}).Marshal()
		if err != nil {
			panic(err)
		}
		s.tracks[id].up.Ingest(0, []sfu.Inbound{{Raw: raw, Arrival: time.Now()}}, &out)
		s.recorder.tick(time.Now())
		s.noteGaps()
		time.Sleep(20 * time.Millisecond)
	}
}
