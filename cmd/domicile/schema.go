package main

import (
	"os"

	"github.com/domicile/domicile/configs"
)

type schemaCmd struct {
	File string `arg:"" enum:"policy,node,routing" help:"policy for policy.yaml, node for node.yaml, routing for routing.yaml."`
}

// Run prints the schema, for an editor that completes and checks the file.
func (c *schemaCmd) Run() error {
	b, err := configs.Schema(c.File)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}
