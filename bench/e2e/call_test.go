package e2e

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/bench/load/ways"
	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/internal/steady"
)

// onePort is a node of which everything is on port 443 of one loopback address,
// and a call on it: one attendee publishes, the others receive, each over another
// way in.
type onePort struct {
	*mesh
	at        netip.AddrPort
	publisher *client.Client
	receivers map[ways.Kind]*client.Client
}

var allWays = []ways.Kind{ways.Direct, ways.TURNUDP, ways.TURNTCP, ways.TURNTLS, ways.ICETCP}

func startOnePort(t *testing.T) *onePort {
	t.Helper()
	host := netip.MustParseAddr("127.44.3.1")
	m := startProduction(t, host, productionNode{Name: "gate", Country: "DE", Roles: "origin,edge", HTTPS: 443, Port: 443})
	o := &onePort{mesh: m, at: netip.AddrPortFrom(host, 443), receivers: map[ways.Kind]*client.Client{}}
	o.publisher = o.join("publisher", client.Config{Video: true, Audio: true})
	o.publisher.Start()
	for _, k := range allWays {
		o.receivers[k] = o.join("receiver over "+string(k), client.Config{Way: k, Subscribe: true})
	}
	// The node has learnt by then what each of the paths carries.
	eventually(t, "everybody receives everything", 20*time.Second, func() bool {
		return !slices.ContainsFunc(o.during(func() { o.publishes(aSecond) }), func(l loss) bool { return l.received < l.sent*9/10 || l.missing > 0 })
	})
	return o
}

// join has an attendee of the load generator join; it decrypts nothing it need not.
func (o *onePort) join(name string, cfg client.Config) *client.Client {
	o.t.Helper()
	yes := true
	cfg.URL, cfg.TLS, cfg.Sample = "wss://"+o.at.String(), &tls.Config{InsecureSkipVerify: true}, 1024
	cfg.Token = o.mint(control.Grants{Identity: name, Video: &auth.VideoGrant{RoomJoin: true, Room: "one-port", CanPublish: &yes, CanSubscribe: &yes}}, time.Now())
	ctx, cancel := context.WithTimeout(o.t.Context(), patience*20*time.Second)
	defer cancel()
	c, err := client.Join(ctx, cfg)
	if err != nil {
		o.t.Fatalf("%s: %v", name, err)
	}
	o.t.Cleanup(c.Close)
	return c
}

// loss is what a receiver missed. What is missing is told by the gaps in the numbers
// of what came: what is under way when the counting begins or ends, and on a busy
// machine that may be much, is not lost.
type loss struct {
	way            ways.Kind
	sent, received uint64
	missing        int64
}

func (l loss) String() string {
	return fmt.Sprintf("%d of %d over %s, %d missing", l.received, l.sent, cmp.Or(l.way, "direct UDP"), l.missing)
}

// aSecond is how many packets the publisher sends in a second: 180 of video, 50 of audio.
const aSecond = 230

// publishes waits until the publisher has sent so many packets more.
func (o *onePort) publishes(packets uint64) {
	o.t.Helper()
	enough := o.publisher.Sent() + packets
	eventually(o.t, fmt.Sprintf("the publisher sends %d packets more", packets), 2*time.Second*time.Duration(packets/aSecond+1), func() bool { return o.publisher.Sent() >= enough })
}

// during counts while f runs.
func (o *onePort) during(f func()) (list []loss) {
	count := func() (now []loss) {
		sent := o.publisher.Sent()
		for _, k := range allWays {
			in := o.receivers[k].Inbound()
			now = append(now, loss{k, sent, in.Packets(), int64(in.Missing())})
		}
		return now
	}
	before := count()
	f()
	for i, l := range count() {
		b := before[i]
		list = append(list, loss{l.way, l.sent - b.sent, l.received - b.received, l.missing - b.missing})
	}
	return list
}

