package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/bench/load/ways"
	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// field is a mesh of nodes of many countries and operators, with light clients
// instead of browsers, of which everything between the nodes is captured and opened:
// what reaches a node is seen and not asked for.
type field struct {
	*mesh
	bundle *residency.Bundle
	ca     *identity.CA
	nodes  map[string]residency.Node
	host   netip.Addr             // where attendees come from
	labs   map[string]*netlab.Lab // where they run
	tap    *tap
	down   string   // the node that is killed
	keys   *os.File // where attendees write their secrets, as the nodes do
}

// keyed is the product that gives the secrets of its links away.
var keyed = sync.OnceValue(func() string {
	return build("domicile-keylog", "../../cmd/domicile", "-tags", strings.TrimSuffix("keylog,"+*realBin, ","))
})

// The nodes of a field: of countries and operators between which the profiles tell
// apart.
var fieldNodes = []residency.Node{
	own("fra", "DE", "DE", origin, edge), own("waw", "PL", "DE", origin, edge), own("nyc", "US", "DE", edge),
	own("zrh", "CH", "CH", origin, edge), own("mow", "RU", "RU", origin, edge),
	// A subsidiary: in Germany and run from there, of a company in the US.
	{Name: "ber", Country: "DE", Operator: "Cloud GmbH", OperatorCountry: "DE", Parent: "Cloud Inc", ParentCountry: "US", Roles: []residency.Role{edge}},
}

const origin, edge = residency.RoleOrigin, residency.RoleEdge

func own(name residency.NodeName, country, operator residency.Country, roles ...residency.Role) residency.Node {
	by := "Field " + string(operator)
	return residency.Node{Name: name, Country: country, Operator: by, OperatorCountry: operator, Parent: by, ParentCountry: operator, Roles: roles}
}

// ruTenant has its rooms in Russia, and mow has its rooms alone.
const ruTenant, ruKey = "example-ru", "example-ru-key"

// ended is third-country-scc on a transfer basis that holds no longer.
const ended = "third-country-ended"

// fieldBundle is all profiles in one, and a register of the nodes.
func fieldBundle(t testing.TB, nodes []residency.Node, now time.Time) *residency.Bundle {
	t.Helper()
	b := &residency.Bundle{Epoch: 1, Default: "eu-origin-global-edge", Policies: map[string]*residency.Policy{},
		Tenants: []residency.Tenant{{Name: ruTenant, Policy: "tenant-pinned-country", APIKeys: []string{ruKey}, Controller: "Example OOO, Moscow"}}}
	for _, name := range []string{"eu-origin-global-edge", "tenant-pinned-country", "eea-only", "dach-sovereign", "third-country-scc"} {
		p, err := configs.Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		own := *p
		own.SingleOrigin = true
		b.Policies[name] = &own
	}
	late := *b.Policies["third-country-scc"]
	late.Name, late.Transfers = ended, nil
	for _, basis := range b.Policies["third-country-scc"].Transfers {
		basis.Until = now.Add(-24 * time.Hour).Truncate(24 * time.Hour).UTC()
		late.Transfers = append(late.Transfers, basis)
	}
	b.Policies[ended] = &late
	for _, n := range nodes {
		r := residency.Registered{Name: n.Name, Country: n.Country, Roles: n.Roles}
		if n.Name == "mow" {
			r.Tenants = []string{ruTenant}
		}
		b.Nodes = append(b.Nodes, r)
		b.Overrides = append(b.Overrides, residency.Override{Node: n.Name, Reason: "the test runs on one machine", Until: now.Add(24 * time.Hour).Truncate(time.Second).UTC()})
	}
	return b
}

var fieldFile = template.Must(template.New("").Parse(`name: {{.Name}}
data_dir: data
identity: {certificate: node.pem, key: node-key.pem, ca: ../ca/ca.pem}
policy: ../policy.yaml
listen: {https: "{{.At}}:443", media: "{{.At}}:443", relay: "{{.At}}:7900", gossip: "{{.At}}:7946", metrics: "127.0.0.1:7990"}
public: {url: "https://{{.At}}"}
tls: {certificate: tls.pem, key: tls-key.pem}
gossip: {join: [{{.Join}}], keys: ["{{.Gossip}}"]}
api_keys: {{.Keys}}
geo: {unknown: local}
location: {city: Somewhere, latitude: {{.Latitude}}, longitude: 8}
page: {guests: true, guests_may_record: true}
`))

