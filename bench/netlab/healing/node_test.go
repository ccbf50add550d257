//go:build linux

package healing

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

// Each node is alone in its namespace.
const (
	portHTTPS, portMedia, portRelay, portCarriage, portGossip = 443, 7882, 7900, 7901, 7946

	apiKey    = "bench"
	apiSecret = "secret-of-at-least-thirty-two-bytes"
)

// envNode makes the test's own binary a node: it holds what the node is.
const envNode = "HEALING_NODE"

// nodeArgs is a node.
type nodeArgs struct {
	Name, Country string
	Origin        bool
	Dir           string // of the authority; the node's own is below
	Addr          netip.Addr
	Join          []netip.Addr
	FanOut        int
	Carriage      bool          // media between nodes travels beside QUIC
	Skew          time.Duration // how far its clock is wrong
	Others        []residency.NodeName
}

func (a nodeArgs) dir() string { return filepath.Join(a.Dir, a.Name) }

func (a nodeArgs) self() residency.Node {
	self := residency.Node{Name: residency.NodeName(a.Name), Country: residency.Country(a.Country), Operator: "Example GmbH", OperatorCountry: "DE",
		Parent: "Example GmbH", ParentCountry: "DE", Roles: []residency.Role{residency.RoleEdge}}
	if a.Origin {
		self.Roles = append(self.Roles, residency.RoleOrigin)
	}
	return self
}

// furnish makes the node's directory: certificates that it keeps when it is started
// again, valid for clocks that are wrong.
func (a nodeArgs) furnish(ca *identity.CA) error {
	if err := os.MkdirAll(a.dir(), 0o700); err != nil {
		return err
	}
	key, err := identity.GenerateKey()
	if err != nil {
		return err
	}
	from, until := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	sans := identity.SANs{IPs: []netip.Addr{a.Addr}}
	der, err := ca.Issue(key.Public(), a.self(), sans, from, until)
	if err != nil {
		return err
	}
	server, err := ca.IssueServer(key.Public(), sans, from, until)
	if err != nil {
		return err
	}
	if err := identity.WriteKey(filepath.Join(a.dir(), "key.pem"), key); err != nil {
		return err
	}
	if err := identity.WriteCertificates(filepath.Join(a.dir(), "node.pem"), der); err != nil {
		return err
	}
	return identity.WriteCertificates(filepath.Join(a.dir(), "tls.pem"), server)
}

// beNode runs a node until its standard input ends.
func beNode(s string) int {
	var a nodeArgs
	if err := json.Unmarshal([]byte(s), &a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // its end is the order
		stop()
	}()
	if err := runNode(ctx, a); err != nil {
		fmt.Fprintln(os.Stderr, a.Name, err)
		return 1
	}
	return 0
}

func runNode(ctx context.Context, a nodeArgs) error {
	ca, err := identity.LoadCA(a.Dir)
	if err != nil {
		return err
	}
	load := func(name string) (tls.Certificate, error) {
		return tls.LoadX509KeyPair(filepath.Join(a.dir(), name+".pem"), filepath.Join(a.dir(), "key.pem"))
	}
	own, err := load("node")
	if err != nil {
		return err
	}
	served, err := load("tls")
	if err != nil {
		return err
	}
	_, self, err := identity.Verify(own.Certificate[0], ca.Pool(), time.Now())
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(a.dir(), "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr, port) }
	cfg := node.Config{
		Self: self, Bundle: bundle(a.Others), Certificate: own, Roots: ca.Pool(),
		Mesh:      node.Mesh{Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}},
		Listen:    node.Listen{HTTPS: at(portHTTPS), Media: at(portMedia), Relay: at(portRelay), Gossip: at(portGossip)},
		PublicURL: "https://" + a.Addr.String(), Keys: control.Keys{apiKey: apiSecret},
		Geo: node.Geo{Unknown: router.FallbackLocal}, DataDir: filepath.Join(a.dir(), "data"), FanOut: a.FanOut,
		ServerCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &served, nil },
		Now:               func() time.Time { return time.Now().Add(a.Skew) },
		Log:               slog.New(slog.NewTextHandler(log, nil)),
		Ready:             func(node.Addresses) { fmt.Println("up") },
	}
	if a.Carriage {
		cfg.Listen.RelayMedia = at(portCarriage)
	}
	for _, j := range a.Join {
		cfg.Mesh.Join = append(cfg.Mesh.Join, netip.AddrPortFrom(j, portGossip).String())
	}
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

// bundle has every room in the EEA, where all the nodes are.
func bundle(nodes []residency.NodeName) *residency.Bundle {
	members, _ := residency.NamedZone("EEA")
	p := &residency.Policy{Name: "eea", Zones: map[residency.Class]residency.Zone{}, Recording: residency.RecordingRule{Allowed: true, Notice: true}}
	for _, c := range residency.Classes() {
		p.Zones[c] = residency.Zone{Name: "EEA", Countries: members}
	}
	b := &residency.Bundle{Epoch: 1, Default: "eea", Policies: map[string]*residency.Policy{"eea": p}}
	for _, name := range nodes {
		b.Overrides = append(b.Overrides, residency.Override{Node: name, Reason: "all are on one machine", Until: time.Now().Add(24 * time.Hour)})
	}
	return b
}
