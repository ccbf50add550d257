package certs

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Exec is a DNS that runs a program of the operator's:
//
//	PROGRAM present _acme-challenge.meet.example.org VALUE
//	PROGRAM remove  _acme-challenge.meet.example.org VALUE
//
// No shell is involved. The program returns 0 when the record can be seen by
// the public, or is gone; what it prints is shown when it fails. It has the
// node's environment and user.
type Exec struct {
	Path string // of the program, absolute

	// Limit is how long the program may take. Default 5 minutes: records of some
	// providers take minutes until they can be seen.
	Limit time.Duration
}

const (
	defaultLimit = 5 * time.Minute

	// maxOutput bounds what is kept of what the program prints, in bytes.
	maxOutput = 1 << 10
)

// Present implements DNS.
func (e Exec) Present(ctx context.Context, name, value string) error {
	return e.run(ctx, "present", name, value)
}

// Remove implements DNS.
func (e Exec) Remove(ctx context.Context, name, value string) error {
	return e.run(ctx, "remove", name, value)
}

func (e Exec) run(ctx context.Context, what, name, value string) error {
	limit := e.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out clipped
	cmd := exec.CommandContext(ctx, e.Path, what, name, value)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what the program starts ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s %s: %w: %s", e.Path, what, name, err, out.text())
	}
	return nil
}

// clipped keeps the beginning of what is written to it.
type clipped struct{ kept []byte }

func (c *clipped) Write(b []byte) (int, error) {
	c.kept = append(c.kept, b[:min(len(b), maxOutput-len(c.kept))]...)
	return len(b), nil
}

// text is the output in one line that can be logged.
func (c *clipped) text() string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(c.kept), "?")), " ")
}
