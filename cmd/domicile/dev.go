package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

type devCmd struct {
	Bind    string `default:"127.0.0.1" help:"Address to listen on. Plain HTTP: a loopback address."`
	Port    uint16 `default:"7880" help:"TCP port of HTTP and WebSocket."`
	UDPPort uint16 `name:"udp-port" default:"7882" help:"UDP port of media."`
	Country string `default:"DE" help:"Country that the node claims to be in, ISO 3166-1."`
	Dir     string `type:"path" help:"Directory for rooms and recordings. Default: a temporary one, removed at the end."`
	Keys    string `env:"LIVEKIT_KEYS" default:"devkey: secret" help:"API key and secret, \"key: secret\"; several separated by lines or commas."`
	Debug   bool   `help:"Log more."`
}

// Run runs one node without a mesh, TLS or GeoIP.
func (c *devCmd) Run(ctx context.Context) error {
	cfg, cleanup, err := c.config()
	if err != nil {
		return err
	}
	defer cleanup()
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

func (c *devCmd) config() (node.Config, func(), error) {
	none := func() {}
	ip, err := netip.ParseAddr(c.Bind)
	if err != nil || !ip.IsLoopback() {
		return node.Config{}, none, usage("--bind %q: want a loopback address such as 127.0.0.1, because dev speaks plain HTTP", c.Bind)
	}
	keys, err := parseKeys(c.Keys)
	if err != nil {
		return node.Config{}, none, err
	}
	country, err := residency.ParseCountry(c.Country)
	if err != nil {
		return node.Config{}, none, usage("--country: %w", err)
	}
	dir, cleanup := c.Dir, none
	if dir == "" {
		if dir, err = os.MkdirTemp("", "domicile-dev-"); err != nil {
			return node.Config{}, none, err
		}
		cleanup = func() { os.RemoveAll(dir) }
	}
	level := slog.LevelInfo
	if c.Debug {
		level = slog.LevelDebug
	}
	now := time.Now()
	url := fmt.Sprintf("http://%s", netip.AddrPortFrom(ip, c.Port))
	return node.Config{
		Self: residency.Node{Name: "dev", Country: country, Operator: "dev", OperatorCountry: country, Parent: "dev",
			ParentCountry: country, Roles: []residency.Role{residency.RoleOrigin, residency.RoleEdge},
			NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(100, 0, 0), Serial: "1"},
		Bundle: devBundle(), Standalone: true, PublicURL: url, City: "this machine", Keys: keys, DataDir: dir,
		Listen: node.Listen{HTTP: netip.AddrPortFrom(ip, c.Port), Media: netip.AddrPortFrom(ip, c.UDPPort)},
		Geo:    node.Geo{Unknown: router.FallbackLocal},
		Page:   node.Page{Guests: true, GuestsMayRecord: true},
		Log:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), Version: version,
		Ready: func(a node.Addresses) {
			fmt.Printf("page and API: %s\nWebSocket:    %s\nmedia (UDP):  %s\nrecordings:   %s\n",
				url, strings.Replace(url, "http", "ws", 1), a.Media, filepath.Join(dir, "recordings"))
		},
	}, cleanup, nil
}

// devBundle is the one policy of a development node: anywhere, recording
// allowed. It promises nothing and says so.
func devBundle() *residency.Bundle {
	zones := map[residency.Class]residency.Zone{}
	for _, c := range residency.Classes() {
		zones[c] = residency.Zone{Name: "anywhere", Anywhere: true}
	}
	return &residency.Bundle{Epoch: 1, Default: "development", Policies: map[string]*residency.Policy{
		"development": {Name: "development", Title: "Development: no promise where anything goes", Zones: zones,
			Description: "One node on this machine, for people who write clients.",
			Recording:   residency.RecordingRule{Allowed: true, Notice: true}},
	}}
}

// parseKeys reads LiveKit's form of API keys, "key: secret".
func parseKeys(s string) (control.Keys, error) {
	keys := control.Keys{}
	for _, line := range strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == ',' }) {
		key, secret, ok := strings.Cut(strings.TrimSpace(line), ":")
		key, secret = strings.TrimSpace(key), strings.TrimSpace(secret)
		if !ok || key == "" || secret == "" {
			return nil, usage("LIVEKIT_KEYS: want \"key: secret\", got a line without both")
		}
		if _, twice := keys[key]; twice {
			return nil, usage("LIVEKIT_KEYS: key %q is given twice", key)
		}
		keys[key] = secret
	}
	if len(keys) == 0 {
		return nil, usage("LIVEKIT_KEYS: want \"key: secret\", got nothing")
	}
	return keys, nil
}
