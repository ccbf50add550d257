package turn

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn/alloc"
)

// What the server decides about messages is tried case by case in package alloc,
// with its controls. Here the same attacks come over the wire, on every way in.

// specials are some of alloc's, with which relays have been fooled.
var specials = []string{
	"127.0.0.2", "0.0.0.0", "10.0.0.1", "169.254.169.254", "100.64.0.1", "198.18.0.1", "192.0.0.1", "240.0.0.1", "255.255.255.255",
	"::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "::",
}

func at(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// A1 over the wire: by no method and no spelling is anything reached but the
// endpoint.
func TestSpecialAddressesAreOutOfReach(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		to, p, endpoint := r.session("ada"), r.dial(way, "ada"), r.endpoint(way)
		p.mustAllocate()
		number := uint16(0x4000)
		for _, ip := range specials {
			target := at(ip, endpoint.Port())
			if code := p.permit(target); code != 403 && code != 443 {
				t.Errorf("CreatePermission %s: %d", ip, code)
			}
			if code := p.bind(number, target); code != 403 && code != 443 {
				t.Errorf("ChannelBind %s: %d", ip, code)
			}
			p.indicate(target, check(to).Raw)
			p.write(p.channelData(number, check(to).Raw))
			p.write(p.build(stun.NewType(stun.MethodConnect, stun.ClassRequest), peer(target)).Raw)
			number++
		}
		p.permit(endpoint)
		p.mustReach(endpoint, 0, to) // the first data that comes back is this
		s := r.server.Stats()
		if s.PacketsUp != 1 || s.PacketsDown != 1 {
			t.Errorf("%d packets up, %d down; want the one to the endpoint, and its answer", s.PacketsUp, s.PacketsDown)
		}
		if n := s.Messages[alloc.NoMethod.String()]; n != uint64(len(specials)) {
			t.Errorf("%d Connects unanswered, want %d", n, len(specials))
		}
	})
}

// A2 over the wire: all ports of the endpoints' address, with data and channels.
func TestPortSweep(t *testing.T) {
	for _, way := range []string{"udp4", "tls4"} {
		t.Run(way, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Bandwidth = 1 << 30 })
			to, p := r.session("ada"), r.dial(way, "ada")
			p.mustAllocate()
			p.permit(r.media[0])
			data := check(to).Raw
			for port := 1; port <= 0xFFFF; port++ {
				if a := at("127.0.0.1", uint16(port)); a != r.media[0] && a != r.media[1] {
					p.indicate(a, data)
				}
				if port%64 == 0 { // in step, so that no socket's buffer overflows
					p.mustReach(r.media[0], 0, to)
				}
			}
			p.mustReach(r.media[0], 0, to) // all before has been dealt with
			s := r.server.Stats()
			if s.PacketsUp != 0xFFFF/64+1 || s.Messages["not_to_endpoint"] != 0xFFFF-2 {
				t.Errorf("%d packets passed, %d did not; want %d and %d", s.PacketsUp, s.Messages["not_to_endpoint"], 0xFFFF/64+1, 0xFFFF-2)
			}
		})
	}
}

// A3 over the wire.
func TestAllocationsOfOtherKindsAreRefused(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		p := r.dial(way, "ada")
		p.ask(stun.MethodAllocate, udpTransport) // for the nonce
		for _, tt := range []struct {
			name  string
			attrs []stun.Setter
			want  int
		}{
			{"TCP", []stun.Setter{attribute{stun.AttrRequestedTransport, []byte{6, 0, 0, 0}}}, 442},
			{"EVEN-PORT", []stun.Setter{udpTransport, attribute{stun.AttrEvenPort, []byte{0x80}}}, 508},
			{"RESERVATION-TOKEN", []stun.Setter{udpTransport, attribute{stun.AttrReservationToken, make([]byte, 8)}}, 508},
			{"no family", []stun.Setter{udpTransport, attribute{stun.AttrRequestedAddressFamily, []byte{3, 0, 0, 0}}}, 440},
		} {
			if code := p.ask(stun.MethodAllocate, tt.attrs...); code != tt.want {
				t.Errorf("%s: %d, want %d", tt.name, code, tt.want)
			}
		}
		if n := r.server.Stats().Allocations; n != 0 {
			t.Errorf("%d allocations", n)
		}
		if code := p.allocate(); code != 0 {
			t.Errorf("a plain Allocate afterwards: %d", code)
		}
	})
}

