package alloc

import (
	"crypto/md5"
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/pion/stun/v3"
)

// Realm of the credentials. Four characters, because it is in every answer to a
// stranger: see Guard.stranger.
const Realm = "turn"

// What one source may send, and what it gets over UDP before it has shown
// credentials. A source may be an office behind one address where 300 people join
// at once, with up to six flows each and one challenge for each flow.
const (
	requestsPerSecond, requestsAtOnce     = 1000, 4000
	challengesPerSecond, challengesAtOnce = 100, 2000
)

// Guard reads messages and finds out who sent them. It may be used by any number
// of goroutines: what it remembers is two tables of counters that do not grow.
type Guard struct {
	credentials *Credentials
	nonces      nonces
	requests    *limiter
	challenges  *limiter

	// For the controls of the tests: answers of any length, to anybody.
	generous bool
}

// NewGuard makes a guard whose nonces are keyed with 32 bytes.
func NewGuard(c *Credentials, nonceKey [32]byte, seed maphash.Seed) *Guard {
	return &Guard{
		credentials: c, nonces: nonces{key: nonceKey},
		requests:   newLimiter(requestsPerSecond, requestsAtOnce, seed),
		challenges: newLimiter(challengesPerSecond, challengesAtOnce, seed),
	}
}

// Exchange is a message and what becomes of it. It is reused; its slices are
// valid until the next Read.
type Exchange struct {
	Flow Flow
	// Reply goes back to the client, if there is one.
	Reply []byte

	in, out stun.Message
	req     request
	claims  Claims
	key     [md5.Size]byte
}

// Method of the message, for logs and tests.
func (x *Exchange) Method() stun.Method { return x.req.kind.Method }

// Verdict says what is next.
type Verdict uint8

// The verdicts of Guard.Read.
const (
	Done    Verdict = iota // send the Reply, if there is one
	Request                // authenticated: give it to Table.Answer
	Data                   // a Send indication: ask Table.Permits, then carry Payload
)

// Read takes a message from a flow (RFC 8489 section 9.2.4). msg is copied.
func (g *Guard) Read(x *Exchange, now time.Time, flow Flow, msg []byte) (Verdict, Reason) {
	x.Flow, x.Reply = flow, nil
	if !whole(msg) {
		return Done, Malformed
	}
	if stun.Decode(msg, &x.in) != nil {
		return Done, Malformed
	}
	x.req.read(&x.in)
	if x.in.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(&x.in) != nil {
		return Done, Malformed
	}
	switch class := x.req.kind.Class; {
	case class == stun.ClassIndication && x.req.kind.Method == stun.MethodSend:
		return x.readData()
	case class != stun.ClassRequest:
		return Done, NoRequest
	case !g.requests.allow(now, flow.Source()):
		return Done, Flooding
	}
	switch x.req.kind.Method {
	case stun.MethodBinding:
		return Done, g.mapped(x, now)
	case stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind:
		return g.authenticate(x, now)
	}
	return Done, NoMethod
}

// whole tells whether b is one STUN message and nothing else.
func whole(b []byte) bool {
	return len(b) >= stunHeader && b[0] < 4 &&
		int(binary.BigEndian.Uint16(b[2:])) == len(b)-stunHeader && len(b)%4 == 0 &&
		binary.BigEndian.Uint32(b[4:]) == magicCookie
}

func (x *Exchange) readData() (Verdict, Reason) {
	if x.req.malformed || x.req.badPeer || x.req.numPeers != 1 || !x.req.hasData || x.req.unknowns > 0 {
		return Done, Malformed
	}
	return Data, Granted
}

// mapped answers a Binding request: the client learns how we see it.
func (g *Guard) mapped(x *Exchange, now time.Time) Reason {
	begin(x, stun.ClassSuccessResponse)
	addAddress(&x.out, stun.AttrXORMappedAddress, x.Flow.Client)
	return g.stranger(x, now, Mapped)
}

// authenticate does RFC 8489 section 9.2.4. The nonce is looked at first: it
// costs less than the rest.
func (g *Guard) authenticate(x *Exchange, now time.Time) (Verdict, Reason) {
	r := &x.req
	if !r.integrity {
		return Done, g.refuse(x, now, Challenge)
	}
	if r.username == nil || r.realm == nil || r.nonce == nil {
		return Done, g.refuse(x, now, BadRequest)
	}
	if !g.nonces.good(r.nonce, now, x.Flow) {
		return Done, g.refuse(x, now, BadNonce)
	}
	name := string(r.username)
	claims, err := parse(name)
	if err != nil || string(r.realm) != Realm {
		return Done, g.refuse(x, now, BadUser)
	}
	x.claims, x.key = claims, g.credentials.key(name)
	if stun.MessageIntegrity(x.key[:]).Check(&x.in) != nil {
		return Done, g.refuse(x, now, BadIntegrity)
	}
	return Request, Granted
}

// Refuse answers a request that Table.Answer found to be a stranger's after all:
// its credentials have expired or were revoked.
func (g *Guard) Refuse(x *Exchange, now time.Time, why Reason) Reason { return g.refuse(x, now, why) }

// refuse answers without MESSAGE-INTEGRITY, since there is no key in common.
func (g *Guard) refuse(x *Exchange, now time.Time, why Reason) Reason {
	begin(x, stun.ClassErrorResponse)
	addError(&x.out, why.code())
	if code := why.code(); code == 401 || code == 438 {
		nonce := g.nonces.make(now, x.Flow)
		x.out.Add(stun.AttrRealm, []byte(Realm))
		x.out.Add(stun.AttrNonce, nonce[:])
	}
	return g.stranger(x, now, why)
}

// headers are those of a datagram before its payload: IP and UDP.
func headers(f Flow) int {
	if f.Client.Addr().Unmap().Is4() {
		return 20 + 8
	}
	return 40 + 8
}

// stranger lets an answer out to somebody who has not shown credentials. Its
// sender address may be forged, so that who is there gets the answer without
// having asked: an answer over UDP has at most 1.5 times the bytes of its
// question, headers included (G16), and each address gets few. On a stream nobody
// forges an address, and an answer that is missing is not asked for again.
//
//	the shortest question   20 header + 8 REQUESTED-TRANSPORT                     = 28, with headers 56 (IPv4)
//	the answer 401          20 header + 8 ERROR-CODE + 8 REALM + 20 NONCE (of 16) = 56, with headers 84: 1.5 times
func (g *Guard) stranger(x *Exchange, now time.Time, why Reason) Reason {
	h := headers(x.Flow)
	switch in, out := len(x.in.Raw)+h, len(x.out.Raw)+h; {
	case g.generous:
	case x.Flow.Stream != 0:
	case 2*out > 3*in:
		return Amplifying
	case !g.challenges.allow(now, x.Flow.Source()):
		return TooFrequent
	}
	x.Reply = x.out.Raw
	return why
}

// begin starts the answer.
func begin(x *Exchange, class stun.MessageClass) {
	x.out.Reset()
	x.out.TransactionID = x.req.transaction
	x.out.Type = stun.NewType(x.req.kind.Method, class)
	x.out.WriteHeader()
}

// addError writes ERROR-CODE (RFC 8489 section 14.8) without a phrase: clients
// go by the number, and phrases amplify.
func addError(m *stun.Message, code int) {
	m.Add(stun.AttrErrorCode, []byte{0, 0, byte(code / 100), byte(code % 100)})
}
