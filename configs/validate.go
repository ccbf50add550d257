package configs

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/domicile/domicile/residency"
)

const (
	// minSecret is the shortest secret of an API key, in characters: HS256 wants
	// 256 bits (RFC 7518 section 3.2), and secrets are text.
	minSecret = 32

	// maxAttendees bounds what a node can claim to carry.
	maxAttendees = 100_000

	// maxURL bounds public.url, in bytes: it travels in gossip.
	maxURL = 96
)

// validate checks what single values cannot: ranges, and values against each other.
func (d *document) validate(n *Node) {
	if _, err := residency.ParseNodeName(string(n.Name)); err != nil && d.has("name") {
		d.fault("name", Fault{Message: "not a node name", Allowed: nameForm})
	}
	for path, p := range n.paths() {
		if d.has(path) && *p == "" {
			d.faultf(path, "the path is empty")
		}
	}
	d.validateListen(n)
	d.validatePublic(n)
	d.validateTLS(n)
	d.validateGossip(n)
	d.either("", "api_keys", "api_keys_file")
	d.validateAPIKeys(n.APIKeys)
	d.validateWebhooks(n)
	d.validateGeo(n)
	d.within("location.latitude", n.Location.Latitude, -90, 90)
	d.within("location.longitude", n.Location.Longitude, -180, 180)
	d.within("capacity.attendees", float64(n.Capacity.Attendees), 1, maxAttendees)
	d.validateTURN(n.TURN)
	d.validateDNS(n)
	d.validateStore(n.Store)
	d.within("media.max_speakers", float64(n.Media.MaxSpeakers), 1, 1000)
	d.within("media.fan_out", float64(n.Media.FanOut), 1, 64)
	d.within("recordings.min_free_mb", float64(n.Recordings.MinFreeMB), 0, math.MaxInt32)
	d.validateBucket(n.Recordings.Bucket)
	d.within("recordings.copy_mbit", n.Recordings.CopyMbit, 1, 100_000)
	d.oneOf("log.level", n.Log.Level, "debug", "info", "warn", "error")
	d.oneOf("log.format", n.Log.Format, "text", "json")
	if n.Page.GuestsMayRecord && !n.Page.Guests {
		d.fault("page.guests_may_record", Fault{Message: "there are no guests who may record", Hint: "set guests: true too"})
	}
}

// maxWebhooks bounds the programs that a node tells: each has a queue of its own.
const maxWebhooks = 16

func (d *document) validateWebhooks(n *Node) {
	if len(n.Webhooks) > maxWebhooks {
		d.fault("webhooks", Fault{Message: fmt.Sprintf("%d webhooks", len(n.Webhooks)), Allowed: fmt.Sprintf("up to %d", maxWebhooks)})
	}
	for i, w := range n.Webhooks {
		path := join("webhooks", strconv.Itoa(i))
		u, err := url.Parse(w.URL)
		switch {
		case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
			d.fault(join(path, "url"), Fault{Message: "not the URL of a webhook", Allowed: "https://HOST/…"})
		case u.Scheme == "http" && !loopback(u.Hostname()):
			d.fault(join(path, "url"), Fault{Message: "what is told would pass in clear", Hint: "use https"})
		}
		if _, ok := n.APIKeys[w.APIKey]; !ok && len(n.APIKeys) > 0 {
			d.fault(join(path, "api_key"), Fault{Message: fmt.Sprintf("unknown API key %q", w.APIKey), Hint: "it has to be one of api_keys"})
		}
	}
}

// loopback reports whether a host is this machine, by its address: a name could be any.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// maxAllocations is how many relayed addresses there are (node/turn/alloc).
const maxAllocations = 49152

func (d *document) validateTURN(t TURN) {
	d.within("turn.allocations", float64(t.Allocations), 1, maxAllocations)
	d.within("turn.per_participant", float64(t.PerParticipant), 1, maxAllocations)
	d.within("turn.per_source", float64(t.PerSource), 1, maxAllocations)
	d.within("turn.mbit_per_s", float64(t.MbitPerSecond), 1, 10_000)
}

func (d *document) within(path string, value, low, high float64) {
	if d.has(path) && !(value >= low && value <= high) {
		d.fault(path, Fault{Message: "out of range", Allowed: fmt.Sprintf("%v to %v", strconv.FormatFloat(low, 'f', -1, 64), strconv.FormatFloat(high, 'f', -1, 64))})
	}
}

func (d *document) oneOf(path, value string, allowed ...string) {
	if d.has(path) && !slices.Contains(allowed, value) {
		d.fault(path, Fault{Message: "unknown value", Allowed: strings.Join(allowed, ", ")})
	}
}

// either asks for exactly one of two keys.
func (d *document) either(path, a, b string) {
	switch hasA, hasB := d.has(join(path, a)), d.has(join(path, b)); {
	case hasA && hasB:
		d.faultf(join(path, b), "%s and %s exclude each other", a, b)
	case !hasA && !hasB && (path == "" || d.has(path)):
		d.fault(join(path, a), Fault{Message: fmt.Sprintf("the key %q is missing, or else %q", a, b)})
	}
}

// listener is one address of Listen.
type listener struct {
	path     string
	addr     netip.AddrPort
	tcp, udp bool
}

