package node

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"
)

// declared keeps RTP from a client until a description has declared its SSRC. An
// attendee that offers gets media as soon as the node has answered, so before the
// answer; pion's client then guesses at the stream in one goroutine while the
// answer starts it in another, which the race detector finds (ReadStreamSRTP.Peek
// beside Read, pion/srtp v3.0.13). A browser drops such packets or waits with them.
type declared struct {
	transport.Net
	pc    atomic.Pointer[webrtc.PeerConnection]
	known sync.Map // SSRCs
}

func newDeclared(t *testing.T) *declared {
	t.Helper()
	n, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	return &declared{Net: n}
}

func (d *declared) ListenUDP(network string, at *net.UDPAddr) (transport.UDPConn, error) {
	c, err := d.Net.ListenUDP(network, at)
	return declaredConn{c, d}, err
}

// early reports whether a packet is RTP (RFC 7983, RFC 5761 section 4) of a stream
// that no description has declared yet.
func (d *declared) early(b []byte) bool {
	if len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] <= 223 {
		return false
	}
	ssrc := binary.BigEndian.Uint32(b[8:])
	if _, ok := d.known.Load(ssrc); ok {
		return false
	}
	pc := d.pc.Load()
	if pc == nil {
		return true
	}
	if remote := pc.RemoteDescription(); remote == nil || !strings.Contains(remote.SDP, fmt.Sprintf("a=ssrc:%d ", ssrc)) {
		return true
	}
	d.known.Store(ssrc, true)
	return false
}

type declaredConn struct {
	transport.UDPConn
	d *declared
}

func (c declaredConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.UDPConn.ReadFrom(b)
		if err != nil || !c.d.early(b[:n]) {
			return n, from, err
		}
	}
}