// startField starts the nodes, each in a network namespace of its own, and captures
// at each one's interface from before the first is up. It lets the test run beside
// others.
//
// more are nodes beside the usual ones.
func startField(t *testing.T, more ...residency.Node) *field {
	t.Helper()
	all := slices.Concat(fieldNodes, more)
	network := netlab.NewSwitch(lasting{t}, len(all))
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	f := &field{bundle: fieldBundle(t, all, now), nodes: map[string]residency.Node{}, labs: map[string]*netlab.Lab{}, host: network.Host,
		mesh: &mesh{t: t, bin: keyed(), Dir: dir, CA: filepath.Join(dir, "ca", "ca.pem"), Key: "APIe2e", Secret: rand.Text() + rand.Text(), killed: map[string]bool{}}}
	secrets := logs{links: filepath.Join(dir, "secrets-of-links"), attendees: filepath.Join(dir, "secrets-of-attendees")}
	f.env = append(os.Environ(), "SSLKEYLOGFILE="+secrets.links)
	var err error
	if f.keys, err = os.OpenFile(secrets.attendees, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		t.Fatal(err)
	}
	f.keyLog = f.keys
	t.Cleanup(func() { f.keys.Close() })
	if f.ca, err = makeCA(filepath.Join(dir, "ca"), now); err != nil {
		t.Fatal(err)
	}
	f.sign()
	var key [32]byte
	rand.Read(key[:])
	var seeds, names []string
	for i, n := range all {
		seeds, names = append(seeds, fmt.Sprintf("%q", netip.AddrPortFrom(network.Ports[i].Inside, fieldGossip))), append(names, string(n.Name))
	}
	for i, n := range all {
		at := network.Ports[i].Inside
		f.nodes[string(n.Name)] = n
		config := f.configure(n, at, map[string]any{"Name": n.Name, "At": at, "Join": strings.Join(seeds, ", "), "Gossip": base64.StdEncoding.EncodeToString(key[:]),
			"Keys": fmt.Sprintf("{%s: %s, %s: %s}", f.Key, f.Secret, ruKey, f.Secret), "Latitude": 60 - 15*i}, now)
		f.Nodes = append(f.Nodes, meshNode{Name: string(n.Name), Country: string(n.Country), Config: config, Page: "https://" + at.String() + "/",
			WS: "wss://" + at.String(), Media: netip.AddrPortFrom(at, fieldAttendees), Relay: netip.AddrPortFrom(at, fieldRelay),
			Metrics: "http://127.0.0.1:7990/metrics", namespace: network.Ports[i].Name})
		f.labs[string(n.Name)] = network.Ports[i]
	}
	f.tap = startTap(t, network, names, secrets, key[:])
	for i := range f.Nodes {
		f.Nodes[i].PID = f.run(&f.Nodes[i])
	}
	t.Cleanup(func() {
		if t.Failed() {
			f.showLogs()
		}
	})
	f.allLinked()
	return f
}

// allLinked waits until every node is linked with all others.
func (f *field) allLinked() {
	f.t.Helper()
	for _, n := range f.Nodes {
		eventually(f.t, "node "+n.Name+" is linked with all others", 20*time.Second, func() bool {
			s, err := f.peek(n.Name)
			return err == nil && linkedIn(s) == len(f.Nodes)
		})
	}
}

func linkedIn(s node.NodeState) (n int) {
	for _, m := range s.Members {
		if m.Linked {
			n++
		}
	}
	return n
}

// peek is state without a command, for those who ask often.
func (f *field) peek(name string) (s node.NodeState, err error) {
	data := filepath.Join(f.node(name).dir(), "data")
	c := http.Client{Timeout: patience * 4 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return node.DialAdmin(ctx, data)
	}}}
	resp, err := c.Get("http://node/state")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

func makeCA(dir string, now time.Time) (*identity.CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return identity.CreateCA(dir, "Field CA", now)
}

// sign writes the bundle as the operator signs it.
func (f *field) sign() {
	f.t.Helper()
	f.signInto(filepath.Join(f.Dir, "policy.yaml"))
}