func (n *Node) listeners() []listener {
	return []listener{
		{"listen.https", n.Listen.HTTPS, true, false},
		{"listen.http", n.Listen.HTTP, true, false},
		{"listen.http_redirect", n.Listen.HTTPRedirect, true, false},
		{"listen.media", n.Listen.Media, false, true},
		{"listen.relay", n.Listen.Relay, false, true},
		{"listen.relay_media", n.Listen.RelayMedia, false, true},
		{"listen.gossip", n.Listen.Gossip, true, true},
		{"listen.dns", n.Listen.DNS, true, true},
		{"listen.metrics", n.Listen.Metrics, true, false},
	}
}

func (d *document) validateListen(n *Node) {
	all := n.listeners()
	for i, l := range all {
		if !l.addr.IsValid() {
			continue
		}
		if l.addr.Port() == 0 {
			d.fault(l.path, Fault{Message: "port 0 is no port to be reached at", Allowed: "1 to 65535"})
			continue
		}
		for _, other := range all[:i] {
			if l.collides(other) {
				d.faultf(l.path, "%s has taken this address already", other.path)
			}
		}
	}
	if a := n.Listen.HTTP.Addr(); a.IsValid() && !a.IsLoopback() {
		d.fault("listen.http", Fault{Message: "plain HTTP is only for this machine", Allowed: "a loopback address, such as 127.0.0.1:7880", Hint: "attendees use listen.https"})
	}
	for i, prefix := range n.Listen.ProxyProtocol {
		if prefix.IsValid() && prefix.Bits() == 0 {
			d.fault(join("listen.proxy_protocol", strconv.Itoa(i)), Fault{Message: "this range is everybody, and everybody could claim any address", Hint: "list the addresses of your load balancers, such as 10.0.3.0/29"})
		}
	}
	if a := n.Listen.Metrics.Addr(); a.IsValid() && !a.IsLoopback() && !a.IsPrivate() {
		d.fault("listen.metrics", Fault{Message: "metrics must not be where attendees reach them", Allowed: "a loopback or private address, such as 127.0.0.1:7990"})
	}
}

// collides reports whether two listeners want the same port of the same address.
func (l listener) collides(o listener) bool {
	if !o.addr.IsValid() || l.addr.Port() != o.addr.Port() || !(l.tcp && o.tcp || l.udp && o.udp) {
		return false
	}
	a, b := l.addr.Addr().Unmap(), o.addr.Addr().Unmap()
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

func (d *document) validatePublic(n *Node) {
	p := n.Public
	if n.Public.URL != "" || d.has("public.url") {
		d.validateURL("public.url", p.URL)
	} else if n.Listen.HTTPS.Addr().IsUnspecified() {
		d.fault("public.url", Fault{Message: "the key \"public.url\" is missing: listen.https is on every interface", Hint: "say what attendees open: public: {url: https://meet.example.org}"})
	}
	if p.MediaAddress.IsUnspecified() || p.MediaAddress.IsMulticast() {
		d.faultf("public.media_address", "nobody can send to this address")
	}
	for _, a := range []struct {
		key           string
		public, local netip.AddrPort
	}{{"relay", p.RelayAddress, n.Listen.Relay}, {"gossip", p.GossipAddress, n.Listen.Gossip}} {
		path := "public." + a.key + "_address"
		switch {
		case a.public.IsValid() && (a.public.Addr().IsUnspecified() || a.public.Port() == 0):
			d.faultf(path, "nobody can reach this address")
		case !a.public.IsValid() && a.local.Addr().IsUnspecified() && !d.has(path):
			d.fault(path, Fault{Message: fmt.Sprintf("the key %q is missing: listen.%s is on every interface", path, a.key), Hint: "say where other nodes reach this one, with the port"})
		}
	}
}

func (d *document) validateURL(path, s string) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || s != "https://"+u.Host || len(s) > maxURL {
		d.fault(path, Fault{Message: "not a public URL", Allowed: fmt.Sprintf("https://HOST or https://HOST:PORT, without a path, up to %d bytes", maxURL)})
	}
}

func (d *document) validateGossip(n *Node) {
	d.either("gossip", "keys", "keys_file")
	for i, addr := range n.Gossip.Join {
		path := join("gossip.join", strconv.Itoa(i))
		host, port, err := net.SplitHostPort(addr)
		number, errPort := strconv.ParseUint(port, 10, 16)
		if err != nil || errPort != nil || host == "" || number == 0 {
			d.fault(path, Fault{Message: "not another node's gossip address", Allowed: "HOST:PORT, such as 127.20.0.2:7946"})
		}
	}
	seen := map[GossipKey]bool{}
	for i, key := range n.Gossip.Keys {
		if path := join("gossip.keys", strconv.Itoa(i)); seen[key] && key != (GossipKey{}) {
			d.faultf(path, "the same key a second time")
		}
		seen[key] = true
	}
}

func (d *document) validateAPIKeys(keys map[string]Secret) {
	if d.has("api_keys") && len(keys) == 0 {
		d.faultf("api_keys", "there is no API key")
	}
	for key, secret := range keys {
		path := join("api_keys", key)
		if n := utf8.RuneCountInString(string(secret)); n < minSecret && d.has(path) {
			d.fault(path, Fault{Message: fmt.Sprintf("the secret of API key %q has %d characters", key, n), Allowed: fmt.Sprintf("%d or more", minSecret), Hint: "make one with: openssl rand -base64 33"})
		}
	}
}

func (d *document) validateGeo(n *Node) {
	d.oneOf("geo.unknown", n.Geo.Unknown, "origin", "local")
	for i, prefix := range n.Geo.TrustedProxies {
		if prefix.IsValid() && prefix.Bits() == 0 {
			d.fault(join("geo.trusted_proxies", strconv.Itoa(i)), Fault{Message: "this range is everybody, and everybody could claim any address"})
		}
	}
}
