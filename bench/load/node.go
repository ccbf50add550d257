package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/domicile/domicile/internal/freeport"
)

// system is the nodes under load.
type system struct {
	urls        []string       // ws://
	pids        []int          // nil when somebody else started them
	media       netip.AddrPort // of the first node, if it was started here
	key, secret string
	stop        func() error
}

// startWait is how long nodes may take to come up.
const startWait = 60 * time.Second

// startDev starts bin as one node without a mesh, on free ports.
func startDev(ctx context.Context, bin string) (*system, error) {
	port, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	udp, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, "dev", "--port", strconv.Itoa(port), "--udp-port", strconv.Itoa(udp))
	cmd.Env = append(os.Environ(), "LIVEKIT_KEYS=devkey: secret")
	stop, stderr, err := start(cmd)
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := answers(ctx, "http://"+addr); err != nil {
		return nil, errors.Join(fmt.Errorf("node did not come up: %w; it said:\n%s", err, stderr), stop())
	}
	return &system{urls: []string{"ws://" + addr}, pids: []int{cmd.Process.Pid}, key: "devkey", secret: "secret", stop: stop}, nil
}

// start runs a command; stop interrupts it and waits for its end.
func start(cmd *exec.Cmd) (stop func() error, stderr *bytes.Buffer, err error) {
	stderr = &bytes.Buffer{}
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start nodes: %w", err)
	}
	return func() error {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("nodes ended: %w; they said:\n%s", err, stderr)
		}
		return nil
	}, stderr, nil
}

// answers waits until a node serves HTTP.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/node", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}

// startMesh starts bin's demo, three nodes on loopback addresses.
func startMesh(bin string) (*system, error) {
	dir, err := os.MkdirTemp("", "domicile-bench-")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, "demo", "--dir", dir, "--json")
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+dir) // a demo of the user's is not forgotten
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	end, stderr, err := start(cmd)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop := func() error { return errors.Join(end(), os.RemoveAll(dir)) }
	s, err := readMesh(out)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("demo did not come up: %w; it said:\n%s", err, stderr), stop())
	}
	s.stop = stop
	return s, nil
}

// readMesh reads the line that demo --json prints.
func readMesh(r io.Reader) (*system, error) {
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var ready struct {
		Nodes []struct {
			Plain string `json:"plain"`
			PID   int    `json:"pid"`
			Media netip.AddrPort
		} `json:"nodes"`
		Key    string `json:"api_key"`
		Secret string `json:"api_secret"`
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		return nil, err
	}
	if len(ready.Nodes) == 0 {
		return nil, errors.New("it tells of no nodes")
	}
	s := &system{media: ready.Nodes[0].Media, key: ready.Key, secret: ready.Secret}
	for _, n := range ready.Nodes {
		s.urls = append(s.urls, strings.Replace(n.Plain, "http", "ws", 1))
		s.pids = append(s.pids, n.PID)
	}
	return s, nil
}
