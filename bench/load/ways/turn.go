package ways

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/pion/stun/v3"
)

// talk is a conversation with a TURN server, before the way carries anything.
type talk struct {
	*Conn
	user, password string
	realm          stun.Realm // of the server's challenge
	nonce          stun.Nonce
}

// resend is how long an answer over UDP is waited for; maxSends how often a
// request is sent.
const (
	resend   = 500 * time.Millisecond
	maxSends = 6
)

func (t *talk) allocate(peer netip.AddrPort) error {
	overUDP := attribute{stun.AttrRequestedTransport, []byte{17, 0, 0, 0}}
	if err := t.ask(stun.MethodAllocate, overUDP); err != nil || !peer.IsValid() {
		return err
	}
	number := attribute{stun.AttrChannelNumber, binary.BigEndian.AppendUint32(nil, channel<<16)}
	return t.ask(stun.MethodChannelBind, number, peerAddress(peer))
}

type attribute struct {
	kind  stun.AttrType
	value []byte
}

func (a attribute) AddTo(m *stun.Message) error {
	m.Add(a.kind, a.value)
	return nil
}

type peerAddress netip.AddrPort

func (p peerAddress) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	return stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

// ask makes a request; a challenge is answered (RFC 8489 section 9.2).
func (t *talk) ask(method stun.Method, attrs ...stun.Setter) error {
	for range 3 {
		res, err := t.roundTrip(method, attrs)
		if err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		if res.Type.Class == stun.ClassSuccessResponse {
			return nil
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(res); err != nil {
			return fmt.Errorf("%s: refused without a code: %w", method, err)
		}
		if code.Code != stun.CodeUnauthorized && code.Code != stun.CodeStaleNonce || t.nonce.GetFrom(res) != nil {
			return fmt.Errorf("%s: refused: %s", method, code)
		}
		if t.realm.GetFrom(res) != nil && t.realm == nil {
			return fmt.Errorf("%s: challenged without a realm", method)
		}
	}
	return fmt.Errorf("%s: the credentials are not good", method)
}

func (t *talk) roundTrip(method stun.Method, attrs []stun.Setter) (*stun.Message, error) {
	setters := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
	if t.nonce != nil {
		user := stun.NewUsername(t.user)
		setters = append(setters, user, t.realm, t.nonce,
			stun.NewLongTermIntegrity(t.user, t.realm.String(), t.password))
	}
	req, err := stun.Build(setters...)
	if err != nil {
		return nil, err
	}
	for range maxSends {
		if _, err := t.conn.Write(req.Raw); err != nil {
			return nil, err
		}
		res, err := t.answer(req.TransactionID)
		if !errors.Is(err, os.ErrDeadlineExceeded) || t.packets == nil {
			return res, err
		}
	}
	return nil, errors.New("no answer")
}

// answer waits for the response to a request; over UDP not for long.
func (t *talk) answer(id [stun.TransactionIDSize]byte) (*stun.Message, error) {
	if t.packets != nil {
		t.conn.SetReadDeadline(time.Now().Add(resend))
	}
	for {
		b, _, err := t.frame()
		if err != nil {
			return nil, err
		}
		if !stun.IsMessage(b) {
			continue
		}
		m := &stun.Message{Raw: append([]byte(nil), b...)}
		if err := m.Decode(); err == nil && m.TransactionID == id {
			return m, nil
		}
	}
}
