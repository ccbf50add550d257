package whip

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of ICE values (RFC 8839, sections 5.1 and 5.4).
const (
	minUfrag, minPwd, maxICE = 4, 22, 256
	maxFoundation            = 32
)

// fragment is an SDP fragment of trickle ICE (RFC 8840, section 4.4):
//
//	a=ice-options:trickle ice2
//	a=group:BUNDLE 0 1
//	m=audio 9 UDP/TLS/RTP/SAVPF 111
//	a=mid:0
//	a=ice-ufrag:EsAw
//	a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
//	a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host
//	a=end-of-candidates
type fragment struct {
	Credentials // of the first that are in it; empty: none
	candidates  int
}

// parseFragment reads a fragment. The bundle's sections share one transport, so
// it does not matter to which of them a line belongs.
func parseFragment(body string) (fragment, error) {
	var f fragment
	for n, line := range lines(body) {
		kind, value, ok := strings.Cut(line, "=")
		switch {
		case !ok || kind != "a" && kind != "m":
			return f, fmt.Errorf("line %d of the fragment is neither a= nor m=", n+1)
		case kind == "m":
			continue
		}
		if err := f.attribute(value); err != nil {
			return f, fmt.Errorf("line %d of the fragment: %w", n+1, err)
		}
	}
	if (f.Ufrag == "") != (f.Pwd == "") {
		return f, fmt.Errorf("the fragment has only one of ice-ufrag and ice-pwd")
	}
	return f, nil
}

func (f *fragment) attribute(a string) error {
	name, value, _ := strings.Cut(a, ":")
	switch name {
	case "ice-ufrag":
		if !iceChars(value, minUfrag) {
			return fmt.Errorf("ice-ufrag wants %d to %d characters of A-Z a-z 0-9 + /", minUfrag, maxICE)
		}
		return once(&f.Ufrag, value, name)
	case "ice-pwd":
		if !iceChars(value, minPwd) {
			return fmt.Errorf("ice-pwd wants %d to %d characters of A-Z a-z 0-9 + /", minPwd, maxICE)
		}
		return once(&f.Pwd, value, name)
	case "candidate":
		f.candidates++
		return checkCandidate(value)
	}
	return nil
}

// once sets a value that all sections of a bundle have in common.
func once(to *string, value, name string) error {
	if *to != "" && *to != value {
		return fmt.Errorf("a second, different %s: all sections share one transport", name)
	}
	*to = value
	return nil
}

// checkCandidate wants the form that RFC 8839, section 5.1, gives a candidate.
// Of the address only the characters count: names such as those of mDNS and
// transports that we do not speak are passed over by everybody, not refused.
//
//	foundation component transport priority address port "typ" type …
func checkCandidate(value string) error {
	f := strings.Fields(value)
	if len(f) < 8 || f[6] != "typ" {
		return fmt.Errorf("a candidate wants foundation, component, transport, priority, address, port and typ")
	}
	if len(f[0]) > maxFoundation || !iceChars(f[0], 1) {
		return fmt.Errorf("a candidate's foundation has 1 to %d characters of A-Z a-z 0-9 + /", maxFoundation)
	}
	for _, number := range []struct {
		text, name string
		bits       int
	}{{f[1], "component", 16}, {f[3], "priority", 32}, {f[5], "port", 16}} {
		if _, err := strconv.ParseUint(number.text, 10, number.bits); err != nil {
			return fmt.Errorf("a candidate's %s is no number of %d bits", number.name, number.bits)
		}
	}
	if _, err := netip.ParseAddr(f[4]); err != nil && !hostChars(f[4]) {
		return fmt.Errorf("a candidate's address is neither an IP address nor a host name")
	}
	return nil
}

// iceChars reports whether s has at least the given number of ICE characters.
func iceChars(s string, least int) bool {
	return len(s) >= least && len(s) <= maxICE && !strings.ContainsFunc(s, func(r rune) bool {
		return !alphanumeric(r) && r != '+' && r != '/'
	})
}

func hostChars(s string) bool {
	return len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && r != '-' && r != '.' })
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// lines splits a body at CRLF or LF, which clients mix up.
func lines(body string) []string {
	all := strings.Split(strings.TrimRight(body, "\r\n"), "\n")
	for i := range all {
		all[i] = strings.TrimSuffix(all[i], "\r")
	}
	return slices.DeleteFunc(all, func(l string) bool { return l == "" })
}

// transport is what the answer said about ICE as a whole. A restart says it
// again, unchanged (RFC 9725, section 4.3.3).
type transport struct {
	session []string // lines: ice-lite, ice-options, ice-pacing, group
	media   string   // the m line of the section that carries the bundle's transport
	mid     string   // its a=mid line
}

// transportOf takes those lines out of an answer. The bundle's transport belongs
// to the section that its group names first (RFC 9143, section 7.3).
func transportOf(answer string) transport {
	var t transport
	var media, tagged string
	for _, line := range lines(answer) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "a=group":
			if f := strings.Fields(value); len(f) > 1 && f[0] == "BUNDLE" {
				tagged = f[1]
				t.session = append(t.session, line)
			}
		case "a=ice-lite", "a=ice-options", "a=ice-pacing":
			if !slices.Contains(t.session, line) {
				t.session = append(t.session, line)
			}
		case "a=mid":
			if t.mid == "" || value == tagged {
				t.media, t.mid = media, line
			}
		default:
			if strings.HasPrefix(line, "m=") {
				media = line
			}
		}
	}
	return t
}

// format writes the fragment that answers a restart.
func (t transport) format(r Restarted) string {
	out := slices.Clone(t.session)
	if t.mid != "" {
		out = append(out, t.media, t.mid)
	}
	out = append(out, "a=ice-ufrag:"+r.Ufrag, "a=ice-pwd:"+r.Pwd)
	for _, c := range r.Candidates {
		out = append(out, "a=candidate:"+c)
	}
	out = append(out, "a=end-of-candidates", "")
	return strings.Join(out, "\r\n")
}
