package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	pion "github.com/pion/turn/v5"
)

// relays are an attendee's TURN clients, by URL scheme.
type relays struct {
	t     *testing.T
	mesh  *testMesh
	at    string // the one port
	conns []net.Conn
}

func (r *relays) dial(scheme string) net.PacketConn {
	r.t.Helper()
	if scheme == "turns" {
		conn, err := tls.Dial("tcp", r.at, &tls.Config{RootCAs: r.mesh.ca.Pool(), ServerName: "node.test"})
		if err != nil {
			r.t.Fatal(err)
		}
		r.conns = append(r.conns, conn)
		return pion.NewSTUNConn(conn)
	}
	conn, err := net.Dial("udp", r.at)
	if err != nil {
		r.t.Fatal(err)
	}
	r.conns = append(r.conns, conn)
	return connected{conn}
}

// connected is a connected UDP socket that takes addresses and ignores them.
type connected struct{ net.Conn }

func (c connected) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.Read(b)
	return n, c.RemoteAddr(), err
}

func (c connected) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }

// allocate asks for an allocation with what the signalling handed out.
func (r *relays) allocate(scheme string, s *livekit.ICEServer) error {
	r.t.Helper()
	packets := r.dial(scheme)
	client, err := pion.NewClient(&pion.ClientConfig{TURNServerAddr: r.at, Conn: packets, Username: s.Username, Password: s.Credential})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(client.Close)
	if err := client.Listen(); err != nil {
		r.t.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		return err
	}
	r.t.Cleanup(func() { relayed.Close() })
	return nil
}

func (r *relays) close() {
	for _, c := range r.conns {
		c.Close()
	}
}

// TestAttendeesAreToldTheRelay has an attendee use what it was told, and lose it
// within a second when it is removed.
func TestAttendeesAreToldTheRelay(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1))
	n := m.start(m.secure(m.config("fra DE origin")))
	for name, remove := range map[string]func(room string) error{
		"removed": func(room string) error {
			return (service{n.Node}).RemoveParticipant(context.Background(), room, "anna")
		},
		"the room is deleted": func(room string) error {
			return (service{n.Node}).DeleteRoom(context.Background(), room)
		},
	} {
		t.Run(name, func(t *testing.T) {
			anna := enter(t, n, "town", "anna", nil)
			anna.mu.Lock()
			servers := anna.join.IceServers
			anna.mu.Unlock()
			r := &relays{t: t, mesh: m, at: n.cfg.Listen.HTTPS.String()}
			t.Cleanup(r.close)
			want := []string{fmt.Sprintf("turns:%s?transport=tcp", r.at)} // TURN over UDP is served all the same
			if len(servers) != 1 || !slices.Equal(servers[0].Urls, want) {
				t.Fatalf("ICE servers %v, want %q", servers, want)
			}
			for _, scheme := range []string{"turn", "turns"} {
				if err := r.allocate(scheme, servers[0]); err != nil {
					t.Fatalf("%s: %v", scheme, err)
				}
			}
			if got := n.turn.Stats().Allocations; got != 2 {
				t.Fatalf("%d allocations, want 2", got)
			}
			if err := remove("town"); err != nil {
				t.Fatal(err)
			}
			promptly(t, time.Second, "the allocations end", func() bool { return n.turn.Stats().Allocations == 0 })
			if err := r.allocate("turn", servers[0]); err == nil {
				t.Error("the credentials are still good")
			}
		})
	}
}

// TestResumedAttendeesGetNewCredentials: whoever comes back, and so restarts ICE,
// is told credentials that live from then on.
func TestResumedAttendeesGetNewCredentials(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1))
	n := m.start(m.secure(m.config("fra DE origin")))
	anna := enter(t, n, "town", "anna", nil)
	anna.mu.Lock()
	first, sid := anna.join.IceServers[0], anna.join.Participant.Sid
	anna.mu.Unlock()
	again, err := dial(t, n, "town", "anna", nil, "reconnect", "1", "sid", sid)
	if err != nil {
		t.Fatal(err)
	}
	again.await("the answer", func() bool { return again.resumed != nil })
	again.mu.Lock()
	defer again.mu.Unlock()
	if got := again.resumed.IceServers; len(got) != 1 || !slices.Equal(got[0].Urls, first.Urls) || got[0].Username == first.Username {
		t.Errorf("ICE servers %v, want those of before with new credentials: %v", got, first)
	}
}
