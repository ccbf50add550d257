package residency

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// node has a European operator and parent and a certificate valid for an hour
// around now.
func node(name NodeName, country Country, roles ...Role) Node {
	return Node{
		Name: name, Country: country, Operator: "Example GmbH", OperatorCountry: "DE", Parent: "Example GmbH", ParentCountry: "DE",
		Roles: roles, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), Serial: "a" + string(name),
	}
}

func everywhere(z Zone) map[Class]Zone {
	zones := map[Class]Zone{}
	for _, c := range Classes() {
		zones[c] = z
	}
	return zones
}

// testBundle has the two policies of the first requirements and one with
// conditions on who runs a node.
func testBundle() *Bundle {
	members, _ := NamedZone("EEA")
	eea := Zone{Name: "EEA", Countries: members}
	global := everywhere(Zone{Name: "stored", Countries: []Country{"DE", "FR", "PL"}})
	global[ClassMedia], global[ClassSignalling], global[ClassChat] = eea, eea, eea
	own := Zone{Name: "own", Countries: []Country{"AT", "CH", "DE"}, ExcludedParentCountries: []Country{"US"}}
	anywhere := everywhere(Zone{Name: "anywhere", Anywhere: true})
	return &Bundle{
		Epoch: 3, Default: "eea-only",
		Tenants: []Tenant{{Name: "other", Policy: "global"}, {Name: "acme", Policy: "anywhere", Policies: []string{"eea-only", "scc"}}},
		Policies: map[string]*Policy{
			"qa-log": {Name: "qa-log", Zones: everywhere(eea), QALog: true},
			"scc": {Name: "scc", Zones: anywhere, Evidence: EvidenceOff, TransferRequired: true, Transfers: []TransferBasis{
				{Kind: BasisClauses, Countries: []Country{"US"}, From: date("2021-06-27"), Reference: "clauses"},
				{Kind: BasisAdequacy, Countries: []Country{"CH", "GB"}, From: date("2021-06-28"), Until: date("2031-12-27"), Reference: "adequacy"}}},
			"shield": {Name: "shield", Zones: anywhere, TransferRequired: true, Transfers: []TransferBasis{
				{Kind: BasisAdequacy, Countries: []Country{"US"}, From: date("2016-07-12"), Until: date("2020-07-16"), Reference: "Privacy Shield"}}},
			"eea-only":   {Name: "eea-only", Zones: everywhere(eea), Recording: RecordingRule{Allowed: true}},
			"global":     {Name: "global", Zones: global, EdgeOutside: true, Recording: RecordingRule{Allowed: true}},
			"own":        {Name: "own", Zones: everywhere(own), EdgeOutside: true},
			"chat-log":   {Name: "chat-log", Zones: everywhere(eea), ChatLog: true},
			"global-log": {Name: "global-log", Zones: everywhere(eea), EdgeOutside: true, ChatLog: true},
			"empty":      {Name: "empty", Zones: map[Class]Zone{}},
			"nobody":     {Name: "nobody", Zones: everywhere(Zone{Name: "nobody"})},
			"anywhere":   {Name: "anywhere", Zones: everywhere(Zone{Name: "anywhere", Anywhere: true})},
			"operator":   {Name: "operator", Zones: everywhere(Zone{Name: "operator", Anywhere: true, Operators: []string{"Example GmbH"}, OperatorCountries: []Country{"DE"}, ParentCountries: []Country{"DE", "FR"}})},
			"missing":    nil,
		},
	}
}

