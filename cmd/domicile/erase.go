package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/domicile/domicile/node"
)

// subject says whose data a hold or an erasure is about.
type subject struct {
	Room        string `help:"A room, by its name."`
	Participant string `help:"A participant, by identity: of the room, of the tenant's rooms, or of all where there are no tenants."`
	Tenant      string `help:"A tenant: of its rooms, or all of it."`
	Reason      string `help:"A file number or the like, kept with it on every origin. No names."`
}

func (s subject) request() (node.OrderRequest, error) {
	q := node.OrderRequest{Tenant: s.Tenant, Room: s.Room, Participant: s.Participant, Reason: s.Reason}
	if s.Room == "" && s.Participant == "" && s.Tenant == "" {
		return q, usage("say what: --room, --participant, --tenant")
	}
	return q, nil
}

type eraseCmd struct {
	target
	subject
	Recording string        `help:"One recording (RE_…) alone, with its copies and what was made of it."`
	Yes       bool          `help:"Do not ask."`
	Wait      time.Duration `default:"60s" help:"How long to wait for the origins that are there."`
	JSON      bool          `name:"json" help:"Print JSON."`
}

// eraseLook is how often the command looks how far an erasure is.
const eraseLook = 250 * time.Millisecond

func (c *eraseCmd) request() (node.OrderRequest, error) {
	if c.Recording == "" {
		return c.subject.request()
	}
	if c.Room != "" || c.Participant != "" || c.Tenant != "" {
		return node.OrderRequest{}, usage("--recording is of its room already: name nothing else")
	}
	return node.OrderRequest{Recording: c.Recording, Reason: c.Reason}, nil
}

func (c *eraseCmd) words() string {
	if c.Recording != "" {
		return "recording " + c.Recording
	}
	return c.subject.words()
}

// Run erases, and waits until every origin that is there has.
func (c *eraseCmd) Run(ctx context.Context) error {
	q, err := c.request()
	if err != nil {
		return err
	}
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	if !c.Yes && !confirmed("Erase for good, on every origin: "+c.words()+"? Type yes: ") {
		return errors.New("nothing is erased")
	}
	began := time.Now()
	var r node.OrderReport
	if err := tell(ctx, dir, "/erase", q, &r); err != nil {
		return err
	}
	end := time.NewTimer(c.Wait)
	defer end.Stop()
	look := time.NewTicker(eraseLook)
	defer look.Stop()
	for pending(r) {
		select {
		case <-look.C:
		case <-end.C:
			return c.report(r, began, errors.New("not everything is erased yet; it goes on, ask again with --json or the nodes' logs"))
		case <-ctx.Done():
			return ctx.Err()
		}
		var list []node.OrderReport
		if err := ask(ctx, dir, "/erase", url.Values{"id": {r.ID}}, &list); err != nil {
			return err
		}
		r = list[0]
	}
	return c.report(r, began, nil)
}

// heldError says that a hold has kept something.
type heldError struct{}

func (heldError) Error() string {
	return "something stays because of a legal hold; it goes when the hold is lifted"
}

func (s subject) words() string {
	var parts []string
	for _, p := range []struct{ what, name string }{{"participant", s.Participant}, {"room", s.Room}, {"tenant", s.Tenant}} {
		if p.name != "" {
			parts = append(parts, fmt.Sprintf("%s %q", p.what, p.name))
		}
	}
	return strings.Join(parts, " of ")
}

func confirmed(question string) bool {
	fmt.Fprint(os.Stderr, question)
	var said string
	fmt.Scanln(&said) //nolint:errcheck // no answer is no
	return said == "yes"
}

func pending(r node.OrderReport) bool {
	for _, at := range r.Nodes {
		if at.State == node.OrderPending {
			return true
		}
	}
	return false
}

