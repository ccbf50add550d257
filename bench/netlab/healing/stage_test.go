//go:build linux

package healing

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/bench/netlab/impair"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

const patience = 90 * time.Second

// towns are where the nodes are; the first serves the publishers. Two of them are origins.
var towns = []nodeArgs{
	{Name: "fra", Country: "DE", Origin: true}, {Name: "par", Country: "FR"}, {Name: "waw", Country: "PL", Origin: true},
	{Name: "vie", Country: "AT"}, {Name: "osl", Country: "NO"},
}

// between are the one-way delays of the towns, in their order: those of fibre along
// roads, and a millisecond.
var between = [][]time.Duration{
	{0, 5 * ms, 7 * ms, 5 * ms, 9 * ms},
	{5 * ms, 0, 10 * ms, 8 * ms, 11 * ms},
	{7 * ms, 10 * ms, 0, 5 * ms, 9 * ms},
	{5 * ms, 8 * ms, 5 * ms, 0, 11 * ms},
	{9 * ms, 11 * ms, 9 * ms, 11 * ms, 0},
}

const (
	ms     = time.Millisecond
	jitter = 3 * ms // of every path, evenly
	access = 5 * ms // from attendees to every node, one way
)

// process is a node that runs.
type process struct {
	nodeArgs
	lab *netlab.Lab
	cmd *exec.Cmd
	end io.Closer
}

// stage is the mesh.
type stage struct {
	t     *testing.T
	web   *netlab.Web
	nodes []*process
	tls   *tls.Config
}

// newStage starts the nodes of the first n towns; change, if any, has its say on each.
func newStage(t *testing.T, n int, change func(int, *nodeArgs)) *stage {
	t.Helper()
	towns := towns[:n]
	s := &stage{t: t, web: netlab.NewWeb(t, n)}
	dir := t.TempDir()
	ca, err := identity.CreateCA(dir, "test CA", time.Now().Add(-time.Hour)) // also for clocks that are wrong
	if err != nil {
		t.Fatal(err)
	}
	s.tls = &tls.Config{RootCAs: ca.Pool()}
	var names []residency.NodeName
	var seeds []netip.Addr
	for i, a := range towns {
		names, seeds = append(names, residency.NodeName(a.Name)), append(seeds, s.web.Ports[i].Inside)
	}
	for i, a := range towns {
		a.Dir, a.Addr, a.Join, a.Others, a.FanOut, a.Carriage = dir, seeds[i], seeds, names, 2, *carriage
		if change != nil {
			change(i, &a)
		}
		if err := a.furnish(ca); err != nil {
			t.Fatal(err)
		}
		s.nodes = append(s.nodes, &process{nodeArgs: a, lab: s.web.Ports[i]})
	}
	s.impair(impair.Profile{})
	t.Cleanup(func() {
		if t.Failed() {
			s.showLogs()
		}
	})
	for _, p := range s.nodes {
		s.start(p)
	}
	t.Cleanup(s.stop)
	s.allLinked()
	return s
}

// impair gives every path between nodes its delay and what is said beside it, and those
// of attendees their delay.
func (s *stage) impair(p impair.Profile) {
	s.t.Helper()
	for i, a := range s.nodes {
		for j, b := range s.nodes {
			if i != j {
				s.path(a, b, p)
			}
		}
		for _, way := range [][2]netip.Addr{{a.Addr, s.web.Host}, {s.web.Host, a.Addr}} {
			if err := s.web.Impair(way[0], way[1], impair.Profile{Delay: access}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// path impairs what goes from one node to another, beside the delay that it has anyway.
func (s *stage) path(a, b *process, p impair.Profile) {
	s.t.Helper()
	p.Delay += between[slices.Index(s.nodes, a)][slices.Index(s.nodes, b)]
	p.Jitter += jitter
	if err := s.web.Impair(a.Addr, b.Addr, p); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) start(p *process) {
	s.t.Helper()
	args, err := json.Marshal(p.nodeArgs)
	if err != nil {
		s.t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := p.lab.Command(exe)
	cmd.Env = append(os.Environ(), envNode+"="+string(args))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		p.end, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	p.cmd = cmd
	if _, err := io.ReadFull(out, make([]byte, len("up\n"))); err != nil {
		s.t.Fatalf("%s does not come up: %v", p.Name, err)
	}
}

// stop ends the nodes, those last that others wait for.
func (s *stage) stop() {
	for _, p := range s.nodes {
		if p.cmd != nil {
			p.end.Close()
		}
	}
	for _, p := range s.nodes {
		if p.cmd != nil {
			slow := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
			if err := p.cmd.Wait(); err != nil {
				s.t.Errorf("%s: %v", p.Name, err)
			}
			slow.Stop()
		}
	}
}

// kill ends a node as a power cut of its process does.
func (s *stage) kill(p *process) {
	s.signal(p, syscall.SIGKILL)
	p.cmd.Wait() //nolint:errcheck // it was killed
	p.end.Close()
	p.cmd = nil
}

func (s *stage) signal(p *process, sig syscall.Signal) {
	s.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) showLogs() {
	for _, p := range s.nodes {
		b, _ := os.ReadFile(filepath.Join(p.dir(), "node.log"))
		s.t.Logf("log of %s:\n%s", p.Name, b[max(0, len(b)-6000):])
	}
}

func (s *stage) url(p *process) string { return fmt.Sprintf("wss://%s:%d", p.Addr, portHTTPS) }

// ask asks a node's admin socket.
func (s *stage) ask(p *process, path string, into any) error {
	data := filepath.Join(p.dir(), "data")
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return node.DialAdmin(ctx, data)
	}}}
	resp, err := c.Get("http://node" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// allLinked waits until every node is linked with all others.
func (s *stage) allLinked() {
	s.t.Helper()
	for _, p := range s.nodes {
		s.eventually(p.Name+" is linked with all others", func() bool {
			var state node.NodeState
			linked := 0
			if s.ask(p, "/state", &state) != nil {
				return false
			}
			for _, m := range state.Members {
				if m.Linked {
					linked++
				}
			}
			return linked == len(s.nodes)
		})
	}
}

func (s *stage) eventually(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(20 * ms) {
		if time.Now().After(end) {
			s.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// hops is who sends media of a room to whom.
func (s *stage) hops(room string) map[string][]string {
	var x node.Explained
	if err := s.ask(s.nodes[0], "/explain?room="+url.QueryEscape(room), &x); err != nil || x.Explanation == nil || len(x.Explanation.Missing) > 0 {
		return nil
	}
	ways := map[string][]string{}
	for _, h := range x.Explanation.Hops {
		if h.Class == residency.ClassMedia && h.Tracks > 0 {
			ways[string(h.From)] = append(ways[string(h.From)], string(h.To))
		}
	}
	return ways
}
