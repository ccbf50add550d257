package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/bench/load/floor"
	"github.com/domicile/domicile/bench/load/ways"
	"github.com/domicile/domicile/control"
)

const (
	joinWait  = 60 * time.Second // for one attendee to be greeted
	floorTime = 3 * time.Second  // for each way of sending
	settle    = 2 * time.Second  // for the nodes to forget who left
	tokenTTL  = time.Hour
	// alonePause is between those who join alone, so that none is helped or held up
	// by the keyframe of the one before; the publisher is as long in the room too.
	alonePause = 1200 * time.Millisecond
)

// run is one scenario against one system.
type run struct {
	scenario
	sys    *system
	room   string
	sample uint16
	log    *slog.Logger
	// feedback has subscribers tell of every packet for congestion control.
	feedback bool
	// way is what subscribers take: the scenario's, or what it is compared with.
	way ways.Kind
	// turn is a server beside the nodes, and aside its process, whose CPU time
	// spent is what is measured of it.
	turn  *client.Server
	aside int
	spent time.Duration

	latency    histogram
	recorded   histogram // of what is being recorded meanwhile
	first      histogram
	alone      histogram
	measuring  atomic.Bool
	recording  atomic.Bool // what is measured
	publishing atomic.Bool // the first publisher has begun

	mu        sync.Mutex // guards the rest while attendees join
	attendees []attendee
	failed    int
}

type attendee struct {
	*client.Client
	began    time.Time
	receives bool
	timed    bool // somebody published already when it came
}

// measure runs the scenario, leaves, and measures the floor.
func (r *run) measure(ctx context.Context, withFloor bool) (*result, error) {
	if r.Idle > 0 {
		return r.allocate(ctx)
	}
	if r.Scale {
		return r.scale(ctx)
	}
	if r.Recorded {
		return r.costOfRecording(ctx)
	}
	out, err := r.once(ctx)
	if err != nil {
		return out, err
	}
	if r.Way != ways.Direct { // what it is compared with stands in for a floor
		return r.compare(ctx, out)
	}
	if !withFloor {
		return out, nil
	}
	f, err := measureFloor(ctx, r.streams())
	if err != nil {
		return out, err
	}
	out.Floor = &floor.Result{PlainUS: round(f.PlainUS, 2), SegmentedUS: round(f.SegmentedUS, 2)}
	if out.NodeCPU != nil {
		out.OfFloor, out.OfPlain = rounded(*out.NodeCPU/f.SegmentedUS, 2), rounded(*out.NodeCPU/f.PlainUS, 2)
	}
	return out, nil
}

// once has everybody join, measures, and leaves.
func (r *run) once(ctx context.Context) (*result, error) {
	out := &result{Scenario: r.scenario, Nodes: len(r.sys.urls)}
	err := r.meet(ctx, out)
	r.leave()
	if err == nil {
		pause(ctx, settle)
	}
	return out, err
}

// measureFloor measures each kind of media by itself and weighs it by its
// packets: audio has no frames of several packets to send at once.
func measureFloor(ctx context.Context, streams []floor.Load) (sum floor.Result, err error) {
	var packets float64
	for _, l := range streams {
		l.For = floorTime
		one, err := floor.Measure(ctx, l)
		if err != nil {
			return sum, err
		}
		sum.PlainUS += one.PlainUS * l.Rate
		sum.SegmentedUS += one.SegmentedUS * l.Rate
		packets += l.Rate
	}
	sum.PlainUS /= packets
	sum.SegmentedUS /= packets
	return sum, nil
}

