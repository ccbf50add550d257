package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/domicile/domicile/bench/load/ways"
)

// step is one point of the curve of a scenario that scales: so many nodes, each
// with as many subscribers as the first one has alone.
type step struct {
	Nodes       int     `json:"nodes"`
	Subscribers int     `json:"subscribers"`
	NodeCPU     float64 `json:"node_cpu_us_per_packet"` // of all nodes together
	// Carries is how many times the subscribers of one node these nodes carry with
	// the CPU time that a subscriber takes of them: the number of nodes if nothing
	// is lost to copies between them.
	Carries    float64 `json:"carries"`
	Delivered  float64 `json:"delivered"` // the least of both times
	LatencyP50 float64 `json:"latency_p50_ms"`
	LatencyP99 float64 `json:"latency_p99_ms"` // the worse of both times
}

// scale measures each number of nodes twice, up and down again, so that the mean
// of each lies at the same time: the machine's speed drifts.
//
//	1 2 3 3 2 1
func (r *run) scale(ctx context.Context) (*result, error) {
	n := len(r.sys.urls)
	if len(r.sys.pids) != n {
		return nil, errors.New("nothing to compare: the nodes' processes are not known")
	}
	steps := make([]step, n)
	var out *result
	for i := range 2 * n {
		nodes := min(i+1, 2*n-i)
		got, err := r.over(nodes).once(ctx)
		if err != nil {
			return nil, fmt.Errorf("over %d nodes: %w", nodes, err)
		}
		steps[nodes-1].add(nodes, got)
		if nodes == n {
			out = got
		}
	}
	finish(steps)
	out.Scenario, out.Scale = r.scenario, steps
	return out, nil
}

// finish sets every step against the first.
func finish(steps []step) {
	one := steps[0].NodeCPU
	for i := range steps {
		s := &steps[i]
		s.Carries = round(float64(s.Nodes)*one/s.NodeCPU, 2)
		s.NodeCPU = round(s.NodeCPU, 2)
	}
}

// over is the run on the first nodes alone, each with its share of subscribers.
func (r *run) over(nodes int) *run {
	p := r.part(ways.Direct)
	sys := *r.sys
	sys.urls, sys.pids = sys.urls[:nodes], sys.pids[:nodes]
	p.sys, p.Subscribers = &sys, r.Subscribers*nodes
	p.log.Info("once more", "nodes", nodes, "subscribers", p.Subscribers)
	return p
}

// add takes one of the two measurements of a step.
func (s *step) add(nodes int, r *result) {
	if s.Nodes == 0 {
		s.Nodes, s.Subscribers, s.Delivered = nodes, r.Scenario.Subscribers, 1
	}
	s.NodeCPU += *r.NodeCPU / 2
	s.LatencyP50 = max(s.LatencyP50, r.LatencyP50)
	s.LatencyP99 = max(s.LatencyP99, r.LatencyP99)
	s.Delivered = min(s.Delivered, r.Delivered)
}
