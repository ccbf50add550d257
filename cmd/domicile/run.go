package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/node/sockets"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

type runCmd struct {
	Config string        `required:"" type:"path" help:"The node's configuration, a YAML file." placeholder:"node.yaml"`
	Drain  time.Duration `default:"0s" help:"How long an upgrade (SIGUSR2) waits for the meetings on this node to end."`
}

// Run runs the node until it is told to stop, or to become a new version.
func (c *runCmd) Run(ctx context.Context) error {
	upgrade, err := newUpgrader(c.Config, c.Drain)
	if err != nil {
		return err
	}
	given, err := sockets.Inherit()
	if err != nil {
		return err
	}
	defer given.Close()
	cfg, err := loadNode(c.Config)
	if err != nil {
		return err
	}
	cfg.Sockets, upgrade.log = given, cfg.Log
	cfg.Ready = func(node.Addresses) { tellSystemd(cfg.Log) }
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	for _, name := range given.Unused() {
		cfg.Log.Warn("a socket was given that the configuration does not ask for", "name", name)
	}
	defer context.AfterFunc(ctx, given.Close)() // who connects now is refused
	run, stop := context.WithCancel(ctx)
	defer stop()
	go upgrade.run(run, n, stop)
	if err := n.Run(run); err != nil || ctx.Err() != nil {
		return err
	}
	return upgrade.become(given)
}

// tellSystemd says that the node is up, where systemd waits for it (Type=notify).
func tellSystemd(log *slog.Logger) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd does not hear that the node is up", "error", err)
	}
}

// loadNode reads a node's configuration and everything it refers to.
func loadNode(path string) (node.Config, error) {
	y, err := configs.LoadNode(path)
	if err != nil {
		return node.Config{}, err
	}
	files, err := y.CheckFiles(time.Now())
	if err != nil {
		return node.Config{}, err
	}
	log := logger(y.Log)
	for _, w := range files.Warnings {
		log.Error("policies do not count", "error", w)
	}
	served, err := certificates(y, files, log)
	if err != nil {
		return node.Config{}, err
	}
	cfg := node.Config{
		Self: files.Node, Bundle: files.Bundle, Certificate: files.Certificate,
		Policies: node.Policies{Open: configs.PolicyOpener(files.Authorities...), Signed: files.Signed, File: y.Policy,
			Parse: func(b []byte) (*residency.Bundle, error) { return configs.ParsePolicy("policy", b) }},
		IdentityFiles: node.IdentityFiles{Certificate: y.Identity.Certificate, Key: y.Identity.Key},
		Roots:         identity.Pool(files.Authorities...), Authorities: files.Authorities, ServerCertificate: served.Get, Certificates: served,
		Mesh: node.Mesh{Join: y.Gossip.Join},
		Listen: node.Listen{HTTPS: y.Listen.HTTPS, HTTP: y.Listen.HTTP, Redirect: y.Listen.HTTPRedirect, Media: y.Listen.Media,
			Relay: y.Listen.Relay, RelayMedia: y.Listen.RelayMedia, Gossip: y.Listen.Gossip, Metrics: y.Listen.Metrics},
		Proxies:   y.Listen.ProxyProtocol,
		PublicURL: y.PublicURL(), Advertise: node.Advertise{Relay: y.Public.RelayAddress, Gossip: y.Public.GossipAddress},
		City: y.Location.City, At: router.Point{Lat: y.Location.Latitude, Lon: y.Location.Longitude},
		Capacity: y.Capacity.Attendees, Keys: control.Keys(y.APISecrets()),
		TURN: node.TURN{Allocations: y.TURN.Allocations, PerParticipant: y.TURN.PerParticipant, PerSource: y.TURN.PerSource,
			Bandwidth: y.TURN.MbitPerSecond * 1_000_000 / 8},
		Geo: node.Geo{Database: y.Geo.Database, Unknown: router.Fallback(y.Geo.Unknown),
			TrustedProxies: y.Geo.TrustedProxies, AcceptClaimed: y.Geo.AcceptClaimedAddress},
		Routing:     node.Routing{Rules: files.Routing, File: y.Routing, Load: configs.LoadRouting, Parse: configs.ParseRouting},
		Page:        node.Page{Guests: y.Page.Guests, GuestsMayRecord: y.Page.GuestsMayRecord, NoReachTest: !y.Page.ReachTest},
		Rooms:       node.Rooms{RemoteUnmute: y.Rooms.RemoteUnmute},
		MaxSpeakers: y.Media.MaxSpeakers, FanOut: y.Media.FanOut,
		DataDir: y.DataDir, MinFree: int64(y.Recordings.MinFreeMB) * 1_000_000,
		Copies: node.Copies{Off: !y.Recordings.Copies, Mbits: y.Recordings.CopyMbit},
		Log:    log, Now: time.Now, Version: version,
	}
	if cfg.Store, cfg.Places, err = storeOf(y, files.Node); err != nil {
		return node.Config{}, err
	}
	cfg.DNS = answerer(y)
	for _, w := range y.Webhooks {
		cfg.Webhooks = append(cfg.Webhooks, node.Webhook{URL: w.URL, APIKey: w.APIKey, Recipient: w.Recipient()})
	}
	if err := withBucket(&cfg, y.Recordings.Bucket); err != nil {
		return node.Config{}, fmt.Errorf("%s: %w", path, err)
	}
	register := files.Bundle
	cfg.Routing.Strangers = func(r *router.Rules) []string { return configs.Strangers(r, register) }
	if y.Public.MediaAddress.IsValid() {
		cfg.PublicIPs = []netip.Addr{y.Public.MediaAddress}
	}
	for _, k := range y.Gossip.Keys {
		cfg.Mesh.Keys = append(cfg.Mesh.Keys, k[:])
	}
	return cfg, nil
}

func logger(l configs.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo // configs has checked it
	}
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

// certificateOf joins DER certificates and a key for TLS.
func certificateOf(der []byte, key any) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
