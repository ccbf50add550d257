// Package node puts a node together: it owns the sockets and the long-lived
// parts (front door, TURN, media engine, gossip, links, store, vault, rooms) and
// decides how an attendee's or a program's request is carried out with them.
//
// What is decided elsewhere stays there: who may go where (residency), which
// node serves (router), what a room does (room), what a packet becomes (sfu).
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/control/membership"
	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/node/front"
	"github.com/domicile/domicile/node/names"
	"github.com/domicile/domicile/node/prepared"
	"github.com/domicile/domicile/node/reach"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn"
	"github.com/domicile/domicile/node/whip"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router/geo"
)

// alpn names the protocol of links between nodes.
const alpn = "domicile/1"

// Node is one running node.
type Node struct {
	// Static after New.
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	geo      *geo.DB
	store    *records // nil unless the node is an origin
	files    *store.Store
	vault    *vault.Vault    // nil unless the node is an origin
	exports  *prepared.Shelf // likewise
	engine   *rtc.Engine
	turn     *turn.Server
	front    *front.Front                      //
	quic     *front.Datagrams[transport.Tuple] // HTTP/3's share of the media sockets; nil without TLS
	mesh     *membership.Mesh                  // nil when standalone
	fabric   *relay.Fabric                     // nil when standalone
	rooms    *registry
	chats    chatLog
	egresses egresses
	copies   copies
	hooks    []*hook // static after New
	told     hookShelf
	lists    lists
	refusals refusals
	whip     *whip.Server
	reach    *reach.Server // nil if the operator wants no tests
	names    *names.Server // nil if the node does not answer in DNS
	health   names.Health  // of the nodes that it names

	places    places
	routing   routing
	nearby    nearby
	arrivals  arrivals
	testimony testimony
	policies  policies
	trees     room.Trees
	turned    turnedAway
	overstays overstays
	own       atomic.Pointer[credentials]
	renewals  renewals
	attendees atomic.Int64
	leaving   atomic.Bool // an upgrade waits for everybody to go
	draining  atomic.Bool // everybody is sent away: see drain.go
	drainage  drain
	sessions  sessions   // attendees' signalling handlers
	creating  sync.Mutex // held while room records are made and deleted
	deleted   graveyard
	replicas  replicas
	retaining retaining
	origins   knownOrigins
	ctx       context.Context
	stop      context.CancelFunc
}

// New binds the node's sockets and opens its files. It starts nothing that
// Run would not stop; after an error everything is closed again.
func New(cfg Config) (_ *Node, err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, log: cfg.Log.With("self", cfg.Self.Name), now: cfg.Now}
	n.own.Store(&credentials{node: cfg.Self, pair: &cfg.Certificate})
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.chats.queue = make(chan chatItem, chatQueue)
	n.lists.init()
	n.openWebhooks()
	n.rooms = &registry{deps: n.roomDeps, ctx: n.ctx, rooms: map[string]*room.Room{}}
	defer func() {
		if err != nil {
			n.close()
			n.abandonMesh()
		}
	}()
	n.places.init()
	n.routing.rules.Store(cfg.Routing.Rules)
	n.warnStrangers(cfg.Routing.Rules)
	n.replicas.init()
	n.startBundle()
	n.onBundle(func(*residency.Bundle, bundles.Signed) { n.judgeSelf() })
	n.overstays.wake = make(chan struct{}, 1)
	n.onBundle(func(*residency.Bundle, bundles.Signed) {
		select {
		case n.overstays.wake <- struct{}{}:
		default:
		}
	})
	n.geo, err = geo.Open(cfg.Geo.Database)
	if err != nil {
		n.log.Warn("attendees are placed by the fallback", "error", err, "fallback", cfg.Geo.Unknown)
	}
	for _, open := range []func() error{n.openFiles, n.openMedia, n.openTURN, n.openMesh, n.openEvidence, n.openOrders, n.openFront, n.openDNS} {
		if err := open(); err != nil {
			return nil, fmt.Errorf("start node %s: %w", cfg.Self.Name, err)
		}
	}
	return n, nil
}