// A4: one attendee does not get to another's connection, whatever he knows: here
// he has been given its password.
func TestAllocationReachesOneParticipant(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		mine, others := r.session("ada"), r.session("bob")
		p, endpoint := r.dial(way, "ada"), r.endpoint(way)
		p.mustAllocate()
		p.bind(0x4000, endpoint)
		p.write(p.channelData(0x4000, check(others).Raw))
		p.indicate(endpoint, check(others).Raw)
		p.mustReach(endpoint, 0x4000, mine) // no other answer comes before
		if n := r.engine.Stats().Drops[transport.DropNotOwner.String()]; n != 2 {
			t.Errorf("%d checks for another's connection were dropped, want 2", n)
		}
	})
}

func TestAllocationReachesOneParticipantControl(t *testing.T) {
	r := newRig(t, nil)
	r.server.unowned = true
	others, p := r.session("bob"), r.dial("udp4", "ada")
	p.mustAllocate()
	p.bind(0x4000, r.media[0])
	if err := p.reaches(r.media[0], 0x4000, others); err != nil {
		t.Errorf("a tunnel of nobody does not lead to everybody: %v", err)
	}
}

// A5 over the wire: expired, of another room, after removal.
func TestCredentialsAreBound(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		user, password := r.server.Credentials("ada", "blue", time.Minute)
		_, others := r.server.Credentials("ada", "green", time.Minute)
		if code := r.dialWith(way, user, others).allocate(); code != 401 {
			t.Errorf("another room's password: %d", code)
		}
		r.clock.advance(time.Minute)
		if code := r.dialWith(way, user, password).allocate(); code != 401 {
			t.Errorf("after expiry: %d", code)
		}
		user, password = r.server.Credentials("ada", "blue", time.Minute)
		r.server.Revoke("ada", "blue")
		if code := r.dialWith(way, user, password).allocate(); code != 401 {
			t.Errorf("after removal: %d", code)
		}
		if n := r.server.Stats().Allocations; n != 0 {
			t.Errorf("%d allocations", n)
		}
	})
}

// A meeting may be longer than its credentials.
func TestAllocationOutlivesItsCredentials(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		to, p, endpoint := r.session("ada"), r.dial(way, "ada"), r.endpoint(way)
		p.mustAllocate()
		p.bind(0x4000, endpoint)
		for range 4 {
			r.clock.advance(9 * time.Minute)
			p.ask(stun.MethodRefresh) // 438 and a new nonce
			for _, code := range []int{p.ask(stun.MethodRefresh), p.bind(0x4000, endpoint)} {
				if code != 0 && code != 438 {
					t.Fatalf("renewing: %d", code)
				}
			}
			r.server.tick()
			p.mustReach(endpoint, 0x4000, to)
		}
		if code := p.ask(stun.MethodRefresh, attribute{stun.AttrLifetime, make([]byte, 4)}); code != 0 {
			t.Errorf("giving up: %d", code)
		}
		if code := p.allocate(); code != 401 {
			t.Errorf("a new allocation with the old credentials: %d, want 401", code)
		}
	})
}

// A5, G21: removal ends the allocation at once, on all transports, and with it
// the way from the node to the attendee.
func TestRevokeEndsTheAllocation(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		mine, bobs := r.session("ada"), r.session("bob")
		ada, bob, endpoint := r.dial(way, "ada"), r.dial(way, "bob"), r.endpoint(way)
		for p, to := range map[*probe]transport.Local{ada: mine, bob: bobs} {
			p.mustAllocate()
			p.bind(0x4000, endpoint)
			p.mustReach(endpoint, 0x4000, to)
		}
		begin := time.Now()
		r.server.Revoke("ada", "blue")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("removal took %s", took)
		}
		up := r.server.Stats().PacketsUp
		ada.write(ada.channelData(0x4000, check(mine).Raw))
		if way[:3] == "udp" {
			q := ada.build(stun.NewType(stun.MethodRefresh, stun.ClassRequest))
			ada.write(q.Raw)
			b, err := ada.receive() // the check before it gets no answer, neither does anything else come
			if m := (&stun.Message{Raw: b}); err != nil || m.Decode() != nil || ada.learn(m) != 401 {
				t.Errorf("after removal comes %x, %v; want 401 to a Refresh", b, err)
			}
		} else {
			ada.ended()
		}
		if n := r.engine.Stats().Paths; n != 1 {
			t.Errorf("%d ways from the node to attendees, want bob's alone", n)
		}
		if s := r.server.Stats(); s.PacketsUp != up || s.Allocations != 1 {
			t.Errorf("%d packets passed afterwards, %d allocations", s.PacketsUp-up, s.Allocations)
		}
		bob.mustReach(endpoint, 0x4000, bobs) // others notice nothing
		if code := r.dialWith(way, ada.username, ada.password).allocate(); code != 401 {
			t.Errorf("Allocate with revoked credentials: %d, want 401", code)
		}
		r.clock.advance(time.Millisecond)
		if code := r.dial(way, "ada").allocate(); code != 0 {
			t.Errorf("Allocate with credentials made later: %d", code)
		}
	})
}

