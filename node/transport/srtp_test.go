package transport

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/webrtc/v4"
)

// TestProfiles has a client that knows only one profile each.
func TestProfiles(t *testing.T) {
	e := listen(t)
	for profile, want := range map[dtls.SRTPProtectionProfile]string{
		dtls.SRTP_AEAD_AES_128_GCM:       srtp.ProtectionProfileAeadAes128Gcm.String(),
		dtls.SRTP_AEAD_AES_256_GCM:       srtp.ProtectionProfileAeadAes256Gcm.String(),
		dtls.SRTP_AES128_CM_HMAC_SHA1_80: srtp.ProtectionProfileAes128CmHmacSha1_80.String(),
	} {
		t.Run(want, func(t *testing.T) {
			s := connect(t, e, ConnConfig{}, func(se *webrtc.SettingEngine) { se.SetSRTPProtectionProfiles(profile) })
			if got := s.conn.Stats().Profile; got != want {
				t.Errorf("profile %q, want %q", got, want)
			}
			defer s.publish("media")()
			got := s.events.await(t, "packet", func(e event) bool { return e.what == "rtp" })
			var p rtp.Packet
			if err := p.Unmarshal(got.payload); err != nil || string(p.Payload) != "media" {
				t.Errorf("got %v, %v", p, err)
			}
			stream, err := s.conn.NewStream()
			if err != nil {
				t.Fatal(err)
			}
			sendRTP(t, stream, e, packet(ourSSRC, 1, []byte("down")), packet(ourSSRC, 2, []byte("down")))
			select {
			case tr := <-s.remote:
				if p, _, err := tr.ReadRTP(); err != nil || string(p.Payload) != "down" {
					t.Errorf("got %v, %v", p, err)
				}
			case <-time.After(patience):
				t.Fatal("nothing came down")
			}
		})
	}
}

// TestTheFirstProfileIsGCM: it costs a seventh of the others.
func TestTheFirstProfileIsGCM(t *testing.T) {
	s := connect(t, listen(t), ConnConfig{})
	if got, want := s.conn.Stats().Profile, srtp.ProtectionProfileAeadAes128Gcm.String(); got != want {
		t.Errorf("a client that knows all took %q, want %q", got, want)
	}
}

// ingest is a connection and a worker without a socket's goroutine.
func ingest(t testing.TB, h Handler) (*Conn, func(b []byte)) {
	t.Helper()
	e := listen(t)
	client := netip.MustParseAddrPort("127.0.0.1:9")
	c := standing(t, e, h, client)
	t.Cleanup(c.Close)
	w, name := newWorker(e, e.groups[0], e.groups[0].socks[0], 0), nameOf(client)
	return c, func(b []byte) {
		w.datagram(&name, bytes.Clone(b), e.now())
		w.drained()
	}
}

func TestHostileMediaIsDropped(t *testing.T) {
	r := newRecorder()
	c, in := ingest(t, r)
	seal := clientSeal(t)
	good := seal(packet(1, 100, []byte("good")))
	in(good)
	in(good) // replayed
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 7)
		if classify(b) == kindRTP && i != 2 && i != 3 { // another number is not a replay
			in(b)
		}
	}
	for n := range len(good) {
		in(good[:n])
	}
	in([]byte{0x80, 201, 0, 1, 0, 0, 0, 1})                  // RTCP in the clear
	in(append([]byte{0x80, 201, 0, 1}, make([]byte, 60)...)) // and sealed by nobody
	in(seal(packet(1, 101, []byte("also good"))))
	var got []string
	for _, e := range r.events {
		if e.what == "rtp" || e.what == "rtcp" {
			var p rtp.Packet
			if err := p.Unmarshal(e.payload); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(p.Payload))
		}
	}
	if len(got) != 2 || got[0] != "good" || got[1] != "also good" {
		t.Errorf("delivered %q, want the two good ones", got)
	}
	if d := c.Stats().Drops; d["replayed"] == 0 || d["unsealed"] < 20 {
		t.Errorf("drops %v, want replayed and unsealed ones", d)
	}
}

func TestStreamsOfAClientAreBounded(t *testing.T) {
	c, in := ingest(t, silent{})
	seal := clientSeal(t)
	for ssrc := range uint32(maxSSRCs + 10) {
		in(seal(packet(ssrc+1, 1, []byte("x"))))
	}
	if d := c.Stats(); d.Drops["too_many_ssrcs"] != 10 || d.PacketsIn != maxSSRCs {
		t.Errorf("stats %+v, want 10 dropped of %d", d, maxSSRCs+10)
	}
	in(seal(packet(1, 2, []byte("x")))) // a known one goes on
	if n := c.Stats().PacketsIn; n != maxSSRCs+1 {
		t.Errorf("%d packets in, want %d", n, maxSSRCs+1)
	}
}

