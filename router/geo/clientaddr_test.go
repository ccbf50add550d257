package geo

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddr(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		want         string // "" is unknown
	}{
		{"direct", "203.0.113.5:1234", nil, "203.0.113.5"},
		{"direct, IPv6", "[2001:db8::5]:1234", nil, "2001:db8::5"},
		{"direct, IPv4 in IPv6", "[::ffff:203.0.113.5]:1234", nil, "203.0.113.5"},
		{"a stranger's header", "203.0.113.5:1234", []string{"198.51.100.1"}, "203.0.113.5"},
		{"one proxy", "10.0.0.1:1234", []string{"198.51.100.1"}, "198.51.100.1"},
		{"one proxy, IPv6", "[fd00::1]:1234", []string{"2001:db8::9"}, "2001:db8::9"},
		{"two proxies", "10.0.0.1:1234", []string{"198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"two headers", "10.0.0.1:1234", []string{"198.51.100.1", "10.0.0.2"}, "198.51.100.1"},
		{"made up on the left", "10.0.0.1:1234", []string{"192.0.2.1, 198.51.100.1"}, "198.51.100.1"},
		{"made up as a proxy of ours", "10.0.0.1:1234", []string{"10.9.9.9, 198.51.100.1"}, "198.51.100.1"},
		{"with a port", "10.0.0.1:1234", []string{"198.51.100.1:99"}, "198.51.100.1"},
		{"in brackets", "10.0.0.1:1234", []string{"[2001:db8::9]"}, "2001:db8::9"},
		{"IPv4 in IPv6 proxy", "[::ffff:10.0.0.1]:1234", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"nothing but proxies", "10.0.0.1:1234", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"no header", "10.0.0.1:1234", nil, "10.0.0.1"},
		{"an empty entry", "10.0.0.1:1234", []string{"198.51.100.1,"}, ""},
		{"no address", "10.0.0.1:1234", []string{"198.51.100.1, unknown"}, ""},
		{"no remote", "@", nil, ""},
		{"very long", "10.0.0.1:1234", []string{"198.51.100.1," + strings.Repeat("10.0.0.2,", 20000) + "10.0.0.2"}, "198.51.100.1"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		got := ClientAddr(r, trusted)
		if got.IsValid() != (c.want != "") || got.IsValid() && got.String() != c.want {
			t.Errorf("%s: %v, want %q", c.name, got, c.want)
		}
	}
}

func FuzzClientAddr(f *testing.F) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Add("10.0.0.1:1", "198.51.100.1, 10.0.0.2")
	f.Add("10.0.0.1:1", ",,,")
	f.Add("[::1%lo]:1", "[")
	f.Fuzz(func(t *testing.T, remote, forwarded string) {
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		got := ClientAddr(r, trusted)
		if got.Is4In6() || got.Zone() != "" {
			t.Fatalf("%v is not in its plain form", got)
		}
		if peer := parseHop(remote); !contains(trusted, peer) && got != peer {
			t.Fatalf("a stranger %v made itself %v", peer, got)
		}
	})
}
