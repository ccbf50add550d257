package wiretap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
)

// Segment is a TCP segment as it was captured.
type Segment struct {
	Src, Dst netip.AddrPort
	Number   uint32
	SYN, ACK bool
	Payload  []byte
}

// ParseSegment reads a TCP segment behind its IP header (RFC 9293 section 3.1).
func ParseSegment(src, dst netip.AddrPort, b []byte) (s Segment, ok bool) {
	const header = 20
	if len(b) < header || int(b[12]>>4)*4 < header || len(b) < int(b[12]>>4)*4 {
		return s, false
	}
	return Segment{Src: src, Dst: dst, Number: binary.BigEndian.Uint32(b[4:]), SYN: b[13]&2 != 0, ACK: b[13]&16 != 0, Payload: b[int(b[12]>>4)*4:]}, true
}

// Streams puts TCP connections together and opens what they carry: TLS 1.3 (sealed
// with AES-128-GCM) whose secrets one end gives away, memberlist's streams, TURN and
// ICE in frames, and what is in the clear anyway.
type Streams struct {
	gossip      []byte
	secrets     map[string]map[string][]byte // by the client's random, by label
	connections map[flow]*connection
	// Opened and Closed count TLS records and messages of gossip.
	Opened, Closed int
}

const (
	// waitingSegments bounds what is kept of a stream behind a gap.
	waitingSegments = 4096
	// waitingBytes bounds what is kept until the secrets are known: a client has them
	// when it has read the server's first records, two or three certificates long.
	waitingBytes = 16 << 10
)

type connection struct {
	client netip.AddrPort
	kind   carried
	halves [2]half // from the client, from the server
	tls    *tlsPair
}

// carried is what a connection is for.
type carried uint8

const (
	unknown carried = iota
	sealed          // TLS
	members         // memberlist
	framed          // TURN's messages and ChannelData
	packets         // ICE's frames (RFC 4571)
	clear
)

// half is one direction.
type half struct {
	begun   bool
	next    uint32
	waiting map[uint32][]byte
	raw     []byte // in order, and not taken yet
	plain   []byte // opened, and not cut into frames yet
	frames  carried
}

// NewStreams opens gossip with its key, and TLS once it has learnt secrets.
func NewStreams(gossip []byte) *Streams {
	return &Streams{gossip: gossip, secrets: map[string]map[string][]byte{}, connections: map[flow]*connection{}}
}

// Learn takes the secrets out of a key log.
func (s *Streams) Learn(log []byte) {
	for line := range bytes.Lines(log) {
		f := bytes.Fields(line)
		if len(f) != 3 || !bytes.Contains(f[0], []byte("TRAFFIC_SECRET")) {
			continue
		}
		random, err := hex.DecodeString(string(f[1]))
		secret, worse := hex.DecodeString(string(f[2]))
		if err != nil || worse != nil || len(secret) != sha256.Size {
			continue
		}
		if s.secrets[string(random)] == nil {
			s.secrets[string(random)] = map[string][]byte{}
		}
		s.secrets[string(random)][string(f[0])] = secret
	}
}

// Take puts a segment where it belongs. say is told what is opened by it: text, or
// one of the messages that stand for a datagram.
func (s *Streams) Take(g Segment, say func(plain []byte, message bool)) {
	key, from := flow{g.Src, g.Dst}, 0
	if s.connections[key] == nil {
		key, from = flow{g.Dst, g.Src}, 1
	}
	if g.SYN && !g.ACK {
		key, from = flow{g.Src, g.Dst}, 0
		s.connections[key] = &connection{client: g.Src}
	}
	c := s.connections[key]
	if c == nil {
		return // it began before the capture
	}
	h := &c.halves[from]
	if g.SYN {
		h.begun, h.next = true, g.Number+1
		return
	}
	if h.arrive(g.Number, g.Payload) {
		s.open(c, from, say)
		if c.kind == sealed { // what the other end said before this one had its secrets
			s.open(c, 1-from, say)
		}
	}
}

