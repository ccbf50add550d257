package node

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/domicile/domicile/router"
)

// Routing says by which rules attendees are placed among the permitted nodes.
type Routing struct {
	Rules *router.Rules                            // nil: router.DefaultRules
	File  string                                   // where they came from; empty: nowhere, and nothing is followed
	Load  func(path string) (*router.Rules, error) // reads File again, strictly
	// Parse reads rules that an operator asks about; name stands in errors.
	Parse func(name string, text []byte) (*router.Rules, error)
	// Strangers lists what rules name and the mesh does not have. It may be nil.
	Strangers func(*router.Rules) []string
}

// routing is what the node routes by. Rules are never changed, only exchanged.
type routing struct {
	rules   atomic.Pointer[router.Rules]
	problem atomic.Pointer[string] // why the file as it stands now does not count
	since   atomic.Int64           // when the rules were taken over, unix milliseconds; 0: at the start
}

// RoutingState is what an operator sees of the routing rules.
type RoutingState struct {
	File    string    `json:"file"`
	Since   time.Time `json:"since,omitzero"`    // when a changed file was taken over; absent: as at the start
	Problem string    `json:"problem,omitempty"` // why the file as it stands does not count; older rules go on
}

// routingState is nil where no file is configured.
func (n *Node) routingState() *RoutingState {
	if n.cfg.Routing.File == "" {
		return nil
	}
	s := &RoutingState{File: filepath.Base(n.cfg.Routing.File)}
	if ms := n.routing.since.Load(); ms != 0 {
		s.Since = time.UnixMilli(ms).UTC()
	}
	if p := n.routing.problem.Load(); p != nil {
		s.Problem = *p
	}
	return s
}

// followRouting takes the routing file over whenever it changes. A file that does
// not read changes nothing, and says so until it is mended.
func (n *Node) followRouting(ctx context.Context) error {
	c := n.cfg.Routing
	if c.File == "" || c.Load == nil {
		return nil
	}
	err := followFile(ctx, c.File, func() { n.readRouting() }, func(err error) { n.log.Warn("following the routing file", "error", err) })
	if err != nil {
		n.log.Warn("the routing file is not followed: a change takes a restart", "error", err)
	}
	return nil
}

func (n *Node) readRouting() {
	c := n.cfg.Routing
	rules, err := c.Load(c.File)
	if err != nil {
		why := err.Error()
		if old := n.routing.problem.Swap(&why); old == nil || *old != why {
			n.log.Error("the routing file does not count: the rules before it go on", "error", err)
		}
		return
	}
	n.routing.problem.Store(nil)
	if old := n.routing.rules.Swap(rules); old.Equal(rules) {
		return
	}
	n.routing.since.Store(time.Now().UnixMilli())
	n.log.Info("the routing file has changed and is in force")
	n.warnStrangers(rules)
}

// warnStrangers tells of names that stand for nobody.
func (n *Node) warnStrangers(r *router.Rules) {
	if n.cfg.Routing.Strangers == nil || r == nil {
		return
	}
	if names := n.cfg.Routing.Strangers(r); len(names) > 0 {
		n.log.Warn("the routing file names nodes that the register does not have", "names", names)
	}
}

// followFile calls read after the file has changed and then been left alone, and
// once at the beginning, until ctx ends.
func followFile(ctx context.Context, path string, read func(), warn func(error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(path)); err != nil { // files are replaced, directories stay
		return err
	}
	timer := time.NewTimer(settle) // it may have changed since the node was configured
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			// A link in the directory may lead to the file, as mounted secrets do.
			if e.Op&^fsnotify.Chmod != 0 {
				timer.Reset(settle)
			}
		case err := <-w.Errors:
			warn(err)
		case <-timer.C:
			read()
		}
	}
}