// taken collects what a batch would send, before it does.
func taken(b *Batch) (sealed [][]byte) {
	for _, m := range b.messages {
		for off := m.off; off < m.off+m.len; off += m.size {
			sealed = append(sealed, bytes.Clone(b.arena[off:min(off+m.size, m.off+m.len)]))
		}
	}
	return sealed
}

// TestAnIndexIsNeverSealedAgain writes random streams, some of which end and have
// their SSRC taken up again, and opens all as the client does: every packet that
// was accepted must open, as exactly what was written.
func TestAnIndexIsNeverSealedAgain(t *testing.T) {
	e := listen(t)
	rng, refused := rand.New(rand.NewPCG(3, 7)), 0
	for range 20 {
		c := standing(t, e, silent{}, netip.MustParseAddrPort("127.0.0.1:9"))
		k := c.keys.Load()
		client, err := srtp.CreateContext(k.seal, k.sealSalt, k.profile, srtp.SRTPReplayProtection(1<<15))
		if err != nil {
			t.Fatal(err)
		}
		b := e.Batch()
		var s *Stream
		seq, highest := uint16(rng.IntN(1<<15)), int64(-1)
		for range 600 {
			if s == nil || rng.IntN(50) == 0 {
				if s != nil {
					s.Close()
				}
				if s, err = c.NewStream(); err != nil {
					t.Fatal(err)
				}
				if highest >= 0 && rng.IntN(2) == 0 {
					seq -= uint16(rng.IntN(300)) // a track that knows nothing of the one before
				}
			}
			seq += uint16(1 + rng.IntN(400))
			p := packet(5, seq, []byte{byte(rng.Int()), byte(rng.Int())})
			err := s.Write(b, p)
			i := int64(seq) // what RFC 3711 makes of it, the slow way
			for highest >= 0 && i < highest-1<<15 {
				i += 1 << 16
			}
			if fresh := i > highest; (err == nil) != fresh {
				t.Fatalf("packet %d after index %d: %v", seq, highest, err)
			}
			if err != nil {
				if !errors.Is(err, errReused) {
					t.Fatal(err)
				}
				refused++
				continue
			}
			highest = i
			sealed := taken(b)
			plain, err := client.DecryptRTP(nil, sealed[len(sealed)-1], nil)
			if err != nil || !bytes.Equal(plain, p) {
				t.Fatalf("packet %d at index %d does not open: %v", seq, highest, err)
			}
			b.messages, b.used, b.packets = b.messages[:0], 0, 0
		}
		e.Release(b)
		c.Close()
	}
	if refused == 0 {
		t.Error("nothing was refused: the test tests nothing")
	}
}

func TestTwoStreamsNeverShareAnSSRC(t *testing.T) {
	e := listen(t)
	c := standing(t, e, silent{}, netip.MustParseAddrPort("127.0.0.1:9"))
	defer c.Close()
	b := e.Batch()
	defer e.Release(b)
	first, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Write(b, packet(1, 10, nil)); err != nil {
		t.Fatal(err)
	}
	if err := second.Write(b, packet(1, 11, nil)); !errors.Is(err, errTwice) {
		t.Errorf("got %v, want %v", err, errTwice)
	}
	if err := first.Write(b, packet(1, 10, nil)); err != nil {
		t.Errorf("sent again by its own stream: %v", err)
	}
	first.Close()
	if err := second.Write(b, packet(1, 10, nil)); !errors.Is(err, errReused) {
		t.Errorf("got %v, want %v", err, errReused)
	}
	if err := second.Write(b, packet(1, 12, nil)); err != nil {
		t.Error(err)
	}
	if err := first.Write(b, packet(1, 13, nil)); !errors.Is(err, errTwice) {
		t.Errorf("a stream that ended: got %v, want %v", err, errTwice)
	}
	if err := second.Write(b, []byte{0x80}); !errors.Is(err, errTooShort) {
		t.Errorf("got %v, want %v", err, errTooShort)
	}
}

func TestNothingIsSentWithoutAPath(t *testing.T) {
	e := listen(t)
	c := standing(t, e, silent{}, netip.MustParseAddrPort("127.0.0.1:9"))
	s, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	b := e.Batch()
	if err := errors.Join(s.Write(b, packet(1, 1, nil)), c.WriteRTCP(b, []byte{0x80, 201, 0, 1, 0, 0, 0, 1})); err != nil {
		t.Error(err)
	}
	if len(b.messages) > 0 || c.Stats().Drops["unsent"] != 2 {
		t.Errorf("%d messages, drops %v", len(b.messages), c.Stats().Drops)
	}
	e.Release(b)
	if _, err := newConn(t, e).NewStream(); !errors.Is(err, errEarly) {
		t.Errorf("got %v, want %v", err, errEarly)
	}
}
