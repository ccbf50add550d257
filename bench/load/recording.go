package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/bench/load/media"
	"github.com/domicile/domicile/control"
)

// recording is what it costs a node to record what it forwards, beside forwarding it.
type recording struct {
	Tracks    int     `json:"tracks"`
	TrackMbit float64 `json:"track_mbit"` // of RTP
	// Cores is the node's CPU time while it records, less that without: shares of one core.
	Cores float64 `json:"cores"`
	Ratio float64 `json:"node_cores_times"` // with, divided by without
	// Others is the same difference of all other processes and of the kernel's own
	// threads, which write to the disk what the node has handed over.
	Others        float64 `json:"other_processes_cores"`
	PublishedMbit float64 `json:"published_mbit"` // of frames, while it was recorded
	WrittenMbit   float64 `json:"written_mbit"`   // by the node to files, with what the vault adds
	Delivered     float64 `json:"delivered"`      // to subscribers while it was recorded
	LatencyP50    float64 `json:"latency_p50_ms"` // while it was recorded
	LatencyP99    float64 `json:"latency_p99_ms"`
	AddedP50      float64 `json:"added_p50_ms"`
	AddedP99      float64 `json:"added_p99_ms"`
	FileSystem    string  `json:"file_system"` // that the recordings lie on
}

// phases are measured one after the other, so that the mean of both kinds lies at the
// same time: the machine's speed drifts.
var phases = []bool{false, true, true, false}

// recordingSettles is how long tracks have to begin, or to be complete.
const recordingSettles = 2 * time.Second

// phase sums up what was measured of one kind.
type phase struct {
	packets
	took, nodes, self, others time.Duration
	written                   int64
}

// costOfRecording has everybody join once, and records all rooms in some of the phases.
func (r *run) costOfRecording(ctx context.Context) (*result, error) {
	out := &result{Scenario: r.scenario, Nodes: len(r.sys.urls)}
	if len(r.sys.pids) != 1 {
		return nil, errors.New("what recording costs is measured on one node of our own")
	}
	defer r.leave()
	r.join(ctx, 0, r.Publishers, false, true)
	r.join(ctx, r.Publishers, r.Subscribers, true, false)
	pause(ctx, r.Warmup)
	var kinds [2]phase
	for _, on := range phases {
		r.log.Info("measuring", "recording", on, "for", r.Duration)
		if err := r.phase(ctx, on, &kinds); err != nil {
			return nil, err
		}
	}
	r.judge(out)
	without, with := &kinds[0], &kinds[1]
	out.account(without.packets, without.took, usage{nodes: without.nodes, self: without.self, busy: without.nodes + without.self + without.others}, true)
	var err error
	out.Recording, err = r.costs(out, without, with)
	return out, err
}

// phase measures for the scenario's duration, with a recording of each room or without.
func (r *run) phase(ctx context.Context, on bool, kinds *[2]phase) error {
	if r.recording.Swap(on) != on {
		if err := r.record(ctx, on); err != nil {
			return err
		}
		pause(ctx, recordingSettles)
	}
	p := &kinds[0]
	if on {
		p = &kinds[1]
	}
	return p.measure(ctx, r)
}

// measure adds a stretch of time.
func (p *phase) measure(ctx context.Context, r *run) error {
	then := r.packets()
	wrote, err := writtenBytes(r.sys.pids[0])
	if err != nil {
		return err
	}
	before, err := readUsage(r.sys.pids)
	if err != nil {
		return err
	}
	r.measuring.Store(true)
	pause(ctx, r.Duration)
	r.measuring.Store(false)
	after, err := readUsage(r.sys.pids)
	if err != nil {
		return err
	}
	written, err := writtenBytes(r.sys.pids[0])
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	u := after.since(before)
	p.packets = p.packets.plus(r.packets().since(then))
	p.took, p.written = p.took+after.at.Sub(before.at), p.written+written-wrote
	p.nodes, p.self, p.others = p.nodes+u.nodes, p.self+u.self, p.others+u.busy-u.nodes-u.self
	return nil
}

func (p packets) plus(q packets) packets {
	return packets{p.sent + q.sent, p.received + q.received, p.repairs + q.repairs, p.feedback + q.feedback}
}

// costs sets the phases against each other.
func (r *run) costs(out *result, without, with *phase) (c *recording, err error) {
	share := func(d, of time.Duration) float64 { return d.Seconds() / of.Seconds() }
	mbit := func(bytes float64) float64 { return round(bytes*8/1e6/with.took.Seconds(), 1) }
	none, some := share(without.nodes, without.took), share(with.nodes, with.took)
	c = &recording{
		Tracks: r.Publishers, TrackMbit: round(float64(with.sent)*(media.SharpPayload+rtpHeader)*8/1e6/with.took.Seconds()/float64(r.Publishers), 2),
		Cores: round(some-none, 3), Ratio: round(some/none, 2), Others: round(share(with.others, with.took)-share(without.others, without.took), 3),
		PublishedMbit: mbit(float64(with.sent) * media.SharpPayload), WrittenMbit: mbit(float64(with.written)),
		Delivered:  min(round(float64(with.received)/float64(max(with.sent*uint64(r.receivers()), 1)), 5), 1),
		LatencyP50: milliseconds(r.recorded.quantile(0.5)), LatencyP99: milliseconds(r.recorded.quantile(0.99)),
	}
	c.AddedP50, c.AddedP99 = round(c.LatencyP50-out.LatencyP50, 2), round(c.LatencyP99-out.LatencyP99, 2)
	c.FileSystem, err = fileSystem(os.TempDir()) // where startDev's node keeps them
	return c, err
}

// record starts or stops the recording of every room as its host does.
func (r *run) record(ctx context.Context, on bool) error {
	action := "stop"
	if on {
		action = "start"
	}
	for i := range max(r.Rooms, 1) {
		if err := r.switchRecording(ctx, r.roomOf(i), action); err != nil {
			return fmt.Errorf("%s recording: %w", action, err)
		}
	}
	return nil
}

func (r *run) switchRecording(ctx context.Context, room, action string) error {
	token, err := control.MintToken(r.sys.key, r.sys.secret, control.Grants{Video: &auth.VideoGrant{Room: room, RoomRecord: true}}, tokenTTL, time.Now())
	if err != nil {
		return err
	}
	url := strings.Replace(r.sys.urls[0], "ws", "http", 1) + "/api/rooms/" + room + "/recording"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"action":"`+action+`"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}

// writtenBytes is what a process has written to files: proc_pid_io(5), wchar. What it
// sends to sockets by sendmsg is not in it.
func writtenBytes(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, fmt.Errorf("read what process %d wrote: %w", pid, err)
	}
	for line := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(line, []byte("wchar: ")); ok {
			return strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, fmt.Errorf("read what process %d wrote: no wchar in %q", pid, b)
}

// fileSystem names the type of the file system of a folder.
func fileSystem(dir string) (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	best, kind := "", "unknown"
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && len(f[1]) > len(best) && (f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/")) {
			best, kind = f[1], f[2]
		}
	}
	return kind, nil
}