// meet has everybody join, waits, and measures.
func (r *run) meet(ctx context.Context, out *result) error {
	r.log.Info("publishers join", "n", r.Publishers)
	r.join(ctx, 0, r.Publishers, r.Meet, true)
	if len(r.attendees) == 0 {
		return errors.New("no publisher could join")
	}
	for i := range r.Alone {
		pause(ctx, alonePause)
		if err := r.joinAlone(ctx, r.Publishers+r.Subscribers+i); err != nil {
			return err
		}
	}
	before, err := residentBytes(r.sys.pids)
	if err != nil {
		return err
	}
	r.log.Info("subscribers join", "n", r.Subscribers)
	r.join(ctx, r.Publishers, r.Subscribers, true, false)
	pause(ctx, r.Warmup)
	r.log.Info("measuring", "for", r.Duration)
	if err := r.window(ctx, out); err != nil {
		return err
	}
	r.judge(out)
	return r.weigh(out, before)
}

// join lets n attendees join, spread over the time of arrivals, and waits for
// all of them.
func (r *run) join(ctx context.Context, from, n int, subscribe, publish bool) {
	var joining sync.WaitGroup
	defer joining.Wait()
	for i := range n {
		if i > 0 && !pause(ctx, r.Arrivals/time.Duration(n)) {
			return
		}
		joining.Go(func() { r.joinOne(ctx, from+i, subscribe, publish) })
	}
}

// joinAlone times one join while nobody else joins, and leaves.
func (r *run) joinAlone(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	began := time.Now()
	c, err := r.client(ctx, i, true, false)
	if err != nil {
		return err
	}
	defer c.Close()
	for r.firstMedia(c).IsZero() {
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("attendee %d joined alone and received nothing: %w", i, ctx.Err())
		}
	}
	r.alone.add(r.firstMedia(c).Sub(began))
	return nil
}

// firstMedia is when the first video came, or audio where there is no video.
func (r *run) firstMedia(c *client.Client) time.Time {
	audio, video := c.Inbound().First()
	if r.Video {
		return video
	}
	return audio
}

func (r *run) client(ctx context.Context, i int, subscribe, publish bool) (*client.Client, error) {
	token, err := r.token(i)
	if err != nil {
		return nil, err
	}
	way := ways.Direct
	if !publish {
		way = r.way
	}
	return client.Join(ctx, client.Config{
		Way: way, TURN: r.turn,
		URL: r.sys.urls[i%len(r.sys.urls)], Token: token, Subscribe: subscribe, Sample: r.sample, Latency: r.timed,
		Video: publish && r.Video, Audio: publish && r.Audio, Sharp: r.Recorded, NoFeedback: !r.feedback,
	})
}

func (r *run) joinOne(ctx context.Context, i int, subscribe, publish bool) {
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	began, timed := time.Now(), r.publishing.Load()
	c, err := r.client(ctx, i, subscribe, publish)
	if err == nil && publish {
		c.Start()
		r.publishing.Store(true)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed++
		r.log.Warn("attendee could not join", "n", i, "err", err)
		return
	}
	r.attendees = append(r.attendees, attendee{c, began, subscribe, timed})
}

func (r *run) token(i int) (string, error) {
	yes := true
	return control.MintToken(r.sys.key, r.sys.secret, control.Grants{
		Identity: fmt.Sprintf("load-%d", i),
		Video:    &auth.VideoGrant{RoomJoin: true, Room: r.roomOf(i), CanPublish: &yes, CanSubscribe: &yes},
	}, tokenTTL, time.Now())
}

// roomOf is where an attendee meets others.
func (r *run) roomOf(i int) string {
	if r.Rooms < 2 {
		return r.room
	}
	return fmt.Sprint(r.room, "-", i%r.Rooms)
}

func (r *run) timed(d time.Duration) {
	switch {
	case !r.measuring.Load():
	case r.recording.Load():
		r.recorded.add(d)
	default:
		r.latency.add(d)
	}
}

// window measures for the scenario's duration.
func (r *run) window(ctx context.Context, out *result) error {
	then := r.packets()
	before, err := readUsage(r.sys.pids)
	if err != nil {
		return err
	}
	aside, err := r.timeAside()
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
	now, err := r.timeAside()
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return err
	}
	r.spent = now - aside
	out.account(r.packets().since(then), after.at.Sub(before.at), after.since(before), len(r.sys.pids) > 0)
	return nil
}