// A6 over the wire: a nonce is worth nothing from another port or stream.
func TestNonceIsBoundToItsFlow(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		p, thief := r.dial(way, "ada"), r.dial(way, "ada")
		p.ask(stun.MethodAllocate, udpTransport)
		thief.nonce, thief.realm = p.nonce, p.realm
		if code := thief.ask(stun.MethodAllocate, udpTransport); code != 438 {
			t.Errorf("Allocate with another's nonce: %d, want 438", code)
		}
		if code := p.ask(stun.MethodAllocate, udpTransport); code != 0 {
			t.Errorf("Allocate with the own nonce: %d", code)
		}
	})
}

// A7 over the wire: bytes to and from a stranger, counted with their headers.
func TestStrangersGetLittle(t *testing.T) {
	for _, way := range []string{"udp4", "udp6"} {
		t.Run(way, func(t *testing.T) {
			r := newRig(t, nil)
			p := r.dial(way, "ada")
			header := map[byte]int{'4': 28, '6': 48}[way[3]]
			var sent, got int
			done := make(chan struct{})
			go func() { // until Refresh with the challenge's nonce is answered
				defer close(done)
				for {
					b, err := p.receive()
					if err != nil || len(b) > 200 {
						return
					}
					got += len(b) + header
				}
			}()
			for range 400 {
				for _, q := range []*stun.Message{
					p.build(stun.NewType(stun.MethodAllocate, stun.ClassRequest), udpTransport),
					p.build(stun.NewType(stun.MethodRefresh, stun.ClassRequest)),
					p.build(stun.BindingRequest),
					p.build(stun.NewType(stun.MethodConnect, stun.ClassRequest)),
				} {
					p.write(q.Raw)
					sent += len(q.Raw) + header
				}
			}
			p.conn.SetReadDeadline(time.Now().Add(2 * time.Second)) // loopback is immediate, where the machine does not halt
			<-done
			if got == 0 || 2*got > 3*sent {
				t.Errorf("%d bytes for %d, want some and at most 1.5 times as many", got, sent)
			}
			if n := r.server.Stats().Allocations; n != 0 {
				t.Errorf("%d allocations", n)
			}
		})
	}
}

