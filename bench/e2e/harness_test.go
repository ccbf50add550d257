package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// product is bin/domicile; gateless is the same without the gate, built when a
// test asks for it.
//
// All tests but a few that use up the machine run beside each other, as many as
// go test -parallel allows, and one of those with pages at a time (screen). So that none sees another: those with nodes of their
// own have these on addresses of their own, the rest have rooms of their own on the
// nodes that they share; and the host's network does not change while browsers run
// on it (lasting).
var (
	product  string
	gateless = sync.OnceValue(func() string { return build("domicile-gateless", "../../cmd/domicile", "-tags", "gateoff") })
	scratch  string // a directory for the whole run
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if _, err := os.Stat("../../web/dist/index.html"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: the page is not built: run make web")
			return 1
		}
		var err error
		if scratch, err = os.MkdirTemp("", "domicile-e2e-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(scratch)
		// The pages' own cache directory, so that a running demo of the
		// developer's is not forgotten.
		os.Setenv("XDG_CACHE_HOME", scratch)
		product = build("domicile", "../../cmd/domicile")
		code := m.Run()
		return max(code, endAll())
	}())
}

// build compiles a program, in the time that tests beside it leave; one that does not
// compile ends the run.
func build(name, dir string, flags ...string) string {
	out := filepath.Join(scratch, name)
	cmd := exec.Command("nice", append(append([]string{"-n", "19", "go", "build", "-o", out}, flags...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+realCache)
	if b, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("e2e: building %s: %v\n%s", name, err, b))
	}
	return out
}

// realCache is the cache directory before the tests change it: Go keeps its
// compiled packages there.
var realCache = os.Getenv("XDG_CACHE_HOME")

// meshNode is a node as the demo tells of it.
type meshNode struct {
	Name, Country, Page, WS, Plain, Config, Metrics string
	Media, Relay                                    netip.AddrPort
	TestAddress                                     string `json:"test_address"`
	PID                                             int

	namespace string // that it runs in; "": the host's
}

// mesh is a running demo.
type mesh struct {
	Nodes  []meshNode
	Key    string `json:"api_key"`
	Secret string `json:"api_secret"`
	CA     string `json:"ca"`
	Dir    string `json:"dir"`

	bin    string
	env    []string  // of the nodes; nil: this process's
	keyLog io.Writer // for the secrets of this process's own calls; nil: kept
	cmd    *exec.Cmd
	killed map[string]bool // nodes that a test has killed
	t      testing.TB
}

// starting lets one demo come up at a time: it looks for free addresses first.
var starting sync.Mutex

// startMesh starts the demo in dir and waits for what it reports.
func startMesh(t testing.TB, bin, dir string) *mesh {
	t.Helper()
	starting.Lock()
	defer starting.Unlock()
	m := &mesh{t: t, bin: bin, killed: map[string]bool{}}
	m.cmd = exec.Command(bin, "demo", "--dir", dir, "--json")
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	m.cmd.Stderr = &stderr
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.stop() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		m.cmd.Wait()
		t.Fatalf("the demo did not come up: %v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(line, m); err != nil {
		t.Fatalf("demo --json printed %q: %v", line, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			m.showLogs()
		}
	})
	return m
}

func (m *mesh) showLogs() {
	for _, n := range m.Nodes {
		m.t.Logf("log of %s:\n%s", n.Name, tail([]byte(m.log(n.Name)), 6000))
	}
}

// log is what a node has logged.
func (m *mesh) log(node string) string {
	b, err := os.ReadFile(filepath.Join(m.node(node).dir(), "node.log"))
	if err != nil {
		m.t.Error(err)
	}
	return string(b)
}

// dir is the node's part of the mesh's directory.
func (n *meshNode) dir() string { return filepath.Dir(n.Config) }

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// stop interrupts the demo as Ctrl-C does and checks that it leaves nothing behind.
func (m *mesh) stop() {
	if m.cmd == nil {
		return
	}
	cmd := m.cmd
	m.cmd = nil
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		m.t.Errorf("the demo ended with %v", err)
	}
	for _, n := range m.Nodes {
		if syscall.Kill(n.PID, 0) == nil {
			m.t.Errorf("node %s (process %d) outlived the demo", n.Name, n.PID)
		}
	}
}

