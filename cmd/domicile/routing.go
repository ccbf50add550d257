package main

import (
	"context"
	"fmt"
	"os"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node"
)

type routingCmd struct {
	Plan routingPlanCmd `cmd:"" help:"Show what a routing file would change for those who are in live rooms now. It changes nothing. Exit code 3: somebody would be refused."`
}

type routingPlanCmd struct {
	target
	File string `arg:"" type:"path" help:"The routing file."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Run asks the node, which asks the others.
func (c *routingPlanCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	if _, err := configs.LoadRouting(c.File); err != nil {
		return err
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	var plan node.RoutingPlan
	if err := tell(ctx, dir, "/routing/plan", map[string][]byte{"rules": text}, &plan); err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(plan)
	} else {
		fmt.Print(plan.Text)
	}
	if err == nil && plan.Refused > 0 {
		err = unservedError{}
	}
	return err
}

// unservedError says that the rules would leave somebody without a node; the plan
// has been printed.
type unservedError struct{}

func (unservedError) Error() string { return "somebody who is in a live room now would be refused" }