// TestGate goes through the rules in the order in which they are asked.
func TestGate(t *testing.T) {
	fra, waw := node("fra", "DE", RoleOrigin, RoleEdge), node("waw", "PL", RoleEdge)
	nyc, osl := node("nyc", "US", RoleEdge), node("osl", "NO", RoleOrigin, RoleEdge)
	type change = func(*Request, *Bundle)
	for _, c := range []struct {
		name   string
		policy string
		class  Class
		peer   Node
		change change
		allow  bool
		rule   string
		reason string // a part of it
	}{
		{name: "expired bundle", class: ClassMedia, peer: fra, change: func(_ *Request, b *Bundle) { b.Expires = now },
			rule: RuleBundleStale, reason: "of epoch 3 expired at 2026-03-01T12:00:00Z"},
		{name: "bundle in its last nanosecond", class: ClassMedia, peer: fra, change: func(_ *Request, b *Bundle) { b.Expires = now.Add(1) },
			allow: true, rule: RuleZone},
		{name: "bundle of epoch 0", class: ClassMedia, peer: fra, change: func(r *Request, b *Bundle) { b.Epoch, r.PeerEpoch = 0, 0 },
			rule: RuleNoBundle},
		{name: "unknown policy", policy: "eea", class: ClassMedia, peer: fra, rule: RuleNoPolicy, reason: `policy "eea": not in the bundle of epoch 3; it has anywhere,`},
		{name: "policy without content", policy: "missing", class: ClassMedia, peer: fra, rule: RuleNoPolicy},
		{name: "unknown class", class: "video", peer: fra, rule: RuleNoPolicy, reason: `data class "video" is unknown`},
		{name: "no class", class: "", peer: fra, rule: RuleNoPolicy},
		{name: "no peer", class: ClassMedia, rule: RuleCertificate, reason: "no certificate that names it"},
		{name: "certificate ended", class: ClassMedia, peer: fra, change: func(r *Request, _ *Bundle) { r.Peer.NotAfter = now }, rule: RuleCertificate},
		{name: "certificate not begun", class: ClassMedia, peer: fra, change: func(r *Request, _ *Bundle) { r.Peer.NotBefore = now.Add(1) }, rule: RuleCertificate},
		{name: "no time", class: ClassMedia, peer: fra, change: func(r *Request, _ *Bundle) { r.Now = time.Time{} }, rule: RuleCertificate},
		{name: "revoked, in upper case", class: ClassMedia, peer: fra, change: func(_ *Request, b *Bundle) { b.Revoked = []string{"00", "AFRA"} }, rule: RuleRevoked},
		{name: "not in the register", class: ClassMedia, peer: fra, change: func(_ *Request, b *Bundle) { b.Nodes = []Registered{{Name: "waw", Country: "PL"}} },
			rule: RuleRegister, reason: "node fra is not in the register"},
		{name: "elsewhere in the register", class: ClassMedia, peer: fra, change: func(_ *Request, b *Bundle) { b.Nodes = []Registered{{Name: "fra", Country: "FR"}} },
			rule: RuleRegister, reason: "in DE by its certificate, in FR by the register"},
		{name: "in the register", class: ClassMedia, peer: fra, change: func(_ *Request, b *Bundle) {
			b.Nodes = []Registered{{Name: "waw", Country: "PL"}, {Name: "fra", Country: "DE"}}
		},
			allow: true, rule: RuleZone},
		{name: "older epoch", class: ClassMedia, peer: fra, change: func(r *Request, _ *Bundle) { r.PeerEpoch = 2 }, rule: RuleEpoch, reason: "epoch 2, this node 3"},
		{name: "newer epoch", class: ClassMedia, peer: fra, change: func(r *Request, _ *Bundle) { r.PeerEpoch = 4 }, rule: RuleEpoch},
		{name: "no epoch", class: ClassMedia, peer: fra, change: func(r *Request, _ *Bundle) { r.PeerEpoch = 0 }, rule: RuleEpoch},

		{name: "another role in the register", class: ClassMedia, peer: fra, change: func(_ *Request, b *Bundle) {
			b.Nodes = []Registered{{Name: "fra", Country: "DE", Roles: []Role{RoleEdge}}}
		}, rule: RuleRegister, reason: "node fra is an origin by its certificate, not by the register"},
		{name: "the role in the register", class: ClassMedia, peer: waw, change: func(_ *Request, b *Bundle) {
			b.Nodes = []Registered{{Name: "waw", Country: "PL", Roles: Roles()}}
		}, allow: true, rule: RuleZone},

		{name: "contradicted", class: ClassMedia, peer: fra, change: contradicted, rule: RuleQuarantine, reason: "node fra is not believed to be in DE: 3 ms from New York"},
		{name: "contradicted, overridden", class: ClassMedia, peer: fra, change: both(contradicted, override("fra", now.Add(1))), allow: true, rule: RuleZone},
		{name: "contradicted, the override has ended", class: ClassMedia, peer: fra, change: both(contradicted, override("fra", now)), rule: RuleQuarantine},
		{name: "contradicted, the override has no end", class: ClassMedia, peer: fra, change: both(contradicted, override("fra", time.Time{})), rule: RuleQuarantine},
		{name: "contradicted, another is overridden", class: ClassMedia, peer: fra, change: both(contradicted, override("waw", now.Add(time.Hour))), rule: RuleQuarantine},

		{name: "tenant's default", class: ClassMedia, peer: fra, change: tenant("acme"), allow: true, rule: RuleZone, reason: `zone "anywhere"`},
		{name: "tenant's other policy", policy: "eea-only", class: ClassMedia, peer: fra, change: tenant("acme"), allow: true, rule: RuleZone, reason: `zone "EEA"`},
		{name: "policy that the tenant may not have", policy: "global", class: ClassMedia, peer: fra, change: tenant("acme"), rule: RuleTenant, reason: `tenant "acme" may not have rooms of policy "global"`},
		{name: "unknown tenant", class: ClassMedia, peer: fra, change: tenant("umbra"), rule: RuleTenant, reason: `tenant "umbra" is not in the policy bundle`},
		{name: "node of another tenant", class: ClassMedia, peer: fra, change: both(tenant("acme"), serving("other")), rule: RuleTenant, reason: `node fra serves rooms of other alone, not tenant "acme"`},
		{name: "node of a tenant, room of none", class: ClassMedia, peer: fra, change: serving("acme"), rule: RuleTenant, reason: "not a room of no tenant"},
		{name: "node of the tenant", class: ClassMedia, peer: fra, change: both(tenant("acme"), serving("acme")), allow: true, rule: RuleZone},

		{name: "no evidence", class: ClassMedia, peer: fra, change: unproved, rule: RuleEvidence, reason: `policy "eea-only" wants it: disk full`},
		{name: "no evidence, and none wanted", policy: "scc", class: ClassMedia, peer: fra, change: unproved, allow: true, rule: RuleZone},

		{name: "third country with a basis", policy: "scc", class: ClassMedia, peer: nyc, allow: true, rule: RuleZone},
		{name: "third country without a basis", policy: "scc", class: ClassMedia, peer: node("bkk", "TH", RoleEdge), rule: RuleTransfer, reason: "node bkk is in the third country TH, for which there is no transfer basis"},
		{name: "adequate country", policy: "scc", class: ClassMedia, peer: node("zrh", "CH", RoleEdge), allow: true, rule: RuleZone},
		{name: "EEA country needs none", policy: "scc", class: ClassMedia, peer: osl, allow: true, rule: RuleZone},
		{name: "basis that has ended", policy: "shield", class: ClassMedia, peer: nyc, rule: RuleTransfer, reason: `the transfer basis "Privacy Shield" ended on 2020-07-16`},
		{name: "basis in its last moment", policy: "shield", class: ClassMedia, peer: nyc, change: at(date("2020-07-16").Add(-1)), allow: true, rule: RuleZone},
		{name: "basis at its end", policy: "shield", class: ClassMedia, peer: nyc, change: at(date("2020-07-16")), rule: RuleTransfer},
		{name: "basis that has not begun", policy: "shield", class: ClassMedia, peer: nyc, change: at(date("2016-07-11")), rule: RuleTransfer, reason: `"Privacy Shield" begins on 2016-07-12`},

		{name: "questions are not kept", class: ClassChat, peer: fra, change: both(store, asQuestion), rule: RuleNotStored, reason: "keeps no questions and answers"},
		{name: "questions are not kept with the chat", policy: "chat-log", class: ClassChat, peer: fra, change: both(store, asQuestion), rule: RuleNotStored},
		{name: "questions are kept where the policy says so", policy: "qa-log", class: ClassChat, peer: fra, change: both(store, asQuestion), allow: true, rule: RuleZone},
		{name: "chat is not kept with the questions", policy: "qa-log", class: ClassChat, peer: fra, change: store, rule: RuleNotStored, reason: "keeps no chat"},

		{name: "recording not allowed", policy: "own", class: ClassRecording, peer: fra, rule: RuleNotStored, reason: "allows no recording"},
		{name: "media is not kept", class: ClassMedia, peer: fra, change: store, rule: RuleNotStored, reason: "media passes through"},
		{name: "signalling is not kept", class: ClassSignalling, peer: fra, change: store, rule: RuleNotStored},
		{name: "chat is not kept", class: ClassChat, peer: fra, change: store, rule: RuleNotStored, reason: "keeps no chat"},
		{name: "chat is kept where the policy says so", policy: "chat-log", class: ClassChat, peer: fra, change: store, allow: true, rule: RuleZone},
		{name: "recording on an origin", class: ClassRecording, peer: fra, change: store, allow: true, rule: RuleZone},
		{name: "recording on an edge", class: ClassRecording, peer: waw, change: store, rule: RuleStoreRole, reason: "node waw is not an origin"},
		{name: "recording on an origin outside the storage zone", policy: "global", class: ClassRecording, peer: osl, change: store,
			rule: RuleZone, reason: `node osl is in NO, outside zone "stored" for recording (policy "global")`},

		{name: "default policy, inside", class: ClassMedia, peer: waw, allow: true, rule: RuleZone, reason: `inside zone "EEA"`},
		{name: "Norway is in the EEA", class: ClassMedia, peer: osl, allow: true, rule: RuleZone},
		{name: "outside", class: ClassMedia, peer: nyc, rule: RuleZone, reason: `node nyc is in US, outside zone "EEA" for media (policy "eea-only")`},
		{name: "outside, with a participant there", class: ClassMedia, peer: nyc, change: outside, rule: RuleZone},
		{name: "class without a zone", policy: "empty", class: ClassMedia, peer: fra, rule: RuleZone, reason: `outside zone "none"`},
		{name: "zone of nobody", policy: "nobody", class: ClassMedia, peer: fra, rule: RuleZone},
		{name: "anywhere", policy: "anywhere", class: ClassMedia, peer: nyc, allow: true, rule: RuleZone},
		{name: "anywhere is no unknown country", policy: "anywhere", class: ClassMedia, peer: node("x", "", RoleEdge), rule: RuleZone, reason: "its country is unknown"},
		{name: "anywhere is no country that is none", policy: "anywhere", class: ClassMedia, peer: node("x", "XX", RoleEdge), rule: RuleZone, reason: "its country is unknown"},

		{name: "edge outside, empty", policy: "global", class: ClassMedia, peer: nyc, rule: RuleEdgeEmpty, reason: "no participant from outside the zone"},
		{name: "edge outside, media", policy: "global", class: ClassMedia, peer: nyc, change: outside, allow: true, rule: RuleEdgeOutside},
		{name: "edge outside, signalling", policy: "global", class: ClassSignalling, peer: nyc, change: outside, allow: true, rule: RuleEdgeOutside},
		{name: "edge outside, chat", policy: "global", class: ClassChat, peer: nyc, change: outside, allow: true, rule: RuleEdgeOutside},
		{name: "edge outside, metadata", policy: "global", class: ClassMetadata, peer: nyc, change: outside, rule: RuleZone},
		{name: "edge outside, telemetry", policy: "global", class: ClassTelemetry, peer: nyc, change: outside, rule: RuleZone},
		{name: "edge outside, to store", policy: "global", class: ClassMetadata, peer: node("sfo", "US", RoleOrigin, RoleEdge), change: both(outside, store), rule: RuleZone},
		{name: "edge outside, to store chat that is kept", policy: "global-log", class: ClassChat, peer: node("sfo", "US", RoleOrigin, RoleEdge), change: both(outside, store), rule: RuleZone},
		{name: "origin outside is no edge", policy: "global", class: ClassMedia, peer: node("sfo", "US", RoleOrigin), change: outside, rule: RuleZone},
		{name: "edge of unknown country", policy: "global", class: ClassMedia, peer: node("x", "", RoleEdge), change: outside, rule: RuleZone},

		{name: "US parent in the zone", policy: "own", class: ClassMedia, peer: parent(fra, "US"), rule: RuleZone, reason: `ultimate parent is US, which zone "own" excludes`},
		{name: "unknown parent in the zone", policy: "own", class: ClassMedia, peer: parent(fra, ""), rule: RuleZone, reason: "parent is unknown"},
		{name: "US parent outside the zone, with a participant there", policy: "own", class: ClassMedia, peer: parent(nyc, "US"), change: outside, rule: RuleZone, reason: "excludes"},
		{name: "German parent outside the zone, with a participant there", policy: "own", class: ClassMedia, peer: nyc, change: outside, allow: true, rule: RuleEdgeOutside},
		{name: "all conditions met", policy: "operator", class: ClassMedia, peer: nyc, allow: true, rule: RuleZone},
		{name: "another operator", policy: "operator", class: ClassMedia, peer: nyc, change: func(r *Request, _ *Bundle) { r.Peer.Operator = "example gmbh" }, rule: RuleZone, reason: `run by "example gmbh"`},
		{name: "operator elsewhere", policy: "operator", class: ClassMedia, peer: nyc, change: func(r *Request, _ *Bundle) { r.Peer.OperatorCountry = "US" }, rule: RuleZone, reason: "country of its operator is US"},
		{name: "parent elsewhere", policy: "operator", class: ClassMedia, peer: parent(nyc, "US"), rule: RuleZone, reason: "ultimate parent is US, outside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := testBundle()
			r := Request{Room: "r", Policy: c.policy, Class: c.class, Peer: c.peer, PeerEpoch: b.Epoch, Now: now}
			if c.change != nil {
				c.change(&r, b)
			}
			permit, v := NewGate(b).Permit(r)
			if v.Allow != c.allow || v.Rule != c.rule || !strings.Contains(v.Reason, c.reason) || v.Reason == "" {
				t.Errorf("got %+v\nwant allow %v by %q, %q", v, c.allow, c.rule, c.reason)
			}
			if v.Allow == (v.Hint != "") || v.Allow == v.Until.IsZero() || v.Serial != r.Peer.Serial || v.Tenant != r.Tenant {
				t.Errorf("a verdict without its grounds, or a refusal without a hint: %+v", v)
			}
			if v.Peer != r.Peer.Name || v.Class != r.Class || v.Epoch != b.Epoch {
				t.Errorf("the verdict is about something else: %+v", v)
			}
			if permit.Allows(r.Peer.Name, b.Epoch, r.Now) != c.allow {
				t.Errorf("the permit does not follow the verdict: %+v", permit)
			}
		})
	}
}

