package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Way is one thing that is tested.
type Way string

// The ways, in the order in which they are shown.
const (
	DNS       Way = "dns"
	TCP       Way = "tcp"
	TLS       Way = "tls"
	HTTP1     Way = "http/1.1"
	HTTP2     Way = "http/2"
	HTTP3     Way = "http/3"
	WebSocket Way = "websocket"
	DirectUDP Way = "direct-udp"
	TURNUDP   Way = "turn-udp"
	ICETCP    Way = "ice-tcp"
	TURNTLS   Way = "turn-tls"
	Redirect  Way = "redirect"
)

var order = []Way{DNS, TCP, TLS, HTTP1, HTTP2, HTTP3, WebSocket, DirectUDP, TURNUDP, ICETCP, TURNTLS, Redirect}

// title is how people read a way. %d is the port.
var titles = map[Way]string{
	DNS: "name in DNS", TCP: "TCP %d", TLS: "TLS and certificate", HTTP1: "HTTP/1.1", HTTP2: "HTTP/2", HTTP3: "HTTP/3",
	WebSocket: "WebSocket", DirectUDP: "direct UDP", TURNUDP: "TURN over UDP", ICETCP: "ICE over TCP", TURNTLS: "TURN over TLS",
	Redirect: "redirect from port 80",
}

// Over says how the node was reached.
type Over string

// What a way can be tested over.
const (
	IPv4  Over = "IPv4"
	IPv6  Over = "IPv6"
	Proxy Over = "proxy" // the HTTP proxy of this machine, by CONNECT
)

// Outcome is what came of a test.
type Outcome string

// The outcomes. Only Works is good; NotOffered and NoRoute are neither good nor
// bad, and Untested is bad only in that nobody knows.
const (
	Works       Outcome = "works"
	Closed      Outcome = "closed"       // refused: nothing listens there
	Filtered    Outcome = "filtered"     // no answer at all
	Unreachable Outcome = "unreachable"  // a router or firewall on the way says no
	Cut         Outcome = "cut"          // it began, and the connection was cut
	Certificate Outcome = "certificate"  // it does not hold
	NotDomicile Outcome = "not-domicile" // something else answers
	Private     Outcome = "private"      // the node announces an address that only its own network has
	Stuck       Outcome = "stuck"        // something came back, but not enough of it
	Limited     Outcome = "limited"      // the node is busy, or was asked too often
	Refused     Outcome = "refused"      // the node, the TURN server or the proxy says no
	NoName      Outcome = "no-name"      // DNS does not know the name
	Broken      Outcome = "broken"       // anything else; Detail says what
	NotOffered  Outcome = "not-offered"  // the node does not have this way in
	NoRoute     Outcome = "no-route"     // this machine has no such network
	Untested    Outcome = "untested"     // what it needs did not work
)

// good, bad, or neither.
func (o Outcome) bad() bool {
	switch o {
	case Works, NotOffered, NoRoute, Untested:
		return false
	}
	return true
}

// Result is the outcome of one way.
type Result struct {
	Way     Way     `json:"way"`
	Over    Over    `json:"over"`
	Outcome Outcome `json:"result"`
	// Required says that the way counts for Report.OK.
	Required bool `json:"required"`
	// Took is the time until the way stood, with everything that it needs below it;
	// RTT is a round trip over it then. 0: there is none.
	Took   Millis `json:"ms"`
	RTT    Millis `json:"rtt_ms,omitempty"`
	Detail string `json:"detail,omitempty"` // what was seen
	Cause  string `json:"cause,omitempty"`  // the likely cause of a failure
	Mend   string `json:"mend,omitempty"`   // what to do about it

	target    netip.Addr     // by which the host was reached; zero behind a proxy
	announced netip.AddrPort // where the node says that media goes; zero if it does not matter
}

// Millis is a time that is written in milliseconds.
type Millis time.Duration

// MarshalJSON writes tenths of milliseconds.
func (m Millis) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.1f", time.Duration(m).Seconds()*1000), nil
}

// String is for people.
func (m Millis) String() string {
	d := time.Duration(m)
	switch {
	case d == 0:
		return "–"
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

// About is what a node says of itself.
type About struct {
	Name    string `json:"name"`
	Country string `json:"country"`
	City    string `json:"city,omitempty"`
	Version string `json:"version"`
}

// Report is what a run found.
type Report struct {
	Host    string   `json:"host"`
	Port    uint16   `json:"port"`
	Node    *About   `json:"node,omitempty"` // nil if none answered
	OK      bool     `json:"ok"`
	Results []Result `json:"results"`
}

// judge settles whether every way that counts works, and that one does at all.
func (r *Report) judge() {
	works := slices.ContainsFunc(r.Results, func(x Result) bool { return x.Way == HTTP1 && x.Outcome == Works })
	r.OK = works && !slices.ContainsFunc(r.Results, func(x Result) bool { return x.Required && (x.Outcome.bad() || x.Outcome == Untested) })
}
