package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary and gateless are bin/domicile, and the same without the gate.
var binary, gateless string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if _, err := os.Stat("../../web/dist/index.html"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: the page is not built: run make web")
			return 1
		}
		dir, err := os.MkdirTemp("", "domicile-e2e-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		// The page's own cache directory, so that a running demo of the
		// developer's is not forgotten.
		os.Setenv("XDG_CACHE_HOME", dir)
		binary, gateless = filepath.Join(dir, "domicile"), filepath.Join(dir, "domicile-gateless")
		for out, tags := range map[string]string{binary: "", gateless: "gateoff"} {
			b, err := exec.Command("go", "build", "-tags", tags, "-o", out, "../../cmd/domicile").CombinedOutput()
			if err != nil {
				fmt.Fprintf(os.Stderr, "e2e: building: %v\n%s", err, b)
				return 1
			}
		}
		return m.Run()
	}())
}

// mesh is a running demo.
type mesh struct {
	Nodes []struct {
		Name, Country, Page, WS, Plain, Config, Metrics string
		Media, Relay                                    string
		TestAddress                                     string `json:"test_address"`
		PID                                             int
	}
	Key    string `json:"api_key"`
	Secret string `json:"api_secret"`
	CA     string `json:"ca"`
	Dir    string `json:"dir"`

	bin string
	cmd *exec.Cmd
	t   testing.TB
}

// startMesh starts the demo in dir and waits for what it reports.
func startMesh(t testing.TB, bin, dir string) *mesh {
	t.Helper()
	m := &mesh{t: t, bin: bin}
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
		b, _ := os.ReadFile(filepath.Join(filepath.Dir(n.Config), "node.log"))
		m.t.Logf("log of %s:\n%s", n.Name, tail(b, 6000))
	}
}

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

// page is the URL that lets somebody join a room on a node without a click.
func (m *mesh) page(node, room, name string, more ...string) string {
	for _, n := range m.Nodes {
		if n.Name == node {
			return n.Page + "?room=" + room + "&name=" + name + "&autojoin=1&capture=360&" + strings.Join(more, "&")
		}
	}
	m.t.Fatalf("no node %q", node)
	return ""
}

// domicile runs the binary with the demo's directory known and returns its output.
func (m *mesh) domicile(args ...string) (stdout string, code int) {
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
	if err != nil {
		m.t.Logf("domicile %s: %s", strings.Join(args, " "), errs.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// browsers is a driver process with any number of Chromiums.
type browsers struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
}

type answer struct {
	ID    int
	Value json.RawMessage
	Error string
}

// startBrowsers starts a driver; with a namespace, inside it.
func startBrowsers(t testing.TB, netns string) *browsers {
	t.Helper()
	args := []string{"node", "browser.mjs"}
	if netns != "" {
		args = append([]string{"ip", "netns", "exec", netns}, args...)
	}
	b := &browsers{t: t, cmd: exec.Command(args[0], args[1:]...), waiting: map[int]chan answer{}}
	b.cmd.Stderr = os.Stderr
	var err error
	if b.in, err = b.cmd.StdinPipe(); err != nil {
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
		b.in.Close()
		<-read
		b.cmd.Wait()
	})
	return b
}

// ask sends a command and waits for the answer.
func (b *browsers) ask(command map[string]any, into any) error {
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
	if _, err := b.in.Write(append(line, '\n')); err != nil {
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
	case <-time.After(60 * time.Second):
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
	p := &tab{browsers: b, name: name}
	if err := b.ask(map[string]any{"op": "open", "url": url, "flags": flags}, &p.id); err != nil {
		b.t.Fatalf("%s: opening %s: %v", name, url, err)
	}
	b.t.Cleanup(func() {
		if b.t.Failed() {
			var log []string
			if p.ask(map[string]any{"op": "log", "page": p.id}, &log) == nil {
				b.t.Logf("console of %s:\n%s", name, strings.Join(log, "\n"))
			}
		}
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

// until polls the page until the JavaScript condition holds.
func (p *tab) until(what string, within time.Duration, js string) {
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
	p.eval(`return window.__domicile && await window.__domicile.stats()`, &stats)
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
	CandidatePair struct{ Protocol, RelayProtocol string }
}

func (p *tab) stats() (s stats) {
	p.t.Helper()
	p.must(`return await window.__domicile.stats()`, &s)
	return s
}