func store(r *Request, _ *Bundle)        { r.Store = true }
func outside(r *Request, _ *Bundle)      { r.OutsideParticipant = true }
func asQuestion(r *Request, _ *Bundle)   { r.QA = true }
func unproved(r *Request, _ *Bundle)     { r.NoEvidence = "disk full" }
func contradicted(r *Request, _ *Bundle) { r.Contradiction = "3 ms from New York" }

func tenant(name string) func(*Request, *Bundle) {
	return func(r *Request, _ *Bundle) { r.Tenant = name }
}

// serving registers the peer for the rooms of one tenant.
func serving(name string) func(*Request, *Bundle) {
	return func(r *Request, b *Bundle) {
		b.Nodes = []Registered{{Name: r.Peer.Name, Country: r.Peer.Country, Tenants: []string{name}}}
	}
}

func override(name NodeName, until time.Time) func(*Request, *Bundle) {
	return func(_ *Request, b *Bundle) {
		b.Overrides = append(b.Overrides, Override{Node: name, Reason: "seen in the rack", Until: until})
	}
}

// at asks at another time, with a certificate that is valid then.
func at(t time.Time) func(*Request, *Bundle) {
	return func(r *Request, _ *Bundle) {
		r.Now, r.Peer.NotBefore, r.Peer.NotAfter = t, t.Add(-time.Hour), t.Add(time.Hour)
	}
}

