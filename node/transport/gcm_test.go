package transport

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// TestDerivation is RFC 3711 appendix B.3.
func TestDerivation(t *testing.T) {
	bytesOf := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	master, err := aes.NewCipher(bytesOf("e1f97a0d3e018be0d64fa32c06de4139"))
	if err != nil {
		t.Fatal(err)
	}
	salt := bytesOf("0ec675ad498afeebb6960b3aabe6")
	if got, want := derive(master, salt, labelKey, 16), bytesOf("c61e7a93744f39ee10734afe3ff7a087"); !bytes.Equal(got, want) {
		t.Errorf("key %x, want %x", got, want)
	}
	if got, want := derive(master, salt, labelSalt, 14), bytesOf("30cbbc08863d8c85d49db34a9ae1"); !bytes.Equal(got, want) {
		t.Errorf("salt %x, want %x", got, want)
	}
}

// TestSealsAsPionDoes compares with the library, for both lengths of keys, whatever
// stands in the header and however often the sequence number has wrapped.
func TestSealsAsPionDoes(t *testing.T) {
	for profile, length := range map[srtp.ProtectionProfile]int{
		srtp.ProtectionProfileAeadAes128Gcm: 16, srtp.ProtectionProfileAeadAes256Gcm: 32,
	} {
		key, salt := noise(length), noise(12)
		context, err := srtp.CreateContext(key, salt, profile)
		if err != nil {
			t.Fatal(err)
		}
		g, err := newGCM(key, salt)
		if err != nil {
			t.Fatal(err)
		}
		s := &Stream{gcm: g}
		for range 500 {
			roc := rand.Uint32()
			plain := anyPacket(t)
			context.SetROC(binary.BigEndian.Uint32(plain[8:]), roc)
			want, err := context.EncryptRTP(nil, plain, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.seal(append(make([]byte, 0, len(plain)+maxTag), plain...), int64(roc)<<16|int64(binary.BigEndian.Uint16(plain[2:])))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%v, ROC %d: sealed\n%x (%v)\nwant\n%x", profile, roc, got, err, want)
			}
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// anyPacket has CSRCs, extensions and padding, or not.
func anyPacket(t *testing.T) []byte {
	t.Helper()
	p := rtp.Packet{Header: rtp.Header{
		Version: 2, PayloadType: uint8(rand.N(128)), Marker: rand.N(2) == 0,
		SequenceNumber: uint16(rand.Uint32()), Timestamp: rand.Uint32(), SSRC: rand.Uint32(),
	}, Payload: noise(rand.N(1200))}
	for range rand.N(3) {
		p.CSRC = append(p.CSRC, rand.Uint32())
	}
	if rand.N(2) == 0 {
		for id := range uint8(rand.N(4)) {
			if err := p.SetExtension(id+1, noise(1+rand.N(16))); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCutHeaders are refused.
func TestCutHeaders(t *testing.T) {
	whole := []byte{0x92, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0xbe, 0xde, 0, 1, 9, 9, 9, 9}
	for n := rtpHeader; n < len(whole); n++ {
		if size, err := headerSize(whole[:n]); err == nil {
			t.Errorf("%d bytes: header of %d", n, size)
		}
	}
	if size, err := headerSize(whole); err != nil || size != len(whole) {
		t.Errorf("whole header: %d, %v", size, err)
	}
}
