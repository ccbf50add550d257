package node

import (
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/domicile/domicile/node/names"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/geo/geodemo"
)

// TestNamesLeadToTheNearestNode asks a node in DNS as a resolver does, for clients
// in Germany and in New York: each gets the near node first; one whose rooms may not
// be there gets another; and who has died is named no more.
func TestNamesLeadToTheNearestNode(t *testing.T) {
	t.Parallel()
	database := filepath.Join(t.TempDir(), "places.mmdb")
	frankfurt, newYork := router.Point{Lat: 50.11, Lon: 8.68}, router.Point{Lat: 40.71, Lon: -74.01}
	err := geodemo.Make(database, []geodemo.Entry{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Country: "DE", City: "Frankfurt", Lat: frankfurt.Lat, Lon: frankfurt.Lon},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Country: "US", City: "New York", Lat: newYork.Lat, Lon: newYork.Lon},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var at netip.AddrPort
	addrs := map[residency.NodeName][]netip.Addr{"fra": {netip.MustParseAddr("127.0.0.1")}, "nyc": {netip.MustParseAddr("127.0.0.2")}}
	doors := map[residency.NodeName]net.Listener{}
	m := newMeshOf(t, testBundle(1), func(_ *testMesh, cfg *Config) {
		door, err := net.Listen("tcp", netip.AddrPortFrom(addrs[cfg.Self.Name][0], 0).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { door.Close() })
		doors[cfg.Self.Name], cfg.PublicURL = door, "https://"+door.Addr().String()
		cfg.Geo.Database, cfg.At = database, frankfurt
		if cfg.Self.Name == "nyc" {
			cfg.At = newYork
			return
		}
		at = freePort(t)
		cfg.DNS = DNS{Listen: at, Zone: "meet.example.org", Servers: []string{"fra.meet.example.org"}, Answers: 2, TTL: 20 * time.Second,
			Rooms: map[string]names.Target{"board": {Policy: "eea-only"}, "nothing": {Policy: "no-such-policy"}}}
	}, "fra DE origin", "nyc US")
	ask := func(name string, client string) (got []string, code string) {
		q := new(dns.Msg).SetQuestion(name, dns.TypeA)
		p := netip.MustParsePrefix(client)
		q.SetEdns0(1232, false)
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}}
		c := dns.Client{Net: "tcp", Timeout: patience}
		a, _, err := c.Exchange(q, at.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range a.Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		return got, dns.RcodeToString[a.Rcode]
	}
	fra, nyc := addrs["fra"][0].String(), addrs["nyc"][0].String()
	for _, c := range []struct {
		name, client string
		want         []string
		code         string
	}{
		{"meet.example.org.", "192.0.2.0/24", []string{fra}, "NOERROR"}, // an edge outside is for who is outside
		{"meet.example.org.", "203.0.113.0/24", []string{nyc, fra}, "NOERROR"},
		{"board.meet.example.org.", "203.0.113.0/24", []string{fra}, "NOERROR"},
		{"nothing.meet.example.org.", "203.0.113.0/24", nil, "SERVFAIL"},
		{"nyc.meet.example.org.", "192.0.2.0/24", []string{nyc}, "NOERROR"},
	} {
		if got, code := ask(c.name, c.client); !slices.Equal(got, c.want) || code != c.code {
			t.Errorf("%s from %s: %s %v, want %s %v", c.name, c.client, code, got, c.code, c.want)
		}
	}
	doors["nyc"].Close()
	n := m.node("fra")
	for range 2 {
		n.checkFrontsOnce(t.Context())
	}
	if got, _ := ask("meet.example.org.", "203.0.113.0/24"); !slices.Equal(got, []string{fra}) {
		t.Errorf("the front door of nyc is closed, and the name leads to %v", got)
	}
	n.health.Note(addrs["nyc"][0], true)
	m.halt("nyc")
	within(t, patience, "who has died is named no more", func() bool {
		got, _ := ask("meet.example.org.", "203.0.113.0/24")
		return slices.Equal(got, []string{fra})
	})
}