func both(a, b func(*Request, *Bundle)) func(*Request, *Bundle) {
	return func(r *Request, bundle *Bundle) { a(r, bundle); b(r, bundle) }
}

func parent(n Node, c Country) Node {
	n.ParentCountry = c
	return n
}

func TestContains(t *testing.T) {
	z := Zone{Countries: []Country{"DE", "", "XX"}}
	all := Zone{Anywhere: true}
	for c, want := range map[Country]bool{"DE": true, "US": false, "": false, "XX": false, "de": false} {
		if z.Contains(c) != want {
			t.Errorf("%q: want %v", c, want)
		}
		if all.Contains(c) != c.Known() {
			t.Errorf("%q anywhere: want %v", c, c.Known())
		}
	}
}

func TestGateWithoutBundle(t *testing.T) {
	var none *Gate
	for _, g := range []*Gate{none, NewGate(nil), {}, NewGate(&Bundle{})} {
		permit, v := g.Permit(Request{Class: ClassMedia, Peer: node("fra", "DE", RoleOrigin), Now: now})
		if v.Allow || v.Rule != RuleNoBundle || v.Hint == "" || permit.Allows("fra", 0, now) || g.Epoch() != 0 {
			t.Errorf("got %+v", v)
		}
	}
	if none.Bundle() != nil {
		t.Error("a gate that is none has a bundle")
	}
}

