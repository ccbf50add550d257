package stream

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
)

// secured returns a connection with TLS over it, and the client.
func secured(t testing.TB, below ...func(net.Conn) net.Conn) (*Conn, *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s, far := pair(t)
	base, c := New(s), net.Conn(far)
	for _, f := range below {
		c = f(c)
	}
	server := tls.Server(base, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, DynamicRecordSizingDisabled: true})
	client := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	over := Over(server, base)
	over.Unwait()
	t.Cleanup(func() { over.Close() })
	return over, client
}

// TestRecordsStayWhole however little the client reads: whatever was taken arrives,
// and what was refused was not encrypted.
func TestRecordsStayWhole(t *testing.T) {
	c, client := secured(t)
	var want []byte
	for range 3 {
		want = append(want, fill(t, c, func(err error) bool { return errors.Is(err, ErrFull) })...)
		got := make([]byte, len(want)/2)
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want[:len(got)]) {
			t.Fatalf("%d bytes came, not those that were sent: %v", len(got), err)
		}
		want = want[len(got):]
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the last %d bytes: %v", len(got), err)
	}
}

// TestClosingTLSDoesNotWait for a client that reads nothing.
func TestClosingTLSDoesNotWait(t *testing.T) {
	c, client := secured(t)
	fill(t, c, func(error) bool { return c.Full() })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, client); err == nil {
		t.Error("the client sees an orderly end, although something is missing")
	}
}
