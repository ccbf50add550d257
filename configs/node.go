package configs

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/domicile/domicile/residency"
)

// Node is node.yaml: one node of the mesh. Paths in the file are relative to
// the file; LoadNode makes them absolute.
type Node struct {
	// Name is the node's name, as its certificate states it. Required.
	Name residency.NodeName `yaml:"name,required"`

	// DataDir is the directory for what the node keeps: room records,
	// recordings and evidence on an origin, nothing of a meeting on an edge.
	// Required.
	DataDir string `yaml:"data_dir,required"`

	// Identity is who the node is for other nodes. Required.
	Identity Identity `yaml:"identity,required"`

	// Policy is the mesh's policy file; its signature lies beside it, with
	// ".sig" after the name. Required.
	Policy string `yaml:"policy,required"`

	Listen     Listen     `yaml:"listen,required"`
	Public     Public     `yaml:"public"`
	TLS        TLS        `yaml:"tls,required"`
	Gossip     Gossip     `yaml:"gossip,required"`
	Geo        Geo        `yaml:"geo"`
	Location   Location   `yaml:"location,required"`
	Capacity   Capacity   `yaml:"capacity"`
	Page       Page       `yaml:"page"`
	Rooms      Rooms      `yaml:"rooms"`
	Media      Media      `yaml:"media"`
	Recordings Recordings `yaml:"recordings"`
	Log        Log        `yaml:"log"`

	// APIKeys are the keys that sign attendees' tokens and API calls, each with
	// its secret of at least 32 characters. Every node of the mesh has the same.
	// Either these or APIKeysFile.
	APIKeys map[string]Secret `yaml:"api_keys"`

	// APIKeysFile is a YAML file of such keys and secrets, so that node.yaml
	// itself holds nothing secret. LoadNode puts them into APIKeys.
	APIKeysFile string `yaml:"api_keys_file"`

	source *document // where the values stand, for CheckFiles
}

// Identity names the files that say who a node is, all PEM.
type Identity struct {
	Certificate string `yaml:"certificate,required"` // the node's, issued by the operator's CA
	Key         string `yaml:"key,required"`         // its private key, readable by its owner alone
	CA          string `yaml:"ca,required"`          // the authorities whose nodes and policies count; two while one replaces the other
}

// Listen holds the addresses the node listens on, each with its port. An
// address such as 0.0.0.0 takes every interface; then Public must say what
// others are told.
type Listen struct {
	// HTTPS serves attendees over TCP: page, API, signalling, TURN over TLS. Required.
	HTTPS netip.AddrPort `yaml:"https,required"`

	// HTTP serves the same without TLS, for a proxy or a developer on this very
	// machine: loopback only. Off by default.
	HTTP netip.AddrPort `yaml:"http"`

	// Media takes attendees' audio and video over UDP. Required.
	Media netip.AddrPort `yaml:"media,required"`

	// Relay takes QUIC links from other nodes over UDP. Required.
	Relay netip.AddrPort `yaml:"relay,required"`

	// Gossip takes memberlist's packets over UDP and TCP. Required.
	Gossip netip.AddrPort `yaml:"gossip,required"`

	// Metrics serves Prometheus metrics over plain HTTP: a loopback or private
	// address, never one that attendees reach. Off by default.
	Metrics netip.AddrPort `yaml:"metrics"`
}

// Public holds what others are told where that differs from Listen: behind 1:1
// NAT, with a name in DNS, or when listening on every interface.
type Public struct {
	// URL is the base that attendees open, https://HOST or https://HOST:PORT.
	// Default: https:// and Listen.HTTPS.
	URL string `yaml:"url"`

	// MediaAddress is the address offered for media, with the port of
	// Listen.Media. Default: that of Listen.Media, or of every interface.
	MediaAddress netip.Addr `yaml:"media_address"`

	// RelayAddress and GossipAddress are where other nodes reach this one.
	// Default: Listen.Relay and Listen.Gossip.
	RelayAddress  netip.AddrPort `yaml:"relay_address"`
	GossipAddress netip.AddrPort `yaml:"gossip_address"`
}

// TLS names the certificate for attendees (HTTPS and TURN), PEM with its chain.
// It is another one than Identity's: browsers know nothing of nodes.
type TLS struct {
	Certificate string `yaml:"certificate,required"`
	Key         string `yaml:"key,required"`
}