func TestPermit(t *testing.T) {
	b := testBundle()
	b.Expires = now.Add(30 * time.Minute)
	request := Request{Room: "r", Class: ClassRecording, Store: true, Peer: node("fra", "DE", RoleOrigin), PeerEpoch: 3, Now: now}
	p, v := NewGate(b).Permit(request)
	if !v.Allow || p.Room() != "r" || p.Class() != ClassRecording || p.Peer() != "fra" || !p.Stores() || p.Verdict() != v {
		t.Fatalf("got %+v, %+v", p, v)
	}
	if !p.Until().Equal(b.Expires) {
		t.Errorf("until %s, want the end of the bundle", p.Until())
	}
	for _, c := range []struct {
		name  string
		peer  NodeName
		epoch Epoch
		at    time.Time
		want  bool
	}{
		{"as given", "fra", 3, now, true},
		{"to the last moment", "fra", 3, p.Until().Add(-1), true},
		{"after the end", "fra", 3, p.Until(), false},
		{"to another peer", "waw", 3, now, false},
		{"to nobody", "", 3, now, false},
		{"under the next epoch", "fra", 4, now, false},
		{"under none", "fra", 0, now, false},
	} {
		if p.Allows(c.peer, c.epoch, c.at) != c.want {
			t.Errorf("%s: want %v", c.name, c.want)
		}
	}
	b.Expires = time.Time{}
	if p, _ := NewGate(b).Permit(request); !p.Until().Equal(request.Peer.NotAfter) {
		t.Errorf("until %s, want the end of the certificate", p.Until())
	}
}

