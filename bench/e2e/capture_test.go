package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// capture is a running tcpdump.
type capture struct {
	t    testing.TB
	cmd  *exec.Cmd
	path string
	said chan string // what it says after it began
}

// packet is a captured IP packet.
type packet struct {
	protocol byte // 6 TCP, 17 UDP
	src, dst netip.AddrPort
	size     int    // of the IP packet on the wire
	payload  []byte // of UDP, cut to what was captured
}

// startCapture returns when tcpdump is listening.
func startCapture(t testing.TB, iface, filter string) *capture {
	t.Helper()
	c := &capture{t: t, path: filepath.Join(t.TempDir(), "capture.pcap"), said: make(chan string, 1)}
	c.cmd = exec.Command("tcpdump", "-i", iface, "-n", "-U", "--immediate-mode", "-B", "8192", "-s", "96", "-Z", "root", "-w", c.path, filter)
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("tcpdump: %v", err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening on") {
	}
	go func() {
		var rest strings.Builder
		for lines.Scan() {
			rest.WriteString(lines.Text() + "\n")
		}
		c.said <- rest.String()
	}()
	t.Cleanup(func() { c.cmd.Process.Kill() })
	return c
}

// stop ends the capture and returns what it saw.
func (c *capture) stop() []packet {
	c.t.Helper()
	c.cmd.Process.Signal(os.Interrupt)
	said := <-c.said
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("tcpdump: %v\n%s", err, said)
	}
	if !strings.Contains(said, "\n0 packets dropped by kernel") {
		c.t.Errorf("the capture is not complete: %s", said)
	}
	b, err := os.ReadFile(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	packets, err := parsePcap(b)
	if err != nil {
		c.t.Fatal(err)
	}
	return packets
}

// parsePcap reads tcpdump's file of Ethernet frames.
func parsePcap(b []byte) ([]packet, error) {
	const fileHeader, packetHeader, ethernet = 24, 16, 14
	if len(b) < fileHeader || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 || b[20] != 1 {
		return nil, fmt.Errorf("capture: not a pcap file of Ethernet frames: % x", b[:min(len(b), fileHeader)])
	}
	var list []packet
	for b = b[fileHeader:]; len(b) >= packetHeader; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		size := int(binary.LittleEndian.Uint32(b[12:])) - ethernet
		frame := b[packetHeader:min(packetHeader+n, len(b))]
		b = b[packetHeader+len(frame):]
		if len(frame) < ethernet {
			continue
		}
		if p, ok := parseIP(frame[ethernet:]); ok {
			p.size = size
			list = append(list, p)
		}
	}
	return list, nil
}

// parseIP reads an IPv4 packet, or one of IPv6 without extension headers.
func parseIP(ip []byte) (p packet, ok bool) {
	head := 0
	var src, dst []byte
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		head, p.protocol, src, dst = int(ip[0]&15)*4, ip[9], ip[12:16], ip[16:20]
	case len(ip) >= 40 && ip[0]>>4 == 6:
		head, p.protocol, src, dst = 40, ip[6], ip[8:24], ip[24:40]
	}
	if head == 0 || len(ip) < head+8 {
		return p, false
	}
	end := func(raw []byte, at int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(raw)
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(ip[head+at:]))
	}
	p.src, p.dst = end(src, 0), end(dst, 2)
	if p.protocol == 17 {
		p.payload = ip[head+8:]
	}
	return p, true
}

// traffic sums what passed at one UDP port.
type traffic struct{ packets, bytes, media int }

// at counts packets from and to a UDP port. Media are DTLS, RTP and RTCP by
// their first byte (RFC 7983): what belongs to ICE alone does not count.
func at(packets []packet, port netip.AddrPort) (n traffic) {
	for _, p := range packets {
		if p.protocol != 17 || p.src != port && p.dst != port {
			continue
		}
		n.packets++
		n.bytes += p.size
		if len(p.payload) > 0 && (p.payload[0] >= 20 && p.payload[0] < 64 || p.payload[0] >= 128 && p.payload[0] < 192) {
			n.media++
		}
	}
	return n
}

// interfaceOf names the interface that has an address.
func interfaceOf(t testing.TB, a netip.Addr) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, n := range addrs {
			if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr() == a {
				return i.Name
			}
		}
	}
	t.Fatalf("no interface has %s", a)
	return ""
}