// A7, A8: a stream has little time, and few messages, before an allocation.
func TestStreamWithoutAllocationIsClosed(t *testing.T) {
	brief := func(c *Config) { c.FirstAllocate = 300 * time.Millisecond }
	for name, speak := range map[string]func(net.Conn){
		"says nothing":           func(net.Conn) {},
		"stops inside a message": func(c net.Conn) { c.Write([]byte("\x00\x03\x00\x08\x21\x12")) },
		"is no TURN":             func(c net.Conn) { c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) },
		"a message too long":     func(c net.Conn) { c.Write([]byte("\x00\x03\xFF\xFC\x21\x12\xA4\x42")) },
		"a byte at a time": func(c net.Conn) {
			for range 100 {
				if _, err := c.Write([]byte{0}); err != nil {
					return
				}
			}
		},
		"asks for ever": func(c net.Conn) {
			for range 50 {
				c.Write(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
			}
		},
		"data without an allocation": func(c net.Conn) {
			for range 50 {
				c.Write([]byte("\x40\x00\x00\x04data"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, way := range []string{"tcp4", "tls4"} {
				r := newRig(t, brief)
				p := r.dial(way, "ada")
				speak(p.conn)
				p.ended()
			}
		})
	}
}

// However much time it has, it is answered little.
func TestStreamWithoutAllocationIsAnsweredLittle(t *testing.T) {
	for _, way := range []string{"tcp4", "tls6"} {
		r := newRig(t, func(c *Config) { c.FirstAllocate = time.Hour })
		p := r.dial(way, "ada")
		p.write(bytes.Repeat(p.build(stun.BindingRequest).Raw, 50))
		p.ended()
		if n := r.server.Stats().Messages["mapped"]; n != maxBefore {
			t.Errorf("%s: %d answers, want %d", way, n, maxBefore)
		}
	}
}

// A stream that gives its allocation up has little time again, one whose
// allocation runs out is closed.
func TestStreamWhoseAllocationEnds(t *testing.T) {
	r := newRig(t, func(c *Config) { c.FirstAllocate = 3 * time.Second }) // enough on a machine that halts
	p := r.dial("tcp4", "ada")
	p.mustAllocate()
	q := r.dial("tls4", "ada")
	q.mustAllocate()
	p.ask(stun.MethodRefresh, attribute{stun.AttrLifetime, make([]byte, 4)})
	p.ended()
	r.clock.advance(alloc.Lifetime)
	r.server.tick()
	q.ended()
}

// A8: one participant, one source, and all together have their bounds, whatever
// they come over.
func TestAllocationsAreLimited(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   int
	}{
		"participant": {func(c *Config) { c.MaxPerSession = 2 }, 486},
		"source":      {func(c *Config) { c.MaxPerSource = 2 }, 486},
		"node":        {func(c *Config) { c.MaxAllocations = 2 }, 508},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.change)
			held := r.dial("udp4", "ada")
			held.mustAllocate()
			r.dial("tls4", "ada").mustAllocate()
			for _, way := range []string{"udp4", "tcp4", "tls4"} {
				if code := r.dial(way, "ada").allocate(); code != tt.want {
					t.Errorf("one too many over %s: %d, want %d", way, code, tt.want)
				}
			}
			if code := r.dial("udp4", "bob").allocate(); (code == 0) != (name == "participant") {
				t.Errorf("somebody else: %d", code)
			}
			held.ask(stun.MethodRefresh, attribute{stun.AttrLifetime, make([]byte, 4)})
			if code := r.dial("udp4", "ada").allocate(); code != 0 {
				t.Errorf("after one was given up: %d", code)
			}
		})
	}
}

// The bound of an allocation is one for all its endpoints.
func TestBandwidthIsCapped(t *testing.T) {
	for _, way := range []string{"udp4", "tcp4"} {
		t.Run(way, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Bandwidth = 2000 })
			p, to := r.dial(way, "ada"), r.session("ada")
			p.mustAllocate()
			p.bind(0x4000, r.media[0])
			p.bind(0x4001, r.media[1])
			data, begin := check(to).Raw, time.Now()
			for i := range 200 {
				p.write(p.channelData(0x4000+uint16(i%2), data))
			}
			p.permit(r.media[0]) // all before has been dealt with
			dropped := int(r.engine.Stats().Drops[transport.DropOverRate.String()])
			got, most := float64((200-dropped)*len(data)), 2000*(1+time.Since(begin).Seconds())
			if got < 1000 || got > most {
				t.Errorf("%.0f bytes passed, want at most %.0f: a second's, and what the time brought", got, most)
			}
			if s := r.server.Stats(); float64(s.BytesUp) != got {
				t.Errorf("%d bytes are counted, %.0f passed", s.BytesUp, got)
			}
		})
	}
}

// A permission that ends takes its tunnel along, a channel that ends leaves one
// without a number.
func TestWhatIsNotRenewedEnds(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		to, p, endpoint := r.session("ada"), r.dial(way, "ada"), r.endpoint(way)
		p.mustAllocate()
		p.permit(endpoint)
		p.mustReach(endpoint, 0, to)
		r.clock.advance(alloc.PermissionLife)
		r.server.tick()
		p.indicate(endpoint, check(to).Raw)
		p.bind(0x4000, endpoint)
		if n := r.server.Stats().Messages["not_allowed"]; n != 1 {
			t.Errorf("%d indications refused, want 1", n)
		}
		p.mustReach(endpoint, 0x4000, to)
		r.clock.advance(alloc.PermissionLife - time.Minute)
		p.ask(stun.MethodRefresh)
		p.ask(stun.MethodRefresh)
		r.clock.advance(2 * time.Minute)
		p.permit(endpoint)
		p.permit(endpoint)
		r.clock.advance(alloc.PermissionLife - time.Minute)
		r.server.tick() // the channel is ten minutes old, the permission four
		p.mustReach(endpoint, 0, to)
	})
}
