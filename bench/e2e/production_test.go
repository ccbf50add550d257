package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
)

// productionNode is a node that a test sets up by hand, as an operator does.
type productionNode struct {
	Name, Country, Roles string
	HTTPS, Port          uint16     // Port is that of media
	Mesh                 uint16     // of relay, gossip is the next; 0: after Port
	At                   netip.Addr // for attendees; zero: the mesh's address
}

var productionFile = template.Must(template.New("").Parse(`name: {{.Name}}
data_dir: data
identity: {certificate: {{.Name}}.pem, key: {{.Name}}-key.pem, ca: ../ca/ca.pem}
policy: ../policy.yaml
listen: {https: "{{.HTTPS}}", media: "{{.Media}}", relay: "{{.Relay}}", gossip: "{{.Gossip}}"}
public: {url: "{{.URL}}"}
tls: {certificate: tls.pem, key: tls-key.pem}
gossip: {join: [{{.Join}}], keys: ["{{.GossipKey}}"]}
api_keys: {APIe2e: "{{.Secret}}"}
geo: {unknown: local}
location: {city: Somewhere, latitude: {{.Latitude}}, longitude: 8}
page: {guests: true, guests_may_record: true}
`))

// startProduction makes a mesh on one address with the commands that an
// operator uses, and runs its nodes with domicile run.
func startProduction(t testing.TB, host netip.Addr, nodes ...productionNode) *mesh {
	t.Helper()
	for i := range nodes {
		if n := &nodes[i]; n.Mesh == 0 {
			n.Mesh = n.Port + 1
		}
		if n := &nodes[i]; !n.At.IsValid() {
			n.At = host
		}
	}
	dir := t.TempDir()
	m := &mesh{t: t, bin: product, Dir: dir, CA: filepath.Join(dir, "ca", "ca.pem"), Key: "APIe2e",
		Secret: rand.Text() + rand.Text(), killed: map[string]bool{}}
	ca, policy := filepath.Join(dir, "ca"), filepath.Join(dir, "policy.yaml")
	m.mustRun("ca", "init", "--dir", ca)
	profile, err := configs.Profile("eu-origin-global-edge")
	if err != nil {
		t.Fatal(err)
	}
	bundle := &residency.Bundle{Epoch: 1, Default: profile.Name, Policies: map[string]*residency.Policy{profile.Name: profile}}
	for _, n := range nodes {
		bundle.Overrides = append(bundle.Overrides, residency.Override{Node: residency.NodeName(n.Name),
			Reason: "the test runs on one machine", Until: time.Now().Add(24 * time.Hour).Truncate(time.Second).UTC()})
	}
	b, err := configs.FormatPolicy(bundle)
	if err == nil {
		err = os.WriteFile(policy, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.mustRun("policy", "sign", "--dir", ca, policy)
	var key [32]byte
	rand.Read(key[:])
	for i, n := range nodes { // far from each other: an attendee stays where it asks
		at := filepath.Join(dir, n.Name)
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		m.mustRun("ca", "issue", "--dir", ca, "--out", at, "--name", n.Name, "--country", n.Country, "--operator", "E2E",
			"--operator-country", "DE", "--roles", n.Roles, "--ip", host.String())
		m.mustRun("ca", "server", "--dir", ca, "--out", at, "--ip", n.At.String())
		var b bytes.Buffer
		if err := productionFile.Execute(&b, map[string]any{"Name": n.Name, "HTTPS": n.https(), "URL": "https://" + n.origin(), "Latitude": 50 - 20*i,
			"Media": netip.AddrPortFrom(n.At, n.Port), "Relay": netip.AddrPortFrom(host, n.Mesh),
			"Gossip": netip.AddrPortFrom(host, n.Mesh+1), "Join": joinList(host, n, nodes), "Secret": m.Secret,
			"GossipKey": base64.StdEncoding.EncodeToString(key[:])}); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(at, "node.yaml")
		if err := os.WriteFile(config, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Nodes = append(m.Nodes, meshNode{Name: n.Name, Country: n.Country, Config: config,
			Page: "https://" + n.https().String() + "/", WS: "wss://" + n.https().String(),
			Media: netip.AddrPortFrom(n.At, n.Port), Relay: netip.AddrPortFrom(host, n.Mesh)})
	}
	for i := range m.Nodes {
		m.Nodes[i].PID = m.run(&m.Nodes[i])
	}
	for _, n := range m.Nodes {
		eventually(t, "node "+n.Name+" is linked with all others", 20*time.Second, func() bool { return m.linked(n.Name) == len(nodes) })
	}
	t.Cleanup(func() {
		if t.Failed() {
			m.showLogs()
		}
	})
	return m
}

func (n productionNode) https() netip.AddrPort { return netip.AddrPortFrom(n.At, n.HTTPS) }

// origin is host and port as browsers write them.
func (n productionNode) origin() string { return strings.TrimSuffix(n.https().String(), ":443") }

func joinList(host netip.Addr, self productionNode, nodes []productionNode) string {
	var list []string
	for _, n := range nodes {
		if n.Name != self.Name {
			list = append(list, fmt.Sprintf("%q", netip.AddrPortFrom(host, n.Mesh+1)))
		}
	}
	return strings.Join(list, ", ")
}

func (m *mesh) mustRun(args ...string) {
	m.t.Helper()
	if out, code := m.domicile(args...); code != 0 {
		m.t.Fatalf("domicile %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
}

// run starts a node; it is stopped when the test ends.
func (m *mesh) run(n *meshNode) int {
	m.t.Helper()
	log, err := os.Create(filepath.Join(n.dir(), "node.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(m.bin, "run", "--config", n.Config)
	if n.namespace != "" { // ip becomes the node: it is the same process
		cmd = exec.Command("ip", "netns", "exec", n.namespace, m.bin, "run", "--config", n.Config)
	}
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, m.env
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	name := n.Name
	m.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil && !m.killed[name] {
			m.t.Errorf("node %s ended with %v", name, err)
		}
	})
	return cmd.Process.Pid
}

// linked counts the members that a node can reach, itself included.
func (m *mesh) linked(name string) (n int) {
	out, _, code := m.command("state", "--node", name)
	if code != 0 {
		return 0 // it is not up yet
	}
	for _, member := range parseState(m.t, out).Members {
		if member.Linked {
			n++
		}
	}
	return n
}
