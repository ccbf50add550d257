package configs

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
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

	// Routing is a file of rules by which attendees are placed among the nodes that
	// the policy permits: configs/examples/routing.yaml. It is followed while the
	// node runs. Nodes of one mesh should have the same. Default: the rules that
	// stand in the example.
	Routing string `yaml:"routing"`

	Listen     Listen     `yaml:"listen,required"`
	Public     Public     `yaml:"public"`
	TLS        TLS        `yaml:"tls,required"`
	Gossip     Gossip     `yaml:"gossip,required"`
	Geo        Geo        `yaml:"geo"`
	Location   Location   `yaml:"location,required"`
	Capacity   Capacity   `yaml:"capacity"`
	TURN       TURN       `yaml:"turn"`
	DNS        DNS        `yaml:"dns"`
	Page       Page       `yaml:"page"`
	Rooms      Rooms      `yaml:"rooms"`
	Media      Media      `yaml:"media"`
	Recordings Recordings `yaml:"recordings"`
	Store      Store      `yaml:"store"`
	Log        Log        `yaml:"log"`

	// Webhooks are told what happens in rooms, by their home: who comes and goes,
	// which tracks are published, what is recorded. Nodes of one mesh should have the
	// same. None by default.
	Webhooks []Webhook `yaml:"webhooks"`

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

	// HTTPRedirect sends who forgot the s to HTTPS, on port 80 as a rule, and
	// answers an ACME server there. Off by default.
	HTTPRedirect netip.AddrPort `yaml:"http_redirect"`

	// ProxyProtocol are the load balancers of layer 4 in front of HTTPS and
	// HTTPRedirect, which must begin each connection with a PROXY protocol header
	// of version 2. What it says is the client's address for limits, places and
	// TURN; others that send one are turned away. Off by default: never list an
	// address from which an attendee could come.
	ProxyProtocol []netip.Prefix `yaml:"proxy_protocol"`

	// Media takes attendees' audio and video over UDP. Required.
	Media netip.AddrPort `yaml:"media,required"`

	// Relay takes QUIC links from other nodes over UDP. Required.
	Relay netip.AddrPort `yaml:"relay,required"`

	// RelayMedia takes media of other nodes over UDP, beside QUIC: on paths that
	// lose packets QUIC carries little. Where a firewall lets nothing through, and
	// to nodes that have none, media goes over QUIC. Off by default.
	RelayMedia netip.AddrPort `yaml:"relay_media"`

	// Gossip takes memberlist's packets over UDP and TCP. Required.
	Gossip netip.AddrPort `yaml:"gossip,required"`

	// DNS answers for the mesh's name over UDP and TCP, on port 53 as a rule; see
	// DNS. Off by default.
	DNS netip.AddrPort `yaml:"dns"`

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

// TLS says where the certificate for attendees comes from, one for HTTPS and
// TURN: from files, or by ACME. It is another one than Identity's: browsers know
// nothing of nodes.
type TLS struct {
	// Certificate and Key are PEM files, the certificate with its chain. They
	// are read again when they change.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`

	// ACME has the node get the certificate itself and renew it. Choosing it
	// means that you accept the terms of the authority.
	ACME ACME `yaml:"acme"`
}

// ACME says which authority issues the certificate (RFC 8555). Accounts,
// certificates and keys are kept in data_dir/acme.
type ACME struct {
	// Directory is the URL of the authority's directory. Default: Let's Encrypt.
	// Its staging directory issues certificates that nobody believes, without
	// its rate limits: right for a first try.
	Directory string `yaml:"directory"`

	// Email is whom the authority writes to. It may be left out.
	Email string `yaml:"email"`

	// Names are what the certificate holds for, up to 100: the host of the public
	// URL must be among them. Default: that host alone.
	Names []string `yaml:"names" empty:"leave the key out for the host of public.url alone"`

	// Profile is one of the authority's profiles, such as "shortlived" (six days)
	// with Let's Encrypt, which issues for IP addresses in no other. Default: the
	// authority's.
	Profile string `yaml:"profile"`

	// CARoots is a file of the certificates by which the directory's server is
	// believed, PEM. For an authority of your own; default: the system's.
	CARoots string `yaml:"ca_roots"`

	EAB EAB     `yaml:"eab"`
	DNS ACMEDNS `yaml:"dns"`
}

// EAB binds the account to one that the authority knows already, where it asks
// for that (RFC 8555 section 7.3.4).
type EAB struct {
	KeyID      string `yaml:"key_id,required"`      // as the authority names it
	SecretFile string `yaml:"secret_file,required"` // a file with the authority's secret in base64url, readable by its owner alone
}