// arrive puts bytes in order and reports whether there are more than before.
func (h *half) arrive(number uint32, b []byte) bool {
	if !h.begun || len(b) == 0 {
		return false
	}
	if ahead := int32(number - h.next); ahead > 0 {
		if h.waiting == nil {
			h.waiting = map[uint32][]byte{}
		}
		if len(h.waiting) < waitingSegments {
			h.waiting[number] = bytes.Clone(b)
		}
		return false
	} else if -ahead < 0 || int(-ahead) >= len(b) {
		return false // it came before
	} else {
		b = b[-ahead:]
	}
	h.raw = append(h.raw, b...)
	h.next += uint32(len(b))
	for n, w := range h.waiting {
		if int32(n-h.next) <= 0 {
			delete(h.waiting, n)
			h.arrive(n, w)
			break
		}
	}
	return true
}

// open opens what is in order by now.
func (s *Streams) open(c *connection, from int, say func([]byte, bool)) {
	h := &c.halves[from]
	if c.kind == unknown && from == 0 {
		c.kind = kindOf(h.raw)
		if c.kind == sealed {
			c.tls = &tlsPair{}
		}
	}
	switch c.kind {
	case sealed:
		for {
			record, rest, ok := cutRecord(h.raw)
			if !ok || !c.tls.ready(record, from, s.secrets) && len(h.raw) < waitingBytes {
				return
			}
			h.raw = rest
			plain, ok := c.tls.open(record, from, s.secrets)
			if !ok {
				s.Closed++
				continue
			}
			s.Opened++
			if len(plain) > 0 {
				h.text(plain, from == 0, c, say)
			}
		}
	case members:
		for {
			message, rest, ok := cutMembers(h.raw)
			if !ok {
				return
			}
			h.raw = rest
			if plain, ok := openMembers(s.gossip, message); ok {
				s.Opened++
				say(plain, false)
			} else {
				s.Closed++
			}
		}
	case unknown:
	default:
		b := h.raw
		h.raw = nil
		h.text(b, from == 0, c, say)
	}
}

// text takes what is opened: words as they are, with the end of what came before, or
// messages.
func (h *half) text(b []byte, first bool, c *connection, say func([]byte, bool)) {
	if h.frames == unknown {
		h.frames = c.kind
		if c.kind == sealed {
			h.frames = clear
			if other := c.halves[0].frames; !first && other != unknown {
				h.frames = other
			} else if first && len(b) > 0 && b[0] < 4 {
				h.frames = framed
			}
		}
	}
	h.plain = append(h.plain, b...)
	if h.frames != framed && h.frames != packets {
		say(h.plain, false)
		const word = 64 // the end may be the beginning of a word
		h.plain = bytes.Clone(h.plain[max(0, len(h.plain)-word):])
		return
	}
	for {
		n := frameLength(h.frames, h.plain)
		if n == 0 || len(h.plain) < n {
			return
		}
		message := h.plain[:n]
		if h.frames == packets {
			message = message[2:]
		}
		say(message, true)
		h.plain = h.plain[n:]
	}
}

// frameLength is how long the next frame is; 0: that cannot be said yet.
func frameLength(kind carried, b []byte) int {
	switch {
	case len(b) < 4:
		return 0
	case kind == packets:
		return 2 + int(binary.BigEndian.Uint16(b))
	case b[0] < 4: // STUN
		return 20 + int(binary.BigEndian.Uint16(b[2:]))
	}
	return 4 + (int(binary.BigEndian.Uint16(b[2:]))+3)&^3 // ChannelData is padded in a stream
}

// cookie is STUN's (RFC 8489).
var cookie = []byte{0x21, 0x12, 0xa4, 0x42}

// kindOf knows a connection by what its client says first.
func kindOf(b []byte) carried {
	switch {
	case len(b) < 10:
		return unknown
	case b[0] == 22 && b[1] == 3:
		return sealed
	case bytes.Equal(b[4:8], cookie):
		return framed
	case bytes.Equal(b[6:10], cookie):
		return packets
	case b[0] == encrypted || b[0] == labelled:
		return members
	}
	return clear
}

// Types of memberlist's messages.
const encrypted, labelled = 10, 244

// cutMembers cuts the next sealed message of memberlist's off a stream.
//
//	| 10 | length (4) | version: 1 (1) | nonce (12) | sealed with AES-GCM |
func cutMembers(b []byte) (message, rest []byte, ok bool) {
	if len(b) < 5 {
		return nil, b, false
	}
	n := 5 + int(binary.BigEndian.Uint32(b[1:]))
	if b[0] != encrypted || n > 64<<20 {
		return b, nil, true
	}
	if len(b) < n {
		return nil, b, false
	}
	return b[:n], b[n:], true
}
