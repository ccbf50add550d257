package transport

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// testKeys are as a handshake would have left them; open and seal are the same so
// that what a connection sent can be given back to it.
func testKeys(profile srtp.ProtectionProfile) *keys {
	keyLen, _ := profile.KeyLen()
	saltLen, _ := profile.SaltLen()
	key, salt := bytes.Repeat([]byte{1}, keyLen), bytes.Repeat([]byte{2}, saltLen)
	return &keys{profile: profile, seal: key, sealSalt: salt, open: key, openSalt: salt}
}

// standing returns a connection as it is after the handshake, with a client at an
// address.
func standing(t testing.TB, e *Engine, h Handler, at netip.AddrPort) *Conn {
	t.Helper()
	return standingAt(t, e, h, tableKey{group: e.groups[0], name: nameOf(at)})
}

func standingAt(t testing.TB, e *Engine, h Handler, key tableKey) *Conn {
	t.Helper()
	c, err := e.NewConn(h, ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	k := testKeys(srtp.ProtectionProfileAeadAes128Gcm)
	in, err := newOpener(k)
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.sealer()
	if err != nil {
		t.Fatal(err)
	}
	c.in.Store(in)
	c.out.Store(&rtcpSealer{context: out})
	c.keys.Store(k)
	if c.proved(key, true, c.local, e.now()) == nil {
		t.Fatal("path is taken")
	}
	return c
}

// sink is a client's socket whose kernel buffer takes what comes and throws it away.
func sink(t testing.TB) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			if _, _, err := c.ReadFromUDPAddrPort(b); err != nil {
				return
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestSendingAllocatesNothing covers Reserve, Write and Flush. RTCP, of which there
// is little, costs one allocation of pion/srtp.
func TestSendingAllocatesNothing(t *testing.T) {
	e := listen(t)
	c := standing(t, e, newRecorder(), sink(t))
	defer c.Close()
	s, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	b := e.Batch()
	defer e.Release(b)
	p := packet(1, 0, make([]byte, 1100))
	seq := uint16(0)
	allocs := testing.AllocsPerRun(1000, func() {
		for range 6 {
			seq++
			room := b.Reserve(1200)
			copy(room, p)
			room[2], room[3] = byte(seq>>8), byte(seq)
			if err := s.Write(b, room[:len(p)]); err != nil {
				t.Fatal(err)
			}
		}
		b.Flush()
	})
	if allocs > 0 {
		t.Errorf("%v allocations for six packets and a flush, want none", allocs)
	}
	if st := e.Stats(); st.PacketsSent != 6*1001 || len(st.Drops) > 0 {
		t.Errorf("stats %+v, want %d packets and no drops", st, 6*1001)
	}
}

// silent is a Handler that does nothing.
type silent struct{}

func (silent) RTP(*Worker, []byte, time.Time)  {}
func (silent) RTCP(*Worker, []byte, time.Time) {}
func (silent) Drained(*Worker)                 {}
func (silent) State(State)                     {}
func (silent) Opened(string)                   {}
func (silent) Message(string, bool, []byte)    {}

// sealer makes what a client would send.
func clientSeal(t testing.TB) func(p []byte) []byte {
	t.Helper()
	s, err := testKeys(srtp.ProtectionProfileAeadAes128Gcm).sealer()
	if err != nil {
		t.Fatal(err)
	}
	return func(p []byte) []byte {
		b, err := s.EncryptRTP(nil, p, &rtp.Header{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// TestReceivingAllocatesNothing covers all from the datagram to Drained.
func TestReceivingAllocatesNothing(t *testing.T) {
	e := listen(t)
	client := netip.MustParseAddrPort("127.0.0.1:9")
	c := standing(t, e, silent{}, client)
	defer c.Close()
	w := newWorker(e, e.groups[0], e.groups[0].socks[0], 0)
	seal, name := clientSeal(t), nameOf(client)
	const runs = 1000
	var sealed [][]byte
	for seq := range uint16(runs + 1) {
		sealed = append(sealed, seal(packet(1, seq, make([]byte, 1100))))
	}
	now, i := time.Now(), 0
	allocs := testing.AllocsPerRun(runs, func() {
		w.datagram(&name, sealed[i], now)
		w.drained()
		i++
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a packet, want none", allocs)
	}
	if s := c.Stats(); s.PacketsIn != runs+1 || len(s.Drops) > 0 {
		t.Errorf("stats %+v, want %d packets and no drops", s, runs+1)
	}
}

// BenchmarkFlush seals frames of six packets for a hundred clients and sends them:
// packet by packet as net does, in one call, and in one call with segmentation.
// The figure is nanoseconds for a packet.
func BenchmarkFlush(b *testing.B) {
	const clients, burst = 100, 6
	for _, how := range []string{"plain", "batched", "segmented"} {
		b.Run(how, func(b *testing.B) {
			e := listen(b)
			var streams []*Stream
			var addrs []netip.AddrPort
			for range clients {
				addr := sink(b)
				c := standing(b, e, silent{}, addr)
				b.Cleanup(c.Close)
				s, err := c.NewStream()
				if err != nil {
					b.Fatal(err)
				}
				c.selected.Load().plain.Store(how != "segmented")
				streams, addrs = append(streams, s), append(addrs, addr)
			}
			batch, p := e.Batch(), packet(1, 0, make([]byte, 1138))
			plain := e.groups[0].socks[0].conn
			seq := uint16(0)
			b.ResetTimer()
			for i := 0; i < b.N; i += clients * burst {
				for k, s := range streams {
					for n := range uint16(burst) {
						room := batch.Reserve(1200)
						copy(room, p)
						room[2], room[3] = byte((seq+n)>>8), byte(seq+n)
						at := batch.used
						if err := s.Write(batch, room[:len(p)]); err != nil {
							b.Fatal(err)
						}
						if how == "plain" {
							_, _ = plain.WriteToUDPAddrPort(batch.arena[at:batch.used], addrs[k])
							batch.messages, batch.used = batch.messages[:0], 0
						}
					}
				}
				seq += burst
				batch.Flush()
			}
		})
	}
}

// BenchmarkReceive opens packets and delivers them, without the socket.
func BenchmarkReceive(b *testing.B) {
	e := listen(b)
	client := netip.MustParseAddrPort("127.0.0.1:9")
	c := standing(b, e, silent{}, client)
	defer c.Close()
	w := newWorker(e, e.groups[0], e.groups[0].socks[0], 0)
	seal, name := clientSeal(b), nameOf(client)
	sealed := make([][]byte, 1<<14)
	for i := range sealed {
		sealed[i] = seal(packet(1, uint16(i), make([]byte, 1100)))
	}
	now := time.Now()
	scratch := make([]byte, 1500)
	for i := 0; b.Loop(); i++ {
		if i%len(sealed) == 0 {
			in, err := newOpener(c.keys.Load()) // the same packets again
			if err != nil {
				b.Fatal(err)
			}
			c.in.Store(in)
		}
		w.datagram(&name, scratch[:copy(scratch, sealed[i%len(sealed)])], now)
		if i%16 == 15 {
			w.drained()
		}
	}
	if n := c.Stats().Drops; len(n) > 0 {
		b.Fatal(n)
	}
}
