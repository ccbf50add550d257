package whip

import (
	"strings"
	"testing"
)

const (
	// trickled is the example of RFC 9725, section 4.3.2.
	trickled = "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n" +
		"a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n" +
		"a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 ufrag EsAw network-id 1\r\na=end-of-candidates\r\n"
	restart = "a=ice-options:trickle ice2\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n" +
		"a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n"
)

func TestFragment(t *testing.T) {
	for _, c := range []struct{ name, body, ufrag, fault string }{
		{"of the RFC", trickled, "EsAw", ""},
		{"a restart", restart, "ysXw", ""},
		{"nothing", "", "", ""},
		{"the end alone", "a=end-of-candidates\r\n", "", ""},
		{"line feeds", strings.ReplaceAll(trickled, "\r\n", "\n"), "EsAw", ""},
		{"no line break at its end", strings.TrimRight(trickled, "\r\n"), "EsAw", ""},
		{"a name of mDNS", "a=candidate:1 1 udp 1 5b1c2f9e-2f9c-4f42-8b86-0a4f6f64a1d2.local 9 typ host", "", ""},
		{"a transport of tomorrow", "a=candidate:1 1 quic 1 192.0.2.1 9 typ host", "", ""},
		{"both sections' credentials", restart + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k", "ysXw", ""},
		{"JSON", `{"candidate":""}`, "", "neither a= nor m="},
		{"a whole SDP", "v=0\r\n", "", "line 1 of the fragment is neither"},
		{"no password", "a=ice-ufrag:EsAw", "", "only one of"},
		{"no ufrag", "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1", "", "only one of"},
		{"a ufrag too short", "a=ice-ufrag:EsA", "", "ice-ufrag wants 4 to 256"},
		{"a password of bad characters", "a=ice-ufrag:EsAw\na=ice-pwd:P2uYro0UCOQ4zxjKXaWC=ui1", "", "line 2 of the fragment: ice-pwd wants 22 to 256"},
		{"two sessions at once", restart + "a=ice-ufrag:other", "", "a second, different ice-ufrag"},
		{"a cut candidate", "a=candidate:1 1 udp 2122260223 192.0.2.1", "", "a candidate wants"},
		{"a candidate without a type", "a=candidate:1 1 udp 2122260223 192.0.2.1 1 host typ x", "", "a candidate wants"},
		{"a port too high", "a=candidate:1 1 udp 2122260223 192.0.2.1 65536 typ host", "", "port is no number of 16 bits"},
		{"a priority too high", "a=candidate:1 1 udp 4294967296 192.0.2.1 1 typ host", "", "priority is no number"},
		{"a foundation too long", "a=candidate:" + strings.Repeat("1", 33) + " 1 udp 1 192.0.2.1 1 typ host", "", "foundation"},
		{"an address that is none", "a=candidate:1 1 udp 1 a@b 1 typ host", "", "address"},
	} {
		f, err := parseFragment(c.body)
		switch {
		case err == nil && c.fault != "":
			t.Errorf("%s: taken, want %q", c.name, c.fault)
		case err != nil && (c.fault == "" || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %v, want %q", c.name, err, c.fault)
		case err == nil && f.Ufrag != c.ufrag:
			t.Errorf("%s: ufrag %q, want %q", c.name, f.Ufrag, c.ufrag)
		}
	}
}

// A restart repeats what the answer said about ICE, and of its sections the one
// that carries the transport.
func TestRestartFragment(t *testing.T) {
	got := transportOf(answerText).format(Restarted{Credentials{"abcd", "0123456789012345678901"}, []string{"1 1 udp 5 192.0.2.1 9 typ host"}})
	want := "a=group:BUNDLE 1|a=ice-lite|a=ice-options:trickle ice2|m=video 9 UDP/TLS/RTP/SAVPF 96|a=mid:1|" +
		"a=ice-ufrag:abcd|a=ice-pwd:0123456789012345678901|a=candidate:1 1 udp 5 192.0.2.1 9 typ host|a=end-of-candidates|"
	if got = strings.ReplaceAll(got, "\r\n", "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	one := transportOf("v=0\na=ice-lite\nm=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:a\n").format(Restarted{})
	if !strings.HasPrefix(one, "a=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:a\r\na=ice-ufrag:") {
		t.Errorf("an answer without a bundle gives %q", one)
	}
}

func FuzzFragment(f *testing.F) {
	f.Add(trickled)
	f.Add(restart)
	f.Fuzz(func(t *testing.T, body string) {
		got, err := parseFragment(body)
		if err != nil {
			return
		}
		if (got.Ufrag == "") != (got.Pwd == "") {
			t.Fatalf("half of the credentials: %+v", got)
		}
		// What we write of it can be read again.
		again, err := parseFragment(transportOf(body).format(Restarted{Credentials: Credentials{"ufrag", "passwordpasswordpassword"}}))
		if err != nil || again.Ufrag != "ufrag" {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}

func TestIfMatch(t *testing.T) {
	for _, c := range []struct {
		headers []string
		want    precondition
	}{
		{nil, missing}, {[]string{""}, missing},
		{[]string{"*"}, anyTag}, {[]string{`"*"`}, anyTag},
		{[]string{`"tag"`}, current}, {[]string{`"old"`}, stale}, {[]string{`"old", "tag"`}, current}, {[]string{`"tag", "old"`}, current},
		{[]string{`"old"`, `"tag"`}, current}, {[]string{`W/"tag"`}, stale}, {[]string{`tag`}, stale},
	} {
		if got := ifMatch(c.headers, `"tag"`); got != c.want {
			t.Errorf("If-Match %q: %d, want %d", c.headers, got, c.want)
		}
	}
}