// openFiles opens what an origin stores. An edge opens nothing: it has no
// place where a room's bytes could land (R1).
func (n *Node) openFiles() error {
	if !n.self().Has(residency.RoleOrigin) {
		return nil
	}
	if err := os.MkdirAll(n.cfg.DataDir, 0o700); err != nil {
		return err
	}
	if err := n.openStore(); err != nil {
		return err
	}
	keys, err := vault.OpenKeyStore(filepath.Join(n.cfg.DataDir, "keys"))
	if err != nil {
		return err
	}
	if err := errors.Join(n.openChats(keys), n.openLists(keys)); err != nil {
		return err
	}
	n.openOwed(keys)
	if err := n.openExports(keys); err != nil {
		return err
	}
	n.vault, err = vault.Open(filepath.Join(n.cfg.DataDir, "recordings"), keys,
		vault.Options{Disk: n.disk(residency.ClassRecording), MinFree: n.cfg.MinFree, Log: n.log,
			Remote: n.cfg.Bucket.Store, Shelf: n.shelf(residency.ClassRecording), KeepLocal: n.cfg.Bucket.KeepLocal})
	if err != nil {
		return err
	}
	return errors.Join(n.openEgresses(keys), n.openHookShelf(keys))
}

func (n *Node) openMedia() error {
	given, err := n.cfg.Sockets.Packets(socketMedia, n.cfg.Listen.Media)
	if err != nil {
		return err
	}
	n.engine, err = rtc.NewEngine(rtc.Config{Sockets: given,
		Media: []netip.AddrPort{n.cfg.Listen.Media}, PublicIPs: n.cfg.PublicIPs, Log: n.log})
	if err != nil || n.cfg.Sockets == nil {
		return err
	}
	files, err := n.engine.Transport().Files()
	n.cfg.Sockets.Keep(socketMedia, files)
	return err
}

// socketMedia is what the media sockets are called when they are handed on, as
// their key in node.yaml.
const socketMedia = "media"

func (n *Node) openMesh() (err error) {
	if n.cfg.Standalone {
		return nil
	}
	server, client := identity.TLS(n.certificate, n.cfg.Roots, alpn, n.now)
	n.fabric, err = relay.New(relay.Config{
		Self: n.self(), Listen: n.cfg.Listen.Relay, Media: n.cfg.Listen.RelayMedia, ServerTLS: server, ClientTLS: client,
		PeerNode: identity.PeerNode, Epoch: func() residency.Epoch { return n.gate().Epoch() },
		Handler: links{n}, Policies: policyTalk{n}, Identity: proofs{n}, Doubts: n.hear, Suspected: n.suspected, Log: n.log, Now: n.now,
	})
	if err != nil {
		return err
	}
	n.mesh, err = membership.New(membership.Config{
		Self: n.self(), Certificate: n.cfg.Certificate, Roots: n.cfg.Roots,
		Bind: n.cfg.Listen.Gossip, Advertise: n.gossipAddr(), Join: n.cfg.Mesh.Join, Keys: n.cfg.Mesh.Keys,
		Claim: n.claim, Linked: func(name residency.NodeName) bool { return n.link(name) != nil }, Log: n.log, Now: n.now,
	})
	return err
}

func (n *Node) openFront() (err error) {
	if n.whip, err = n.newWHIP(); err != nil {
		return err
	}
	n.reach = n.newReach()
	cfg := n.frontConfig()
	if n.cfg.ServerCertificate != nil {
		cfg.TURN = n.turn.ServeStream
	}
	n.engine.Transport().SetDoor(door{turn: n.turn, quic: n.quic})
	if n.front, err = front.New(cfg); err == nil {
		n.engine.Transport().SetTCP(n.tcpAddrs())
	}
	return err
}