func (f *field) signInto(path string) {
	f.t.Helper()
	b, err := configs.FormatPolicy(f.bundle)
	if err == nil {
		var sig []byte
		if sig, err = f.ca.Sign(b); err == nil {
			err = os.WriteFile(path, b, 0o600)
			if err == nil {
				err = os.WriteFile(path+configs.SignatureSuffix, sig, 0o600)
			}
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// configure makes a node's directory: certificates, keys, node.yaml.
func (f *field) configure(n residency.Node, at netip.Addr, values map[string]any, now time.Time) string {
	f.t.Helper()
	dir := filepath.Join(f.Dir, string(n.Name))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		f.t.Fatal(err)
	}
	sans := identity.SANs{IPs: []netip.Addr{at}}
	for file, issue := range map[string]func(crypto.PublicKey) ([]byte, error){
		"node": func(pub crypto.PublicKey) ([]byte, error) {
			return f.ca.Issue(pub, n, sans, now.Add(-time.Hour), now.Add(24*time.Hour))
		},
		"tls": func(pub crypto.PublicKey) ([]byte, error) {
			return f.ca.IssueServer(pub, sans, now.Add(-time.Hour), now.Add(24*time.Hour))
		},
	} {
		key, err := identity.GenerateKey()
		if err != nil {
			f.t.Fatal(err)
		}
		der, err := issue(key.Public())
		if err == nil {
			err = identity.WriteKey(filepath.Join(dir, file+"-key.pem"), key)
		}
		if err == nil {
			err = identity.WriteCertificates(filepath.Join(dir, file+".pem"), der)
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := fieldFile.Execute(&b, values); err != nil {
		f.t.Fatal(err)
	}
	config := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(config, b.Bytes(), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return config
}

// in is the field for a test within the test.
func (f *field) in(t testing.TB) *field {
	c := *f
	c.mesh = f.mesh.in(t)
	return &c
}

// guest is an attendee of a room.
type guest struct {
	room, name, policy string
	canary             string // of what it publishes; "": it publishes nothing
	silent             bool   // it publishes no video
	way                ways.Kind
	brief              bool   // who lets it in closes it
	stubborn           bool   // it goes on when it is sent away
	key                string // of the API; "": the platform's own
}

// enter has an attendee join; it returns why it could not.
func (f *field) enter(node string, g guest) (*client.Client, error) {
	f.t.Helper()
	key := f.Key
	if g.key != "" {
		key = g.key
	}
	yes := true
	token, err := control.MintToken(key, f.Secret, control.Grants{Identity: g.name, Name: g.name, RoomPreset: g.policy,
		Video: &auth.VideoGrant{RoomJoin: true, Room: g.room, CanPublish: &yes, CanSubscribe: &yes}}, time.Hour, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience*10*time.Second)
	defer cancel()
	c, err := client.Join(ctx, client.Config{URL: f.node(node).WS, Token: token, TLS: &tls.Config{InsecureSkipVerify: true, KeyLogWriter: f.keys}, Sample: 1024, Subscribe: true,
		Video: g.canary != "" && !g.silent, Audio: g.canary != "", Canary: g.canary, Stubborn: g.stubborn, Way: g.way, From: f.host, KeyLog: f.keys})
	if err != nil {
		if resp, why := f.client().Get(f.origin(node) + "/rtc/validate?access_token=" + token); why == nil {
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%d %s", resp.StatusCode, body)
			}
		}
		return nil, err
	}
	c.Start()
	if !g.brief {
		f.t.Cleanup(c.Close)
	}
	return c, nil
}

func (f *field) mustEnter(node string, g guest) *client.Client {
	f.t.Helper()
	c, err := f.enter(node, g)
	if err != nil {
		f.t.Fatalf("%s cannot enter %s on %s: %v", g.name, g.room, node, err)
	}
	return c
}

// receives waits until an attendee gets media anew.
func (f *field) receives(c *client.Client, who string) {
	f.t.Helper()
	was := c.Inbound().Packets()
	eventually(f.t, who+" receives", 15*time.Second, func() bool { return c.Inbound().Packets() > was+20 })
}

// metrics reads a node's metrics, which it shows on its own machine alone.
func (f *field) metrics(name string) ([]byte, error) {
	inside := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = f.labs[name].Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
	c := http.Client{Timeout: patience * 4 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: inside}}
	resp, err := c.Get(f.node(name).Metrics)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// rooms is how many rooms a node has.
func (f *field) rooms(name string) int { return len(f.state(name).Rooms) }

// refused checks that a node is refused to an attendee, and what is said about it.
func (f *field) refused(node string, g guest, says ...string) {
	f.t.Helper()
	c, err := f.enter(node, g)
	if err == nil {
		c.Close()
		f.t.Errorf("%s entered %s on %s under %s", g.name, g.room, node, g.policy)
		return
	}
	contains(f.t, "why "+node+" is refused", err.Error(), says...)
}

// untouched checks that nothing with a canary passed any node but the named ones.
func (f *field) untouched(canary string, but ...string) {
	f.t.Helper()
	seen := f.tap.sightings(canary)
	for _, n := range but {
		delete(seen, n)
	}
	if why := f.tap.missed().unseen(); why != "" {
		f.t.Errorf("nobody knows what passed: %s", why)
	}
	for n, s := range seen {
		f.t.Errorf("%d packets with the canary passed %s (%s), the first from %s to %s", s.packets, n, f.nodes[n].Country, s.from, s.to)
	}
}

// passed checks that media with a canary passed the named nodes.
func (f *field) passed(canary string, nodes ...string) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("the canary passes %v: seen %v", nodes, maps.Collect(maps.All(f.tap.sightings(canary)))), 5*time.Second, func() bool {
		seen := f.tap.sightings(canary)
		for _, n := range nodes {
			if seen[n].packets == 0 {
				return false
			}
		}
		return true
	})
}

// newCanary is a word that is nowhere else.
func newCanary() string { return canaryBegins + rand.Text()[:16-len(canaryBegins)] }

// holds says whether a file holds a word.
func holds(t testing.TB, path, word string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(word))
}
