// Command domicile is one node of a Domicile mesh, and the tools of those who
// run it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/domicile/domicile/configs"
)

// version is set by the build.
var version = "dev"

// cli is every command. The help texts are the manual page.
type cli struct {
	Run        runCmd        `cmd:"" help:"Run a node in production."`
	Demo       demoCmd       `cmd:"" help:"Run a demo mesh of three nodes on this machine: Frankfurt, Warsaw, New York."`
	Dev        devCmd        `cmd:"" help:"Run one node without a mesh, for people who write clients."`
	Check      checkCmd      `cmd:"" help:"Check a node's configuration and start nothing; or, from elsewhere, which ways in to a running node work."`
	Explain    explainCmd    `cmd:"" help:"Explain a room: which node serves whom, what goes and lies where, who may not, and why. Exit code 3: the answer is no."`
	State      stateCmd      `cmd:"" help:"Show a running node's mesh, links and rooms."`
	Drain      drainCmd      `cmd:"" help:"Empty a running node: it takes nobody any more, and who is there goes on at other nodes. Exit code 0: nobody is left."`
	Register   registerCmd   `cmd:"" help:"Print the register of processors: who runs which node in which country, and what it may do with which data."`
	Recordings recordingsCmd `cmd:"" help:"List, check and export recordings."`
	Export     exportCmd     `cmd:"" help:"Have a running node put a recording, records, or all of a room or tenant into a file."`
	Backup     backupCmd     `cmd:"" help:"Write what a running origin needs to come back into an archive, and check that: rooms, evidence, policies."`
	Erase      eraseCmd      `cmd:"" help:"Erase all of a room, a participant or a tenant, on every origin. Exit code 3: something is under legal hold."`
	Hold       holdCmd       `cmd:"" help:"Legal holds: what nobody may erase until they are lifted."`
	Evidence   evidenceCmd   `cmd:"" help:"Evidence of where a room's data was: export it, check it, report on it."`
	CA         caCmd         `cmd:"" name:"ca" help:"The operator's certificate authority: create it, issue certificates."`
	Policy     policyCmd     `cmd:"" help:"Residency policies: list the built-in profiles, check and sign a policy file."`
	Routing    routingCmd    `cmd:"" help:"Rules by which attendees are placed among the permitted nodes: show what a file would change."`
	Schema     schemaCmd     `cmd:"" help:"Print the JSON Schema of policy.yaml, node.yaml or routing.yaml, for editors."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// Exit codes beside 0: 1 is an error at work, 2 one in what the user wrote.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("domicile"), kong.UsageOnError(),
		kong.Description("An edge-distributed SFU mesh that knows where your media may live."),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Exit(func(code int) { os.Exit(code) }))
	if err != nil {
		panic(err) // the struct above is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "domicile: %v\nSee: domicile --help\n", err)
		return exitUsage
	}
	if err := k.Run(); err != nil {
		var said silent
		if errors.As(err, &said) {
			return int(said)
		}
		fmt.Fprintf(os.Stderr, "domicile: %v\n", err)
		return exitCode(err)
	}
	return 0
}

// exitCode is 2 for faults in what the user wrote, files or arguments.
func exitCode(err error) int {
	var faults configs.Faults
	var usage usageError
	if errors.As(err, &faults) || errors.As(err, &usage) {
		return exitUsage
	}
	if errors.As(err, &liveError{}) {
		return exitLive
	}
	if errors.As(err, &unservedError{}) {
		return exitRefused
	}
	if errors.As(err, &heldError{}) {
		return exitRefused
	}
	if errors.As(err, &refusedError{}) {
		return exitRefused
	}
	return exitFailed
}

// usageError is a fault in an argument or environment variable.
type usageError struct{ error }

func usage(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	fmt.Println("domicile", version)
	return nil
}
