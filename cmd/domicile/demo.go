package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
)

type demoCmd struct {
	Dir  string `required:"" type:"path" help:"Directory for everything the demo makes; a second start finds its rooms and recordings again."`
	JSON bool   `name:"json" help:"When all is ready, print one line of JSON instead of the text for people."`
	Net  string `help:"Loopback network for the nodes' addresses, such as 127.20.0.0/24. Default: the first free one."`
}

// demoReady is the line that --json prints.
type demoReady struct {
	Nodes  []demoNode `json:"nodes"`
	Key    string     `json:"api_key"`
	Secret string     `json:"api_secret"`
	CA     string     `json:"ca"`
	Dir    string     `json:"dir"`
}

type demoNode struct {
	Name    residency.NodeName `json:"name"`
	Country residency.Country  `json:"country"`
	City    string             `json:"city"`
	Roles   []residency.Role   `json:"roles"`
	Page    string             `json:"page"`
	WS      string             `json:"ws"`
	Plain   string             `json:"plain"`        // the page without TLS: no certificate warning
	Address string             `json:"test_address"` // an address that GeoIP places in the node's city
	Media   netip.AddrPort     `json:"media"`
	Relay   netip.AddrPort     `json:"relay"`
	Metrics string             `json:"metrics"`
	Config  string             `json:"config"`
	PID     int                `json:"pid"`
}

// readyWait is how long the three nodes may take to find each other.
const readyWait = 30 * time.Second

// Run makes the mesh's files, starts its processes, and ends them with itself.
func (c *demoCmd) Run(ctx context.Context) error {
	lock, err := lockDemo(c.Dir)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer lock.Close()
	mesh, err := prepareDemo(c.Dir, c.Net)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	var up atomic.Bool
	var left atomic.Int32
	left.Store(int32(len(mesh.Nodes)))
	for i := range mesh.Nodes {
		p, err := startNode(ctx, self, &mesh.Nodes[i])
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		running.Go(func() {
			err := p.wait()
			rest := left.Add(-1)
			switch err := p.ended(err); {
			case ctx.Err() != nil: // the demo itself is ending
			case up.Load() && rest > 0: // the mesh lives without it; whoever killed it wants to see that
				fmt.Fprintf(os.Stderr, "%v\nThe other nodes go on.\n", err)
			default:
				cancel(err)
			}
		})
	}
	if err := waitReady(ctx, mesh); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause
		}
		return err
	}
	up.Store(true)
	rememberDemo(c.Dir)
	if c.JSON {
		if err := json.NewEncoder(os.Stdout).Encode(mesh); err != nil {
			return err
		}
	} else {
		mesh.tell(os.Stdout)
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// lockDemo makes sure that no other demo runs on the directory: it would get
// other certificates under its feet. The lock ends with the process.
func lockDemo(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "demo.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another demo runs in %s: stop it first, or give another --dir", dir)
	}
	return f, nil
}

// tell prints what a person does next.
func (m *demoReady) tell(w io.Writer) {
	fmt.Fprintf(w, "\nThe mesh is up. Open the page for\n\n")
	for _, n := range m.Nodes {
		fmt.Fprintf(w, "  an attendee in %-10s %s/?room=demo&from=%s\n", n.City+":", n.Plain, n.Address)
	}
	fmt.Fprintf(w, "\nor over TLS, after trusting %s:\n\n", m.CA)
	for _, n := range m.Nodes {
		fmt.Fprintf(w, "  %s (%s)  %s\n", n.Name, n.Country, n.Page)
	}
	fmt.Fprintf(w, "\nAPI key %s, secret %s\n", m.Key, m.Secret)
	fmt.Fprintf(w, "Try:  bin/domicile explain --room demo --ip %s\n      bin/domicile recordings list\n", m.Nodes[1].Address)
	fmt.Fprintf(w, "Logs are in %s/NODE/node.log. Ctrl-C stops everything.\n", m.Dir)
}

// process is one node of the demo.
type process struct {
	name residency.NodeName
	cmd  *exec.Cmd
	log  string
}

// startNode starts a node as a process of its own. It gets SIGTERM when ctx
// ends, and is killed if it does not go within ten seconds.
func startNode(ctx context.Context, self string, n *demoNode) (*process, error) {
	path := filepath.Join(filepath.Dir(n.Config), "node.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd := exec.CommandContext(ctx, self, "run", "--config", n.Config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	// A terminal's Ctrl-C reaches the demo alone, which then ends its nodes in
	// order; a demo that is killed takes them with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node %s: %w", n.Name, err)
	}
	n.PID = cmd.Process.Pid
	return &process{name: n.Name, cmd: cmd, log: path}, nil
}

func (p *process) wait() error { return p.cmd.Wait() }

// ended says how the node ended, with the end of its log.
func (p *process) ended(err error) error {
	if err == nil {
		err = errors.New("nobody asked it to")
	}
	return fmt.Errorf("demo: node %s ended: %w; its log ends:\n%s", p.name, err, p.tail())
}

// tail is the end of the node's log, for an error message.
func (p *process) tail() string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 2000 {
		f.Seek(-2000, io.SeekEnd) //nolint:errcheck // then more is shown
	}
	b, _ := io.ReadAll(bufio.NewReader(f))
	return string(b)
}

// waitReady waits until every node sees every other and has a link to it.
func waitReady(ctx context.Context, m *demoReady) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("demo: the nodes did not find each other within %s; see %s/NODE/node.log", readyWait, m.Dir))
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for _, n := range m.Nodes {
		for !n.joined(ctx, len(m.Nodes)) {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-poll.C:
			}
		}
	}
	return nil
}

// joined reports whether the node has links to all others.
func (n *demoNode) joined(ctx context.Context, nodes int) bool {
	var s node.NodeState
	if ask(ctx, filepath.Join(filepath.Dir(n.Config), "data"), "/state", url.Values{}, &s) != nil {
		return false
	}
	linked := 0
	for _, m := range s.Members {
		if m.Linked {
			linked++
		}
	}
	return linked == nodes
}

// rememberDemo lets commands without --dir find this demo.
func rememberDemo(dir string) {
	path := demoPointer()
	if path == "" {
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
		os.WriteFile(path, []byte(dir+"\n"), 0o600) //nolint:errcheck // a convenience
	}
}