// Addresses returns what the node listens on.
func (n *Node) Addresses() Addresses {
	a := Addresses{HTTPS: n.front.Addr(), HTTP: n.front.PlainAddr(), Gossip: n.cfg.Listen.Gossip}
	if m := n.engine.MediaAddrs(); len(m) > 0 {
		a.Media = m[0]
	}
	if n.fabric != nil {
		a.Relay = n.fabric.Addr()
	}
	return a
}

// Run carries meetings until ctx ends, then says goodbye to everybody and
// closes everything.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	defer context.AfterFunc(ctx, n.stop)()
	parts := []func(context.Context) error{n.front.Run, n.turn.Run, n.runAdmin, n.runMetrics, n.runBundles, n.followPolicyFile, n.followRouting, n.runChats, n.runLists, n.runWebhooks, n.runOverstays, n.runStore, n.runShipments, n.runRetention}
	if n.reach != nil {
		parts = append(parts, n.reach.Run)
	}
	if n.exports != nil {
		parts = append(parts, n.exports.Run)
	}
	if n.names != nil {
		parts = append(parts, n.runDNS)
	}
	if n.cfg.Certificates != nil {
		parts = append(parts, n.runCertificates)
	}
	if n.mesh != nil {
		parts = append(parts, n.fabric.Run, n.mesh.Run, n.followMesh, n.runEvidence, n.runShipping, n.watchPlaces, n.followIdentity, n.runReplicas, n.runCopies, n.runOrders)
	}
	errs := make(chan error, len(parts))
	var wg sync.WaitGroup
	// Attendees and rooms say goodbye while links and sockets still stand.
	run, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	for _, part := range parts {
		wg.Go(func() {
			err := part(run)
			if err != nil && run.Err() == nil {
				errs <- err
				n.stop()
			}
		})
	}
	n.wakeRooms(func(*Node, room.Record) bool { return true })
	if n.cfg.Ready != nil {
		n.cfg.Ready(n.Addresses())
	}
	n.log.Info("node is up", "country", n.self().Country, "epoch", n.gate().Epoch(), "url", n.cfg.PublicURL)
	<-n.ctx.Done()
	n.log.Info("node is going down")
	n.rooms.close()
	n.whip.Close()
	n.sessions.close()
	stopParts()
	wg.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

// wakeRooms starts the stored rooms of a kind whose home this node is, so that their
// timeouts run and their nodes find them.
func (n *Node) wakeRooms(which func(*Node, room.Record) bool) {
	if n.store == nil {
		return
	}
	stored, err := n.store.all(n.ctx)
	if err != nil {
		n.log.Error("reading the stored rooms", "error", err)
	}
	for _, rec := range stored {
		if n.home(rec) != n.self().Name || !which(n, rec) {
			continue
		}
		if _, err := n.rooms.ensure(rec); err != nil {
			return
		}
	}
}

// abandonMesh frees the relay's socket on a node that does not get to run: only
// Run releases it, and it ends at once because the node's context has.
func (n *Node) abandonMesh() {
	if n.fabric != nil {
		n.fabric.Run(n.ctx) //nolint:errcheck // New returns the error that matters
	}
}

// close releases what New opened; it is safe on a half-built node.
func (n *Node) close() {
	n.stop()
	if n.turn != nil {
		n.turn.Close()
	}
	if n.front != nil {
		n.front.Close()
	}
	if n.engine != nil {
		n.engine.Close()
	}
	if n.testimony.log != nil {
		if err := n.testimony.log.Close(); err != nil {
			n.log.Error("closing the evidence log", "error", err)
		}
	}
	if n.testimony.box != nil {
		if err := n.testimony.box.Close(); err != nil {
			n.log.Error("closing the queue of receipts", "error", err)
		}
	}
	if n.store != nil {
		n.store.writer.close()
	}
	if n.retaining.book != nil {
		if err := n.retaining.book.Close(); err != nil {
			n.log.Error("closing the book of orders", "error", err)
		}
	}
	if n.files != nil {
		if err := n.files.Close(); err != nil {
			n.log.Error("closing the store", "error", err)
		}
	}
}
