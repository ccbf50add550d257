package membership

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
)

// What the release of 2026-11 gossips beside memberlist's own messages, in hexadecimal. It
// is read, and written, as it stands here for as long as such a node may be met. A claim has
// its own place, in residency/identity.
const (
	keptMetadata    = "03000000636c61696d"
	keptState       = "01" + "0002" + "0003646572" + "00023032"
	keptWant        = "01" + "0707070707070707070707070707070707070707070707070707070707070707" + "667261"
	keptCertificate = "02646572"
	keptCoordinate  = "01" + "3fd0000000000000" + "bfe0000000000000" + "3fe8000000000000" + "3ff0000000000000" +
		"0000000000000000" + "0000000000000000" + "0000000000000000" + "3fc0000000000000" +
		"3fe0000000000000" + "3fa0000000000000" + "3fb0000000000000"
)

func TestGossipOfTheReleaseBefore(t *testing.T) {
	bytesOf := func(text string) []byte {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if claim, err := unpad(bytesOf(keptMetadata)); err != nil || string(claim) != "claim" {
		t.Errorf("metadata: %q, %v", claim, err)
	}
	if claim, err := unpad(pad([]byte("claim"), 0)); err != nil || string(claim) != "claim" {
		t.Errorf("metadata as it is written: %q, %v", claim, err)
	}

	ders := [][]byte{[]byte("der"), []byte("02")}
	if got, err := decodeState(bytesOf(keptState)); err != nil || fmt.Sprint(got) != fmt.Sprint(ders) {
		t.Errorf("state: %q, %v", got, err)
	}
	if b := encodeState(ders); !bytes.Equal(b, bytesOf(keptState)) {
		t.Errorf("the state is written as %x", b)
	}

	ask := want{cert: fingerprint(bytes.Repeat([]byte{7}, fingerprintSize)), from: "fra"}
	if w, der, err := decodeMessage(bytesOf(keptWant)); err != nil || der != nil || *w != ask {
		t.Errorf("want: %v, %x, %v", w, der, err)
	}
	if b := encodeWant(ask); !bytes.Equal(b, bytesOf(keptWant)) {
		t.Errorf("a want is written as %x", b)
	}
	if w, der, err := decodeMessage(bytesOf(keptCertificate)); err != nil || w != nil || string(der) != "der" {
		t.Errorf("certificate: %v, %x, %v", w, der, err)
	}
	if b := encodeCert([]byte("der")); !bytes.Equal(b, bytesOf(keptCertificate)) {
		t.Errorf("a certificate is written as %x", b)
	}

	c, ok := readCoordinate(bytesOf(keptCoordinate))
	if !ok || fmt.Sprint(c.Vec) != "[0.25 -0.5 0.75 1 0 0 0 0.125]" || c.Error != 0.5 || c.Adjustment != 0.03125 || c.Height != 0.0625 {
		t.Fatalf("coordinate: %+v, %t", c, ok)
	}
	a := newAtlas()
	if err := a.client.SetCoordinate(c); err != nil {
		t.Fatal(err)
	}
	if b := a.AckPayload(); !bytes.Equal(b, bytesOf(keptCoordinate)) {
		t.Errorf("a coordinate is written as\n%x, the release before wrote\n%s", b, keptCoordinate)
	}
}
