package transport

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"
)

// FuzzDatagram gives a worker what anybody can send, from a client's address and
// from elsewhere. Nothing may be delivered, answered or remembered.
func FuzzDatagram(f *testing.F) {
	e := listen(f)
	r := newRecorder()
	client := netip.MustParseAddrPort("127.0.0.1:9")
	c := standing(f, e, r, client)
	f.Cleanup(c.Close)
	w := newWorker(e, e.groups[0], e.groups[0].socks[0], 0)
	known, stranger := nameOf(client), nameOf(netip.MustParseAddrPort("127.0.0.1:10"))
	relayed := openUDP(f, e, "ada")
	tunneled := nameOf(relayed.addr())
	f.Add(packet(1, 1, []byte("media")))
	f.Add([]byte{0x80, 201, 0, 1, 0, 0, 0, 1, 0x80, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(request(f, "ufrag", "pwd", useCandidate).Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		k := classify(b)
		for _, name := range []*sockname{&known, &stranger} {
			w.datagram(name, bytes.Clone(b), e.now())
			if len(w.batch.messages) > 0 {
				t.Fatalf("%q from %v was answered", b, name.addrPort())
			}
			w.drained()
		}
		w.datagram(&tunneled, bytes.Clone(b), e.now())
		w.datagram(&tunneled, channelData(channelNumber, b), e.now())
		if w.drained(); len(w.batch.messages) > 0 || relayed.tunnel.path.Load() != nil {
			t.Fatalf("%q through a tunnel was answered", b)
		}
		if k == kindDTLS { // nobody reads it here
			drain := make([]byte, maxDatagram+1)
			for c.pipe.buffer.Count() > 0 {
				_, _ = c.pipe.buffer.Read(drain)
			}
		}
		if len(r.events) > 0 || e.Stats().Paths != 1 {
			t.Fatalf("%q was taken: %v", b, r.summary())
		}
	})
}

// FuzzCheck makes a check with the right password of any attributes, and changes
// one byte of it. Whatever is believed must have been there.
func FuzzCheck(f *testing.F) {
	f.Add(request(f, "us", "pwd", useCandidate).Raw, uint16(30), byte(1))
	f.Add(request(f, "us", "pwd", attribute(stun.AttrICEControlled), attribute(0x7ffe)).Raw, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		if len(b) > 0 {
			b[int(at)%len(b)] ^= flip
		}
		var m, reply stun.Message
		if !stun.IsMessage(b) || stun.Decode(b, &m) != nil {
			return
		}
		c, ok := readCheck(&m)
		if !ok {
			return
		}
		signed := m.Raw[:bytes.Index(m.Raw, []byte{0, 8, 0, 20})]
		if !bytes.Contains(signed, c.ufrag) || len(c.unknown) > maxUnknown {
			t.Fatalf("%q reads as %+v", b, c)
		}
		if stun.NewShortTermIntegrity("pwd").Check(&m) != nil {
			return
		}
		from := netip.MustParseAddrPort("[2001:db8::1]:7882")
		if err := writeReply(&reply, &m, c, from, "pwd"); err != nil {
			t.Fatal(err)
		}
		var back stun.Message
		if err := stun.Decode(reply.Raw, &back); err != nil {
			t.Fatal(err)
		}
		if err := back.Check(stun.NewShortTermIntegrity("pwd"), stun.Fingerprint); err != nil || back.TransactionID != m.TransactionID {
			t.Fatalf("answer %v: %v", back, err)
		}
		if _, err := readName(t, &back, c); err != nil {
			t.Fatal(err)
		}
	})
}

// readName finds the mapped address of a successful answer.
func readName(t testing.TB, m *stun.Message, c check) (string, error) {
	t.Helper()
	if c.controlled || len(c.unknown) > 0 {
		return "", nil
	}
	var mapped stun.XORMappedAddress
	err := mapped.GetFrom(m)
	return mapped.String(), err
}