// ACMEDNS proves the names by records in DNS (DNS-01) instead of ports 80 and
// 443: for nodes that the authority cannot reach, and for wildcards.
type ACMEDNS struct {
	// Program is run to publish and remove TXT records:
	// PROGRAM present|remove NAME VALUE. See docs/operating.md.
	Program string `yaml:"program,required"`
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

// TURN bounds what attendees whose networks let nothing else out get of the
// relay. It leads to this node's media and nowhere else, whatever these say.
type TURN struct {
	// Allocations of all attendees together; a client makes one to six. Default
	// 8192, at most 49152. Over TLS one costs up to 40 kB of memory.
	Allocations int `yaml:"allocations"`

	// PerParticipant bounds the allocations of one participant in one room.
	// Default 12: two connections of three each, and the same again while the
	// network changes under them. Fewer, and clients with several networks fail.
	PerParticipant int `yaml:"per_participant"`

	// PerSource bounds those from one IPv4 address or IPv6 /64. Default 1024, for
	// an office of 170 people behind one address.
	PerSource int `yaml:"per_source"`

	// MbitPerSecond caps an allocation in each direction, in 10⁶ bits. Default
	// 64: a room of small pictures and a shared screen. Less spoils pictures.
	MbitPerSecond int `yaml:"mbit_per_s"`
}

// Page says who may do what with the built-in page.
type Page struct {
	// Guests lets people without a token join by name. Off by default.
	Guests bool `yaml:"guests"`
	// GuestsMayRecord lets them record where the policy permits it. Off by default.
	GuestsMayRecord bool `yaml:"guests_may_record"`
	// ReachTest lets anybody test which ways in to the node work, without a token:
	// the page's "why can't I join?" and `domicile check --reach`. On by default;
	// off, people whose network is at fault are told nothing better than that.
	ReachTest bool `yaml:"reach_test"`
}

// Webhook is a program outside of the mesh that is told what happens. What it is told
// names people: it is told only where the zone of a room's metadata has it, by what is
// declared here. What is left out is unknown and lies in no zone.
type Webhook struct {
	// URL is called with POST: https, or http on this very machine. No redirect is
	// followed. Required.
	URL string `yaml:"url,required"`
	// APIKey signs what is told, and says of which rooms: those of its tenant. Required.
	APIKey string `yaml:"api_key,required"`
	// Country is where the program runs. Required.
	Country country `yaml:"country,required"`
	// Operator is who runs it, Parent whom that one belongs to at last. Zones with
	// conditions on them refuse what is not declared.
	Operator        string  `yaml:"operator"`
	OperatorCountry country `yaml:"operator_country"`
	Parent          string  `yaml:"parent"`
	ParentCountry   country `yaml:"parent_country"`
}

// Recipient is who and where the program is, for the gate.
func (w Webhook) Recipient() residency.Recipient {
	r := residency.Recipient{Name: w.URL, Country: residency.Country(w.Country), Operator: w.Operator, OperatorCountry: residency.Country(w.OperatorCountry),
		Parent: w.Parent, ParentCountry: residency.Country(w.ParentCountry)}
	if u, err := url.Parse(w.URL); err == nil {
		r.Name = u.Host // a path may be a secret
	}
	return r
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
	// FanOut is to how many other nodes this one sends a track at most, each copy
	// with the layers wanted there; 1 to 64. If more want it, some of them pass it
	// on. Default 8: no usual meeting needs a second hop, and a camera costs the
	// publisher's node some 25 Mbit/s. Less suits thin lines, more adds no delay.
	// Nodes of one mesh should have the same number.
	FanOut int `yaml:"fan_out"`
}

// Recordings bounds what recordings take of the disk.
type Recordings struct {
	// MinFreeMB is the free space, in MB of 10⁶ bytes, below which recording
	// stops; live media goes on. Default 512: room to stop cleanly on a disk
	// that others fill too.
	MinFreeMB int `yaml:"min_free_mb"`

	// Copies has this node bring its recordings to a second origin that the policy
	// lets keep them, while they are being written. Default true; where there is no
	// such origin nothing is copied.
	Copies bool `yaml:"copies"`

	// CopyMbit bounds what that takes of the node's lines, in Mbit/s. Default 50: two
	// dozen cameras that are recorded at a time. With less, copies come later.
	CopyMbit float64 `yaml:"copy_mbit"`

	// Bucket is where recordings go that are over. Default: none, they stay in data_dir.
	Bucket Bucket `yaml:"bucket"`
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
		TURN:       TURN{Allocations: 8192, PerParticipant: 12, PerSource: 1024, MbitPerSecond: 64},
		DNS:        DNS{Answers: 2, TTLSeconds: 20},
		Page:       Page{ReachTest: true},
		Media:      Media{MaxSpeakers: 16, FanOut: 8},
		Recordings: Recordings{MinFreeMB: 512, Copies: true, CopyMbit: 50, Bucket: Bucket{Region: "us-east-1"}},
		Store:      Store{JournalMB: 64, Postgres: Postgres{Port: 5432}},
		Log:        Log{Level: "info", Format: "text"},
		source:     d,
	}
	d.read(root, n)
	n.resolve(filepath.Dir(path))
	n.completeACME(d)
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
		"data_dir": &n.DataDir, "policy": &n.Policy, "routing": &n.Routing, "api_keys_file": &n.APIKeysFile, "geo.database": &n.Geo.Database,
		"gossip.keys_file":                  &n.Gossip.KeysFile,
		"recordings.bucket.secret_key_file": &n.Recordings.Bucket.SecretKeyFile,
		"identity.certificate":              &n.Identity.Certificate, "identity.key": &n.Identity.Key, "identity.ca": &n.Identity.CA,
		"tls.certificate": &n.TLS.Certificate, "tls.key": &n.TLS.Key,
		"tls.acme.ca_roots": &n.TLS.ACME.CARoots, "tls.acme.eab.secret_file": &n.TLS.ACME.EAB.SecretFile,
		"tls.acme.dns.program": &n.TLS.ACME.DNS.Program,
		"store.key_file":       &n.Store.KeyFile, "store.postgres.password_file": &n.Store.Postgres.PasswordFile, "store.postgres.ca": &n.Store.Postgres.CA,
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
