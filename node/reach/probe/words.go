package probe

import (
	"fmt"
	"net/netip"
)

// explain says why a test went wrong, as far as can be told from outside, and
// what an operator can do about it. Both are empty where there is nothing to say.
func explain(host string, port uint16, r Result) (cause, mend string) {
	switch {
	case r.Outcome == Works:
		return advice(r), ""
	case r.Outcome == NoRoute:
		return fmt.Sprintf("this machine has no way out over %s", r.Over), "test from a machine that has"
	case r.Outcome == Limited:
		return "the node takes no test now: " + r.Detail, "wait a minute, then test again"
	case !r.Outcome.bad():
		return "", ""
	case r.Over == Proxy && r.Way == TCP:
		return viaProxy(r)
	}
	s := subject{host: host, port: port, r: r}
	switch r.Way {
	case DNS:
		return s.dns()
	case TCP:
		return s.tcp("listen.https")
	case TLS:
		return s.tls()
	case HTTP1, HTTP2, WebSocket:
		return s.http()
	case HTTP3:
		return s.http3()
	case DirectUDP:
		return s.direct()
	case TURNUDP, TURNTLS:
		return s.turn()
	case ICETCP:
		if r.Outcome == Private {
			return s.private()
		}
		s.port = r.announced.Port()
		return s.tcp("listen.https")
	case Redirect:
		return s.redirect()
	}
	return "", ""
}

// advice is for what works and will not work for everybody.
func advice(r Result) string {
	if at := r.announced.Addr(); at.IsValid() && r.target.IsValid() && inside(at) && !inside(r.target) {
		return fmt.Sprintf("from here: the node announces %s, which attendees elsewhere cannot reach (public.media_address)", at)
	}
	return ""
}

// subject is what the words are about.
type subject struct {
	host string
	port uint16
	r    Result
}

func (s subject) at() string {
	if !s.r.target.IsValid() {
		return s.host
	}
	return s.r.target.String()
}

func (s subject) dns() (cause, mend string) {
	if s.r.Outcome == NoName {
		return fmt.Sprintf("DNS does not know %s", s.host), "add an A record (and AAAA) with the node's public address, or correct the name"
	}
	return "no name server of this machine answers", "check this machine's network and its name servers"
}

// tcp is about a port that is not reached.
func (s subject) tcp(key string) (cause, mend string) {
	switch s.r.Outcome {
	case Closed:
		return fmt.Sprintf("TCP %d at %s is closed: nothing listens there, or a firewall refuses", s.port, s.at()),
			fmt.Sprintf("is the node running, is %s on this port, does a router in front forward TCP %d to it?", key, s.port)
	case Filtered:
		return fmt.Sprintf("TCP %d does not arrive: %s gives no answer", s.port, s.at()),
			fmt.Sprintf("open TCP %d in the firewall in front of the node; check that %s is its address; or this network lets nothing out to that port", s.port, s.at())
	case Unreachable:
		return fmt.Sprintf("a router or firewall on the way says that %s cannot be reached", s.at()),
			"check the address, and the firewalls of both networks"
	case Cut:
		return fmt.Sprintf("TCP %d at %s is opened and cut at once", s.port, s.at()),
			"a firewall that looks into connections, a balancer without a node behind it, or the node's limit for one address"
	case Stuck, Refused, Broken, NotDomicile:
		return fmt.Sprintf("TCP %d at %s is opened, but no connection for media comes of it", s.port, s.at()),
			"a firewall that lets through TLS alone does this; attendees behind it use TURN over TLS"
	}
	return s.other()
}

func (s subject) tls() (cause, mend string) {
	switch s.r.Outcome {
	case NotDomicile:
		return fmt.Sprintf("something listens on TCP %d that does not speak TLS", s.port), "check that the name and the port are those of the node"
	case Filtered:
		return "the connection stands, but nothing answers in TLS", "a firewall that looks into connections, or a node that is stuck: see its log"
	case Cut:
		return "the connection is cut during the TLS handshake",
			"a firewall on the way blocks this name or TLS; or the server has no certificate for this name: see its log"
	}
	return s.other()
}

