package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/ice/v4"
	"github.com/pion/sdp/v3"

	"github.com/domicile/domicile/bench/load/ways"
)

// Server is a TURN server that an attendee may use.
type Server struct {
	URLs           []string // RFC 7065
	User, Password string
}

func serversOf(list []*livekit.ICEServer) (servers []Server) {
	for _, s := range list {
		servers = append(servers, Server{s.Urls, s.Username, s.Credential})
	}
	return servers
}

// Servers are the TURN servers that the node told of with its greeting.
func (c *Client) Servers() []Server { return c.servers }

// At finds the server's address for a way. A server that speaks TLS on a port
// is taken to speak TURN over TCP there too.
func (s Server) At(k ways.Kind) (netip.AddrPort, bool) {
	scheme, query := "turns", "transport=tcp"
	if k == ways.TURNUDP {
		scheme, query = "turn", "transport=udp"
	}
	for _, raw := range s.URLs {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != scheme || u.RawQuery != query {
			continue
		}
		if at, err := netip.ParseAddrPort(u.Opaque); err == nil {
			return at, true
		}
	}
	return netip.AddrPort{}, false
}

// wayTime is for connecting, handshakes and an allocation.
const wayTime = 20 * time.Second

// openWay opens the way to the endpoint that an offer names, once.
func (c *Client) openWay(offer string) error {
	if c.cfg.Way == ways.Direct || c.way != nil {
		return nil
	}
	udp, tcp, err := endpoints(offer)
	if err != nil {
		return err
	}
	cfg := ways.Config{Kind: c.cfg.Way, At: tcp, Peer: udp, TLS: c.wayTLS()}
	if c.cfg.Way != ways.ICETCP {
		servers := c.servers
		if c.cfg.TURN != nil {
			servers = []Server{*c.cfg.TURN}
		}
		i := slices.IndexFunc(servers, func(s Server) (ok bool) {
			cfg.At, ok = s.At(c.cfg.Way)
			return ok
		})
		switch {
		case i >= 0:
			cfg.User, cfg.Password = servers[i].User, servers[i].Password
		case c.cfg.Way == ways.TURNUDP && len(servers) > 0:
			// A node serves TURN on its media port, and need not tell of it:
			// browsers reach the port without TURN just as well.
			cfg.At, cfg.User, cfg.Password = udp, servers[0].User, servers[0].Password
		default:
			return fmt.Errorf("no server for %s", c.cfg.Way)
		}
	} else if !tcp.IsValid() {
		return errors.New("the node offers no candidate for TCP")
	}
	ctx, cancel := context.WithTimeout(c.ctx, wayTime)
	defer cancel()
	c.way, err = ways.Open(ctx, cfg)
	return err
}

// endpoints reads a node's candidates: where it takes media over UDP, and over TCP.
func endpoints(offer string) (udp, tcp netip.AddrPort, err error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(offer); err != nil {
		return udp, tcp, fmt.Errorf("read offer: %w", err)
	}
	attributes := d.Attributes
	for _, m := range d.MediaDescriptions {
		attributes = append(attributes, m.Attributes...)
	}
	for _, a := range attributes {
		if a.Key != sdp.AttrKeyCandidate {
			continue
		}
		candidate, err := ice.UnmarshalCandidate(strings.TrimPrefix(a.Value, "candidate:"))
		if err != nil || net.ParseIP(candidate.Address()).To4() == nil {
			continue
		}
		at := netip.AddrPortFrom(netip.MustParseAddr(candidate.Address()), uint16(candidate.Port()))
		if candidate.NetworkType().IsTCP() {
			tcp = at
		} else if !udp.IsValid() {
			udp = at
		}
	}
	if !udp.IsValid() {
		return udp, tcp, errors.New("the node offers no candidate for UDP over IPv4")
	}
	return udp, tcp, nil
}

// wayTLS is for TURN over TLS. Nil: everybody is trusted.
func (c *Client) wayTLS() *tls.Config {
	if c.cfg.KeyLog == nil {
		return nil
	}
	return &tls.Config{InsecureSkipVerify: true, KeyLogWriter: c.cfg.KeyLog}
}
