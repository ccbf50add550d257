// Command load puts attendees into meetings and measures what that costs the
// nodes: CPU per forwarded packet, memory per subscriber, latency, loss, and the
// time from a join to the first media. It prints one JSON object a run.
//
//	go run ./bench/load --scenario 1x100          starts bin/domicile by itself
//	go run ./bench/load --scenario all --record   writes bench/results too
//	go run ./bench/load --publishers 2 --subscribers 50 --audio
//	go run ./bench/load --nodes ws://10.0.0.1:7880 --key K --secret S --pids 4711
//
// Generator and nodes share the machine, so a run that leaves the CPUs no idle
// time measures the scheduler: generator_cores, node_cores and
// other_processes_cores in the result say how much was left.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/domicile/domicile/bench/load/ways"
	"github.com/domicile/domicile/bench/machine"
	"github.com/domicile/domicile/node/room"
)

func main() {
	// The generator shares the machine with what it measures: its memory is cheaper
	// than its collector's time.
	debug.SetGCPercent(400)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := load(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "load:", err)
		}
		os.Exit(2)
	}
}

// options are the command line.
type options struct {
	scenario    string
	custom      scenario
	nodes, pids string
	key, secret string
	bin         string
	record      bool
	results     string
	floor       bool
	sample      uint
	feedback    bool
	quiet       bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.scenario, "scenario", "", "a scenario of make bench, all of them (all), one with more subscribers or all of those (all-large); empty: as the flags below say")
	f.IntVar(&o.custom.Publishers, "publishers", 1, "attendees that publish")
	f.IntVar(&o.custom.Subscribers, "subscribers", 10, "attendees that only receive")
	f.BoolVar(&o.custom.Meet, "meet", false, "publishers receive too")
	f.BoolVar(&o.custom.Video, "video", true, "publish video, 180 packets/s of 1150 bytes")
	f.BoolVar(&o.custom.Audio, "audio", false, "publish audio, 50 packets/s of 92 bytes")
	f.StringVar((*string)(&o.custom.Way), "way", "", "how subscribers receive: turn-udp, turn-tcp, turn-tls, ice-tcp; empty: each at a socket")
	f.IntVar(&o.custom.Idle, "idle", 0, "no media: so many TURN allocations over TLS that do nothing, then as many as the node takes")
	f.BoolVar(&o.custom.Mesh, "mesh", false, "start the demo's three nodes instead of one")
	f.IntVar(&o.custom.Rooms, "rooms", 0, "over which attendees are spread evenly; 0: one")
	f.BoolVar(&o.custom.Recorded, "recorded", false, "publish video of 2 Mbit/s and set a recording of it beside none")
	f.IntVar(&o.custom.Alone, "alone", 0, "so many join one after the other, and leave, before the others come")
	f.DurationVar(&o.custom.Duration, "duration", 0, "how long is measured (15s unless the scenario says otherwise)")
	f.DurationVar(&o.custom.Warmup, "warmup", 0, "between the last join and the measurement (5s)")
	f.DurationVar(&o.custom.Arrivals, "arrivals", 0, "attendees join spread over this time (5s); 1ns: all at once")
	f.StringVar(&o.nodes, "nodes", "", "ws:// URLs of running nodes, separated by commas; empty: start some")
	f.StringVar(&o.pids, "pids", "", "process ids of these nodes, separated by commas, where CPU and memory are wanted")
	f.StringVar(&o.key, "key", "devkey", "API key of the nodes")
	f.StringVar(&o.secret, "secret", "secret", "its secret")
	f.StringVar(&o.bin, "bin", "bin/domicile", "program to start nodes with")
	f.BoolVar(&o.record, "record", false, "write the results to files")
	f.StringVar(&o.results, "results", "bench/results", "directory for --record")
	f.BoolVar(&o.floor, "floor", true, "measure the floor after each run")
	f.UintVar(&o.sample, "sample", 0, "received packets to one that is decrypted and timed; 0: as many as makes 2000 a second")
	f.BoolVar(&o.feedback, "feedback", true, "subscribers give transport-wide feedback every 100 ms, as browsers do")
	f.BoolVar(&o.quiet, "quiet", false, "say nothing meanwhile")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.sample > maxSample:
		return nil, fmt.Errorf("--sample %d: want 1 to %d, or 0", o.sample, maxSample)
	case o.nodes != "" && o.custom.Mesh:
		return nil, errors.New("--mesh starts nodes and --nodes names running ones: want one of them")
	}
	return o, nil
}

// chosen returns the scenarios to run, with the times of the flags.
func (o *options) chosen() (list []scenario, err error) {
	if o.scenario == "" {
		s := o.custom
		s.Name = fmt.Sprintf("%dx%d", s.Publishers, s.Subscribers)
		list = []scenario{s}
	} else if list, err = findScenarios(o.scenario); err != nil {
		return nil, err
	}
	for i := range list {
		list[i] = list[i].timed(o.custom)
		if err := list[i].check(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func load(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	list, err := o.chosen()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if o.quiet {
		log = slog.New(slog.DiscardHandler)
	}
	for _, s := range list {
		if err := o.one(ctx, s, stdout, log.With("scenario", s.Name)); err != nil {
			return fmt.Errorf("scenario %s: %w", s.Name, err)
		}
	}
	return nil
}

// one runs a scenario on nodes of its own and prints its result.
func (o *options) one(ctx context.Context, s scenario, stdout io.Writer, log *slog.Logger) (err error) {
	sys, err := o.system(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.stop()) }()
	r := &run{scenario: s, sys: sys, room: room.NewID("load-"), sample: cmp.Or(uint16(o.sample), s.sample()), feedback: o.feedback, log: log, way: s.Way}
	out, err := r.measure(ctx, o.floor)
	if err != nil {
		return err
	}
	out.Machine = machine.Describe(time.Now(), "go run ./bench/load "+strings.Join(os.Args[1:], " "))
	if err := json.NewEncoder(stdout).Encode(out); err != nil {
		return err
	}
	if !o.record {
		return nil
	}
	path, err := record(o.results, out)
	if err != nil {
		return err
	}
	log.Info("recorded", "file", path)
	return writeTable(o.results)
}

// system starts nodes, or takes the running ones of the flags.
func (o *options) system(ctx context.Context, s scenario) (*system, error) {
	switch {
	case o.nodes == "" && s.Mesh:
		return startMesh(o.bin)
	case o.nodes == "" && (s.Way != ways.Direct || s.Idle > 0):
		sys, err := startMesh(o.bin) // its nodes speak TLS; the two others idle
		if err == nil {
			sys.urls, sys.pids = sys.urls[:1], sys.pids[:1]
		}
		return sys, err
	case o.nodes == "":
		return startDev(ctx, o.bin)
	}
	sys := &system{urls: strings.Split(o.nodes, ","), key: o.key, secret: o.secret, stop: func() error { return nil }}
	for field := range strings.SplitSeq(o.pids, ",") {
		if field == "" {
			continue
		}
		pid, err := strconv.Atoi(field)
		if err != nil || pid < 1 {
			return nil, fmt.Errorf("--pids %q: want process ids", o.pids)
		}
		sys.pids = append(sys.pids, pid)
	}
	return sys, nil
}
