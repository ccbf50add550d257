package probe

import (
	"net/netip"
	"strings"
	"testing"
)

var (
	public  = netip.MustParseAddr("203.0.113.5")
	media   = netip.MustParseAddrPort("203.0.113.5:443")
	behind  = netip.MustParseAddrPort("10.0.0.5:7882")
	another = netip.MustParseAddrPort("198.51.100.7:443")
)

// What an operator is told, way by way.
func TestExplain(t *testing.T) {
	tests := []struct {
		r           Result
		cause, mend string // parts of them
	}{
		{Result{Way: DNS, Outcome: NoName}, "DNS does not know meet.example.org", "add an A record"},
		{Result{Way: TCP, Outcome: Closed, target: public}, "TCP 443 at 203.0.113.5 is closed", "listen.https"},
		{Result{Way: TCP, Outcome: Filtered, target: public}, "TCP 443 does not arrive: 203.0.113.5 gives no answer", "open TCP 443 in the firewall"},
		{Result{Way: TCP, Outcome: Unreachable, target: public}, "cannot be reached", "firewalls"},
		{Result{Way: TCP, Over: IPv6, Outcome: NoRoute}, "no way out over IPv6", "test from a machine that has"},
		{Result{Way: TCP, Over: Proxy, Outcome: Closed}, "the proxy itself cannot be reached", "HTTPS_PROXY"},
		{Result{Way: TCP, Over: Proxy, Outcome: Refused, Detail: "407"}, "407", "CONNECT"},
		{Result{Way: TLS, Outcome: NotDomicile}, "does not speak TLS", "the name and the port"},
		{Result{Way: TLS, Outcome: Cut}, "cut during the TLS handshake", "a firewall on the way"},
		{Result{Way: HTTP1, Outcome: NotDomicile}, "not a Domicile node", "where the name leads"},
		{Result{Way: HTTP2, Outcome: Broken, Detail: "x"}, "HTTP/2 is not spoken", "not harmed"},
		{Result{Way: WebSocket, Outcome: Cut}, "WebSocket does not", "Upgrade: websocket"},
		{Result{Way: WebSocket, Outcome: Limited, Detail: "busy"}, "takes no test now", "wait a minute"},
		{Result{Way: DirectUDP, Outcome: Filtered, target: public, announced: media}, "UDP 443 does not arrive", "open UDP 443"},
		{Result{Way: DirectUDP, Outcome: Filtered, target: public, announced: another}, "UDP 443 does not arrive", "public.media_address: it says 198.51.100.7, meet.example.org is at 203.0.113.5"},
		{Result{Way: DirectUDP, Outcome: Closed, target: public, announced: media}, "UDP 443 at 203.0.113.5 is closed", "forward UDP 443"},
		{Result{Way: DirectUDP, Outcome: Private, target: public, announced: behind}, "the node announces 10.0.0.5 for media", "set public.media_address in node.yaml to the address that the world sees, probably 203.0.113.5"},
		{Result{Way: DirectUDP, Outcome: Stuck, announced: media}, "small packets pass", "MTU"},
		{Result{Way: DirectUDP, Outcome: Works, target: public, announced: behind}, "attendees elsewhere cannot reach", ""},
		{Result{Way: DirectUDP, Outcome: Works, target: public, announced: media}, "", ""},
		{Result{Way: TURNUDP, Outcome: Filtered}, "TURN over UDP does not arrive", "open UDP 443"},
		{Result{Way: TURNTLS, Outcome: Filtered}, "TURN over TLS does not arrive", "open TCP 443"},
		{Result{Way: TURNTLS, Outcome: Certificate}, "certificate of the TURN server", "see TLS above"},
		{Result{Way: TURNTLS, Outcome: Cut}, "cut", "wants HTTP in it"},
		{Result{Way: TURNTLS, Outcome: Refused, Detail: "the TURN server says: 486"}, "486", "limits"},
		{Result{Way: ICETCP, Outcome: Private, announced: behind}, "announces 10.0.0.5", "public.media_address"},
		{Result{Way: ICETCP, Outcome: Stuck, announced: media}, "no connection for media", "TURN over TLS"},
		{Result{Way: HTTP3, Outcome: Filtered}, "UDP 443 does not carry it", "HTTP/2 meanwhile"},
		{Result{Way: Redirect, Outcome: NotDomicile, Detail: "404"}, "does not lead to https:// (404)", "not needed"},
		{Result{Way: ICETCP, Outcome: NotOffered}, "", ""},
	}
	for _, tt := range tests {
		cause, mend := explain("meet.example.org", 443, tt.r)
		if !strings.Contains(cause, tt.cause) || !strings.Contains(mend, tt.mend) || tt.cause == "" && cause != "" || tt.mend == "" && mend != "" {
			t.Errorf("%s %s: %q, %q; want %q, %q in it", tt.r.Way, tt.r.Outcome, cause, mend, tt.cause, tt.mend)
		}
	}
}

// Every failure of every way has words.
func TestExplainAlwaysSaysSomething(t *testing.T) {
	all := []Outcome{Closed, Filtered, Unreachable, Cut, Certificate, NotDomicile, Private, Stuck, Limited, Refused, NoName, Broken}
	for _, w := range order {
		for _, over := range []Over{IPv4, IPv6, Proxy} {
			for _, o := range all {
				if cause, _ := explain("h", 443, Result{Way: w, Over: over, Outcome: o, Detail: "seen"}); cause == "" {
					t.Errorf("%s over %s, %s: nothing is said", w, over, o)
				}
			}
		}
	}
}

func TestJudge(t *testing.T) {
	works := Result{Way: HTTP1, Outcome: Works, Required: true}
	tests := map[string]struct {
		more []Result
		want bool
	}{
		"all":            {[]Result{works, {Way: DirectUDP, Outcome: Works, Required: true}}, true},
		"nothing":        {nil, false},
		"one fails":      {[]Result{works, {Way: TURNTLS, Outcome: Cut, Required: true}}, false},
		"one unknown":    {[]Result{works, {Way: TURNTLS, Outcome: Untested, Required: true}}, false},
		"not offered":    {[]Result{works, {Way: HTTP3, Outcome: NotOffered}}, true},
		"does not count": {[]Result{works, {Way: Redirect, Outcome: Closed}}, true},
	}
	for name, tt := range tests {
		r := Report{Results: tt.more}
		if r.judge(); r.OK != tt.want {
			t.Errorf("%s: ok %v", name, r.OK)
		}
	}
}
