package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/control"
)

// upgradable is one node in a process of its own, started by a path at which the
// test can put another version.
type upgradable struct {
	*demoReady
	node    demoNode
	program string
	process *os.Process
	lines   chan string // of the log
	seen    []string    // those of them that were read
}

func startUpgradable(t *testing.T, args ...string) *upgradable {
	t.Helper()
	u := newUpgradable(t)
	u.start(t, exec.Command(u.program, append([]string{"run", "--config", u.node.Config}, args...)...))
	return u
}

func newUpgradable(t *testing.T) *upgradable {
	t.Helper()
	mesh, err := prepareDemo(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	u := &upgradable{demoReady: mesh, node: mesh.Nodes[0], program: filepath.Join(t.TempDir(), "domicile"), lines: make(chan string, 1000)}
	u.install(t, "")
	return u
}

func (u *upgradable) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	// The command's name is all that testscript leaves of the path it was started by.
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(u.program)+":"+os.Getenv("PATH"))
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	u.process = cmd.Process
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			u.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		u.signal(t, syscall.SIGTERM)
		for done := false; !done; {
			select {
			case <-u.lines:
			case <-read:
				done = true
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the node ends with %v", err)
		}
	})
	u.await(t, "node is up")
}

// install puts a version where the node was started from: a script, or this one.
func (u *upgradable) install(t *testing.T, script string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	next := u.program + ".next"
	if script == "" {
		err = os.Symlink(self, next)
	} else {
		err = os.WriteFile(next, []byte("#!/bin/sh\n"+script+"\n"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, u.program); err != nil {
		t.Fatal(err)
	}
}

func (u *upgradable) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := u.process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// await reads the log up to a line with these words.
func (u *upgradable) await(t *testing.T, words string) string {
	t.Helper()
	end := time.NewTimer(60 * time.Second)
	defer end.Stop()
	for {
		select {
		case line := <-u.lines:
			u.seen = append(u.seen, line)
			if strings.Contains(line, words) {
				return line
			}
		case <-end.C:
			t.Fatalf("no %q in the log:\n%s", words, strings.Join(u.seen, "\n"))
		}
	}
}

func (u *upgradable) plain(t *testing.T) string {
	t.Helper()
	at, err := url.Parse(u.node.Plain)
	if err != nil {
		t.Fatal(err)
	}
	return at.Host
}

func (u *upgradable) meet(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := converse(ctx, u.plain(t), u.Key, u.Secret); err != nil {
		t.Error(err)
	}
}

// visitors load the page over TLS, one connection after the other, until told to stop.
type visitors struct {
	stop    chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex
	seen    map[string]int
	longest time.Duration
}

func visit(page string) *visitors {
	v := &visitors{stop: make(chan struct{}), seen: map[string]int{}}
	for range 4 {
		v.running.Go(func() {
			for {
				select {
				case <-v.stop:
					return
				default:
				}
				begin := time.Now()
				what := outcomeOf(load(page))
				v.mu.Lock()
				v.seen[what]++
				v.longest = max(v.longest, time.Since(begin))
				v.mu.Unlock()
			}
		})
	}
	return v
}

func load(page string) error {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(page)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func outcomeOf(err error) string {
	var op *net.OpError
	switch {
	case err == nil:
		return "served"
	case errors.As(err, &op) && op.Op == "dial":
		return "not connected: " + op.Err.Error()
	default:
		return "cut off" // was being served when the process ended
	}
}

func (v *visitors) end(t *testing.T) {
	t.Helper()
	close(v.stop)
	v.running.Wait()
	t.Logf("visitors: %v, the slowest waited %s", v.seen, v.longest)
	for what, n := range v.seen {
		if strings.HasPrefix(what, "not connected") {
			t.Errorf("%d visitors: %s", n, what)
		}
	}
	if v.seen["served"] == 0 {
		t.Error("nobody was served")
	}
}

// TestUpgradeKeepsListening while the node becomes another version of itself: the
// process stays, nobody is refused, and people meet before and after.
func TestUpgradeKeepsListening(t *testing.T) {
	u := startUpgradable(t)
	u.meet(t)
	v := visit(u.node.Page)
	for range 2 {
		u.signal(t, syscall.SIGUSR2)
		u.await(t, "becoming the new version")
		u.await(t, "node is up")
	}
	v.end(t)
	u.meet(t)
}

// TestUpgradeThatWouldNotStart changes nothing.
func TestUpgradeThatWouldNotStart(t *testing.T) {
	u := startUpgradable(t)
	u.install(t, `echo this version knows no such key >&2; exit 2`)
	v := visit(u.node.Page)
	u.signal(t, syscall.SIGUSR2)
	if line := u.await(t, "no upgrade"); !strings.Contains(line, "knows no such key") {
		t.Errorf("the log does not say why: %s", line)
	}
	u.meet(t)
	v.end(t)
	u.install(t, "")
	u.signal(t, syscall.SIGUSR2)
	u.await(t, "node is up")
}

// TestUpgradeWaitsForMeetings as long as it is told to.
func TestUpgradeWaitsForMeetings(t *testing.T) {
	u := startUpgradable(t, "--drain", "1h")
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	token, err := control.MintToken(u.Key, u.Secret, control.Grants{Identity: "stays",
		Video: &auth.VideoGrant{RoomJoin: true, Room: "r"}}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stays, err := client.Join(ctx, client.Config{URL: "ws://" + u.plain(t), Token: token, Audio: true})
	if err != nil {
		t.Fatal(err)
	}
	u.signal(t, syscall.SIGUSR2)
	u.await(t, "waiting for meetings to end")
	u.meet(t) // who comes meanwhile is served
	stays.Close()
	u.await(t, "becoming the new version")
	u.await(t, "node is up")
	u.signal(t, syscall.SIGUSR2)
	u.await(t, "node is up")
	if err := u.process.Signal(syscall.Signal(0)); err != nil {
		t.Error(fmt.Errorf("the process is not the one that was started: %w", err))
	}
}

// TestSocketsOfSystemd are what the node listens on, media too, before an upgrade
// and after; it says so if one has a name that means nothing to it.
func TestSocketsOfSystemd(t *testing.T) {
	u := newUpgradable(t)
	page, err := url.Parse(u.node.Page)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", page.Host)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", u.node.Media.String())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=https:media:htps; exec "$@"`,
		"sh", u.program, "run", "--config", u.node.Config)
	for _, s := range []interface{ File() (*os.File, error) }{tcp.(*net.TCPListener), udp.(*net.UDPConn), udp.(*net.UDPConn)} {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	u.start(t, cmd)
	if log := strings.Join(u.seen, "\n"); !strings.Contains(log, "does not ask for") || !strings.Contains(log, "htps") {
		t.Errorf("no word of the socket called htps:\n%s", log)
	}
	tcp.Close()
	udp.Close()
	for range 2 {
		u.meet(t)
		if err := load(u.node.Page); err != nil {
			t.Error(err)
		}
		u.signal(t, syscall.SIGUSR2)
		u.await(t, "node is up")
	}
}
