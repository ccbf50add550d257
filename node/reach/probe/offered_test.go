package probe

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestCandidates(t *testing.T) {
	sdp := strings.Join([]string{
		"v=0", "a=candidate:1 1 udp 2130706431 203.0.113.5 443 typ host", "a=candidate:2 1 UDP 1 2001:db8::5 443 typ host",
		"a=candidate:3 1 tcp 1 203.0.113.5 443 typ host tcptype passive", "a=candidate:4 1 tcp 1 203.0.113.5 9 typ host tcptype active",
		"a=candidate:5 1 udp 1 name.local 443 typ host", "a=candidate:6 1 udp 1 203.0.113.5 0 typ host", "a=candidate:7 1 udp", "a=end-of-candidates",
	}, "\r\n")
	want := []candidate{
		{false, netip.MustParseAddrPort("203.0.113.5:443")}, {false, netip.MustParseAddrPort("[2001:db8::5]:443")},
		{true, netip.MustParseAddrPort("203.0.113.5:443")},
	}
	if got := candidatesOf(sdp); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := candidatesOf(strings.Repeat("a=candidate:1 1 udp 1 203.0.113.5 443 typ host\n", 5000)); len(got) != maxOffered {
		t.Errorf("%d candidates are read", len(got))
	}
}

func TestTURNURLs(t *testing.T) {
	for raw, want := range map[string]turnURL{
		"turn:meet.example.org:443?transport=udp":  {host: "meet.example.org", port: 443},
		"turns:meet.example.org:443?transport=tcp": {host: "meet.example.org", port: 443, tls: true, tcp: true},
		"turns:[2001:db8::5]:443":                  {host: "2001:db8::5", port: 443, tls: true, tcp: true},
		"turn:meet.example.org":                    {host: "meet.example.org", port: 3478},
		"turn:203.0.113.5?transport=tcp":           {host: "203.0.113.5", port: 3478, tcp: true},
	} {
		if got, ok := turnOf(raw, "", ""); !ok || got != want {
			t.Errorf("%s: %+v %v", raw, got, ok)
		}
	}
	for _, bad := range []string{"", "turn:", "stun:x:1", "turn:x:0", "turn:x:70000", "https://x", "turn:x?%zz"} {
		if got, ok := turnOf(bad, "", ""); ok {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func FuzzOffered(f *testing.F) {
	f.Add("a=candidate:1 1 udp 2130706431 203.0.113.5 443 typ host", "turns:meet.example.org:443?transport=tcp")
	f.Fuzz(func(t *testing.T, sdp, url string) {
		for _, c := range candidatesOf(sdp) {
			if !c.at.IsValid() || c.at.Port() == 0 {
				t.Errorf("candidate %v", c)
			}
		}
		if u, ok := turnOf(url, "", ""); ok && (u.host == "" || u.port == 0) {
			t.Errorf("%q: %+v", url, u)
		}
	})
}
