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
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/turn"
	"github.com/domicile/domicile/node/whip"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router/geo"
)

// alpn names the protocol of links between nodes.
const alpn = "domicile/1"

// Node is one running node.
type Node struct {
	// Static after New.
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	geo    *geo.DB
	store  *records // nil unless the node is an origin
	files  *store.Store
	vault  *vault.Vault // nil unless the node is an origin
	engine *rtc.Engine
	turn   *turn.Server     // nil without TLS
	front  *front.Front     //
	mesh   *membership.Mesh // nil when standalone
	fabric *relay.Fabric    // nil when standalone
	rooms  *registry
	whip   *whip.Server

	bundleGate atomic.Pointer[residency.Gate]
	attendees  atomic.Int64
	sessions   sessions   // attendees' signalling handlers
	creating   sync.Mutex // held while room records are made and deleted
	deleted    graveyard
	origins    knownOrigins
	ctx        context.Context
	stop       context.CancelFunc
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
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.rooms = &registry{deps: n.roomDeps, ctx: n.ctx, rooms: map[string]*room.Room{}}
	defer func() {
		if err != nil {
			n.close()
			n.abandonMesh()
		}
	}()
	n.setBundle(cfg.Bundle)
	n.geo, err = geo.Open(cfg.Geo.Database)
	if err != nil {
		n.log.Warn("attendees are placed by the fallback", "error", err, "fallback", cfg.Geo.Unknown)
	}
	for _, open := range []func() error{n.openFiles, n.openMedia, n.openMesh, n.openFront} {
		if err := open(); err != nil {
			return nil, fmt.Errorf("start node %s: %w", cfg.Self.Name, err)
		}
	}
	return n, nil
}

// openFiles opens what an origin stores. An edge opens nothing: it has no
// place where a room's bytes could land (R1).
func (n *Node) openFiles() error {
	if !n.cfg.Self.Has(residency.RoleOrigin) {
		return nil
	}
	if err := os.MkdirAll(n.cfg.DataDir, 0o700); err != nil {
		return err
	}
	s, err := store.Open(n.ctx, filepath.Join(n.cfg.DataDir, "rooms.db"), n.log)
	if err != nil {
		return err
	}
	n.files, n.store = s, &records{s}
	keys, err := vault.OpenKeyStore(filepath.Join(n.cfg.DataDir, "keys"))
	if err != nil {
		return err
	}
	n.vault, err = vault.Open(filepath.Join(n.cfg.DataDir, "recordings"), keys,
		vault.Options{MinFree: n.cfg.MinFree, Log: n.log})
	return err
}

func (n *Node) openMedia() (err error) {
	n.engine, err = rtc.NewEngine(rtc.Config{
		Media: []netip.AddrPort{n.cfg.Listen.Media}, PublicIPs: n.cfg.PublicIPs, Log: n.log, Now: n.now})
	return err
}

func (n *Node) openMesh() (err error) {
	if n.cfg.Standalone {
		return nil
	}
	server, client := identity.TLS(n.cfg.Certificate, n.cfg.Roots, alpn, n.now)
	n.fabric, err = relay.New(relay.Config{
		Self: n.cfg.Self, Listen: n.cfg.Listen.Relay, ServerTLS: server, ClientTLS: client,
		PeerNode: identity.PeerNode, Epoch: func() residency.Epoch { return n.gate().Epoch() },
		Handler: links{n}, Log: n.log, Now: n.now,
	})
	if err != nil {
		return err
	}
	n.mesh, err = membership.New(membership.Config{
		Self: n.cfg.Self, Certificate: n.cfg.Certificate, Roots: n.cfg.Roots,
		Bind: n.cfg.Listen.Gossip, Advertise: n.gossipAddr(), Join: n.cfg.Mesh.Join, Keys: n.cfg.Mesh.Keys,
		Claim: n.claim, Log: n.log, Now: n.now,
	})
	return err
}

func (n *Node) openFront() (err error) {
	if n.whip, err = n.newWHIP(); err != nil {
		return err
	}
	cfg := front.Config{Plain: n.cfg.Listen.HTTP, HTTP: n.handler(), Log: n.log}
	if n.cfg.ServerCertificate != nil {
		cfg.Listen = n.cfg.Listen.HTTPS
		cfg.Certificate = n.cfg.ServerCertificate
		if n.turn, err = n.newTURN(); err != nil {
			return err
		}
		if n.turn != nil {
			cfg.TURN = n.turn.ServeConn
		}
	}
	n.front, err = front.New(cfg)
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
	parts := []func(context.Context) error{n.front.Run, n.runAdmin, n.runMetrics}
	if n.mesh != nil {
		parts = append(parts, n.fabric.Run, n.mesh.Run, n.followMesh)
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
	n.wakeRooms()
	if n.cfg.Ready != nil {
		n.cfg.Ready(n.Addresses())
	}
	n.log.Info("node is up", "country", n.cfg.Self.Country, "epoch", n.gate().Epoch(), "url", n.cfg.PublicURL)
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

// wakeRooms starts the stored rooms whose home this node is, so that their
// timeouts run and their nodes find them.
func (n *Node) wakeRooms() {
	if n.store == nil {
		return
	}
	stored, err := n.store.all(n.ctx)
	if err != nil {
		n.log.Error("reading the stored rooms", "error", err)
	}
	for _, rec := range stored {
		if n.home(rec.Name, rec.Policy) != n.cfg.Self.Name {
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
	if n.files != nil {
		if err := n.files.Close(); err != nil {
			n.log.Error("closing the store", "error", err)
		}
	}
}

// gate returns the gate of the policies in force.
func (n *Node) gate() *residency.Gate { return n.bundleGate.Load() }

// setBundle puts a policy bundle in force and asks again about everything that flows.
func (n *Node) setBundle(b *residency.Bundle) {
	n.bundleGate.Store(residency.NewGate(b))
	if n.fabric != nil {
		n.fabric.Recheck()
	}
	for _, r := range n.rooms.all() {
		r.PolicyChanged()
	}
}
