package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

const (
	testSecret    = "0123456789abcdef0123456789abcdef"
	testGossipKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
)

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// site is a directory with everything a node fra needs.
type site struct {
	dir string
	ca  *identity.CA
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	var err error
	if s.ca, err = identity.CreateCA(s.dir, "Example CA", testNow); err != nil {
		t.Fatal(err)
	}
	s.issueNode(t, s.ca, "fra", "DE")
	s.issueServer(t, identity.SANs{IPs: []netip.Addr{netip.MustParseAddr("127.20.0.1")}})
	s.writePolicy(t, "")
	s.write(t, "keys.yaml", 0o600, "keys: ["+testGossipKey+"]\n")
	s.write(t, "api.yaml", 0o600, "api_keys: {APIdemo: "+testSecret+"}\n")
	s.write(t, "node.yaml", 0o644, `name: fra
data_dir: data
identity: {certificate: node.pem, key: node-key.pem, ca: ca.pem}
policy: policy.yaml
listen: {https: 127.20.0.1:7443, media: 127.20.0.1:7882, relay: 127.20.0.1:7900, gossip: 127.20.0.1:7946}
tls: {certificate: tls.pem, key: tls-key.pem}
gossip: {keys_file: keys.yaml}
api_keys_file: api.yaml
location: {latitude: 50.11, longitude: 8.68}
`)
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t *testing.T, name string, mode os.FileMode, text string) {
	t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path(name), mode); err != nil {
		t.Fatal(err)
	}
}

func (s *site) edit(t *testing.T, name, old, new string) {
	t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %q", name, old)
	}
	s.write(t, name, 0o644, strings.Replace(string(b), old, new, 1))
}

func (s *site) issueNode(t *testing.T, ca *identity.CA, name residency.NodeName, country residency.Country) {
	t.Helper()
	s.issue(t, "node", func(key any) ([]byte, error) {
		return ca.Issue(key, residency.Node{
			Name: name, Country: country, Operator: "Example GmbH", OperatorCountry: "DE",
			Parent: "Example GmbH", ParentCountry: "DE", Roles: []residency.Role{residency.RoleOrigin},
		}, identity.SANs{}, testNow, testNow.Add(24*time.Hour))
	})
}

func (s *site) issueServer(t *testing.T, sans identity.SANs) {
	t.Helper()
	s.issue(t, "tls", func(key any) ([]byte, error) {
		return s.ca.IssueServer(key, sans, testNow, testNow.Add(24*time.Hour))
	})
}

// issue writes NAME.pem and NAME-key.pem anew.
func (s *site) issue(t *testing.T, name string, make func(key any) ([]byte, error)) {
	t.Helper()
	_ = os.Remove(s.path(name + ".pem"))
	_ = os.Remove(s.path(name + "-key.pem"))
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := make(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.WriteKey(s.path(name+"-key.pem"), key); err != nil {
		t.Fatal(err)
	}
	if err := identity.WriteCertificates(s.path(name+".pem"), der); err != nil {
		t.Fatal(err)
	}
}

// writePolicy writes and signs a policy with further keys.
func (s *site) writePolicy(t *testing.T, more string) {
	t.Helper()
	text := "epoch: 3\ndefault: eea-only\npolicies: {eea-only: {title: EEA, classes: {all: EEA}}}\n" + more
	sig, err := s.ca.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "policy.yaml", 0o644, text)
	s.write(t, "policy.yaml.sig", 0o644, string(sig))
}

