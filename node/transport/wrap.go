package transport

import (
	"encoding/binary"
	"net/netip"

	"github.com/pion/stun/v3"
)

// Wrap is what stands around a datagram towards the client of a Tunnel.
type Wrap struct {
	kind   wrapKind
	number uint16 // of a channel
	padded bool   // a channel on a stream
	data   []byte // a Data indication before its transaction and its data
}

type wrapKind uint8

const (
	wrapNone wrapKind = iota
	wrapLength
	wrapChannel
	wrapData
)

// maxWrap is the most that wrapping adds, in bytes: a Data indication with an IPv6
// address, and padding.
const maxWrap = stunHeader + 4 + 20 + 4 + 3

const stunHeader, channelHeader = 20, 4

// The wrappings there are. The zero Wrap is none.
var (
	WrapNone   = Wrap{}
	WrapLength = Wrap{kind: wrapLength} // RFC 4571, for ICE-TCP
)

// WrapChannel is TURN's ChannelData; on a stream it is padded to 4 bytes (RFC 8656
// section 12.4).
func WrapChannel(number uint16, padded bool) Wrap {
	return Wrap{kind: wrapChannel, number: number, padded: padded}
}

// WrapData is TURN's Data indication, for peers to which no channel is bound.
//
//	0       2       4            8               20
//	| 0x0017| length| 2112A442   | transaction   | XOR-PEER-ADDRESS 4+8 or 4+20 | DATA 4+n | padding |
func WrapData(peer netip.AddrPort) Wrap {
	m := stun.New()
	m.SetType(stun.NewType(stun.MethodData, stun.ClassIndication))
	m.TransactionID = stun.NewTransactionID() // nobody answers: one does for all
	m.WriteHeader()
	addr := stun.XORMappedAddress{IP: peer.Addr().Unmap().AsSlice(), Port: int(peer.Port())}
	if err := addr.AddToAs(m, stun.AttrXORPeerAddress); err != nil {
		return WrapNone // no address: nothing that a client could read either
	}
	return Wrap{kind: wrapData, data: m.Raw}
}

// around wraps the n bytes that b begins with, in place, and returns how long they
// are then. b has room for maxWrap more.
func (w *Wrap) around(b []byte, n int) int {
	switch w.kind {
	case wrapLength:
		copy(b[2:2+n], b[:n])
		binary.BigEndian.PutUint16(b, uint16(n))
		return 2 + n
	case wrapChannel:
		copy(b[4:4+n], b[:n])
		binary.BigEndian.PutUint16(b, w.number)
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		if w.padded {
			return 4 + pad(b[4:], n)
		}
		return 4 + n
	case wrapData:
		return w.indicate(b, n)
	}
	return n
}

// pad fills up to a multiple of 4.
func pad(b []byte, n int) int {
	for ; n%4 != 0; n++ {
		b[n] = 0
	}
	return n
}

func (w *Wrap) indicate(b []byte, n int) int {
	head := len(w.data) + 4
	copy(b[head:head+n], b[:n])
	copy(b, w.data)
	binary.BigEndian.PutUint16(b[head-4:], uint16(stun.AttrData))
	binary.BigEndian.PutUint16(b[head-2:], uint16(n))
	total := head + pad(b[head:], n)
	binary.BigEndian.PutUint16(b[2:], uint16(total-stunHeader))
	return total
}
