package transport

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

// check is what counts of a client's connectivity check.
type check struct {
	departed   bool   // the connection goes on at another node
	ufrag      []byte // ours, the first half of the user name
	nominate   bool   // USE-CANDIDATE
	controlled bool   // the client thinks that we control
	unknown    stun.UnknownAttributes
}

// maxUnknown bounds the attributes that an answer names as unknown.
const maxUnknown = 8

// readCheck reads a binding request. What stands behind MESSAGE-INTEGRITY is not
// covered by it and so is not believed (RFC 8489 section 14.5).
func readCheck(m *stun.Message) (c check, ok bool) {
	if m.Type != stun.BindingRequest {
		return c, false
	}
	if m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil {
		return c, false
	}
	for _, a := range m.Attributes {
		switch a.Type {
		case stun.AttrMessageIntegrity:
			return c, len(c.ufrag) > 0 && len(a.Value) == 20
		case stun.AttrUsername:
			c.ufrag, _, _ = bytes.Cut(a.Value, []byte(":"))
		case stun.AttrUseCandidate:
			c.nominate = true
		case stun.AttrICEControlled:
			c.controlled = true
		case stun.AttrICEControlling, stun.AttrPriority, stun.AttrSoftware:
		default:
			if a.Type < 0x8000 && len(c.unknown) < maxUnknown { // comprehension required
				c.unknown = append(c.unknown, a.Type)
			}
		}
	}
	return c, false
}

// writeReply builds the answer to a check that was made with the password.
// A lite agent never controls (RFC 8445 section 6.1.1), so a client that thinks it
// does is told to change roles: our tie-breaker counts as the smallest there is
// (section 7.3.1.1).
func writeReply(reply, request *stun.Message, c check, from netip.AddrPort, pwd string) error {
	reply.TransactionID = request.TransactionID
	id := stun.NewTransactionIDSetter(request.TransactionID)
	integrity := stun.NewShortTermIntegrity(pwd)
	switch {
	case c.departed:
		return reply.Build(id, stun.BindingError, stun.CodeBadRequest, integrity, stun.Fingerprint)
	case c.controlled:
		return reply.Build(id, stun.BindingError, stun.CodeRoleConflict, integrity, stun.Fingerprint)
	case len(c.unknown) > 0:
		return reply.Build(id, stun.BindingError, stun.CodeUnknownAttribute, c.unknown, integrity, stun.Fingerprint)
	}
	mapped := stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())}
	return reply.Build(id, stun.BindingSuccess, &mapped, integrity, stun.Fingerprint)
}

// check answers a connectivity check. One that was not made with a password of
// ours gets no answer: its sender may be forged, and nobody is to be hit by us.
func (w *Worker) check(key tableKey, b []byte, now time.Time) {
	if !stun.IsMessage(b) || stun.Decode(b, &w.request) != nil {
		w.engine.drops.add(DropBadCheck)
		return
	}
	w.checked(key, now)
}

// checked goes on with the message that was decoded.
func (w *Worker) checked(key tableKey, now time.Time) {
	drops := &w.engine.drops
	c, ok := readCheck(&w.request)
	if !ok {
		drops.add(DropBadCheck)
		return
	}
	cred, ok := w.engine.credential(c.ufrag)
	if !ok {
		drops.add(DropNoUfrag)
		return
	}
	if stun.NewShortTermIntegrity(cred.pwd).Check(&w.request) != nil {
		drops.add(DropIntegrity)
		return
	}
	if t := key.tunnel; t != nil && t.cfg.Owner != "" && t.cfg.Owner != cred.conn.cfg.Owner {
		drops.add(DropNotOwner)
		return
	}
	c.departed = cred.conn.departed.Load()
	p := w.proved(key, c, cred, now)
	if p == nil {
		drops.add(DropPathTaken)
		return
	}
	if writeReply(&w.reply, &w.request, c, key.client(), cred.pwd) == nil {
		w.batch.send(p, w.reply.Raw)
	}
}

// proved is the path to answer on. A check that gets an error makes none.
func (w *Worker) proved(key tableKey, c check, cred credential, now time.Time) *path {
	if c.departed || c.controlled || len(c.unknown) > 0 {
		return &path{group: key.group, name: key.name, tunnel: key.tunnel}
	}
	return cred.conn.proved(key, c.nominate, cred, now)
}

// client is the source that a check is told.
func (k *tableKey) client() netip.AddrPort {
	if k.tunnel != nil {
		return k.tunnel.cfg.Client
	}
	return k.name.addrPort()
}

// stranger handles a STUN message that came by itself: connectivity checks and
// answers are ICE's, the rest is the door's.
func (w *Worker) stranger(name *sockname, b []byte, now time.Time) {
	door := w.engine.door.Load()
	if door == nil || !stun.IsMessage(b) || stun.Decode(b, &w.request) != nil {
		w.check(tableKey{group: w.group, name: *name}, b, now)
		return
	}
	m := &w.request
	if m.Type.Method == stun.MethodBinding && (m.Type.Class != stun.ClassRequest || m.Contains(stun.AttrUsername)) {
		w.checked(tableKey{group: w.group, name: *name}, now)
		return
	}
	(*door).STUN(w, Tuple{w.group, *name}, b)
}

// credential finds whose a user name fragment is.
func (e *Engine) credential(ufrag []byte) (credential, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c, ok := e.ufrags[string(ufrag)]
	return c, ok
}
