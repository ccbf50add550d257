package main

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router/geo/geodemo"
)

// The demo mesh. The test addresses are of the networks set aside for
// documentation (RFC 5737); its GeoIP database places them in the three cities.
var demoPlaces = []struct {
	name    residency.NodeName
	country residency.Country
	city    string
	lat     float64
	lon     float64
	roles   []residency.Role
	network string
	address string
}{
	{"fra", "DE", "Frankfurt", 50.11, 8.68, []residency.Role{residency.RoleOrigin, residency.RoleEdge}, "192.0.2.0/24", "192.0.2.10"},
	{"waw", "PL", "Warsaw", 52.23, 21.01, []residency.Role{residency.RoleEdge}, "198.51.100.0/24", "198.51.100.10"},
	{"nyc", "US", "New York", 40.71, -74.01, []residency.Role{residency.RoleEdge}, "203.0.113.0/24", "203.0.113.10"},
}

// The ports of every demo node, each on an address of its own. Browsers drop
// media candidates with ports below 1024 on private addresses.
const (
	demoHTTPS   = 7443
	demoHTTP    = 7480
	demoMedia   = 7882
	demoRelay   = 7900
	demoMesh    = 7901 // media between nodes
	demoGossip  = 7946
	demoMetrics = 7990
)

// demoValidity is how long certificates live; every start of the demo renews them.
const demoValidity = 90 * 24 * time.Hour

// demoBelieved is how long the demo's nodes are believed to be where they say,
// though they are nearer to each other than their countries can be. The policy
// file is kept from one start to the next.
const demoBelieved = 10 * 365 * 24 * time.Hour

// nodeFile is a demo node's configuration; it reads like a production one.
var nodeFile = template.Must(template.New("node.yaml").Parse(`# Made by "domicile demo", which writes it again at every start.
name: {{.Name}}
data_dir: data
identity: {certificate: node.pem, key: node-key.pem, ca: ../ca/ca.pem}
policy: ../policy.yaml
listen:
  https: {{.IP}}:{{.HTTPS}}
  http: {{.IP}}:{{.HTTP}}
  media: {{.IP}}:{{.Media}}
  relay: {{.IP}}:{{.Relay}}
  relay_media: {{.IP}}:{{.RelayMedia}}
  gossip: {{.IP}}:{{.Gossip}}
  metrics: {{.IP}}:{{.Metrics}}
public:
  url: https://{{.IP}}:{{.HTTPS}}
tls: {certificate: tls.pem, key: tls-key.pem}
gossip:
  join: [{{range $i, $a := .Join}}{{if $i}}, {{end}}"{{$a}}"{{end}}]
  keys_file: ../gossip-keys.yaml
api_keys_file: ../api-keys.yaml
geo:
  database: ../geo.mmdb
  unknown: local # everybody comes from this machine: taken to be where the node is
  accept_claimed_address: true # the page's ?from=
location: {city: {{.City}}, latitude: {{.Lat}}, longitude: {{.Lon}}}
capacity: {attendees: 500}
page: {guests: true, guests_may_record: true}
recordings: {min_free_mb: 64}
log: {level: info, format: text}
`))

// demoMaker writes the demo's files.
type demoMaker struct {
	dir string
	ca  *identity.CA
	now time.Time
}

// prepareDemo makes what is missing in dir and returns the mesh to start. Keys,
// policies and stored data of an earlier start are kept; addresses and
// certificates are made anew.
func prepareDemo(dir, network string) (*demoReady, error) {
	d := &demoMaker{dir: dir, now: time.Now()}
	ips, err := demoAddresses(network)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{d.makeCA, d.makePolicy, d.makeGeo, d.makeGossipKeys, d.makeAPIKeys} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	mesh := &demoReady{CA: filepath.Join(dir, "ca", "ca.pem"), Dir: dir}
	for i := range demoPlaces {
		n, err := d.makeNode(i, ips)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", demoPlaces[i].name, err)
		}
		mesh.Nodes = append(mesh.Nodes, n)
	}
	mesh.Key, mesh.Secret, err = d.apiKey()
	return mesh, err
}

