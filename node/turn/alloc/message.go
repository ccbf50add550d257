package alloc

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

const (
	magicCookie = 0x2112A442

	attrRequestedFamily = stun.AttrRequestedAddressFamily

	familyIPv4   = 0x01 // RFC 8489 section 14.1
	familyIPv6   = 0x02
	protocolUDP  = 17
	maxPeers     = 8 // that one CreatePermission names; clients name one each time
	maxUnknown   = 4 // attributes that one answer names as unknown
	stunHeader   = 20
	integrityLen = 20
)

// request is what counts of a message. Slices point into it.
type request struct {
	kind        stun.MessageType
	transaction [stun.TransactionIDSize]byte

	username, realm, nonce []byte
	integrity              bool

	transport   []byte // REQUESTED-TRANSPORT
	family      []byte // REQUESTED-ADDRESS-FAMILY
	evenPort    bool
	reservation bool
	channel     []byte
	lifetime    []byte
	data        []byte
	hasData     bool

	peers     [maxPeers]netip.AddrPort
	numPeers  int
	badPeer   bool // one that is no address, or too many
	unknown   [maxUnknown]stun.AttrType
	unknowns  int
	malformed bool // something has a length that it cannot have
}

// read takes a message apart. What stands behind MESSAGE-INTEGRITY is not
// covered by it and not believed (RFC 8489 section 14.5). Of an attribute that
// is there twice the first counts (section 14).
func (r *request) read(m *stun.Message) {
	*r = request{kind: m.Type, transaction: m.TransactionID}
	for _, a := range m.Attributes {
		if r.integrity {
			return
		}
		r.attribute(m, a)
	}
}

func (r *request) attribute(m *stun.Message, a stun.RawAttribute) {
	switch a.Type {
	case stun.AttrMessageIntegrity:
		r.integrity = true
		r.malformed = r.malformed || len(a.Value) != integrityLen
	case stun.AttrUsername:
		first(&r.username, a.Value)
	case stun.AttrRealm:
		first(&r.realm, a.Value)
	case stun.AttrNonce:
		first(&r.nonce, a.Value)
	case stun.AttrRequestedTransport:
		r.sized(&r.transport, a.Value, 4)
	case attrRequestedFamily:
		r.sized(&r.family, a.Value, 4)
	case stun.AttrChannelNumber:
		r.sized(&r.channel, a.Value, 4)
	case stun.AttrLifetime:
		r.sized(&r.lifetime, a.Value, 4)
	case stun.AttrEvenPort:
		r.evenPort = true
	case stun.AttrReservationToken:
		r.reservation = true
	case stun.AttrData:
		if !r.hasData {
			r.data, r.hasData = a.Value, true
		}
	case stun.AttrXORPeerAddress:
		r.peer(a.Value, m.TransactionID)
	default:
		if a.Type.Required() && r.unknowns < maxUnknown {
			r.unknown[r.unknowns] = a.Type
			r.unknowns++
		}
	}
}

func first(field *[]byte, v []byte) {
	if *field == nil {
		*field = v
	}
}

func (r *request) sized(field *[]byte, v []byte, want int) {
	if len(v) != want {
		r.malformed = true
		return
	}
	first(field, v)
}

func (r *request) peer(v []byte, id [stun.TransactionIDSize]byte) {
	a, ok := readAddress(v, id)
	if !ok || r.numPeers == maxPeers {
		r.badPeer = true
		return
	}
	r.peers[r.numPeers] = a
	r.numPeers++
}

// asked is the lifetime that the client wants; negative if it says none.
func (r *request) asked() time.Duration {
	if r.lifetime == nil {
		return -1
	}
	return time.Duration(binary.BigEndian.Uint32(r.lifetime)) * time.Second
}

// readAddress reads an XOR-…-ADDRESS (RFC 8489 section 14.2). IPv6 stays IPv6,
// also where IPv4 is written inside: no spelling stands for another.
//
//	0   1        2      4
//	| 0 | family | port | address, 4 or 16 bytes |   xor cookie and transaction
func readAddress(v []byte, id [stun.TransactionIDSize]byte) (netip.AddrPort, bool) {
	if len(v) < 8 || v[0] != 0 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(v[2:]) ^ magicCookie>>16
	var ip [16]byte
	copy(ip[:], v[4:])
	mask(&ip, id)
	switch {
	case v[1] == familyIPv4 && len(v) == 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[:4])), port), true
	case v[1] == familyIPv6 && len(v) == 20:
		return netip.AddrPortFrom(netip.AddrFrom16(ip), port), true
	}
	return netip.AddrPort{}, false
}

// addAddress writes an XOR-…-ADDRESS.
func addAddress(m *stun.Message, kind stun.AttrType, a netip.AddrPort) {
	var v [20]byte
	binary.BigEndian.PutUint16(v[2:], a.Port()^magicCookie>>16)
	var ip [16]byte
	n := 8
	if a.Addr().Is4() {
		v[1] = familyIPv4
		four := a.Addr().As4()
		copy(ip[:], four[:])
	} else {
		v[1], n = familyIPv6, 20
		ip = a.Addr().As16()
	}
	mask(&ip, m.TransactionID)
	copy(v[4:], ip[:])
	m.Add(kind, v[:n])
}

func mask(ip *[16]byte, id [stun.TransactionIDSize]byte) {
	var key [16]byte
	binary.BigEndian.PutUint32(key[:], magicCookie)
	copy(key[4:], id[:])
	for i := range ip {
		ip[i] ^= key[i]
	}
}
