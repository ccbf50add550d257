package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/domicile/domicile/bench/load/floor"
	"github.com/domicile/domicile/bench/machine"
)

// result is what one run measured. bench/results/README.md says how to read it.
type result struct {
	Scenario scenario `json:"scenario"`
	Seconds  float64  `json:"seconds"` // of the measured part
	Nodes    int      `json:"nodes"`

	SentPPS      float64 `json:"sent_pps"`      // published, by all publishers
	ForwardedPPS float64 `json:"forwarded_pps"` // received, by all subscribers
	RepairsPPS   float64 `json:"repairs_pps"`   // beside them: retransmissions, and what probes the bandwidth
	FeedbackPPS  float64 `json:"feedback_pps"`  // transport-wide feedback packets that subscribers sent
	Delivered    float64 `json:"delivered"`     // share of what should have been received
	Joined       int     `json:"joined"`
	Failed       int     `json:"failed"`        // to join, or lost their connection
	WithoutMedia int     `json:"without_media"` // joined and received nothing

	NodeCPU      *float64 `json:"node_cpu_us_per_packet"` // null: the nodes' processes are not known
	NodeCores    *float64 `json:"node_cores"`
	Memory       *float64 `json:"memory_per_subscriber_mb"`
	MemoryTotal  *float64 `json:"memory_total_mb"`
	LatencyP50   float64  `json:"latency_p50_ms"`
	LatencyP99   float64  `json:"latency_p99_ms"`
	AloneP50     *float64 `json:"join_alone_to_media_p50_ms"` // of those who joined one after the other
	FirstP50     float64  `json:"join_to_media_p50_ms"`
	FirstP99     float64  `json:"join_to_media_p99_ms"`
	GeneratorCPU float64  `json:"generator_cpu_us_per_packet"`
	Generator    float64  `json:"generator_cores"`
	Others       float64  `json:"other_processes_cores"` // disturbance

	Way         *comparison  `json:"compared,omitempty"`    // of a scenario with a way
	Allocations *allocations `json:"allocations,omitempty"` // of turn-allocations
	Recording   *recording   `json:"recording,omitempty"`   // of a scenario that is recorded; the figures above are without it
	Scale       []step       `json:"scale_out,omitempty"`   // of scale-out; the figures above are of all its nodes, measured last

	Floor   *floor.Result   `json:"floor"`
	OfFloor *float64        `json:"node_cpu_of_segmented_floor"` // node_cpu divided by floor.segmented_us
	OfPlain *float64        `json:"node_cpu_of_plain_floor"`
	Machine machine.Machine `json:"machine"`
}

// record writes a result into dir as DATE-SCENARIO.json; a second one of the day
// gets a number.
func record(dir string, r *result) (path string, err error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	day, _, _ := strings.Cut(r.Machine.At, "T")
	for i := 1; i < 1000; i++ {
		name := day + "-" + r.Scenario.Name
		if i > 1 {
			name += fmt.Sprintf("-%d", i)
		}
		path = filepath.Join(dir, name+".json")
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if os.IsExist(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("record: %w", err)
		}
		if _, err := f.Write(append(b, '\n')); err != nil {
			f.Close()
			return "", fmt.Errorf("record: %w", err)
		}
		return path, f.Close()
	}
	return "", fmt.Errorf("record: %s has a thousand results of today", dir)
}

// round keeps results readable.
func round(f float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(f*p) / p
}

func rounded(f float64, digits int) *float64 { return new(round(f, digits)) }