// TestPermitEndsWithTheFirst takes what a permit rests on away one by one, the
// earliest end first.
func TestPermitEndsWithTheFirst(t *testing.T) {
	in := func(minutes int) time.Time { return now.Add(time.Duration(minutes) * time.Minute) }
	b := testBundle()
	b.Expires = in(40)
	b.Overrides = []Override{{Node: "nyc", Until: in(5)}, {Node: "nyc", Until: in(20)}, {Node: "fra", Until: in(1)}}
	shield := *b.Policies["shield"]
	shield.Transfers = []TransferBasis{
		{Countries: []Country{"US"}, From: in(-9), Until: in(2)}, {Countries: []Country{"US"}, From: in(-9), Until: in(30)},
		{Countries: []Country{"US"}, From: in(1), Until: in(99)}, {Countries: []Country{"CH"}, From: in(-9)}}
	b.Policies["shield"] = &shield
	r := Request{Policy: "shield", Class: ClassMedia, Peer: node("nyc", "US", RoleEdge), PeerEpoch: 3, Contradiction: "too near", Now: now}
	r.Peer.NotAfter = in(10)
	for _, step := range []struct {
		what   string
		want   time.Time
		remove func()
	}{
		{"the certificate", in(10), func() { r.Peer.NotAfter = in(60) }},
		{"the last override", in(20), func() { r.Contradiction = "" }},
		{"the last basis in force now", in(30), func() { shield.Transfers[1].Until = time.Time{} }},
		{"the bundle", in(40), func() { b.Expires = time.Time{} }},
		{"the certificate, renewed", in(60), func() {}},
	} {
		p, v := NewGate(b).Permit(r)
		if !v.Allow || !p.Until().Equal(step.want) || !v.Until.Equal(step.want) || !p.Allows("nyc", 3, step.want.Add(-1)) || p.Allows("nyc", 3, step.want) {
			t.Errorf("%s: until %s, want %s: %+v", step.what, p.Until(), step.want, v)
		}
		step.remove()
	}
}

// TestZeroPermit asks the zero permit for everything.
func TestZeroPermit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Permit
		peer := NodeName(rapid.OneOf(rapid.Just(""), rapid.String()).Draw(t, "peer"))
		epoch := Epoch(rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64()).Draw(t, "epoch"))
		at := time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "at"), 0)
		if p.Allows(peer, epoch, at) || p.Allows(peer, epoch, time.Time{}) {
			t.Fatal("the zero permit allows something")
		}
	})
}

// oracle answers like the gate, from the sentences of the requirements rather
// than by its code: a permit needs every one of them.
func oracle(b *Bundle, r Request) bool {
	name, tenantMay := r.Policy, r.Tenant == ""
	for _, t := range b.Tenants {
		if r.Tenant != "" && t.Name == r.Tenant {
			if name == "" {
				name = t.Policy
			}
			tenantMay = name == t.Policy || slices.Contains(t.Policies, name)
		}
	}
	if name == "" {
		name = b.Default
	}
	p := b.Policies[name]
	in := func(set []Country, c Country) bool {
		for _, s := range set {
			if s == c && c.Known() {
				return true
			}
		}
		return false
	}
	knownClass := false
	for _, c := range Classes() {
		knownClass = knownClass || c == r.Class
	}
	if p == nil || !knownClass || b.Epoch == 0 {
		return false
	}
	z, n := p.Zones[r.Class], r.Peer
	live := r.Class == "media" || r.Class == "signalling" || r.Class == "chat"
	origin, edge := false, false
	for _, role := range n.Roles {
		origin, edge = origin || role == "origin", edge || role == "edge"
	}
	revoked, listed := false, len(b.Nodes) == 0
	for _, s := range b.Revoked {
		revoked = revoked || strings.ToLower(s) == strings.ToLower(n.Serial)
	}
	serves := true
	for _, entry := range b.Nodes {
		if entry.Name != n.Name {
			continue
		}
		listed = entry.Country == n.Country
		for _, role := range n.Roles {
			listed = listed && (entry.Roles == nil || slices.Contains(entry.Roles, role))
		}
		serves = entry.Tenants == nil || slices.Contains(entry.Tenants, r.Tenant)
	}
	believed := r.Contradiction == ""
	for _, o := range b.Overrides {
		believed = believed || o.Node == n.Name && o.Until.After(r.Now)
	}
	members, _ := NamedZone("EEA")
	grounded := !p.TransferRequired || in(members, n.Country)
	for _, basis := range p.Transfers {
		grounded = grounded || in(basis.Countries, n.Country) && !basis.From.After(r.Now) && (basis.Until.IsZero() || basis.Until.After(r.Now))
	}
	chatKept := p.ChatLog
	if r.QA {
		chatKept = p.QALog
	}
	namedOperator := len(z.Operators) == 0
	for _, o := range z.Operators {
		namedOperator = namedOperator || o == n.Operator
	}
	inside := in(z.Countries, n.Country) || z.Anywhere && n.Country.Known()
	byEdgeRule := p.EdgeOutside && live && edge && r.OutsideParticipant && !r.Store && n.Country.Known()
	mayBeKept := !r.Store || origin && r.Class != "media" && r.Class != "signalling" && (r.Class != "chat" || chatKept)
	for _, condition := range []bool{
		b.Expires.IsZero() || b.Expires.After(r.Now),
		n.Name != "", !n.NotBefore.After(r.Now), n.NotAfter.After(r.Now),
		!revoked, listed, r.PeerEpoch == b.Epoch,
		tenantMay, serves, believed, r.NoEvidence == "" || p.Evidence == "off", grounded,
		r.Class != "recording" || p.Recording.Allowed,
		mayBeKept,
		inside || byEdgeRule,
		namedOperator,
		len(z.OperatorCountries) == 0 || in(z.OperatorCountries, n.OperatorCountry),
		len(z.ParentCountries) == 0 || in(z.ParentCountries, n.ParentCountry),
		len(z.ExcludedParentCountries) == 0 || n.ParentCountry.Known() && !in(z.ExcludedParentCountries, n.ParentCountry),
	} {
		if !condition {
			return false
		}
	}
	return true
}

