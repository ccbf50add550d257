package node

import (
	"fmt"
	"net"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/turn"
)

// turnTTL is how long TURN credentials open an allocation. One that stands goes
// on: clients that reconnect get new credentials with their join.
const turnTTL = 10 * time.Minute

// openTURN makes the closed TURN server of this node's media endpoints.
func (n *Node) openTURN() (err error) {
	n.turn, err = turn.New(turn.Config{
		Engine: n.engine.Transport(), MaxAllocations: n.cfg.TURN.Allocations, MaxPerSession: n.cfg.TURN.PerParticipant,
		MaxPerSource: n.cfg.TURN.PerSource, Bandwidth: n.cfg.TURN.Bandwidth, Now: n.now, Log: n.log,
	})
	return err
}

// iceServers are the ways in that an attendee is told besides the node's own
// candidates: TURN over TLS on the HTTPS port. TURN over UDP is served on the media
// port and not told of: browsers whose candidates share a socket with it take all
// that comes from that port for the server's answers, and could never use UDP
// directly (docs/decisions/2026-11-22-turn-over-udp-is-not-told.md).
func (n *Node) iceServers(room, sid string) []*livekit.ICEServer {
	return n.relayServers(room, sid, n.turnTLS())
}

// testServers are all ways in through TURN, each of which a test tries alone.
func (n *Node) testServers(room, sid string) []*livekit.ICEServer {
	return n.relayServers(room, sid, append(n.turnUDP(), n.turnTLS()...))
}

func (n *Node) relayServers(room, sid string, urls []string) []*livekit.ICEServer {
	if len(urls) == 0 {
		return nil
	}
	user, password := n.turn.Credentials(sid, room, turnTTL)
	return []*livekit.ICEServer{{Urls: urls, Username: user, Credential: password}}
}

// owner names a participant's connections for the allocations that may reach them.
func (n *Node) owner(room, sid string) string { return n.turn.Owner(sid, room) }

// endTURN voids a participant's credentials and ends what they opened.
func (n *Node) endTURN(room, sid string) { n.turn.Revoke(sid, room) }

// turnUDP and turnTLS are URLs in the form of RFC 7065.
func (n *Node) turnUDP() (urls []string) {
	for _, at := range n.turnHosts() {
		urls = append(urls, fmt.Sprintf("turn:%s?transport=udp", at))
	}
	return urls
}

func (n *Node) turnTLS() []string {
	if n.cfg.ServerCertificate == nil {
		return nil
	}
	host, port := n.publicHost()
	return []string{fmt.Sprintf("turns:%s?transport=tcp", net.JoinHostPort(host, port))}
}

// turnHosts are where the media port is reached, host and port: by the node's name
// where media is bound to the addresses that the name stands for, else by a
// candidate's address of each family.
func (n *Node) turnHosts() []string {
	bound := n.engine.MediaAddrs()[0]
	if n.cfg.ServerCertificate != nil && together(bound.Addr(), n.cfg.Listen.HTTPS.Addr()) {
		name, _ := n.publicHost()
		return []string{net.JoinHostPort(name, fmt.Sprint(bound.Port()))}
	}
	var hosts []string
	seen := map[bool]bool{} // by family
	for _, c := range n.engine.Transport().Candidates() {
		if four := c.Addr.Addr().Is4(); !c.TCP && !seen[four] {
			seen[four] = true
			hosts = append(hosts, c.Addr.String())
		}
	}
	return hosts
}
