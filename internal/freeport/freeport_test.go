package freeport

import (
	"net"
	"testing"
)

func TestFind(t *testing.T) {
	seen := map[int]bool{}
	for range 500 {
		port, err := Find()
		if err != nil || port < first || port >= end || seen[port] {
			t.Fatalf("port %d, %v, given before: %v", port, err, seen[port])
		}
		seen[port] = true
	}
}

func TestTakenIsNotFree(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if free(l.Addr().(*net.TCPAddr).Port) || free(c.LocalAddr().(*net.UDPAddr).Port) {
		t.Error("a taken port counts as free")
	}
}