// Gossip says how the node joins the mesh.
type Gossip struct {
	// Join lists other nodes' gossip addresses, HOST:PORT. One that answers is
	// enough; more make a cold start likelier to succeed. Empty on the first node.
	Join []string `yaml:"join"`

	// Keys encrypt gossip, 32 bytes each in base64. The first encrypts, all
	// decrypt: to change keys, add the new one last everywhere, move it to the
	// front everywhere, then drop the old one. Either these or KeysFile.
	Keys []GossipKey `yaml:"keys" empty:"gossip is always encrypted; make a key with: openssl rand -base64 32"`

	// KeysFile holds the keys, a YAML list in the same order. LoadNode puts
	// them into Keys.
	KeysFile string `yaml:"keys_file"`
}

// Geo says how the place of an attendee is found out.
type Geo struct {
	// Database is a GeoIP database (mmdb, cities). Without it, or when it is
	// broken, every address is unknown.
	Database string `yaml:"database"`

	// Unknown says which node an attendee of unknown place gets: "origin", one
	// that every policy is likeliest to permit (the default), or "local", the
	// one that was asked, which is nearer where the network already routes to
	// the nearest node.
	Unknown string `yaml:"unknown"`

	// TrustedProxies are the ranges whose X-Forwarded-For is believed. Empty by
	// default: the address of the connection counts.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`

	// AcceptClaimedAddress lets attendees say which address they come from.
	// For demonstrations; it changes where they are placed, never what a policy
	// permits. Off by default.
	AcceptClaimedAddress bool `yaml:"accept_claimed_address"`
}

// Location is where the machine stands, for distances to attendees. The country
// is not said here: only the certificate states it.
type Location struct {
	City      string  `yaml:"city"`               // for people
	Latitude  float64 `yaml:"latitude,required"`  // degrees, -90 to 90
	Longitude float64 `yaml:"longitude,required"` // degrees, -180 to 180
}

// Capacity bounds what the node takes on.
type Capacity struct {
	// Attendees is the number at which the node counts as full and new ones are
	// placed elsewhere. Default 500. Higher than the machine carries, everybody
	// suffers; lower, distant nodes are used while this one idles.
	Attendees int `yaml:"attendees"`
}

// Page says who may do what with the built-in page.
type Page struct {
	// Guests lets people without a token join by name. Off by default.
	Guests bool `yaml:"guests"`
	// GuestsMayRecord lets them record where the policy permits it. Off by default.
	GuestsMayRecord bool `yaml:"guests_may_record"`
}

// Rooms says what moderators may do through the API.
type Rooms struct {
	// RemoteUnmute lets them unmute the tracks of others. Off by default, as
	// with LiveKit: with it, somebody else opens a microphone.
	RemoteUnmute bool `yaml:"remote_unmute"`
}

// Media bounds what is forwarded.
type Media struct {
	// MaxSpeakers is how many open microphones of a room are forwarded at once, the
	// loudest; 1 to 1000. With no more than that open, all are. Default 16: no
	// usual meeting is touched, and nobody follows more voices in a hall. Every
	// attendee receives up to so many, at about 40 kbit/s each; nodes of one mesh
	// should have the same number.
	MaxSpeakers int `yaml:"max_speakers"`
}

// Recordings bounds what recordings take of the disk.
type Recordings struct {
	// MinFreeMB is the free space, in MB of 10⁶ bytes, below which recording
	// stops; live media goes on. Default 512: room to stop cleanly on a disk
	// that others fill too.
	MinFreeMB int `yaml:"min_free_mb"`
}

// Log says what the node writes to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (the default), warn or error
	Format string `yaml:"format"` // text (the default) or json
}

// Secret is text that is never shown: it prints as "[secret]".
type Secret string

func (Secret) isSecret() {}

// String hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// GossipKey is a key of AES-256, for memberlist's key ring. It prints as "[secret]".
type GossipKey [32]byte

func (GossipKey) isSecret() {}

// String hides the key.
func (GossipKey) String() string { return "[secret]" }

// GoString hides the key.
func (k GossipKey) GoString() string { return k.String() }