// timeAside is the CPU time of the server beside the nodes.
func (r *run) timeAside() (time.Duration, error) {
	if r.aside == 0 {
		return 0, nil
	}
	return processTime(r.aside)
}

// packets is what was counted up to a moment.
type packets struct{ sent, received, repairs, feedback uint64 }

func (p packets) since(q packets) packets {
	return packets{p.sent - q.sent, p.received - q.received, p.repairs - q.repairs, p.feedback - q.feedback}
}

func (r *run) packets() (p packets) {
	for _, a := range r.attendees {
		p.sent += a.Sent()
		p.feedback += a.Feedback()
		p.received += a.Inbound().Packets()
		p.repairs += a.Inbound().Repairs()
	}
	return p
}

// account turns the counters of the measured part into figures.
func (out *result) account(p packets, took time.Duration, u usage, knowNodes bool) {
	out.Seconds = round(took.Seconds(), 3)
	out.SentPPS = round(float64(p.sent)/took.Seconds(), 1)
	out.ForwardedPPS = round(float64(p.received)/took.Seconds(), 1)
	out.FeedbackPPS = round(float64(p.feedback)/took.Seconds(), 1)
	out.RepairsPPS = round(float64(p.repairs)/took.Seconds(), 1)
	if expected := p.sent * uint64(out.Scenario.receivers()); expected > 0 {
		// Packets under way when the measurement begins can make it a little more than all.
		out.Delivered = min(round(float64(p.received)/float64(expected), 5), 1)
	}
	perPacket := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(max(p.received, 1)) }
	cores := func(d time.Duration) float64 { return round(d.Seconds()/took.Seconds(), 3) }
	if knowNodes {
		out.NodeCPU, out.NodeCores = rounded(perPacket(u.nodes), 2), new(cores(u.nodes))
	}
	out.GeneratorCPU, out.Generator = round(perPacket(u.self), 2), cores(u.self)
	out.Others = max(cores(u.busy-u.nodes-u.self), 0)
}

// judge looks at every attendee.
func (r *run) judge(out *result) {
	out.Joined, out.Failed = len(r.attendees), r.failed
	for _, a := range r.attendees {
		if err := a.Err(); err != nil {
			out.Failed++
			r.log.Warn("attendee lost its connection", "err", err)
		}
		if !a.receives {
			continue
		}
		first := r.firstMedia(a.Client)
		if first.IsZero() {
			out.WithoutMedia++
			continue
		}
		if a.timed {
			r.first.add(first.Sub(a.began))
		}
	}
	out.LatencyP50, out.LatencyP99 = milliseconds(r.latency.quantile(0.5)), milliseconds(r.latency.quantile(0.99))
	if r.Alone > 0 {
		out.AloneP50 = rounded(float64(r.alone.quantile(0.5))/float64(time.Millisecond), 2)
	}
	out.FirstP50, out.FirstP99 = milliseconds(r.first.quantile(0.5)), milliseconds(r.first.quantile(0.99))
}

// weigh measures the memory that the subscribers added.
func (r *run) weigh(out *result, before int64) error {
	if len(r.sys.pids) == 0 {
		return nil
	}
	now, err := residentBytes(r.sys.pids)
	if err != nil {
		return err
	}
	out.MemoryTotal = rounded(float64(now)/1e6, 1)
	if r.Subscribers > 0 {
		out.Memory = rounded(float64(now-before)/1e6/float64(r.Subscribers), 3)
	}
	return nil
}

// leave ends all attendees.
func (r *run) leave() {
	var leaving sync.WaitGroup
	for _, a := range r.attendees {
		leaving.Go(a.Close)
	}
	leaving.Wait()
}

// pause waits and reports whether the whole time passed.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