// demoAddresses picks one loopback address a node, all ports of which are free.
func demoAddresses(network string) ([]netip.Addr, error) {
	if network != "" {
		p, err := netip.ParsePrefix(network)
		if err != nil || !p.Addr().Is4() || !p.Addr().IsLoopback() || p.Bits() > 29 {
			return nil, fmt.Errorf("--net %q: want an IPv4 loopback network such as 127.20.0.0/24", network)
		}
		ips := hostsOf(p.Masked().Addr())
		if busy := firstBusy(ips); busy != "" {
			return nil, fmt.Errorf("--net %q: %s is in use", network, busy)
		}
		return ips, nil
	}
	var busy string
	for third := range 200 {
		ips := hostsOf(netip.AddrFrom4([4]byte{127, 20, byte(third), 0}))
		if busy = firstBusy(ips); busy == "" {
			return ips, nil
		}
	}
	return nil, fmt.Errorf("no free loopback network below 127.20.0.0/16: %s is in use", busy)
}

func hostsOf(base netip.Addr) []netip.Addr {
	var ips []netip.Addr
	for range demoPlaces {
		base = base.Next()
		ips = append(ips, base)
	}
	return ips
}

// firstBusy names the first address that cannot be bound, "" if all can.
func firstBusy(ips []netip.Addr) string {
	for _, ip := range ips {
		for _, port := range []uint16{demoHTTPS, demoHTTP, demoGossip, demoMetrics} {
			addr := netip.AddrPortFrom(ip, port).String()
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				return "TCP " + addr
			}
			ln.Close()
		}
		for _, port := range []uint16{demoMedia, demoRelay, demoMesh, demoGossip} {
			addr := netip.AddrPortFrom(ip, port).String()
			conn, err := net.ListenPacket("udp", addr)
			if err != nil {
				return "UDP " + addr
			}
			conn.Close()
		}
	}
	return ""
}

func (d *demoMaker) makeCA() (err error) {
	dir := filepath.Join(d.dir, "ca")
	d.ca, err = identity.LoadCA(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			d.ca, err = identity.CreateCA(dir, "Domicile demo CA", d.now)
		}
	}
	return err
}

// makePolicy writes and signs a bundle of the two profiles that the demo shows.
func (d *demoMaker) makePolicy() error {
	path := filepath.Join(d.dir, "policy.yaml")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		bundle := &residency.Bundle{Epoch: 1, Default: "eu-origin-global-edge", Policies: map[string]*residency.Policy{}}
		for _, name := range []string{"eu-origin-global-edge", "eea-only"} {
			if bundle.Policies[name], err = configs.Profile(name); err != nil {
				return err
			}
		}
		for _, p := range demoPlaces {
			bundle.Overrides = append(bundle.Overrides, residency.Override{Node: p.name,
				Reason: "demonstration: all nodes run on one machine", Until: d.now.Add(demoBelieved).Truncate(time.Second).UTC()})
		}
		if b, err = configs.FormatPolicy(bundle); err != nil {
			return err
		}
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return err
	}
	sig, err := d.ca.Sign(b) // again: the operator of a demo may have edited it
	if err != nil {
		return err
	}
	return os.WriteFile(path+configs.SignatureSuffix, sig, 0o600)
}

func (d *demoMaker) makeGeo() error {
	var entries []geodemo.Entry
	for _, p := range demoPlaces {
		entries = append(entries, geodemo.Entry{Prefix: netip.MustParsePrefix(p.network), Country: p.country,
			City: p.city, Lat: p.lat, Lon: p.lon})
	}
	return geodemo.Make(filepath.Join(d.dir, "geo.mmdb"), entries, d.now)
}

func (d *demoMaker) makeGossipKeys() error {
	var key [32]byte
	rand.Read(key[:])
	return writeOnce(filepath.Join(d.dir, "gossip-keys.yaml"),
		map[string][]string{"keys": {base64.StdEncoding.EncodeToString(key[:])}})
}