// some draws from few values, so that bundles and requests often meet; the first
// value, with which a request gets further, comes four times in five.
func some[V any](t *rapid.T, label string, first V, others ...V) V {
	i := rapid.IntRange(0, 5*len(others)-1).Draw(t, label)
	if i < len(others) {
		return others[i]
	}
	return first
}

func drawCountries(t *rapid.T, label string) []Country {
	return some(t, label, nil, []Country{"DE"}, []Country{"US"}, []Country{"DE", "NO", "CH"}, []Country{"", "XX"})
}

func drawZone(t *rapid.T) Zone {
	return Zone{
		Name: "z", Countries: some(t, "countries", []Country{"DE", "NO"}, nil, []Country{"DE"}, []Country{"DE", "CH", "", "XX"}),
		Anywhere:          some(t, "anywhere", false, true),
		OperatorCountries: drawCountries(t, "operator countries"), ParentCountries: drawCountries(t, "parent countries"),
		ExcludedParentCountries: drawCountries(t, "excluded parents"), Operators: some(t, "operators", nil, []string{"o"}),
	}
}

func drawBundle(t *rapid.T) *Bundle {
	p := &Policy{
		Name: "p", Zones: map[Class]Zone{}, EdgeOutside: rapid.Bool().Draw(t, "edge outside"),
		Recording: RecordingRule{Allowed: rapid.Bool().Draw(t, "recording")}, ChatLog: rapid.Bool().Draw(t, "chat log"), QALog: rapid.Bool().Draw(t, "qa log"),
		Evidence: some(t, "evidence", EvidenceOff, EvidenceRequired, ""), TransferRequired: some(t, "transfer basis", false, true),
	}
	for range rapid.IntRange(0, 2).Draw(t, "transfers") {
		p.Transfers = append(p.Transfers, TransferBasis{Countries: drawCountries(t, "third countries"),
			From: some(t, "from", now.Add(-time.Hour), now, now.Add(1)), Until: some(t, "until", time.Time{}, now.Add(time.Minute), now)})
	}
	zone := drawZone(t)
	for _, c := range Classes() {
		if some(t, "has a zone", true, false) {
			p.Zones[c] = zone
		}
	}
	return &Bundle{
		Epoch: some[Epoch](t, "epoch", 1, 2, 0), Default: some(t, "default", "p", "q"), Policies: map[string]*Policy{"p": p},
		Expires: some(t, "expires", time.Time{}, now.Add(time.Minute), now),
		Revoked: some(t, "revoked", nil, []string{"b"}, []string{"A"}),
		Nodes: some(t, "register", nil, []Registered{{Name: "n", Country: "DE"}}, []Registered{{Name: "m", Country: "DE"}, {Name: "n", Country: "US"}},
			[]Registered{{Name: "n", Country: "DE", Roles: []Role{RoleEdge}}}, []Registered{{Name: "n", Country: "US", Tenants: []string{"t"}}}, []Registered{{Name: "n", Country: "DE", Tenants: []string{"u", "t"}}}),
		Tenants:   some(t, "tenants", []Tenant{{Name: "t", Policy: "p"}}, nil, []Tenant{{Name: "u", Policy: "p"}, {Name: "t", Policy: "q", Policies: []string{"p"}}}),
		Overrides: some(t, "overrides", []Override{{Node: "n", Until: now.Add(time.Second)}}, nil, []Override{{Node: "n", Until: now}, {Node: "m", Until: now.Add(time.Hour)}}),
	}
}