// node finds a node of the mesh.
func (m *mesh) node(name string) *meshNode {
	m.t.Helper()
	for i := range m.Nodes {
		if m.Nodes[i].Name == name {
			return &m.Nodes[i]
		}
	}
	m.t.Fatalf("no node %q", name)
	return nil
}

// kill ends a node as a power cut of its process does.
func (m *mesh) kill(name string) {
	m.t.Helper()
	m.killed[name] = true
	if err := syscall.Kill(m.node(name).PID, syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
}

// page is the URL that lets somebody join a room on a node without a click.
func (m *mesh) page(node, room, name string, more ...string) string {
	m.t.Helper()
	return joinURL(m.node(node).Page, room, name, more...)
}

func joinURL(page, room, name string, more ...string) string {
	return page + "?room=" + room + "&name=" + name + "&autojoin=1&capture=360&" + strings.Join(more, "&")
}

// domicile runs the binary with the demo's directory known and returns its output.
func (m *mesh) domicile(args ...string) (stdout string, code int) {
	m.t.Helper()
	out, errs, code := m.command(args...)
	if code != 0 {
		m.t.Logf("domicile %s: %s", strings.Join(args, " "), errs)
	}
	return out, code
}

// command is domicile for those who expect it to fail.
func (m *mesh) command(args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	cmd := exec.Command(m.bin, args...)
	cmd.Env = append(os.Environ(), "DOMICILE_DIR="+m.Dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// browsers is a driver process with any number of Chromiums, as a test has them.
type browsers struct {
	t testing.TB
	*driver
}

type driver struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
}

type answer struct {
	ID    int
	Value json.RawMessage
	Error string
}

// screen is held by the test whose pages are open. The pages of one use up two
// processors; with those of two, tests would measure how they wait for each other.
var screen = struct {
	turn    chan struct{}
	holders sync.Map // by name of the test, its parts not counted
}{turn: make(chan struct{}, 1)}

func takeScreen(t testing.TB) {
	name, _, _ := strings.Cut(t.Name(), "/")
	if _, has := screen.holders.LoadOrStore(name, true); has {
		return
	}
	screen.turn <- struct{}{}
	t.Cleanup(func() {
		screen.holders.Delete(name)
		<-screen.turn
	})
}

// startBrowsers is the driver that all tests share; with a namespace, one of the
// test's own inside it.
func startBrowsers(t testing.TB, netns string) *browsers {
	t.Helper()
	takeScreen(t)
	if netns != "" {
		return startDriver(t, netns)
	}
	onTheHost.Do(func() { onTheHost.driver = startDriver(lasting{t}, "").driver })
	return &browsers{t, onTheHost.driver}
}

// onTheHost is the driver of browsers that are in no namespace.
var onTheHost struct {
	sync.Once
	*driver
}

func startDriver(t testing.TB, netns string) *browsers {
	t.Helper()
	args := []string{"node", "browser.mjs"}
	if netns != "" {
		args = append([]string{"ip", "netns", "exec", netns}, args...)
	}
	b := &browsers{t, &driver{cmd: exec.Command(args[0], args[1:]...), waiting: map[int]chan answer{}}}
	b.cmd.Stderr = os.Stderr
	var err error
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			var a answer
			if json.Unmarshal(lines.Bytes(), &a) != nil {
				continue
			}
			b.mu.Lock()
			ch := b.waiting[a.ID]
			delete(b.waiting, a.ID)
			b.mu.Unlock()
			if ch != nil {
				ch <- a
			}
		}
	}()
	t.Cleanup(func() {
		b.stdin.Close()
		<-read
		b.cmd.Wait()
	})
	return b
}

// in is the same driver for a test within the test.
func (b *browsers) in(t testing.TB) *browsers { return &browsers{t, b.driver} }

// ask sends a command and waits for the answer.
func (b *driver) ask(command map[string]any, into any) error {
	ch := make(chan answer, 1)
	b.mu.Lock()
	b.next++
	command["id"] = b.next
	b.waiting[b.next] = ch
	b.mu.Unlock()
	line, err := json.Marshal(command)
	if err != nil {
		return err
	}
	if _, err := b.stdin.Write(append(line, '\n')); err != nil {
		return err
	}
	select {
	case a := <-ch:
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if into == nil {
			return nil
		}
		return json.Unmarshal(a.Value, into)
	case <-time.After(patience * 30 * time.Second):
		return fmt.Errorf("the browser did not answer %v", command["op"])
	}
}

