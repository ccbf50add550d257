package main

import (
	"cmp"
	"context"
	"errors"
	"os/exec"

	"github.com/domicile/domicile/bench/load/ways"
	"github.com/domicile/domicile/node/room"
)

// comparison sets a way beside other ways of the same packets to the same
// subscribers, in microseconds of CPU time per packet received, in one run.
type comparison struct {
	// Direct is the node's without a way: each subscriber has a UDP socket.
	Direct float64 `json:"direct_us"`
	// OfDirect is the node's with the way, divided by Direct.
	OfDirect float64 `json:"of_direct"`
	// Relay is what the way adds: the node's with it, less Direct.
	Relay float64 `json:"relay_us"`
	// Coturn is coturn's own, where subscribers come through it and the node sends
	// to it directly; CoturnNode is the node's meanwhile. Null: not installed, or
	// nothing for it to do.
	Coturn     *float64 `json:"coturn_us"`
	CoturnNode *float64 `json:"node_behind_coturn_us"`
	// OfCoturn is Relay divided by Coturn.
	OfCoturn *float64 `json:"relay_of_coturn"`
	// Delivered is the least share of packets that came in any part.
	Delivered float64 `json:"delivered"`
}

// compare has the subscribers of a run that took the way join again: directly,
// through coturn, directly, and by the way once more. The machine's speed drifts,
// so that the middle of both kinds lies at the same time.
//
//	way  direct  coturn  direct  way
func (r *run) compare(ctx context.Context, first *result) (*result, error) {
	if first.NodeCPU == nil {
		return nil, errors.New("nothing to compare: the nodes' processes are not known")
	}
	c := &comparison{Delivered: first.Delivered}
	direct, err := r.again(ctx, c, ways.Direct)
	if err != nil {
		return nil, err
	}
	if err := r.throughCoturn(ctx, c); err != nil {
		return nil, err
	}
	later, err := r.again(ctx, c, ways.Direct)
	if err != nil {
		return nil, err
	}
	last, err := r.again(ctx, c, r.Way)
	if err != nil {
		return nil, err
	}
	way := (*first.NodeCPU + *last.NodeCPU) / 2
	c.Direct = (*direct.NodeCPU + *later.NodeCPU) / 2
	c.OfDirect, c.Relay = round(way/c.Direct, 3), round(way-c.Direct, 2)
	c.Direct = round(c.Direct, 2)
	if c.Coturn != nil {
		c.OfCoturn = rounded(c.Relay / *c.Coturn, 3)
	}
	first.NodeCPU, first.Way = rounded(way, 2), c
	return first, nil
}

// part is the same run anew, on the same nodes.
func (r *run) part(k ways.Kind) *run {
	return &run{scenario: r.scenario, sys: r.sys, room: room.NewID("load-"), sample: r.sample, feedback: r.feedback, log: r.log, way: k}
}

func (r *run) again(ctx context.Context, c *comparison, k ways.Kind) (*result, error) {
	r.log.Info("once more", "way", cmp.Or(k, "direct"))
	out, err := r.part(k).once(ctx)
	if err == nil {
		c.Delivered = min(c.Delivered, out.Delivered)
	}
	return out, err
}

// throughCoturn measures coturn, if it is there and does the like.
func (r *run) throughCoturn(ctx context.Context, c *comparison) error {
	if r.Way == ways.ICETCP {
		return nil
	}
	server, err := startCoturn(ctx)
	if errors.Is(err, exec.ErrNotFound) {
		r.log.Warn("coturn is not measured: it is not installed (scripts/deps bench)")
		return nil
	}
	if err != nil {
		return err
	}
	r.log.Info("once more", "way", r.Way, "through", "coturn")
	part := r.part(r.Way)
	part.turn, part.aside = &server.Server, server.pid
	out, err := part.once(ctx)
	if err := errors.Join(err, server.stop()); err != nil {
		return err
	}
	c.Delivered = min(c.Delivered, out.Delivered)
	packets := out.ForwardedPPS * out.Seconds
	c.Coturn, c.CoturnNode = rounded(float64(part.spent.Nanoseconds())/1e3/packets, 2), out.NodeCPU
	return nil
}
