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
	HTTPS, Port          uint16 // Port is that of media; relay and gossip follow it
}

var productionFile = template.Must(template.New("").Parse(`name: {{.Name}}
data_dir: data
identity: {certificate: {{.Name}}.pem, key: {{.Name}}-key.pem, ca: ../ca/ca.pem}
policy: ../policy.yaml
listen: {https: "{{.Host}}:{{.HTTPS}}", media: "{{.Host}}:{{.Media}}", relay: "{{.Host}}:{{.Relay}}", gossip: "{{.Host}}:{{.Gossip}}"}
public: {url: "https://{{.Host}}{{if ne .HTTPS 443}}:{{.HTTPS}}{{end}}"}
tls: {certificate: tls.pem, key: tls-key.pem}
gossip: {join: [{{.Join}}], keys: ["{{.GossipKey}}"]}
api_keys: {APIe2e: "{{.Secret}}"}
geo: {unknown: local}
location: {city: Somewhere, latitude: 50, longitude: 8}
page: {guests: true, guests_may_record: true}
`))

// startProduction makes a mesh on one address with the commands that an
// operator uses, and runs its nodes with domicile run.
func startProduction(t testing.TB, host netip.Addr, nodes ...productionNode) *mesh {
	t.Helper()
	dir := t.TempDir()
	m := &mesh{t: t, bin: product, Dir: dir, CA: filepath.Join(dir, "ca", "ca.pem"), Key: "APIe2e",
		Secret: rand.Text() + rand.Text(), killed: map[string]bool{}}
	ca, policy := filepath.Join(dir, "ca"), filepath.Join(dir, "policy.yaml")
	m.mustRun("ca", "init", "--dir", ca)
	profile, err := configs.Profile("eu-origin-global-edge")
	if err != nil {
		t.Fatal(err)
	}
	b, err := configs.FormatPolicy(&residency.Bundle{Epoch: 1, Default: profile.Name,
		Policies: map[string]*residency.Policy{profile.Name: profile}})
	if err == nil {
		err = os.WriteFile(policy, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.mustRun("policy", "sign", "--dir", ca, policy)
	var key [32]byte
	rand.Read(key[:])
	for _, n := range nodes {
		at := filepath.Join(dir, n.Name)
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		m.mustRun("ca", "issue", "--dir", ca, "--out", at, "--name", n.Name, "--country", n.Country, "--operator", "E2E",
			"--operator-country", "DE", "--roles", n.Roles, "--ip", host.String())
		m.mustRun("ca", "server", "--dir", ca, "--out", at, "--ip", host.String())
		var b bytes.Buffer
		if err := productionFile.Execute(&b, map[string]any{"Name": n.Name, "Host": host, "HTTPS": n.HTTPS, "Media": n.Port,
			"Relay": n.Port + 1, "Gossip": n.Port + 2, "Join": joinList(host, n, nodes), "Secret": m.Secret,
			"GossipKey": base64.StdEncoding.EncodeToString(key[:])}); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(at, "node.yaml")
		if err := os.WriteFile(config, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Nodes = append(m.Nodes, meshNode{Name: n.Name, Country: n.Country, Config: config,
			Page: fmt.Sprintf("https://%s:%d/", host, n.HTTPS), WS: fmt.Sprintf("wss://%s:%d", host, n.HTTPS),
			Media: netip.AddrPortFrom(host, n.Port), Relay: netip.AddrPortFrom(host, n.Port+1)})
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

func joinList(host netip.Addr, self productionNode, nodes []productionNode) string {
	var list []string
	for _, n := range nodes {
		if n.Name != self.Name {
			list = append(list, fmt.Sprintf("%q", netip.AddrPortFrom(host, n.Port+2)))
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
	cmd.Stdout, cmd.Stderr = log, log
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