// tab is one attendee's browser.
type tab struct {
	*browsers
	name string
	id   string
}

// open opens a page in a Chromium of its own.
func (b *browsers) open(name, url string, flags ...string) *tab {
	b.t.Helper()
	return b.openWith(name, url, launch{flags: flags})
}

// in is the same attendee for a test within the test.
func (p *tab) in(t testing.TB) *tab { return &tab{p.browsers.in(t), p.name, p.id} }

// launch is how a Chromium is started.
type launch struct {
	flags   []string
	without []string // of the flags that all have
	first   string   // JavaScript that runs before the page's own
}

func (b *browsers) openWith(name, url string, l launch) *tab {
	b.t.Helper()
	p := &tab{browsers: b, name: name}
	if err := b.ask(map[string]any{"op": "open", "url": url, "flags": l.flags, "without": l.without, "first": l.first}, &p.id); err != nil {
		b.t.Fatalf("%s: opening %s: %v", name, url, err)
	}
	b.t.Cleanup(func() {
		if b.t.Failed() {
			var log []string
			if p.ask(map[string]any{"op": "log", "page": p.id}, &log) == nil {
				b.t.Logf("console of %s:\n%s", name, strings.Join(log, "\n"))
			}
		}
		p.ask(map[string]any{"op": "close", "page": p.id}, nil)
	})
	return p
}

// eval runs the body of an async function in the page.
func (p *tab) eval(js string, into any) error {
	return p.ask(map[string]any{"op": "eval", "page": p.id, "js": js}, into)
}

// must is eval that ends the test on an error.
func (p *tab) must(js string, into any) {
	p.t.Helper()
	if err := p.eval(js, into); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// patience is by how much longer a test waits for what is to happen at all than it
// takes on a machine at rest: on one that compiles beside the tests everything takes
// longer, and nobody is the wiser for a test that fails there. How fast the product
// is says the bench.
const patience = 5

// prompt is for what somebody was told: that another has left, say. Who is not told
// finds out after seven seconds at the earliest (room.pongTimeout), so that what is
// known by then was said.
const prompt = 6 * time.Second

// late is how long this process may be kept waiting for what it measures to be
// believed when it is wrong.
const late = 20 * time.Millisecond

// until polls the page until the JavaScript condition holds, patiently.
func (p *tab) until(what string, within time.Duration, js string) {
	p.t.Helper()
	p.poll(what, patience*within, js)
}

// promptly is until for what somebody was told.
func (p *tab) promptly(what, js string) {
	p.t.Helper()
	p.poll(what, prompt, js)
}

func (p *tab) poll(what string, within time.Duration, js string) {
	p.t.Helper()
	deadline := time.Now().Add(within)
	var ok bool
	var err error
	for time.Now().Before(deadline) {
		if err = p.eval(`return !!(await (async () => { `+js+` })())`, &ok); err == nil && ok {
			return
		}
		p.eval(`await new Promise(r => setTimeout(r, 100))`, nil)
	}
	var stats json.RawMessage
	p.eval(`return window.__domicile ? await window.__domicile.stats() : window.grows && { came: await grows(1000), sent: await sends(1000) }`, &stats)
	p.t.Fatalf("%s: not within %s: %s (last error: %v)\nstats: %s", p.name, within, what, err, stats)
}

// close ends the attendee's browser, as closing the window does.
func (p *tab) close() {
	p.t.Helper()
	if err := p.ask(map[string]any{"op": "close", "page": p.id}, nil); err != nil {
		p.t.Errorf("%s: closing: %v", p.name, err)
	}
}

// stats is what the page measures of its connections.
type stats struct {
	Participants []struct {
		Identity, Name, Node string
		Video                struct{ FramesDecoded, Width, Height, PacketsReceived int }
		Audio                struct {
			TotalAudioEnergy float64
			PacketsReceived  int
			Samples          float64
		}
	}
	CandidatePair struct {
		Local, Remote struct{ Type, Protocol, RelayProtocol string }
	}
}

func (p *tab) stats() (s stats) {
	p.t.Helper()
	p.must(`return await window.__domicile.stats()`, &s)
	return s
}
