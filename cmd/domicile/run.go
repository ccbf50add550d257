package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/node/front"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

type runCmd struct {
	Config string `required:"" type:"path" help:"The node's configuration, a YAML file." placeholder:"node.yaml"`
}

// Run runs the node until it is told to stop.
func (c *runCmd) Run(ctx context.Context) error {
	cfg, err := loadNode(c.Config)
	if err != nil {
		return err
	}
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

type checkCmd struct {
	Config string `required:"" type:"path" help:"The node's configuration, a YAML file." placeholder:"node.yaml"`
}

// Run checks the files and says what is wrong with them.
func (c *checkCmd) Run() error {
	cfg, err := loadNode(c.Config)
	if err != nil {
		return err
	}
	fmt.Printf("%s: node %s in %s, policy epoch %d with %d policies: all well\n",
		c.Config, cfg.Self.Name, cfg.Self.Country, cfg.Bundle.Epoch, len(cfg.Bundle.Policies))
	return nil
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
	served, err := front.NewCertificateFiles(y.TLS.Certificate, y.TLS.Key, time.Now, log)
	if err != nil {
		return node.Config{}, err
	}
	cfg := node.Config{
		Self: files.Node, Bundle: files.Bundle, Certificate: files.Certificate,
		Roots: identity.Pool(files.Authorities...), ServerCertificate: served.Get,
		Mesh: node.Mesh{Join: y.Gossip.Join},
		Listen: node.Listen{HTTPS: y.Listen.HTTPS, HTTP: y.Listen.HTTP, Media: y.Listen.Media,
			Relay: y.Listen.Relay, Gossip: y.Listen.Gossip, Metrics: y.Listen.Metrics},
		PublicURL: y.Public.URL, Advertise: node.Advertise{Relay: y.Public.RelayAddress, Gossip: y.Public.GossipAddress},
		City: y.Location.City, At: router.Point{Lat: y.Location.Latitude, Lon: y.Location.Longitude},
		Capacity: y.Capacity.Attendees, Keys: control.Keys(y.APISecrets()),
		Geo: node.Geo{Database: y.Geo.Database, Unknown: router.Fallback(y.Geo.Unknown),
			TrustedProxies: y.Geo.TrustedProxies, AcceptClaimed: y.Geo.AcceptClaimedAddress},
		Page:        node.Page{Guests: y.Page.Guests, GuestsMayRecord: y.Page.GuestsMayRecord},
		Rooms:       node.Rooms{RemoteUnmute: y.Rooms.RemoteUnmute},
		MaxSpeakers: y.Media.MaxSpeakers,
		DataDir:     y.DataDir, MinFree: int64(y.Recordings.MinFreeMB) * 1_000_000,
		Log: log, Now: time.Now, Version: version,
	}
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
