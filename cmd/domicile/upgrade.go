package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/sockets"
)

// checkWithin bounds how long a new version may take to say that it would start.
const checkWithin = 30 * time.Second

// upgrader lets the running node become the version of the program that lies where
// it was started from, on a signal: the process stays, and so do its listening
// sockets.
type upgrader struct {
	// Static after construction.
	program string // absolute; whatever lies there then
	config  string
	wait    time.Duration // for meetings to end
	signals chan os.Signal
	log     *slog.Logger

	due atomic.Bool // the node has stopped for an upgrade
}

// newUpgrader listens for the signal from now on: it would end the process.
func newUpgrader(config string, wait time.Duration) (*upgrader, error) {
	u := &upgrader{config: config, wait: wait, signals: make(chan os.Signal, 1), log: slog.New(slog.DiscardHandler)}
	if len(upgradeSignals) > 0 {
		signal.Notify(u.signals, upgradeSignals...)
	}
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	u.program, err = filepath.Abs(path)
	return u, err
}

// drainer is a node whose meetings can be waited for.
type drainer interface{ Drain(context.Context) }

// run waits for the signal, makes sure that the new version would start, waits for
// meetings to end, and stops the node.
func (u *upgrader) run(ctx context.Context, n drainer, stop func()) {
	defer signal.Stop(u.signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.signals:
		}
		if err := u.check(ctx); err != nil {
			u.log.Error("no upgrade: the new version would not start, this one goes on", "error", err)
			continue
		}
		u.drain(ctx, n)
		if ctx.Err() == nil {
			u.due.Store(true)
			stop()
		}
		return
	}
}

// check has the new version read the configuration.
func (u *upgrader) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, u.program, "check", "--config", u.config).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s check: %w: %s", u.program, err, bytes.TrimSpace(out))
	}
	return nil
}

// drain waits until nobody is here, for as long as is configured, or until the
// signal comes again.
func (u *upgrader) drain(ctx context.Context, n drainer) {
	ctx, cancel := context.WithTimeout(ctx, u.wait)
	defer cancel()
	u.log.Info("upgrade: the new version is well; waiting for meetings to end", "at_most", u.wait)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Drain(ctx)
	}()
	select {
	case <-ended:
	case <-u.signals:
		cancel()
		<-ended
	}
}

// become makes this process the new version, if that is what the node stopped for.
func (u *upgrader) become(set *sockets.Set) error {
	if !u.due.Load() {
		return nil
	}
	u.log.Info("upgrade: becoming the new version")
	if err := set.Exec(u.program, os.Args, os.Environ()); err != nil {
		return errors.Join(errors.New("upgrade"), err)
	}
	return nil
}
