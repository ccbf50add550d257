package wiretap

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"net/netip"
	"strings"

	"github.com/pion/dtls/v3/pkg/crypto/prf"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/srtp/v3"
)

// Media opens what a node and its attendees say to each other about media: DTLS-SRTP
// whose secrets an attendee gives away, bare or wrapped by TURN.
type Media struct {
	secrets  map[string][]byte // master secret by the client's random
	sessions map[flow]*session
	// Opened and Closed count packets of RTP and RTCP.
	Opened, Closed int
}

// session is what was seen of one handshake, and the keys that follow from it.
type session struct {
	client      netip.AddrPort // of DTLS
	hello       []byte         // the client's random
	answer      []byte         // the server's
	suite       uint16
	profile     srtp.ProtectionProfile
	both        [2]*srtp.Context // of what the client, what the server of DTLS sends
	underivable bool
}

// NewMedia opens nothing until it has learnt secrets.
func NewMedia() *Media { return &Media{secrets: map[string][]byte{}, sessions: map[flow]*session{}} }

// Learn takes the secrets out of a key log.
func (m *Media) Learn(log []byte) {
	for line := range bytes.Lines(log) {
		f := bytes.Fields(line)
		if len(f) != 3 || string(f[0]) != "CLIENT_RANDOM" {
			continue
		}
		random, err := hex.DecodeString(string(f[1]))
		secret, worse := hex.DecodeString(string(f[2]))
		if err == nil && worse == nil {
			m.secrets[string(random)] = secret
		}
	}
}

// Open returns what a datagram says, or a message of a stream that stands for one;
// false: nobody can read it.
func (m *Media) Open(src, dst netip.AddrPort, b []byte) ([]byte, bool) {
	b = unwrap(b)
	switch {
	case len(b) == 0:
		return nil, true
	case b[0] >= 20 && b[0] < 64: // RFC 7983
		m.shake(src, dst, b)
		return b, true
	case b[0] < 128 || b[0] >= 192 || len(b) < 12:
		return b, true
	}
	if plain, ok := m.session(src, dst).open(src, b, m.secrets); ok {
		m.Opened++
		return plain, true
	}
	m.Closed++
	return nil, false
}

func (m *Media) session(src, dst netip.AddrPort) *session {
	key := flow{src, dst}
	if dst.Compare(src) < 0 {
		key = flow{dst, src}
	}
	if m.sessions[key] == nil {
		m.sessions[key] = &session{}
	}
	return m.sessions[key]
}

// TURN wraps what it carries into ChannelData, or into an indication (RFC 8656).
const (
	sendIndication, dataIndication = 0x0016, 0x0017
	dataAttribute                  = 0x0013
)

func unwrap(b []byte) []byte {
	if len(b) >= 4 && b[0] >= 0x40 && b[0] < 0x50 {
		return b[4:min(len(b), 4+int(binary.BigEndian.Uint16(b[2:])))]
	}
	if len(b) < 20 || binary.BigEndian.Uint16(b) != sendIndication && binary.BigEndian.Uint16(b) != dataIndication {
		return b
	}
	for rest := b[20:]; len(rest) >= 4; {
		kind, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if len(rest) < 4+n {
			return b
		}
		if kind == dataAttribute {
			return rest[4 : 4+n]
		}
		rest = rest[min(len(rest), 4+(n+3)&^3):]
	}
	return b
}

// shake follows the part of a handshake that is in the clear.
//
//	| 22 | version (2) | epoch (2) | number (6) | length (2) | (RFC 6347 section 4.1)
//	| type (1) | length (3) | number (2) | offset (3) | length (3) | message |
func (m *Media) shake(src, dst netip.AddrPort, b []byte) {
	const record, header = 13, 12
	for len(b) >= record {
		n := int(binary.BigEndian.Uint16(b[11:]))
		body := b[record:min(len(b), record+n)]
		clear := b[0] == 22 && b[3] == 0 && b[4] == 0
		b = b[record+len(body):]
		if clear && len(body) > header && body[6] == 0 && body[7] == 0 && body[8] == 0 {
			m.session(src, dst).hear(src, handshake.Type(body[0]), body[header:])
		}
	}
}

func (s *session) hear(src netip.AddrPort, kind handshake.Type, message []byte) {
	switch kind {
	case handshake.TypeClientHello:
		var hello handshake.MessageClientHello
		if hello.Unmarshal(message) != nil {
			return
		}
		// It is sent again with a cookie, or because an answer is late.
		if random := hello.Random.MarshalFixed(); s.client != src || !bytes.Equal(random[:], s.hello) {
			*s = session{client: src, hello: random[:]}
		}
	case handshake.TypeServerHello:
		var hello handshake.MessageServerHello
		if hello.Unmarshal(message) != nil || hello.CipherSuiteID == nil {
			return
		}
		random := hello.Random.MarshalFixed()
		if bytes.Equal(random[:], s.answer) {
			return // once more
		}
		s.answer, s.suite, s.both, s.underivable = random[:], *hello.CipherSuiteID, [2]*srtp.Context{}, false
		for _, e := range hello.Extensions {
			if use, ok := e.(*extension.UseSRTP); ok && len(use.ProtectionProfiles) > 0 {
				s.profile = srtp.ProtectionProfile(use.ProtectionProfiles[0])
			}
		}
	}
}

func (s *session) open(src netip.AddrPort, b []byte, secrets map[string][]byte) ([]byte, bool) {
	if s.both[0] == nil && !s.derive(secrets) {
		return nil, false
	}
	context := s.both[1]
	if src == s.client {
		context = s.both[0]
	}
	if b[1] >= 192 && b[1] < 224 { // RFC 5761 section 4
		plain, err := context.DecryptRTCP(nil, b, nil)
		return plain, err == nil
	}
	plain, err := context.DecryptRTP(nil, b, nil)
	return plain, err == nil
}

// derive takes the keys from the handshake (RFC 5764 section 4.2).
func (s *session) derive(secrets map[string][]byte) bool {
	secret := secrets[string(s.hello)]
	if secret == nil || s.answer == nil || s.underivable {
		return false
	}
	s.underivable = true
	keyLen, err := s.profile.KeyLen()
	saltLen, worse := s.profile.SaltLen()
	if err != nil || worse != nil {
		return false
	}
	sum := func() hash.Hash { return sha256.New() }
	if strings.HasSuffix(tls.CipherSuiteName(s.suite), "SHA384") {
		sum = func() hash.Hash { return sha512.New384() }
	}
	seed := append(append([]byte("EXTRACTOR-dtls_srtp"), s.hello...), s.answer...)
	all, err := prf.PHash(secret, seed, 2*(keyLen+saltLen), sum)
	if err != nil {
		return false
	}
	for i := range s.both {
		key, salt := all[i*keyLen:][:keyLen], all[2*keyLen+i*saltLen:][:saltLen]
		if s.both[i], err = srtp.CreateContext(key, salt, s.profile); err != nil {
			return false
		}
	}
	s.underivable = false
	return true
}
