package probe

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// candidate is an address for media that the node announces.
type candidate struct {
	tcp bool
	at  netip.AddrPort
}

// turnURL is a TURN server that the node announces.
type turnURL struct {
	tls, tcp bool
	host     string
	port     uint16
	username string
	password string
}

// offered are the ways in that an answer announces.
type offered struct {
	candidates []candidate
	turn       []turnURL
}

// maxOffered bounds what is read of an answer that nobody vouches for.
const maxOffered = 64

// candidatesOf reads the candidates of an SDP (RFC 8839 section 5.1). Names and
// whatever else nobody here could use are left out.
func candidatesOf(sdp string) (list []candidate) {
	for line := range strings.Lines(sdp) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), "a=candidate:")
		f := strings.Fields(value)
		// foundation component protocol priority address port "typ" type …
		if !ok || len(f) < 8 || len(list) >= maxOffered {
			continue
		}
		ip, err := netip.ParseAddr(f[4])
		port, perr := strconv.ParseUint(f[5], 10, 16)
		if err != nil || perr != nil || port == 0 {
			continue
		}
		tcp := strings.EqualFold(f[2], "tcp")
		if tcp && !strings.Contains(value, "tcptype passive") {
			continue
		}
		list = append(list, candidate{tcp, netip.AddrPortFrom(ip.Unmap(), uint16(port))})
	}
	return list
}

// turnOf reads a TURN URL (RFC 7065): turn:HOST:PORT?transport=udp
func turnOf(raw, username, password string) (t turnURL, ok bool) {
	scheme, rest, _ := strings.Cut(raw, ":")
	rest, query, _ := strings.Cut(rest, "?")
	q, err := url.ParseQuery(query)
	if err != nil || scheme != "turn" && scheme != "turns" {
		return t, false
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), map[string]string{"turn": "3478", "turns": "5349"}[scheme]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return t, false
	}
	t = turnURL{tls: scheme == "turns", tcp: scheme == "turns" || q.Get("transport") == "tcp",
		host: host, port: uint16(n), username: username, password: password}
	return t, true
}

// has reports whether a way is announced.
func (o offered) has(w Way, over Over) (ok bool) {
	switch w {
	case DirectUDP:
		_, ok = o.firstUDP(over)
	case ICETCP:
		_, ok = o.tcp(over)
	case TURNUDP:
		_, ok = o.server(false)
	case TURNTLS:
		_, ok = o.server(true)
	}
	return ok
}

// firstUDP finds an address for media.
func (o offered) firstUDP(over Over) (netip.AddrPort, bool) {
	for _, c := range o.candidates {
		if !c.tcp && familyOf(c.at.Addr()) == over {
			return c.at, true
		}
	}
	return netip.AddrPort{}, false
}

// tcp finds an address for ICE over TCP.
func (o offered) tcp(over Over) (netip.AddrPort, bool) {
	for _, c := range o.candidates {
		if c.tcp && familyOf(c.at.Addr()) == over {
			return c.at, true
		}
	}
	return netip.AddrPort{}, false
}

// server finds a TURN server of a kind.
func (o offered) server(tls bool) (turnURL, bool) {
	for _, t := range o.turn {
		if t.tls == tls && t.tcp == tls {
			return t, true
		}
	}
	return turnURL{}, false
}

// inside reports whether an address means something in one network alone.
func inside(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || carrierGrade.Contains(a.Unmap())
}

// carrierGrade is what providers number their customers with (RFC 6598).
var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")
