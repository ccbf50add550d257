package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/bench/load/ways"
)

// allocations is what TURN over TLS costs a node before any media.
type allocations struct {
	Idle      int     `json:"idle"`                   // held at once, each with a channel
	KB        float64 `json:"kb_per_idle"`            // growth of the node's resident memory, in kB of 10³ bytes
	Opened    int     `json:"opened"`                 // one after the other by each of some clients, and closed
	Failed    int     `json:"failed"`                 // of both
	PerSecond float64 `json:"opened_per_second"`      // with the machine's other core busy being the clients
	PerCore   float64 `json:"per_second_and_core"`    // Opened, divided by the CPU time that the node spent on them
	CPU       float64 `json:"node_cpu_us_allocation"` // a whole life: TCP, full TLS handshake, Allocate twice, ChannelBind, close
}

const (
	// perParticipant stays below a participant's quota of 12.
	perParticipant = 10
	// opening clients are as many as keep a node's core busy.
	opening = 4
	// memorySettles is how long the node has to finish what opening left to do.
	memorySettles = 3 * time.Second
)

// allocate has attendees join, who hold allocations over TLS and do nothing, and
// then open and close some more as fast as the node lets them. Each comes from an
// address of its own, as attendees do.
func (r *run) allocate(ctx context.Context) (*result, error) {
	out := &result{Scenario: r.scenario, Nodes: len(r.sys.urls), Allocations: &allocations{Idle: r.Idle}}
	if len(r.sys.pids) == 0 || !r.sys.media.IsValid() {
		return nil, errors.New("allocations are measured on nodes of our own")
	}
	defer r.leave()
	r.join(ctx, 0, (r.Idle+perParticipant-1)/perParticipant, false, false)
	if r.failed > 0 {
		return nil, fmt.Errorf("%d attendees could not join", r.failed)
	}
	out.Joined = len(r.attendees)
	if err := r.hold(ctx, out.Allocations); err != nil {
		return nil, err
	}
	return out, r.churn(ctx, out.Allocations)
}

// open makes one allocation of an attendee.
func (r *run) open(ctx context.Context, attendee int) (*ways.Conn, error) {
	servers := r.attendees[attendee].Servers()
	for _, s := range servers {
		if at, ok := s.At(ways.TURNTLS); ok {
			from := netip.AddrFrom4([4]byte{127, 88, byte(attendee >> 8), byte(attendee)}).Next()
			return ways.Open(ctx, ways.Config{Kind: ways.TURNTLS, At: at, User: s.User, Password: s.Password, Peer: r.sys.media, From: from})
		}
	}
	return nil, fmt.Errorf("the node tells of no TURN over TLS: %v", servers)
}

func (r *run) hold(ctx context.Context, a *allocations) error {
	pause(ctx, memorySettles)
	before, err := residentBytes(r.sys.pids)
	if err != nil {
		return err
	}
	held := make([]*ways.Conn, a.Idle)
	defer func() {
		for _, c := range held {
			if c != nil {
				c.Close()
			}
		}
	}()
	var failed atomic.Int64
	var all sync.WaitGroup
	for worker := range opening {
		all.Go(func() {
			for i := worker; i < len(held); i += opening {
				var err error
				if held[i], err = r.open(ctx, i/perParticipant); err != nil {
					failed.Add(1)
					r.log.Warn("no allocation", "err", err)
				}
			}
		})
	}
	all.Wait()
	a.Failed += int(failed.Load())
	pause(ctx, memorySettles)
	after, err := residentBytes(r.sys.pids)
	a.KB = round(float64(after-before)/1e3/float64(max(a.Idle-a.Failed, 1)), 1)
	return err
}

func (r *run) churn(ctx context.Context, a *allocations) error {
	pause(ctx, settle)
	before, err := readUsage(r.sys.pids)
	if err != nil {
		return err
	}
	var opened, failed atomic.Int64
	var all sync.WaitGroup
	for worker := range opening {
		all.Go(func() {
			for i := worker; time.Since(before.at) < r.Duration && ctx.Err() == nil; i += opening {
				c, err := r.open(ctx, i%len(r.attendees))
				if err != nil {
					failed.Add(1)
					continue
				}
				opened.Add(1)
				c.Close()
			}
		})
	}
	all.Wait()
	after, err := readUsage(r.sys.pids)
	if err != nil {
		return err
	}
	u, n := after.since(before), float64(opened.Load())
	a.Opened, a.Failed = int(n), a.Failed+int(failed.Load())
	a.PerSecond = round(n/after.at.Sub(before.at).Seconds(), 0)
	a.PerCore, a.CPU = round(n/u.nodes.Seconds(), 0), round(float64(u.nodes.Microseconds())/max(n, 1), 1)
	return nil
}
