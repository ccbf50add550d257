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

// newTURN makes the closed relay in front of this node's media endpoints, nil
// if it could reach none.
func (n *Node) newTURN() (*turn.Server, error) {
	var peers []turn.Peer
	for _, local := range n.engine.MediaAddrs() {
		if local.Addr().Unmap().Is4() { // the relay allocates IPv4 alone
			peers = append(peers, turn.Peer{Advertised: local})
		}
	}
	for i, ip := range n.cfg.PublicIPs {
		if i < len(peers) {
			local := peers[i].Advertised
			peers[i] = turn.Peer{Advertised: netipAddrPort(ip, local.Port()), Local: local}
		}
	}
	if len(peers) == 0 {
		n.log.Warn("no TURN: media has no IPv4 address")
		return nil, nil
	}
	return turn.New(turn.Config{Peers: peers, Now: n.now, Log: n.log})
}

// iceServers are the ways in that an attendee is told besides the node's own
// candidates: TURN over TLS on the HTTPS port.
func (n *Node) iceServers(room, sid string) []*livekit.ICEServer {
	if n.turn == nil {
		return nil
	}
	user, password := n.turn.Credentials(sid, room, turnTTL)
	return []*livekit.ICEServer{{Urls: []string{n.turnURL()}, Username: user, Credential: password}}
}

// endTURN voids a participant's credentials and ends what they opened.
func (n *Node) endTURN(room, sid string) {
	if n.turn != nil {
		n.turn.Revoke(sid, room)
	}
}

// turnURL is the HTTPS address in the form of RFC 7065.
func (n *Node) turnURL() string {
	host, port := n.publicHost()
	return fmt.Sprintf("turns:%s?transport=tcp", net.JoinHostPort(host, port))
}