func (d *demoMaker) makeAPIKeys() error {
	return writeOnce(filepath.Join(d.dir, "api-keys.yaml"),
		map[string]map[string]string{"api_keys": {"API" + rand.Text()[:12]: rand.Text() + rand.Text()}})
}

// writeOnce writes a secret file unless an earlier start has.
func writeOnce(path string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// apiKey reads the demo's API key back.
func (d *demoMaker) apiKey() (key, secret string, err error) {
	y, err := configs.LoadNode(filepath.Join(d.dir, string(demoPlaces[0].name), "node.yaml"))
	if err != nil {
		return "", "", err
	}
	for key, secret := range y.APISecrets() {
		return key, secret, nil
	}
	return "", "", errors.New("api-keys.yaml has no key")
}

// makeNode writes a node's configuration and certificates.
func (d *demoMaker) makeNode(i int, ips []netip.Addr) (demoNode, error) {
	p, ip := demoPlaces[i], ips[i]
	dir := filepath.Join(d.dir, string(p.name))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return demoNode{}, err
	}
	facts := residency.Node{Name: p.name, Country: p.country, Operator: "Domicile demo", OperatorCountry: "DE",
		Parent: "Domicile demo", ParentCountry: "DE", Roles: p.roles}
	sans := identity.SANs{IPs: []netip.Addr{ip}}
	if err := d.certify(dir, "node", func(pub crypto.PublicKey, from, to time.Time) ([]byte, error) {
		return d.ca.Issue(pub, facts, sans, from, to)
	}); err != nil {
		return demoNode{}, err
	}
	if err := d.certify(dir, "tls", func(pub crypto.PublicKey, from, to time.Time) ([]byte, error) {
		return d.ca.IssueServer(pub, sans, from, to)
	}); err != nil {
		return demoNode{}, err
	}
	if err := d.configure(dir, i, ips); err != nil {
		return demoNode{}, err
	}
	https := netip.AddrPortFrom(ip, demoHTTPS).String()
	return demoNode{
		Name: p.name, Country: p.country, City: p.city, Roles: p.roles, Address: p.address,
		Page: "https://" + https + "/", WS: "wss://" + https, Plain: "http://" + netip.AddrPortFrom(ip, demoHTTP).String(),
		Media: netip.AddrPortFrom(ip, demoMedia), Relay: netip.AddrPortFrom(ip, demoRelay),
		Metrics: "http://" + netip.AddrPortFrom(ip, demoMetrics).String() + "/metrics",
		Config:  filepath.Join(dir, "node.yaml"),
	}, nil
}

// certify makes a new key and certificate, NAME.pem and NAME-key.pem.
func (d *demoMaker) certify(dir, name string, issue func(crypto.PublicKey, time.Time, time.Time) ([]byte, error)) error {
	key, err := identity.GenerateKey()
	if err != nil {
		return err
	}
	der, err := issue(key.Public(), d.now.Add(-time.Hour), d.now.Add(demoValidity))
	if err != nil {
		return err
	}
	certPath, keyPath := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	for _, path := range []string{certPath, keyPath} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(identity.WriteKey(keyPath, key), identity.WriteCertificates(certPath, der))
}

func (d *demoMaker) configure(dir string, i int, ips []netip.Addr) error {
	f, err := os.OpenFile(filepath.Join(dir, "node.yaml"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var join []string
	for j, ip := range ips {
		if j != i {
			join = append(join, netip.AddrPortFrom(ip, demoGossip).String())
		}
	}
	p := demoPlaces[i]
	err = nodeFile.Execute(f, map[string]any{
		"Name": p.name, "IP": ips[i], "Join": join, "City": p.city, "Lat": p.lat, "Lon": p.lon, "HTTPS": demoHTTPS,
		"HTTP": demoHTTP, "Media": demoMedia, "Relay": demoRelay, "RelayMedia": demoMesh, "Gossip": demoGossip, "Metrics": demoMetrics})
	return errors.Join(err, f.Close())
}