func drawRequest(t *rapid.T) Request {
	country := rapid.SampledFrom([]Country{"DE", "DE", "US", "US", "NO", "CH", "", "XX", "de"})
	return Request{
		Tenant: some(t, "tenant", "", "t", "u"), QA: rapid.Bool().Draw(t, "qa"),
		Contradiction: some(t, "contradiction", "", "too near"), NoEvidence: some(t, "no evidence", "", "disk full"),
		Room: "r", Policy: some(t, "policy", "", "p", "q"), Class: rapid.SampledFrom(append(Classes(), "", "video")).Draw(t, "class"),
		Peer: Node{
			Name: some[NodeName](t, "name", "n", ""), Country: country.Draw(t, "country"),
			Operator: some(t, "operator", "o", "other"), OperatorCountry: country.Draw(t, "operator country"),
			Parent: "p", ParentCountry: country.Draw(t, "parent country"),
			Roles:     some(t, "roles", Roles(), []Role{RoleOrigin}, []Role{RoleEdge}, nil),
			NotBefore: some(t, "not before", now.Add(-time.Hour), now, now.Add(1)), NotAfter: some(t, "not after", now.Add(time.Hour), now.Add(1), now), Serial: "a",
		},
		PeerEpoch: some[Epoch](t, "peer epoch", 1, 2, 0),
		Store:     some(t, "store", false, true), OutsideParticipant: rapid.Bool().Draw(t, "outside"), Now: now,
	}
}

// TestGateAgainstOracle compares the gate with the oracle on random bundles and
// requests, and checks that permits follow verdicts.
func TestGateAgainstOracle(t *testing.T) {
	met := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		b := drawBundle(t)
		for range 400 { // requests to a bundle
			r := drawRequest(t)
			permit, v := NewGate(b).Permit(r)
			if want := oracle(b, r); v.Allow != want {
				t.Fatalf("got %+v, want %v\nrequest %+v\nbundle %+v\npolicy %+v", v, want, r, b, b.Policies["p"])
			}
			if v.Rule == "" || v.Reason == "" {
				t.Fatalf("no ground: %+v", v)
			}
			if permit.Allows(r.Peer.Name, b.Epoch, r.Now) != v.Allow || !v.Allow && permit != (Permit{}) {
				t.Fatalf("permit %+v of verdict %+v", permit, v)
			}
			if v.Allow {
				r.Now = permit.Until()                                 // what it rests on must not hold any longer
				if oracle(b, r) && !b.Policies["p"].TransferRequired { // a basis that begins later may go on
					t.Fatalf("the permit ends at %s for nothing: %+v\nbundle %+v", r.Now, v, b)
				}
				r.Now = r.Now.Add(-1)
				if !oracle(b, r) {
					t.Fatalf("the permit outlives what it rests on: until %s, %+v\nbundle %+v", permit.Until(), v, b)
				}
			}
			met[v.Rule]++
		}
	})
	// A test that never meets a rule proves nothing about it.
	for _, rule := range []string{RuleNoBundle, RuleBundleStale, RuleNoPolicy, RuleCertificate, RuleRevoked, RuleRegister,
		RuleEpoch, RuleNotStored, RuleStoreRole, RuleZone, RuleEdgeOutside, RuleEdgeEmpty, RuleQuarantine, RuleTenant, RuleEvidence, RuleTransfer} {
		if met[rule] == 0 {
			t.Errorf("no request met rule %q: %v", rule, met)
		}
	}
}

// TestNarrowerZoneNeverAllowsMore takes a country out of the zone: what was
// refused stays refused.
func TestNarrowerZoneNeverAllowsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, r := drawBundle(t), drawRequest(t)
		if NewGate(b).Decide(r).Allow || b.Policies["p"].EdgeOutside {
			return
		}
		narrow := *b.Policies["p"]
		narrow.Zones = map[Class]Zone{}
		for c, z := range b.Policies["p"].Zones {
			z.Anywhere = false
			z.Countries = slices.DeleteFunc(slices.Clone(z.Countries), func(c Country) bool { return c == "DE" })
			narrow.Zones[c] = z
		}
		b.Policies = map[string]*Policy{"p": &narrow}
		if v := NewGate(b).Decide(r); v.Allow {
			t.Fatalf("a narrower zone allows: %+v", v)
		}
	})
}
