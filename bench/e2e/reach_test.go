package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
)

// reached is what domicile check --reach --json prints.
type reached struct {
	OK      bool
	Results []struct {
		Way, Over, Result, Cause, Mend string
	}
}

// all is what works in an open network.
var all = map[string]string{"tcp": "works", "tls": "works", "http/1.1": "works", "http/2": "works", "http/3": "works", "websocket": "works",
	"direct-udp": "works", "turn-udp": "works", "ice-tcp": "works", "turn-tls": "works"}

// but is all with some other results.
func but(change ...string) map[string]string {
	m := maps.Clone(all)
	for i := 0; i < len(change); i += 2 {
		m[change[i]] = change[i+1]
	}
	return m
}

// TestReach has an operator and an attendee look at a node from behind one
// firewall after the other: what works, and what they are told about the rest.
func TestReach(t *testing.T) {
	lab := parallelLab(t, netlab.NewDual)
	m := startProduction(t, lab.Host,
		productionNode{Name: "gate", Country: "DE", Roles: "origin,edge", HTTPS: 443, Port: 443},
		productionNode{Name: "six", Country: "PL", Roles: "edge", HTTPS: 443, Port: 443, Mesh: 8444, At: lab.Host6})
	gate := netip.AddrPortFrom(lab.Host, 443)
	p := startProxy(t, lab.Host, gate)
	viaProxy := "http://" + p.addr().String()
	flags := []string{trust(t, m, "gate")}
	inside := sync.OnceValue(func() *browsers { return startBrowsers(t, lab.Name) })
	noUDP := []string{"http/3", "filtered", "direct-udp", "filtered", "turn-udp", "filtered"}
	// What needs no page comes first: another test may have the screen meanwhile.
	t.Run("IPv6", func(t *testing.T) {
		six := netip.AddrPortFrom(lab.Host6, 443)
		lab.Firewall(t, netlab.TCP(six), netlab.UDP(six))
		lookFromInside(t, m.in(t), lab, lab.Host6, "IPv6", "", all, nil)()
	})
	for _, tt := range []struct {
		name  string
		holes []netlab.Hole
		proxy string
		want  map[string]string // over IPv4, or the proxy
		words []string          // of the command
		page  string            // of the page
	}{
		{"nothing", nil, "", map[string]string{"tcp": "filtered", "tls": "untested", "direct-udp": "untested"},
			[]string{"TCP 443 does not arrive: " + lab.Host.String() + " gives no answer"}, ""},
		{"everything", []netlab.Hole{netlab.TCP(gate), netlab.UDP(gate)}, "", all, nil, "Your network is fine for meetings"},
		{"TCP 443", []netlab.Hole{netlab.TCP(gate)}, "", but(noUDP...),
			[]string{"UDP 443 does not arrive", "open UDP 443 in the firewall in front of the node"}, "Meetings work over TCP"},
		{"nothing but TLS", []netlab.Hole{{Network: "tcp", To: gate, OnlyTLS: true}}, "", but(append(noUDP, "ice-tcp", "stuck")...),
			[]string{"a firewall that lets through TLS alone"}, "lets only encrypted web traffic through"},
		{"a proxy", []netlab.Hole{netlab.TCP(p.addr())}, viaProxy,
			map[string]string{"tcp": "works", "tls": "works", "http/1.1": "works", "http/2": "works", "websocket": "works", "turn-tls": "works"},
			nil, "lets only encrypted web traffic through"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.Firewall(t, tt.holes...)
			over := "IPv4"
			if tt.proxy != "" {
				over = "proxy"
			}
			defer lookFromInside(t, m.in(t), lab, lab.Host, over, tt.proxy, tt.want, tt.words)() // beside the page
			if tt.page == "" {
				return // no page comes at all
			}
			l := launch{flags: flags}
			if tt.proxy != "" {
				l.flags = append([]string{"--proxy-server=" + tt.proxy}, flags...)
			}
			tab := inside().in(t).openWith("inside", m.node("gate").Page+"?name=inside&camera=0&mic=0", l)
			defer tab.close()
			tab.until("has the test", 20*time.Second, `const b = [...document.querySelectorAll('button')].find(b => /Trouble/.test(b.textContent)); b?.click(); return b`)
			tab.until("says: "+tt.page, 30*time.Second, fmt.Sprintf(`return document.querySelector('[data-testid=verdict]')?.textContent.includes(%q)`, tt.page))
		})
	}
}

// lookFromInside runs the command behind the firewall; what it returns waits for its
// end and judges.
func lookFromInside(t *testing.T, m *mesh, lab *netlab.Lab, node netip.Addr, over, proxy string, want map[string]string, words []string) (judge func()) {
	t.Helper()
	args := []string{"check", "--reach", node.String(), "--ca", m.CA, "--json"}
	if proxy != "" {
		args = append(args, "--proxy", proxy)
	}
	cmd := lab.Command(m.bin, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		err := cmd.Wait() // what it is follows from what is printed
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
		judgeReach(t, out.Bytes(), errs.String(), err == nil, over, want, words)
	}
}

// judgeReach compares what the command printed with what it was to find.
func judgeReach(t *testing.T, out []byte, errs string, success bool, over string, want map[string]string, words []string) {
	t.Helper()
	var r reached
	if err := json.Unmarshal(out, &r); err != nil {
		t.Errorf("%v\n%s%s", err, out, errs)
		return
	}
	ok := true
	for _, x := range r.Results {
		if w, known := want[x.Way]; known && x.Over == over && x.Result != w {
			t.Errorf("%s over %s: %s, want %s (%s)", x.Way, x.Over, x.Result, w, x.Cause)
		}
	}
	for _, w := range want {
		ok = ok && w == "works"
	}
	if r.OK != ok || success != ok {
		t.Errorf("ok %v, exit code 0 %v, want ok %v", r.OK, success, ok)
	}
	for _, w := range words {
		if !bytes.Contains(out, []byte(w)) {
			t.Errorf("nothing is said about %q:\n%s", w, out)
		}
	}
}
