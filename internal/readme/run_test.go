package readme

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/freeport"
)

// patience bounds each program; all of them take a few seconds.
const patience = 2 * time.Minute

// built is the program under test.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "domicile-readme-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		keepGoCache()
		// So that the developer's own demo is not forgotten by these.
		os.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
		built = filepath.Join(dir, "domicile")
		if out, err := exec.Command("go", "build", "-o", built, root+"/cmd/domicile").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "readme: building: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// keepGoCache pins the build cache, which would move with XDG_CACHE_HOME.
func keepGoCache() {
	if out, err := exec.Command("go", "env", "GOCACHE").Output(); err == nil {
		os.Setenv("GOCACHE", strings.TrimSpace(string(out)))
	}
}

// workplace is an empty directory with bin/domicile in it.
func workplace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(built, filepath.Join(dir, "bin", "domicile")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// transcribe runs a transcript in dir and compares what it shows. edit adapts
// the page's text to this run.
func transcribe(t *testing.T, dir string, b block, edit *strings.Replacer) {
	t.Helper()
	for _, c := range b.commands(t) {
		line, want := edit.Replace(c.line), edit.Replace(c.output)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, "bash", "-c", line)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s: %s: %v\n%s", b, line, err, out)
		}
		if !shows(want, string(out)) {
			t.Errorf("%s: %s\nprints:\n%s\nthe page says:\n%s", b, line, out, want)
		}
	}
}

// program is a running command of ours.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of standard output
	log   strings.Builder
}

// start runs bin/domicile in dir; it is stopped at the end of the test, and
// must then end well.
func start(t *testing.T, dir string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command("bin/domicile", args...), lines: make(chan string, 256)}
	p.cmd.Dir, p.cmd.Stderr = dir, &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
		defer kill.Stop()
		p.cmd.Process.Signal(syscall.SIGINT)
		<-read
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("domicile %s: %v\n%s", strings.Join(args, " "), err, &p.log)
		}
	})
	return p
}

// until returns what the program prints, up to a line that begins with last.
func (p *program) until(last string) string {
	p.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	text := ""
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the program ended; it printed:\n%s", text)
			}
			text += line + "\n"
			if strings.HasPrefix(line, last) {
				return text
			}
		case <-late.C:
			p.t.Fatalf("the program printed no line %q within %s, but:\n%s", last, patience, text)
		}
	}
}

// freePort is a port that nobody has, of TCP or UDP.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
