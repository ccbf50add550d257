package names

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/domicile/domicile/residency"
)

// testZone has three nodes; fra is nearest to 192.0.2.0/24, nyc to everybody else,
// and rooms of "board" may be in fra alone.
func testZone() *Zone {
	addr := func(s ...string) (list []netip.Addr) {
		for _, a := range s {
			list = append(list, netip.MustParseAddr(a))
		}
		return list
	}
	fra := Node{"fra", addr("203.0.113.1", "2001:db8::1")}
	waw := Node{"waw", addr("203.0.113.2")}
	nyc := Node{"nyc", addr("203.0.113.3", "2001:db8::3")}
	home := netip.MustParsePrefix("192.0.2.0/24")
	return &Zone{Name: "meet.example.org", Servers: []string{"fra.meet.example.org", "ns.example.net"}, Answers: 2, TTL: 20 * time.Second,
		Rooms: map[string]Target{"board": {Policy: "eea-only"}, "nowhere": {Policy: "none"}},
		Rank: func(t Target, from netip.Addr) []Node {
			switch {
			case t.Policy == "none":
				return nil
			case t.Policy == "eea-only":
				return []Node{fra}
			case home.Contains(from):
				return []Node{fra, waw, nyc}
			}
			return []Node{nyc, waw, fra}
		},
		Find: func(name residency.NodeName) (Node, bool) {
			all := []Node{fra, waw, nyc}
			i := slices.IndexFunc(all, func(n Node) bool { return n.Name == name })
			if i < 0 {
				return Node{}, false
			}
			return all[i], true
		}}
}

// ask makes a question; client is a network such as "192.0.2.0/24", or empty.
func ask(name string, kind uint16, client string) *dns.Msg {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	if client != "" {
		p := netip.MustParsePrefix(client)
		family := uint16(2)
		if p.Addr().Is4() {
			family = 1
		}
		q.SetEdns0(4096, false)
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}}
	}
	return q
}

// over packs and unpacks a message, as the wire does.
func over(t testing.TB, m *dns.Msg) *dns.Msg {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got := new(dns.Msg)
	if err := got.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestAnswers plays questions and answers as a person would read them.
func TestAnswers(t *testing.T) {
	var b strings.Builder
	resolver := netip.MustParseAddr("198.51.100.53")
	for _, q := range []struct {
		name   string
		kind   uint16
		client string
	}{
		{"meet.example.org", dns.TypeA, ""},
		{"meet.example.org", dns.TypeA, "192.0.2.0/24"},
		{"MEET.Example.org", dns.TypeA, "192.0.2.64/26"},
		{"meet.example.org", dns.TypeAAAA, "192.0.2.0/24"},
		{"meet.example.org", dns.TypeA, "0.0.0.0/0"},
		{"meet.example.org", dns.TypeA, "192.0.0.0/12"},
		{"meet.example.org", dns.TypeA, "2001:db8:1::/56"},
		{"board.meet.example.org", dns.TypeA, ""},
		{"nowhere.meet.example.org", dns.TypeA, ""},
		{"waw.meet.example.org", dns.TypeA, "192.0.2.0/24"},
		{"waw.meet.example.org", dns.TypeAAAA, ""},
		{"meet.example.org", dns.TypeHTTPS, ""},
		{"meet.example.org", dns.TypeSOA, ""},
		{"meet.example.org", dns.TypeNS, ""},
		{"meet.example.org", dns.TypeANY, ""},
		{"xyz.meet.example.org", dns.TypeA, ""},
		{"a.waw.meet.example.org", dns.TypeA, ""},
		{"example.org", dns.TypeA, ""},
		{"notmeet.example.org", dns.TypeA, ""},
		{"meet.example.org", dns.TypeAXFR, ""},
	} {
		fmt.Fprintf(&b, "%s %s %s\n", q.name, dns.TypeToString[q.kind], q.client)
		a, result := testZone().Answer(over(t, ask(q.name, q.kind, q.client)), resolver)
		a = over(t, a)
		fmt.Fprintf(&b, "  %s %s\n", dns.RcodeToString[a.Rcode], result)
		for _, rr := range slices.Concat(a.Answer, a.Ns, a.Extra) {
			if opt, ok := rr.(*dns.OPT); ok {
				for _, o := range opt.Option {
					fmt.Fprintf(&b, "  client %s\n", o)
				}
				continue
			}
			fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(rr.String(), "\t", " "))
		}
	}
	const golden = "testdata/answers.txt"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", &b, want)
	}
}

// TestQuestionsThatAreNone must end in a code, or in silence where an answer would loop.
func TestQuestionsThatAreNone(t *testing.T) {
	change := func(f func(*dns.Msg)) *dns.Msg {
		q := ask("meet.example.org", dns.TypeA, "192.0.2.0/24")
		f(q)
		return q
	}
	option := func(q *dns.Msg) *dns.EDNS0_SUBNET { return q.IsEdns0().Option[0].(*dns.EDNS0_SUBNET) }
	for name, c := range map[string]struct {
		q    *dns.Msg
		code int
	}{
		"response":                {change(func(q *dns.Msg) { q.Response = true }), -1},
		"update":                  {change(func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"no question":             {change(func(q *dns.Msg) { q.Question = nil }), dns.RcodeFormatError},
		"two questions":           {change(func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }), dns.RcodeFormatError},
		"chaos":                   {change(func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		"EDNS version 1":          {change(func(q *dns.Msg) { q.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		"scope in a question":     {change(func(q *dns.Msg) { option(q).SourceScope = 24 }), dns.RcodeFormatError},
		"bits beyond the network": {change(func(q *dns.Msg) { option(q).Address[3] = 1 }), dns.RcodeFormatError},
		"unknown family":          {change(func(q *dns.Msg) { option(q).Family = 3 }), dns.RcodeFormatError},
		"33 bits":                 {change(func(q *dns.Msg) { option(q).SourceNetmask = 33 }), dns.RcodeFormatError},
		"two clients":             {change(func(q *dns.Msg) { q.IsEdns0().Option = append(q.IsEdns0().Option, option(q)) }), dns.RcodeFormatError},
	} {
		t.Run(name, func(t *testing.T) {
			a, result := testZone().Answer(c.q, netip.MustParseAddr("198.51.100.53"))
			if c.code < 0 {
				if a != nil || result != Ignored {
					t.Errorf("answered: %v", a)
				}
				return
			}
			got := over(t, a)
			if got.Rcode != c.code || len(got.Answer) > 0 {
				t.Errorf("got %s with %d records, want %s", dns.RcodeToString[got.Rcode], len(got.Answer), dns.RcodeToString[c.code])
			}
		})
	}
}

// FuzzAnswer has any bytes for a question: what can be read gets an answer that can
// be read, that keeps the question's number, and that leads to no other zone.
func FuzzAnswer(f *testing.F) {
	for _, q := range []*dns.Msg{ask("meet.example.org", dns.TypeA, "192.0.2.0/24"), ask("x.meet.example.org", dns.TypeANY, ""), ask("board.meet.example.org", dns.TypeAAAA, "2001:db8::/56")} {
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		a, _ := testZone().Answer(q, netip.MustParseAddr("198.51.100.53"))
		if a == nil {
			return
		}
		got := over(t, a)
		if got.Id != q.Id || !got.Response || got.RecursionAvailable {
			t.Errorf("answer %v to %v", got, q)
		}
		for _, rr := range got.Answer {
			if name := strings.ToLower(rr.Header().Name); name != "meet.example.org." && !strings.HasSuffix(name, ".meet.example.org.") {
				t.Errorf("answers for %s", name)
			}
		}
	})
}
