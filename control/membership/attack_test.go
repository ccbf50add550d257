package membership

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

// thief holds the gossip key and speaks memberlist's language by hand: message
// types and MessagePack as its version 0.7 has them.
type thief struct {
	t    *testing.T
	seal cipher.AEAD
}

const (
	msgDead      = 5
	msgCompress  = 9
	msgEncrypted = 10
)

func newThief(t *testing.T) *thief {
	block, err := aes.NewCipher(goodKey)
	if err != nil {
		t.Fatal(err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &thief{t, seal}
}

// encrypt seals a message in memberlist's form 1.
func (x *thief) encrypt(plain, with []byte) []byte {
	nonce := make([]byte, x.seal.NonceSize())
	rand.Read(nonce)
	return x.seal.Seal(append([]byte{1}, nonce...), nonce, plain, with)
}

// packet sends a message in a datagram.
func (x *thief) packet(to *running, plain []byte) {
	conn, err := net.Dial("udp", to.addr()[0])
	if err != nil {
		x.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(x.encrypt(plain, nil)); err != nil {
		x.t.Fatal(err)
	}
}

// stream sends a message over TCP and waits until the node has done with it.
func (x *thief) stream(to *running, plain []byte) {
	conn, err := net.Dial("tcp", to.addr()[0])
	if err != nil {
		x.t.Fatal(err)
	}
	defer conn.Close()
	head := binary.BigEndian.AppendUint32([]byte{msgEncrypted}, uint32(1+x.seal.NonceSize()+len(plain)+x.seal.Overhead()))
	_, _ = conn.Write(append(head, x.encrypt(plain, head)...)) // the node may have hung up
	_, _ = io.Copy(io.Discard, conn)
}

func text(s string) []byte { return append([]byte{0xa0 | byte(len(s))}, s...) }

// dead says that a node is dead.
func dead(node, from string, incarnation uint32) []byte {
	b := append([]byte{msgDead, 0x83}, text("Incarnation")...)
	b = binary.BigEndian.AppendUint32(append(b, 0xce), incarnation)
	b = append(append(b, text("Node")...), text(node)...)
	return append(append(b, text("From")...), text(from)...)
}

// bomb is a message that unpacks to n bytes.
func bomb(n int) []byte {
	var packed bytes.Buffer
	w := lzw.NewWriter(&packed, lzw.LSB, 8)
	zeros := make([]byte, 1<<16)
	for ; n > 0; n -= len(zeros) {
		w.Write(zeros)
	}
	w.Close()
	b := append([]byte{msgCompress, 0x82}, text("Algo")...)
	b = append(append(b, 0), text("Buf")...)
	b = binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(packed.Len()))
	return append(b, packed.Bytes()...)
}

// Whoever holds the gossip key can have a living node declared dead again and
// again. A node that has a link to it goes on; one that has none does not, which
// shows that the attack works.
func TestFalseSuspicion(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, func(c *Config) { c.Linked = func(n residency.NodeName) bool { return n == "waw" } })
	start(t, ca, waw, a.addr(), nil)
	c := start(t, ca, nyc, a.addr(), nil)
	for _, r := range []*running{a, c} {
		r.await(t, "all meet", func(s *Snapshot) bool { return len(s.Members) == 3 })
	}
	x := newThief(t)
	for i, from := range []string{"nyc", "nyc", "nyc", "waw"} { // "waw": as if it had left
		x.packet(a, dead("waw", from, uint32(1000+1000*i)))
		x.packet(c, dead("waw", from, uint32(1000+1000*i)))
		c.await(t, "nyc, which has no link, believes it", func(s *Snapshot) bool { _, ok := s.Member("waw"); return !ok })
		if _, ok := a.Snapshot().Member("waw"); !ok {
			t.Fatal("fra has forgotten a node that it has a link to")
		}
		if from == "waw" {
			break // nobody gossips to who has left: it hears of it with the next exchange of tables, 15 s later at worst
		}
		c.await(t, "waw objects", func(s *Snapshot) bool { _, ok := s.Member("waw"); return ok })
	}
}

// A message of kilobytes that unpacks to half a gigabyte costs what a large message
// may cost, once, and harms nobody.
func TestDecompressionBomb(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	b := start(t, ca, waw, a.addr(), nil)
	a.await(t, "waw is there", func(s *Snapshot) bool { return len(s.Members) == 2 })
	x, big, small := newThief(t), bomb(512<<20), bomb(24<<20)
	if len(big) > 4<<20 || len(small) > 60_000 {
		t.Fatalf("bombs of %d and %d bytes are none", len(big), len(small))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	x.stream(a, big)
	x.packet(a, small)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 400<<20 { // unpacked whole it would take a GiB, in buffers that double
		t.Errorf("a bomb of 512 MiB made the node allocate %d MiB", got>>20)
	}
	b.Announce()
	at := time.Now()
	c := start(t, ca, nyc, a.addr(), nil)
	a.await(t, "the mesh goes on", func(s *Snapshot) bool { return len(s.Members) == 3 })
	c.await(t, "for everybody", func(s *Snapshot) bool { return len(s.Members) == 3 })
	t.Logf("a node joined %v after the bomb", time.Since(at).Round(time.Millisecond))
}
