package alloc

import (
	"encoding/binary"
	"testing"

	"github.com/pion/stun/v3"
)

// FuzzMessage gives the guard and the table whatever may come, as it is and,
// where it is a request, sealed by an attendee: neither may panic, strangers may
// change nothing, and answers keep to their bound.
func FuzzMessage(f *testing.F) {
	w := newWorld(f, roomy)
	for _, raw := range strangers(w) {
		f.Add(raw)
	}
	c := w.join("ada", udp("198.51.100.7:4000"))
	f.Add(c.build(stun.NewType(stun.MethodSend, stun.ClassIndication), peer(endpoint4), setter{stun.AttrData, []byte("data")}))
	f.Add(c.build(stun.NewType(stun.MethodCreatePermission, stun.ClassRequest), peer(endpoint4), peer(endpoint6)))
	f.Add(c.build(stun.NewType(stun.MethodChannelBind, stun.ClassRequest), number(0x4000), peer(endpoint4)))
	f.Add(c.build(stun.NewType(stun.MethodRefresh, stun.ClassRequest), lifetime(0)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		w := newWorld(t, roomy)
		c := w.join("ada", udp("198.51.100.7:4000"))
		c.mustAllocate()
		stranger := w.give(udp("192.0.2.66:666"), raw)
		if w.table.Len() != 1 || len(stranger.events) != 0 {
			t.Fatal("a stranger changed something")
		}
		if h := headers(c.flow); 2*(len(stranger.raw)+h) > 3*(len(raw)+h) && stranger.raw != nil {
			t.Fatalf("%d bytes for %d", len(stranger.raw), len(raw))
		}
		w.give(c.flow, raw)
		w.give(c.flow, c.seal(raw))
		if w.table.Len() > 1 {
			t.Fatal("two allocations on one flow")
		}
	})
}

// seal gives a message the client's credentials, if there is room for them.
func (c *client) seal(raw []byte) []byte {
	m := new(stun.Message)
	if len(raw) < stunHeader || stun.Decode(raw, m) != nil {
		return raw
	}
	m.Raw = m.Raw[:stunHeader+int(binary.BigEndian.Uint16(raw[2:]))]
	if m.Contains(stun.AttrFingerprint) || len(m.Raw) > 1000 {
		return raw
	}
	key := stun.NewLongTermIntegrity(c.user, Realm, c.password)
	for _, a := range []stun.Setter{stun.NewUsername(c.user), stun.NewRealm(Realm), setter{stun.AttrNonce, c.nonce}, key} {
		if a.AddTo(m) != nil {
			return raw
		}
	}
	return m.Raw
}