func (s *site) load(t *testing.T) *Node {
	t.Helper()
	n, err := LoadNode(s.path("node.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLoadNode(t *testing.T) {
	s := newSite(t)
	n := s.load(t)
	if got := n.APISecrets()["APIdemo"]; got != testSecret {
		t.Errorf("secret of APIdemo: got %q", got)
	}
	if len(n.Gossip.Keys) != 1 || string(n.Gossip.Keys[0][:]) != testSecret {
		t.Errorf("gossip keys: got %x", n.Gossip.Keys)
	}
	for _, c := range []struct{ what, got, want string }{
		{"data_dir", n.DataDir, s.path("data")},
		{"key", n.Identity.Key, s.path("node-key.pem")},
		{"public URL", n.PublicURL(), "https://127.20.0.1:7443"},
		{"relay address", n.RelayAddress().String(), "127.20.0.1:7900"},
		{"gossip address", n.GossipAddress().String(), "127.20.0.1:7946"},
		{"geo.unknown", n.Geo.Unknown, "origin"},
		{"capacity", fmt.Sprint(n.Capacity.Attendees), "500"},
		{"turn", fmt.Sprint(n.TURN), "{8192 12 1024 64}"},
		{"max_speakers", fmt.Sprint(n.Media.MaxSpeakers), "16"},
		{"fan_out", fmt.Sprint(n.Media.FanOut), "8"},
		{"min_free_mb", fmt.Sprint(n.Recordings.MinFreeMB), "512"},
		{"copies", fmt.Sprint(n.Recordings.Copies, n.Recordings.CopyMbit), "true 50"},
		{"level", n.SlogLevel().String(), "INFO"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
		}
	}
}

// TestSecretsAreNotShown prints a node in every way that a log might.
func TestSecretsAreNotShown(t *testing.T) {
	s := newSite(t)
	n := s.load(t)
	js, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	log.Info("node", "keys", n.APIKeys["APIdemo"], "gossip", n.Gossip.Keys[0], "node", n.Gossip)
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s", n.APIKeys, n.Gossip, n.APIKeys, n.Gossip.Keys), string(js), logged.String(),
	} {
		for _, secret := range []string{testSecret, testGossipKey, "48, 49, 50", "[48 49 50"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q shows %q", text, secret)
			}
		}
	}
}

