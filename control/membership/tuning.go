package membership

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"
)

// How soon a node that died without a word is noticed. memberlist's own
// settings are for thousands of nodes and take 4 to 24 s; ours are for some tens
// of nodes in a few data centres.
//
// With n nodes each probes one other every probeInterval. A dead node is thus
// first probed within probeInterval × (n-1) by a given node, but by some node
// within about one interval; the probe (direct, through others, over TCP) fails
// at the end of that interval; the node is then suspected for
//
//	suspicionMult × max(1, log10 n) × probeInterval = 1.6 s   (n ≤ 10)
//
// in which it may object. Together: 2.0 to 2.8 s in a mesh of three. Media does
// not wait for that: the relay's links notice within their own timeouts.
const (
	// probeInterval is also how long an answer may take in all. 400 ms covers the
	// widest round trip on Earth (about 300 ms) with jitter of 100 ms.
	probeInterval = 400 * time.Millisecond
	// probeTimeout is after which a probe goes through other nodes and TCP as
	// well: above the 90 ms of Frankfurt to New York and its jitter.
	probeTimeout = 200 * time.Millisecond
	// suspicionMult of 4 lets a node lose three of its objections in a row: at
	// 5 % loss that is one false alarm in 160,000 suspicions, and a suspicion
	// itself already needs a lost probe, lost indirect probes and a failed TCP.
	suspicionMult = 4
	// suspicionMaxMult bounds the wait when nobody confirms a suspicion to twice
	// the time above; memberlist's 6 serves meshes where whole racks stall.
	suspicionMaxMult = 2
	// awarenessMax slows this node's probing to 4 intervals at most while it is
	// itself too busy to answer in time, instead of blaming others.
	awarenessMax = 4
	// gossipInterval spreads a changed claim to all of a small mesh in one or two
	// rounds, so in about 0.2 s.
	gossipInterval = 100 * time.Millisecond
	// pushPullInterval mends what gossip lost: whole tables, with one other node.
	pushPullInterval = 15 * time.Second
	// streamTimeout bounds a TCP exchange, and with it how long a stop can take.
	streamTimeout = 3 * time.Second
	// reclaimAfter lets a node that died come back under another address.
	reclaimAfter = time.Second
)

// listConfig translates a Config for memberlist.
func listConfig(cfg Config, in *inbox) (*memberlist.Config, error) {
	ring, err := memberlist.NewKeyring(cfg.Keys[1:], cfg.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("gossip keys: %w", err)
	}
	c := memberlist.DefaultLANConfig()
	c.Name = string(cfg.Self.Name)
	c.BindAddr, c.BindPort = cfg.Bind.Addr().String(), int(cfg.Bind.Port())
	c.AdvertisePort = c.BindPort
	if cfg.Advertise.IsValid() {
		c.AdvertiseAddr, c.AdvertisePort = cfg.Advertise.Addr().String(), int(cfg.Advertise.Port())
	}
	c.Keyring, c.GossipVerifyIncoming, c.GossipVerifyOutgoing = ring, true, true
	// Claims do not compress: most of them is a hash and a signature.
	c.EnableCompression = false
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, suspicionMaxMult
	c.AwarenessMaxMultiplier = awarenessMax
	c.GossipInterval, c.PushPullInterval = gossipInterval, pushPullInterval
	c.TCPTimeout, c.DeadNodeReclaimTime = streamTimeout, reclaimAfter
	c.Delegate, c.Events, c.Alive, c.Conflict, c.Ping = in, in, in, in, in.atlas
	c.Logger = slog.NewLogLogger(cfg.Log.Handler().WithAttrs([]slog.Attr{slog.String("from", "memberlist")}), slog.LevelDebug)
	return c, nil
}