// MarshalText hides the key.
func (k GossipKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k *GossipKey) readScalar(s scalar) *Fault {
	b, err := base64.StdEncoding.DecodeString(s.text)
	if err == nil && len(b) == len(k) {
		copy(k[:], b)
		return nil
	}
	f := &Fault{Message: "not a gossip key", Allowed: "32 bytes in base64", Hint: "make one with: openssl rand -base64 32"}
	if err == nil {
		f.Message = fmt.Sprintf("a gossip key of %d bytes", len(b))
	}
	return f
}

// LoadNode reads a node file and the secrets it refers to, fills in defaults
// and checks everything that the files themselves can tell. CheckFiles looks at
// the other files. An error about a file is of type Faults.
func LoadNode(path string) (*Node, error) {
	b, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	d, root := parse(path, b)
	if root == nil {
		return nil, d.faults.sorted()
	}
	n := &Node{
		Geo:        Geo{Unknown: "origin"},
		Capacity:   Capacity{Attendees: 500},
		Media:      Media{MaxSpeakers: 16},
		Recordings: Recordings{MinFreeMB: 512},
		Log:        Log{Level: "info", Format: "text"},
		source:     d,
	}
	d.read(root, n)
	n.resolve(filepath.Dir(path))
	n.readSecretFiles(d)
	d.validate(n)
	if err := d.faults.sorted(); err != nil {
		return nil, err
	}
	return n, nil
}

// paths returns every path of the file, by the place where it stands.
func (n *Node) paths() map[string]*string {
	return map[string]*string{
		"data_dir": &n.DataDir, "policy": &n.Policy, "api_keys_file": &n.APIKeysFile, "geo.database": &n.Geo.Database,
		"gossip.keys_file":     &n.Gossip.KeysFile,
		"identity.certificate": &n.Identity.Certificate, "identity.key": &n.Identity.Key, "identity.ca": &n.Identity.CA,
		"tls.certificate": &n.TLS.Certificate, "tls.key": &n.TLS.Key,
	}
}

// resolve makes paths absolute, as seen from the file's directory.
func (n *Node) resolve(dir string) {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	for _, p := range n.paths() {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// readSecretFiles fills Keys and APIKeys from their files. Faults there are
// faults of the node.
func (n *Node) readSecretFiles(d *document) {
	if n.APIKeysFile != "" && !d.has("api_keys") {
		var f struct {
			APIKeys map[string]Secret `yaml:"api_keys,required"`
		}
		d.include("api_keys_file", n.APIKeysFile, &f, func(of *document) { of.validateAPIKeys(f.APIKeys) })
		n.APIKeys = f.APIKeys
	}
	if n.Gossip.KeysFile != "" && !d.has("gossip.keys") {
		var f struct {
			Keys []GossipKey `yaml:"keys,required" empty:"gossip is always encrypted"`
		}
		d.include("gossip.keys_file", n.Gossip.KeysFile, &f, func(*document) {})
		n.Gossip.Keys = f.Keys
	}
}

// include reads a further file into v, checks it, and takes over its faults.
func (d *document) include(key, path string, v any, check func(*document)) {
	b, err := readConfig(path)
	if err != nil {
		d.fault(key, Fault{Message: strings.TrimPrefix(err.Error(), path+": ")})
		return
	}
	of, root := parse(path, b)
	if root != nil {
		of.read(root, v)
		check(of)
	}
	d.faults = append(d.faults, of.faults...)
}

// PublicURL is the base that attendees open.
func (n *Node) PublicURL() string {
	if n.Public.URL != "" {
		return n.Public.URL
	}
	return "https://" + n.Listen.HTTPS.String()
}

// RelayAddress is where other nodes open QUIC links to this one.
func (n *Node) RelayAddress() netip.AddrPort { return or(n.Public.RelayAddress, n.Listen.Relay) }

// GossipAddress is where other nodes gossip with this one.
func (n *Node) GossipAddress() netip.AddrPort { return or(n.Public.GossipAddress, n.Listen.Gossip) }

func or(a, b netip.AddrPort) netip.AddrPort {
	if a.IsValid() {
		return a
	}
	return b
}

// APISecrets returns the API keys with their secrets in clear, for those who
// check tokens.
func (n *Node) APISecrets() map[string]string {
	m := make(map[string]string, len(n.APIKeys))
	for key, secret := range n.APIKeys {
		m[key] = string(secret)
	}
	return m
}

// SlogLevel is Log.Level as slog has it.
func (n *Node) SlogLevel() slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(n.Log.Level)) // validated; the zero value is info
	return l
}