func TestExampleNode(t *testing.T) {
	s := newSite(t)
	b, err := os.ReadFile("examples/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "example.yaml", 0o600, string(b))
	s.write(t, "gossip-keys.yaml", 0o600, "keys: ["+testGossipKey+"]\n")
	s.write(t, "api-keys.yaml", 0o600, "api_keys: {APIdemo: "+testSecret+"}\n")
	s.issueServer(t, identity.SANs{DNS: []string{"fra.meet.example.org"}})
	n, err := LoadNode(s.path("example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CheckFiles(testNow); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFiles(t *testing.T) {
	s := newSite(t)
	f, err := s.load(t).CheckFiles(testNow)
	if err != nil {
		t.Fatal(err)
	}
	if f.Node.Name != "fra" || f.Node.Country != "DE" || f.Bundle.Epoch != 3 || len(f.Authorities) != 1 ||
		f.Certificate.PrivateKey == nil || f.ServerTLS.PrivateKey == nil {
		t.Errorf("got %+v", f)
	}
}

func TestCheckFilesFaults(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(t *testing.T, s *site)
		want  string
	}{
		{"another node's certificate", func(t *testing.T, s *site) { s.issueNode(t, s.ca, "waw", "PL") },
			`node.yaml:1:7: the certificate is that of node "waw": "fra"`},
		{"another CA's certificate", func(t *testing.T, s *site) {
			other, err := identity.CreateCA(t.TempDir(), "Example CA", testNow)
			if err != nil {
				t.Fatal(err)
			}
			s.issueNode(t, other, "fra", "DE")
		}, `node.yaml:3:25: verify node certificate: x509: certificate signed by unknown authority`},
		{"key that others can read", func(t *testing.T, s *site) {
			if err := os.Chmod(s.path("node-key.pem"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, `mode 0644 lets others than its owner at it; chmod 600 it: "node-key.pem"`},
		{"TLS key that everybody can read", func(t *testing.T, s *site) {
			if err := os.Chmod(s.path("tls-key.pem"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, `tls-key.pem holds a secret, and mode 0644 lets everybody at it`},
		{"API keys that everybody can read", func(t *testing.T, s *site) {
			if err := os.Chmod(s.path("api.yaml"), 0o604); err != nil {
				t.Fatal(err)
			}
		}, `api.yaml holds a secret, and mode 0604 lets everybody at it`},
		{"server certificate for a node", func(t *testing.T, s *site) {
			s.edit(t, "node.yaml", "certificate: node.pem, key: node-key.pem", "certificate: tls.pem, key: tls-key.pem")
		}, `lacks the extended key usages serverAuth and clientAuth`},
		{"certificate and key of two", func(t *testing.T, s *site) {
			s.edit(t, "node.yaml", "key: node-key.pem", "key: tls-key.pem")
		}, `it is not the key of the certificate`},
		{"CA file with a node's certificate", func(t *testing.T, s *site) {
			s.edit(t, "node.yaml", "ca: ca.pem", "ca: node.pem")
		}, `node.yaml:3:58: certificate 1 of the file is not an authority's: "node.pem"`},
		{"no CA file", func(t *testing.T, s *site) { s.edit(t, "node.yaml", "ca: ca.pem", "ca: no.pem") },
			`no such file or directory`},
		{"policy changed after signing", func(t *testing.T, s *site) { s.edit(t, "policy.yaml", "epoch: 3", "epoch: 4") },
			`policy.yaml: verify signature: none of the trusted authorities signed this text as it is now`},
		{"no signature", func(t *testing.T, s *site) {
			if err := os.Remove(s.path("policy.yaml.sig")); err != nil {
				t.Fatal(err)
			}
		}, `policy.yaml.sig: there is no such file`},
		{"signed but faulty policy", func(t *testing.T, s *site) { s.writePolicy(t, "nodes: [{name: fra, country: no}]\n") },
			`hint: NO is Norway; quote it: "NO"`},
		{"register without the node", func(t *testing.T, s *site) {
			s.writePolicy(t, "nodes: [{name: waw, country: PL, roles: [origin]}, {name: ber, country: DE, roles: [origin]}]\n")
		},
			`node.yaml:4:9: node fra is not in the register of the mesh`},
		{"register with another country", func(t *testing.T, s *site) {
			s.writePolicy(t, "nodes: [{name: fra, country: FR, roles: [origin]}, {name: ber, country: DE, roles: [origin]}]\n")
		},
			`node fra is in DE by its certificate, in FR by the register of the mesh`},
		{"expired policy", func(t *testing.T, s *site) { s.writePolicy(t, "expires: 2026-03-01T12:00:00Z\n") },
			`it expired at 2026-03-01T12:00:00Z`},
		{"server certificate of another name", func(t *testing.T, s *site) {
			s.issueServer(t, identity.SANs{DNS: []string{"meet.example.org"}})
		}, `node.yaml:6:20: it does not hold for https://127.20.0.1:7443`},
		{"data_dir is a file", func(t *testing.T, s *site) { s.write(t, "data", 0o600, "") },
			`node.yaml:2:11: it is not a directory: "data"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			c.spoil(t, s)
			f, err := s.load(t).CheckFiles(testNow)
			if _, ok := err.(Faults); !ok || f != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v\nwant Faults with %q", f, err, c.want)
			}
		})
	}
}

// byACME changes the site's node to one whose certificate comes by ACME.
func byACME(t *testing.T, s *site, acme string) {
	t.Helper()
	s.edit(t, "node.yaml", "tls: {certificate: tls.pem, key: tls-key.pem}", "public: {url: https://fra.example.org}\ntls: {acme: "+acme+"}")
}

func TestACME(t *testing.T) {
	s := newSite(t)
	byACME(t, s, "{names: [FRA.example.org, www.example.org], ca_roots: ca.pem, eab: {key_id: operator, secret_file: eab}, dns: {program: hook}}")
	s.write(t, "eab", 0o600, "YS1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcy0wMTIzNA==\n")
	s.write(t, "hook", 0o755, "#!/bin/sh\n")
	n := s.load(t)
	if a := n.TLS.ACME; !n.ByACME() || a.Directory != letsEncrypt || !slices.Equal(a.Names, []string{"fra.example.org", "www.example.org"}) || a.DNS.Program != s.path("hook") {
		t.Errorf("got %+v", a)
	}
	f, err := n.CheckFiles(testNow)
	if err != nil {
		t.Fatal(err)
	}
	if f.ACMERoots == nil || f.EABSecret != "YS1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcy0wMTIzNA" {
		t.Errorf("got %+v", f)
	}
	s = newSite(t)
	byACME(t, s, "{}")
	if n := s.load(t); !slices.Equal(n.TLS.ACME.Names, []string{"fra.example.org"}) {
		t.Errorf("without names: %q", n.TLS.ACME.Names)
	}
	if s := newSite(t); s.load(t).ByACME() {
		t.Error("files count as ACME")
	}
}

func TestACMEFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		acme string
		make func(*testing.T, *site)
		want string
	}{
		"no roots":      {"{ca_roots: none.pem}", func(*testing.T, *site) {}, "no such file"},
		"roots are key": {"{ca_roots: tls-key.pem}", func(*testing.T, *site) {}, "tls-key.pem"},
		"no secret":     {"{eab: {key_id: a, secret_file: eab}}", func(*testing.T, *site) {}, "no such file"},
		"open secret": {"{eab: {key_id: a, secret_file: eab}}", func(t *testing.T, s *site) {
			s.write(t, "eab", 0o644, "YS1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcy0wMTIzNA")
		}, "lets everybody at it"},
		"short secret":       {"{eab: {key_id: a, secret_file: eab}}", func(t *testing.T, s *site) { s.write(t, "eab", 0o600, "YQ") }, "does not hold an authority's secret"},
		"no program":         {"{dns: {program: hook}}", func(*testing.T, *site) {}, "no such file"},
		"no program, a file": {"{dns: {program: hook}}", func(t *testing.T, s *site) { s.write(t, "hook", 0o644, "") }, "it is no program"},
		"open program":       {"{dns: {program: hook}}", func(t *testing.T, s *site) { s.write(t, "hook", 0o777, "") }, "lets others change what the node runs"},
		"a folder":           {"{dns: {program: .}}", func(*testing.T, *site) {}, "it is no program"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			byACME(t, s, tt.acme)
			tt.make(t, s)
			_, err := s.load(t).CheckFiles(testNow)
			if _, ok := err.(Faults); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want Faults with %q", err, tt.want)
			}
		})
	}
}

func TestCheckFilesRevoked(t *testing.T) {
	s := newSite(t)
	f, err := s.load(t).CheckFiles(testNow)
	if err != nil {
		t.Fatal(err)
	}
	s.writePolicy(t, "revoked: [\""+strings.ToUpper(f.Node.Serial)+"\"]\n")
	if _, err := s.load(t).CheckFiles(testNow); err == nil || !strings.Contains(err.Error(), "it revokes the certificate of this node") {
		t.Errorf("got %v", err)
	}
}

func TestCheckFilesExpired(t *testing.T) {
	s := newSite(t)
	_, err := s.load(t).CheckFiles(testNow.Add(48 * time.Hour))
	if err == nil || !strings.Contains(err.Error(), "certificate has expired") || !strings.Contains(err.Error(), "not now") {
		t.Errorf("got %v, want both certificates named", err)
	}
}

// TestInlineSecretsFile has the secrets in node.yaml itself, which must then
// not be everybody's to read, nor be shown in the fault that says so.
func TestInlineSecretsFile(t *testing.T) {
	s := newSite(t)
	s.edit(t, "node.yaml", "keys_file: keys.yaml", "keys: ["+testGossipKey+"]")
	s.edit(t, "node.yaml", "api_keys_file: api.yaml", "api_keys: {APIdemo: "+testSecret+"}")
	_, err := s.load(t).CheckFiles(testNow)
	if err == nil || strings.Count(err.Error(), "node.yaml holds a secret") != 2 {
		t.Fatalf("got %v, want two faults about node.yaml", err)
	}
	if strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), testGossipKey) {
		t.Errorf("the error shows a secret:\n%v", err)
	}
	if err := os.Chmod(s.path("node.yaml"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := s.load(t).CheckFiles(testNow); err != nil {
		t.Error(err)
	}
}