// report prints what came of an erasure; held is the error of exit code 3.
func (c *eraseCmd) report(r node.OrderReport, began time.Time, err error) error {
	if c.JSON {
		if e := printJSON(r); e != nil {
			return e
		}
	} else {
		fmt.Printf("erasure %s of %s, %s after it was ordered:\n", r.ID, c.words(), time.Since(began).Round(100*time.Millisecond))
		printNodes(r)
	}
	for _, at := range r.Nodes {
		if at.State == node.OrderHeld && err == nil {
			err = heldError{}
		}
	}
	return err
}

func printNodes(r node.OrderReport) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, at := range r.Nodes {
		text := at.State
		switch at.State {
		case node.OrderAway:
			text = "away: it erases when it is back"
		case node.OrderNotTold:
			text = "not told: it may keep nothing of the kind"
		case node.OrderHeld:
			text = fmt.Sprintf("held: %d stay under %s", at.Kept, strings.Join(at.Holds, ", "))
		}
		if at.Unreadable > 0 {
			text += fmt.Sprintf(", %d could not be read", at.Unreadable)
		}
		if at.Why != "" && at.State == node.OrderPending {
			text += ": " + at.Why
		}
		fmt.Fprintf(w, "  %s\t%s\t%d objects\t%d bytes\n", at.Node, text, at.Objects, at.Bytes)
	}
	w.Flush() //nolint:errcheck // the terminal is gone
}

type holdCmd struct {
	Set  holdSetCmd  `cmd:"" help:"Set a hold: nothing of it is erased, by time or by order, until the hold is lifted."`
	Lift holdLiftCmd `cmd:"" help:"Lift a hold. What would have gone meanwhile goes now."`
	List holdListCmd `cmd:"" help:"List holds; with a room, participant or tenant those that cover it."`
}

type holdSetCmd struct {
	target
	subject
}

// Run sets a hold.
func (c *holdSetCmd) Run(ctx context.Context) error {
	q, err := c.request()
	if err != nil {
		return err
	}
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	var r node.OrderReport
	if err := tell(ctx, dir, "/holds", q, &r); err != nil {
		return err
	}
	fmt.Printf("hold %s on %s\n", r.ID, c.words())
	printHolders(r)
	return nil
}

// printHolders says who knows of a hold, or of its end.
func printHolders(r node.OrderReport) {
	for _, at := range r.Nodes {
		switch at.State {
		case node.OrderDone:
			fmt.Printf("  %s knows\n", at.Node)
		case node.OrderAway:
			fmt.Printf("  %s is away, and hears of it when it is back\n", at.Node)
		case node.OrderNotTold:
			fmt.Printf("  %s is not told: it may keep nothing of the kind\n", at.Node)
		}
	}
}

type holdLiftCmd struct {
	target
	ID string `arg:"" help:"The hold, HO_…"`
}

// Run lifts a hold.
func (c *holdLiftCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	b, err := call(ctx, dir, http.MethodDelete, "/holds?"+url.Values{"id": {c.ID}}.Encode(), nil, maxAnswer)
	if err != nil {
		return err
	}
	var r node.OrderReport
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	fmt.Printf("hold %s is lifted\n", r.ID)
	printHolders(r)
	return nil
}

type holdListCmd struct {
	target
	subject
	All  bool `help:"Also those that were lifted."`
	JSON bool `name:"json" help:"Print JSON."`
}

// Run lists holds.
func (c *holdListCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	var list []node.OrderReport
	if err := ask(ctx, dir, "/holds", url.Values{"room": {c.Room}, "participant": {c.Participant}, "tenant": {c.Tenant}}, &list); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(list)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	shown := 0
	for _, r := range list {
		if r.Lifted != nil && !c.All {
			continue
		}
		if shown++; shown == 1 {
			fmt.Fprintln(w, "ID\tABOUT\tSET\tLIFTED\tREASON")
		}
		lifted := "-"
		if r.Lifted != nil {
			lifted = r.Lifted.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, r.About, r.Set.Local().Format(time.DateTime), lifted, r.Reason)
	}
	if shown == 0 {
		fmt.Fprintln(os.Stderr, "no holds")
	}
	return w.Flush()
}
