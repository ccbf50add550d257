package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/node"
)

// drainLook is how often the command looks how far a drain has come, and drainSay how
// often it says so while nothing changes.
const (
	drainLook = 250 * time.Millisecond
	drainSay  = 10 * time.Second
)

type drainCmd struct {
	target
	Deadline time.Duration `default:"10m" help:"How long it may take. Who is still here then stays, and the command fails."`
	Cancel   bool          `help:"Cancel a drain: the node takes attendees again. Ctrl-C does the same."`
	Quiet    bool          `help:"Print nothing but the end."`
}

// Run empties a node, and says how far it is.
func (c *drainCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	if c.Cancel {
		if _, err := drainCall(ctx, dir, http.MethodDelete, ""); err != nil {
			return err
		}
		fmt.Println("the node takes attendees again")
		return nil
	}
	if c.Deadline <= 0 {
		return usage("--deadline: want a time such as 10m")
	}
	if _, err := drainCall(ctx, dir, http.MethodPost, "?"+url.Values{"deadline": {c.Deadline.String()}}.Encode()); err != nil {
		return err
	}
	return c.follow(ctx, dir)
}

// follow prints the progress until nobody is left, the deadline passes or ctx ends.
func (c *drainCmd) follow(ctx context.Context, dir string) error {
	look := time.NewTicker(drainLook)
	defer look.Stop()
	var said string
	var at time.Time
	for {
		s, err := drainCall(ctx, dir, http.MethodGet, "")
		switch {
		case ctx.Err() != nil:
			return c.interrupted(ctx, dir)
		case err != nil:
			return err
		case !s.Draining:
			return errors.New("the drain was cancelled: the node takes attendees again")
		case s.Empty:
			fmt.Printf("the node is empty: %d went to other nodes in %s\n", s.Gone, time.Since(s.Began).Round(time.Second))
			return nil
		case s.Late:
			return fmt.Errorf("the deadline has passed: %s; the node takes nobody, end that with --cancel", progressText(s))
		}
		if text := progressText(s); !c.Quiet && (text != said || time.Since(at) > drainSay) {
			fmt.Println(text)
			said, at = text, time.Now()
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return c.interrupted(ctx, dir)
		}
	}
}

// interrupted cancels the drain after Ctrl-C.
func (c *drainCmd) interrupted(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := drainCall(ctx, dir, http.MethodDelete, ""); err != nil {
		return fmt.Errorf("interrupted, and the drain could not be cancelled: %w", err)
	}
	return errors.New("interrupted: the drain is cancelled, the node takes attendees again")
}

func drainCall(ctx context.Context, dir, method, query string) (s node.DrainState, err error) {
	b, err := call(ctx, dir, method, "/drain"+query, nil, maxAnswer)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// progressText says how far a drain has come: counts, never names.
func progressText(s node.DrainState) string {
	parts := []string{fmt.Sprintf("%d left in %d rooms, %d gone", s.Left, len(s.Rooms), s.Gone)}
	if s.Seconds > 0 {
		parts = append(parts, fmt.Sprintf("about %d s more", s.Seconds))
	}
	if s.WHIP > 0 {
		parts = append(parts, fmt.Sprintf("%d sessions of WHIP and WHEP", s.WHIP))
	}
	for _, rule := range slices.Sorted(maps.Keys(s.Refused)) {
		parts = append(parts, fmt.Sprintf("%d may go nowhere else (%s)", s.Refused[rule], rule))
	}
	if s.Stuck > 0 {
		parts = append(parts, fmt.Sprintf("%d come back to this node whatever they are told", s.Stuck))
	}
	return strings.Join(parts, ", ")
}
