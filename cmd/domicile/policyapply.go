package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
)

// exitLive is the exit code of a plan that would stop something live: scripts ask
// before they go on.
const exitLive = 3

// liveError says so; the plan has been printed.
type liveError struct{}

func (liveError) Error() string {
	return "something that is live now would stop; policy apply asks before it does that"
}

// signedFile is a policy file with its signature, as the node's socket takes it.
type signedFile struct {
	Policy    []byte `json:"policy"`
	Signature []byte `json:"signature"`
}

// readSignedFile reads a policy file, and says what is wrong with it before any node is asked.
func readSignedFile(path string) (signedFile, error) {
	if _, err := configs.LoadPolicy(path); err != nil {
		return signedFile{}, err
	}
	s, err := bundles.ReadSigned(path)
	if err != nil {
		return signedFile{}, fmt.Errorf("%w (sign the file with: domicile policy sign)", err)
	}
	return signedFile{Policy: s.Policy, Signature: s.Signature}, nil
}

// plan asks the node what a policy file would change.
func (t target) plan(ctx context.Context, path string) (dir string, file signedFile, plan node.PolicyPlan, err error) {
	if dir, err = t.dataDir(); err != nil {
		return
	}
	if file, err = readSignedFile(path); err != nil {
		return
	}
	err = tell(ctx, dir, "/policy/plan", file, &plan)
	return
}

type policyPlanCmd struct {
	target
	File string `arg:"" type:"path" help:"The policy file; FILE.sig lies beside it."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Run prints what the file would change.
func (c *policyPlanCmd) Run(ctx context.Context) error {
	_, _, plan, err := c.plan(ctx, c.File)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(plan)
	} else {
		fmt.Print(plan.Text)
	}
	if err == nil && plan.Live {
		err = liveError{}
	}
	return err
}

type policyApplyCmd struct {
	target
	File string        `arg:"" type:"path" help:"The policy file; FILE.sig lies beside it."`
	Yes  bool          `help:"Do not ask."`
	Wait time.Duration `default:"10s" help:"How long to wait for all nodes of the mesh."`
}

// Run shows the plan, asks, applies, and waits for the mesh.
func (c *policyApplyCmd) Run(ctx context.Context) error {
	dir, file, plan, err := c.plan(ctx, c.File)
	if err != nil {
		return err
	}
	fmt.Print(plan.Text)
	if !c.Yes && !agrees() {
		return fmt.Errorf("nothing was changed")
	}
	var state node.PolicyState
	if err := tell(ctx, dir, "/policy/apply", file, &state); err != nil {
		return err
	}
	return c.follow(ctx, dir, plan.To)
}

// agrees asks on the terminal. Whatever is not a clear yes is a no.
func agrees() bool {
	fmt.Print("\nApply this on every node? [y/N] ")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err == nil && slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(line)))
}

// follow tells of each node when it decides by the epoch, and of those that do not in the end.
func (c *policyApplyCmd) follow(ctx context.Context, dir string, epoch residency.Epoch) error {
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	told := map[residency.NodeName]bool{}
	for {
		var s node.NodeState
		if err := ask(ctx, dir, "/state", nil, &s); err != nil && ctx.Err() == nil {
			return err
		}
		var late []string
		for _, m := range s.Members {
			switch {
			case told[m.Name]:
			case m.Epoch >= epoch:
				told[m.Name] = true
				fmt.Printf("node %s decides by epoch %d\n", m.Name, m.Epoch)
			default:
				late = append(late, fmt.Sprintf("%s has epoch %d", m.Name, m.Epoch))
			}
		}
		if len(s.Members) > 0 && len(late) == 0 {
			fmt.Printf("all %d nodes decide by epoch %d\n", len(s.Members), epoch)
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("not every node has followed within %s: %s; nothing is relayed to them until they do", c.Wait, strings.Join(late, ", "))
		}
	}
}
