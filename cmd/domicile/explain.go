package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/domicile/domicile/node"
)

// exitRefused is the exit code of an explanation that ends with no: nobody may
// serve the attendee, the node may not have the class, the room may not be told of
// here. That the question could not be answered is exitFailed.
const exitRefused = 3

// refusedError says so; why has been printed.
type refusedError struct{}

func (refusedError) Error() string { return "the answer is no" }

type explainCmd struct {
	target
	Room        string `required:"" help:"The room's name. Alone: where it lives, what goes where, what is kept, who may not and why."`
	Participant string `help:"The identity of somebody in the room, or of somebody who was refused lately." placeholder:"IDENTITY" xor:"what"`
	IP          string `name:"ip" help:"The address of an attendee who is not there yet: which node would serve them." xor:"what"`
	Country     string `help:"The same for somebody of whom only the country is known." placeholder:"CODE" xor:"what"`
	May         string `help:"May this node get or keep the room's data? Without it --class is asked of all nodes." placeholder:"NODE"`
	Class       string `help:"Which data: a class such as media, or relay (what passes through a node), or storage (what an origin keeps)."`
	Policy      string `help:"The policy of a room that does not exist yet. Default: its tenant's, or the mesh's."`
	Tenant      string `help:"The tenant of a room that does not exist yet, or that this node does not know."`
	JSON        bool   `name:"json" help:"Print JSON."`
}

// Run prints the node's answer.
func (c *explainCmd) Run(ctx context.Context) error {
	if (c.May != "" || c.Class != "") && (c.IP != "" || c.Country != "" || c.Participant != "") {
		return usage("--may and --class ask about nodes, --ip, --country and --participant about people: one at a time")
	}
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	var answer json.RawMessage
	query := url.Values{"room": {c.Room}, "participant": {c.Participant}, "ip": {c.IP}, "country": {c.Country},
		"node": {c.May}, "class": {c.Class}, "policy": {c.Policy}, "tenant": {c.Tenant}}
	if err := ask(ctx, dir, "/explain", query, &answer); err != nil {
		return err
	}
	var x node.Explained
	if err := json.Unmarshal(answer, &x); err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(answer)
	} else {
		fmt.Print(x.Text)
	}
	if err == nil && x.Refused {
		err = refusedError{}
	}
	return err
}