func (s subject) http() (cause, mend string) {
	switch {
	case s.r.Outcome == NotDomicile:
		return fmt.Sprintf("what answers at %s is not a Domicile node", s.host),
			"check where the name leads; a proxy in front of the node must pass on all paths, /api and /rtc among them"
	case s.r.Way == HTTP2 && s.r.Outcome != Filtered:
		return "HTTP/2 is not spoken, HTTP/1.1 is", "something between opens TLS; pages load more slowly, meetings are not harmed"
	case s.r.Way == WebSocket:
		return "HTTPS works, WebSocket does not: something between cuts what is upgraded",
			"let the proxy or firewall pass WebSocket (Upgrade: websocket) to this host; without it nobody can join"
	case s.r.Outcome == Filtered:
		return "TLS stands, but no HTTP answer comes", "a firewall that looks into connections, or a node that is stuck: see its log"
	}
	return s.other()
}

func (s subject) http3() (cause, mend string) {
	return fmt.Sprintf("HTTP/3 is announced, but UDP %d does not carry it", s.port),
		fmt.Sprintf("open UDP %d in the firewall in front of the node; browsers use HTTP/2 meanwhile", s.port)
}

func (s subject) direct() (cause, mend string) {
	at := s.r.announced
	switch s.r.Outcome {
	case Private:
		return s.private()
	case Closed:
		return fmt.Sprintf("UDP %d at %s is closed: nothing listens there, or a firewall refuses", at.Port(), at.Addr()),
			fmt.Sprintf("does the router in front forward UDP %d to the node's listen.media?%s", at.Port(), s.elsewhere())
	case Filtered:
		return fmt.Sprintf("UDP %d does not arrive", at.Port()),
			fmt.Sprintf("open UDP %d in the firewall in front of the node; or this network lets no UDP out%s", at.Port(), s.elsewhere())
	case Stuck, Cut:
		return fmt.Sprintf("small packets pass over UDP %d, but no connection comes of it", at.Port()),
			"large packets are lost on the way (MTU, fragments dropped), or a firewall lets STUN alone through"
	}
	return s.other()
}

// elsewhere adds that the node announces another address than its name has.
func (s subject) elsewhere() string {
	at := s.r.announced.Addr()
	if !s.r.target.IsValid() || !at.IsValid() || at == s.r.target {
		return ""
	}
	return fmt.Sprintf("; or the node announces the wrong address (public.media_address: it says %s, %s is at %s)", at, s.host, s.r.target)
}

func (s subject) private() (cause, mend string) {
	return fmt.Sprintf("the node announces %s for media, an address that only its own network has", s.r.announced.Addr()),
		fmt.Sprintf("set public.media_address in node.yaml to the address that the world sees%s", probably(s.r.target))
}

func probably(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return ", probably " + a.String()
}

func (s subject) turn() (cause, mend string) {
	udp := s.r.Way == TURNUDP
	proto := map[bool]string{true: "UDP", false: "TLS"}[udp]
	switch s.r.Outcome {
	case NoName:
		return "the TURN server's name leads nowhere: " + s.r.Detail, "public.url in node.yaml must name a host that attendees can find"
	case Certificate:
		return "the certificate of the TURN server does not hold", "see TLS above; TURN has the certificate of public.url's host"
	case Refused:
		return s.r.Detail, "see the node's log and the metrics of TURN; limits for one address may be reached"
	case Stuck:
		return s.r.Detail, "see the node's log; public.media_address must be the one that is announced to attendees"
	case Closed, Unreachable:
		return "the port of TURN over " + proto + " is closed", "open it in front of the node, to the port that public.url has"
	case Filtered:
		return "TURN over " + proto + " does not arrive", fmt.Sprintf("open %s %d in the firewall in front of the node; or this network does not let it out", map[bool]string{true: "UDP", false: "TCP"}[udp], s.port)
	case Cut:
		return "the connection to TURN is cut", "a firewall that looks into TLS and wants HTTP in it cuts this; it has to make an exception for this host"
	}
	return s.other()
}

func (s subject) redirect() (cause, mend string) {
	return "what answers in clear does not lead to https:// (" + s.r.Detail + ")",
		"not needed; listen.http_redirect in node.yaml helps people who type the name without https://"
}

// viaProxy is about the proxy itself.
func viaProxy(r Result) (cause, mend string) {
	switch r.Outcome {
	case Closed, Filtered, Unreachable, NoName:
		return "the proxy itself cannot be reached", "check HTTPS_PROXY, or --proxy"
	case Refused:
		return r.Detail, "have the proxy allow CONNECT to this host and port; give a user name as http://USER:PASSWORD@PROXY"
	}
	return "the proxy cuts the connection: " + string(r.Outcome) + " " + r.Detail, "see the proxy's log"
}

func (s subject) other() (cause, mend string) {
	if s.r.Detail == "" {
		return "it fails: " + string(s.r.Outcome), ""
	}
	return "it fails: " + s.r.Detail, ""
}