// droppedUnread counts from now on the datagrams that the kernel dropped because
// this machine's other programs, this one among them, did not read in time. What the
// node does not read in time counts against it.
func droppedUnread(t *testing.T, node netip.AddrPort) func() int64 {
	t.Helper()
	// 127.0.0.1:53 is 0100007F:0035 in this table, its last column are the drops.
	a := node.Addr().As4()
	slices.Reverse(a[:])
	own := fmt.Sprintf("%s:%04X", strings.ToUpper(hex.EncodeToString(a[:])), node.Port())
	count := func() (n int64) {
		b, err := os.ReadFile("/proc/net/udp")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if drops, err := strconv.ParseInt(f[len(f)-1], 10, 64); err == nil && f[1] != own {
				n += drops
			}
		}
		return n
	}
	before := count()
	return func() int64 { return max(count()-before, 0) }
}

// stands ends the test if somebody's connection has ended.
func (o *onePort) stands() {
	o.t.Helper()
	for k, c := range o.receivers {
		if err := c.Err(); err != nil {
			o.t.Errorf("the receiver over %s lost its connection: %v", k, err)
		}
	}
}

// TestOnePortWithACall has everything come to the one port at once that belongs
// there, and some that does not: each reaches its handler, and nobody in the call
// misses a packet.
func TestOnePortWithACall(t *testing.T) {
	o := startOnePort(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience*30*time.Second)
	defer cancel()
	visits := o.visits()
	var came atomic.Int64
	steady.Measure(t, late, func() (wrong string) {
		unread := droppedUnread(t, o.at)
		losses := o.during(func() {
			half := o.halfOpen(ctx, 50)
			defer half()
			var all sync.WaitGroup
			for name, visit := range visits {
				all.Go(func() {
					// Four a second of each: one address may come no more often for long.
					again := time.NewTicker(250 * time.Millisecond)
					defer again.Stop()
					for range 12 {
						if err := visit(ctx); err != nil {
							t.Errorf("%s: %v", name, err)
						}
						came.Add(1)
						<-again.C
					}
				})
			}
			all.Wait()
		})
		o.stands()
		for _, l := range losses {
			if l.missing > unread() || l.received < 500 || l.received < l.sent*9/10 {
				wrong += fmt.Sprintf("received %s\n", l)
			}
		}
		t.Logf("dropped unread by this process: %d", unread())
		t.Logf("%d visits of %d kinds; received: %v", came.Load(), len(visits), losses)
		return wrong
	})
}

// TestFloodCostsACallNothing comes to a node ten times as often as a whole school
// does (front.DefaultLimits: 50 connections a second of one source), with half
// handshakes, silence, bare Allocates, checks of nobody's and garbage, from one
// source and from two hundred. Who is in a call loses one packet in a hundred at
// most; who comes meanwhile gets in.
func TestFloodCostsACallNothing(t *testing.T) {
	o := startOnePort(t)
	steady.Measure(t, late, func() (wrong string) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		f := o.flood(ctx)
		o.publishes(aSecond)
		unread := droppedUnread(t, o.at)
		losses := o.during(func() {
			o.publishes(4 * aSecond)
			late := o.join("late", client.Config{Subscribe: true, Way: ways.TURNTLS})
			eventually(t, "who comes meanwhile receives", 10*time.Second, func() bool { return late.Inbound().Packets() > 0 })
			o.publishes(4 * aSecond)
		})
		stop()
		sent := f.wait()
		o.stands()
		for _, l := range losses {
			if l.missing > int64(l.sent/100)+unread() || l.received < l.sent*9/10 {
				wrong += fmt.Sprintf("received %s\n", l)
			}
		}
		// As often as the machine can; on one at rest it is ten times.
		for kind, rate := range sent {
			if rate < 3*legitimate {
				wrong += fmt.Sprintf("%s came only %.0f times a second\n", kind, rate)
			}
		}
		t.Logf("dropped unread by this process: %d", unread())
		t.Logf("flood, a second: %v; received: %v", sent, losses)
		return wrong
	})
}
