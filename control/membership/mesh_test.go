package membership

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

func TestThreeNodesMeetAndPart(t *testing.T) {
	ca := newCA(t)
	var epoch atomic.Uint64
	epoch.Store(1)
	a := start(t, ca, fra, nil, nil)
	b := start(t, ca, waw, a.addr(), func(c *Config) {
		c.Claim = func() identity.Claim {
			return identity.Claim{Epoch: residency.Epoch(epoch.Load()), Load: 0.25, Attendees: 7, Latitude: 52.23, Longitude: 21.01,
				RelayAddr: netip.MustParseAddrPort("127.0.0.1:4433"), URL: "https://127.0.0.1:7443"}
		}
	})
	c := start(t, ca, nyc, a.addr(), nil)
	for _, r := range []*running{a, b, c} {
		r.await(t, "all three meet", func(s *Snapshot) bool {
			return slices.Equal(names(s), []residency.NodeName{"fra", "nyc", "waw"}) && len(s.Refused) == 0
		})
	}
	m, _ := c.Snapshot().Member("waw")
	if m.Node.Country != "PL" || m.Epoch != 1 || m.URL != "https://127.0.0.1:7443" || m.RelayAddr.Port() != 4433 || m.At.Lat != 52.23 || m.Claim.Attendees != 7 {
		t.Errorf("nyc sees of waw: %+v", m)
	}
	if got := c.Snapshot().Candidates(); len(got) != 3 || !got[1].Local || got[2].Local || got[2].Epoch != 1 {
		t.Errorf("candidates: %+v", got)
	}

	epoch.Store(2)
	b.Announce()
	c.await(t, "the new epoch arrives", func(s *Snapshot) bool { m, ok := s.Member("waw"); return ok && m.Epoch == 2 })

	b.leave()
	for _, r := range []*running{a, c} {
		r.await(t, "waw has left", func(s *Snapshot) bool { return slices.Equal(names(s), []residency.NodeName{"fra", "nyc"}) })
	}
	if a.log.count("WARN") > 0 {
		t.Errorf("warnings in a mesh where all is well: %q", a.log.lines)
	}
}

func TestDeadNodeIsNoticed(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	b := start(t, ca, waw, a.addr(), nil)
	cert := issueNow(t, ca, nyc)
	victim := impersonate(t, "nyc")
	victim.say(claimOf(t, cert, victim.addr, time.Now(), nil), cert)
	victim.join(t, a)
	victim.join(t, b) // it answers nobody, so both must be shown its certificate
	for _, r := range []*running{a, b} {
		r.await(t, "nyc is a member", func(s *Snapshot) bool { _, ok := s.Member("nyc"); return ok })
	}
	died := time.Now()
	victim.die()
	for _, r := range []*running{a, b} {
		r.await(t, "nyc is gone", func(s *Snapshot) bool { _, ok := s.Member("nyc"); return !ok })
	}
	t.Logf("noticed by both after %v", time.Since(died).Round(10*time.Millisecond))
}

func TestSeedThatStartsLaterIsJoined(t *testing.T) {
	ca := newCA(t)
	// A port that nobody has: of an impostor that has gone.
	gone := impersonate(t, "gone")
	gone.die()
	a := start(t, ca, waw, []string{gone.addr.String()}, nil)
	a.log.wait(t, "cannot join yet")
	start(t, ca, fra, nil, func(c *Config) { c.Bind = gone.addr })
	a.await(t, "the seed is joined", func(s *Snapshot) bool { _, ok := s.Member("fra"); return ok })
	if n := a.log.count("cannot join yet"); n != 1 {
		t.Errorf("logged %d times that the seed is not there", n)
	}
}

func TestWrongGossipKeyStaysOut(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	b := start(t, ca, waw, a.addr(), func(c *Config) { c.Keys = [][]byte{otherKey} })
	b.log.wait(t, "cannot join yet")
	if len(a.Snapshot().Members) != 1 || len(b.Snapshot().Members) != 1 {
		t.Errorf("fra sees %v, waw sees %v", names(a.Snapshot()), names(b.Snapshot()))
	}
	// The control: with both keys on its ring, which is how keys are changed, the
	// same node gets in.
	b.leave()
	c := start(t, ca, waw, a.addr(), func(c *Config) { c.Keys = [][]byte{goodKey, otherKey} })
	c.await(t, "the right key joins", func(s *Snapshot) bool { return len(s.Members) == 2 })
}

func TestForeignAuthorityIsRefused(t *testing.T) {
	ca, foreign := newCA(t), newCA(t)
	a := start(t, ca, fra, nil, nil)
	b := start(t, foreign, nyc, a.addr(), nil)
	if f := a.refusal(t, "nyc", RuleCertificate); !strings.Contains(f.Reason, "unknown authority") {
		t.Errorf("reason: %q", f.Reason)
	}
	b.refusal(t, "fra", RuleCertificate) // and the other way round
	if got := names(a.Snapshot()); len(got) != 1 {
		t.Errorf("members: %v", got)
	}
}

// A node that gossips another country than its certificate states is what the
// whole design rests on.
func TestLiarIsRefusedWithBothCountries(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	liar := start(t, ca, nyc, a.addr(), func(c *Config) {
		leaf := c.Certificate.Leaf
		c.Claim = func() identity.Claim {
			claim, _ := identity.ClaimOf(leaf)
			claim.Country, claim.Epoch = "DE", 1
			return claim
		}
	})
	f := a.refusal(t, "nyc", RuleClaim)
	if !strings.Contains(f.Reason, `"DE"`) || !strings.Contains(f.Reason, `"US"`) {
		t.Errorf("reason: %q", f.Reason)
	}
	liar.await(t, "the liar sees fra", func(s *Snapshot) bool { _, ok := s.Member("fra"); return ok })
	if _, ok := a.Snapshot().Member("nyc"); ok {
		t.Error("the liar is a member")
	}
	// It signs its lie anew whenever it announces; that is logged once.
	liar.Announce()
	bystander := start(t, ca, waw, a.addr(), nil)
	bystander.refusal(t, "nyc", RuleClaim)
	if n := a.log.count("not part of the mesh", "nyc"); n != 1 {
		t.Errorf("logged %d times: %q", n, a.log.lines)
	}
}

func TestReplayOfAnOldClaimIsRefused(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	cert := issueNow(t, ca, nyc)
	x := impersonate(t, "nyc")
	was, is := time.Now().Add(-time.Second), time.Now()
	load := func(l float64) func(*identity.Claim) { return func(c *identity.Claim) { c.Load = l } }
	old := claimOf(t, cert, x.addr, was, load(0))
	x.say(old, cert)
	x.join(t, a)
	a.await(t, "the first claim counts", func(s *Snapshot) bool { _, ok := s.Member("nyc"); return ok })
	x.say(claimOf(t, cert, x.addr, is, load(1)), cert)
	a.await(t, "the second claim counts", func(s *Snapshot) bool { m, ok := s.Member("nyc"); return ok && m.Load == 1 })
	x.say(old, cert)
	a.refusal(t, "nyc", RuleReplay)
	if m, ok := a.Snapshot().Member("nyc"); !ok || m.Load != 1 {
		t.Errorf("after the replay: %v, load %v; want the newer claim to stand", ok, m.Load)
	}
}

func TestStolenNameIsRefused(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	cert := issueNow(t, ca, nyc)
	x := impersonate(t, "waw")
	x.say(claimOf(t, cert, x.addr, time.Now(), nil), cert)
	x.join(t, a)
	if f := a.refusal(t, "waw", RuleName); !strings.Contains(f.Reason, `"nyc"`) {
		t.Errorf("reason: %q", f.Reason)
	}

	// Somebody else's claim, word for word, from an address of one's own.
	b := start(t, ca, nyc, nil, nil)
	meta, err := unpad(b.in.NodeMeta(memberlist.MetaMaxSize))
	if err != nil {
		t.Fatal(err)
	}
	y := impersonate(t, "nyc")
	y.say(meta, b.cfg.Certificate)
	y.join(t, a)
	a.refusal(t, "nyc", RuleAddress)
}

func TestSecondNodeOfANameIsListed(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	b := start(t, ca, nyc, a.addr(), nil)
	a.await(t, "nyc is there", func(s *Snapshot) bool { return len(s.Members) == 2 })
	double := impersonate(t, "nyc")
	double.join(t, a)
	if f := a.refusal(t, "nyc", RuleConflict); !strings.Contains(f.Reason, double.addr.String()) {
		t.Errorf("reason: %q", f.Reason)
	}
	if m, ok := a.Snapshot().Member("nyc"); !ok || m.Gossip != b.Snapshot().Self.Gossip {
		t.Error("the first node of the name is no member any more")
	}
}

func TestCertificateIsAskedFor(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	cert := issueNow(t, ca, nyc)
	x := impersonate(t, "nyc")
	x.say(claimOf(t, cert, x.addr, time.Now(), nil)) // shows no certificate
	x.join(t, a)
	timeout := time.After(soon)
	var wants []want
	for len(wants) == 0 {
		select {
		case <-x.in.wake:
			wants = x.in.empty().wants
		case <-timeout:
			t.Fatal("nobody asked for the certificate")
		}
	}
	if wants[0].cert != identity.Fingerprint(cert.Leaf) || wants[0].from != "fra" {
		t.Errorf("asked: %+v", wants[0])
	}
	to := &memberlist.Node{Name: "fra", Addr: a.Snapshot().Self.Gossip.Addr().AsSlice(), Port: a.Snapshot().Self.Gossip.Port()}
	if err := x.list.SendReliable(to, encodeCert(cert.Certificate[0])); err != nil {
		t.Fatal(err)
	}
	a.await(t, "the certificate counts", func(s *Snapshot) bool { _, ok := s.Member("nyc"); return ok && len(s.Refused) == 0 })

	// And we answer when asked.
	if err := x.list.SendReliable(to, encodeWant(want{cert: identity.Fingerprint(a.cert), from: "nyc"})); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case <-x.in.wake:
			if certs := x.in.empty().certs; slices.ContainsFunc(certs, func(der []byte) bool { return bytes.Equal(der, a.cert.Raw) }) {
				return
			}
		case <-timeout:
			t.Fatal("our certificate did not come")
		}
	}
}

func TestGarbageHarmsNobody(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	b := start(t, ca, waw, a.addr(), nil)
	a.await(t, "waw is there", func(s *Snapshot) bool { return len(s.Members) == 2 })
	x := impersonate(t, "nyc")
	garbage := bytes.Repeat([]byte{0xff}, memberlist.MetaMaxSize)
	x.in.state.Store(&garbage)
	x.say(garbage)
	x.in.state.Store(&garbage)
	x.join(t, a)
	to := &memberlist.Node{Addr: a.Snapshot().Self.Gossip.Addr().AsSlice(), Port: a.Snapshot().Self.Gossip.Port()}
	for _, b := range [][]byte{{0}, {kindWant}, {kindCert}, garbage, encodeWant(want{from: "nobody"}), encodeCert(garbage), bytes.Repeat([]byte{kindCert}, 1<<20)} {
		if err := x.list.SendReliable(to, b); err != nil {
			t.Fatal(err)
		}
		_ = x.list.SendBestEffort(to, b[:min(len(b), 1000)])
	}
	a.refusal(t, "nyc", RuleMetadata)
	b.refusal(t, "nyc", RuleMetadata)
	cert := issueNow(t, ca, nyc)
	x.say(claimOf(t, cert, x.addr, time.Now(), nil), cert)
	x.join(t, a)
	a.await(t, "the same node may say something sensible", func(s *Snapshot) bool { return len(s.Members) == 3 && len(s.Refused) == 0 })
}

// Gossip goes to every node of the mesh, in and out of every zone, so nothing
// about a room or a person may be in it. The list grows only on purpose.
func TestGossipCarriesNodesNotPeople(t *testing.T) {
	allowed := []string{"Name", "Country", "Operator", "OperatorCountry", "Parent", "ParentCountry", "Roles", "CertFingerprint",
		"Epoch", "Load", "Attendees", "Latitude", "Longitude", "Issued", "RelayAddr", "GossipAddr", "URL"}
	for f := range reflect.TypeFor[identity.Claim]().Fields() {
		if !slices.Contains(allowed, f.Name) {
			t.Errorf("claims carry %q: does every node of the world have to know it?", f.Name)
		}
	}
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	meta, err := unpad(a.in.NodeMeta(memberlist.MetaMaxSize)) // zeros before the claim
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.VerifyClaim(meta, a.cert) // reads all of it, or fails
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "fra" || c.GossipAddr != a.Snapshot().Self.Gossip {
		t.Errorf("metadata: %+v", c)
	}
	ders, err := decodeState(a.in.LocalState(true))
	if err != nil || len(ders) != 1 || !bytes.Equal(ders[0], a.cert.Raw) {
		t.Errorf("state: %d certificates, %v", len(ders), err)
	}
	if b := a.in.GetBroadcasts(0, 1400); b != nil {
		t.Errorf("broadcasts: %q", b)
	}
}

func TestNewRefuses(t *testing.T) {
	ca := newCA(t)
	good := func() Config {
		return Config{Self: fra, Certificate: issueNow(t, ca, fra), Roots: ca.Pool(), Bind: loopback, Keys: [][]byte{goodKey},
			Claim: func() identity.Claim { return identity.Claim{} }, Log: newLogbook().logger()}
	}
	for want, breakIt := range map[string]func(*Config){
		"no gossip key":                      func(c *Config) { c.Keys = nil },
		"gossip key 2 has 5 bytes":           func(c *Config) { c.Keys = [][]byte{goodKey, []byte("short")} },
		"no certificate":                     func(c *Config) { c.Certificate.Certificate = nil },
		"no roots":                           func(c *Config) { c.Roots = nil },
		"no claim":                           func(c *Config) { c.Claim = nil },
		"no address to bind":                 func(c *Config) { c.Bind = netip.AddrPort{} },
		"announce every 1ms":                 func(c *Config) { c.AnnounceEvery = time.Millisecond },
		`the certificate is that of "fra"`:   func(c *Config) { c.Self.Name = "waw" },
		`node "fra" in PL`:                   func(c *Config) { c.Self.Country = "PL" },
		"own certificate":                    func(c *Config) { c.Roots = newCA(t).Pool() },
		"a private key of type <nil> cannot": func(c *Config) { c.Certificate.PrivateKey = nil },
	} {
		c := good()
		breakIt(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := New(good()); err != nil {
		t.Error(err)
	}
}

func TestRunTwiceAndOnATakenPort(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "ran already") {
		t.Errorf("second Run: %v", err)
	}
	c := a.cfg
	c.Bind = a.Snapshot().Self.Gossip
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.Bind.String()) {
		t.Errorf("Run on a taken port: %v", err)
	}
}

// Claims of one length that change at once all arrive, without waiting for the next
// time they are announced anyway.
func TestClaimsThatChangeAtOnceArrive(t *testing.T) {
	ca := newCA(t)
	var epochs [2]atomic.Uint64
	claim := func(i int) func(c *Config) {
		return func(c *Config) {
			c.Claim = func() identity.Claim { return identity.Claim{Epoch: residency.Epoch(epochs[i].Load())} }
		}
	}
	a := start(t, ca, fra, nil, claim(0))
	b := start(t, ca, waw, a.addr(), claim(1))
	knows := func(r *running, name residency.NodeName, epoch uint64) {
		t.Helper()
		begin := time.Now()
		r.await(t, "the claim arrives", func(s *Snapshot) bool { m, ok := s.Member(name); return ok && m.Epoch == residency.Epoch(epoch) })
		if took := time.Since(begin); took > 5*time.Second {
			t.Fatalf("the claim of %s took %s", name, took)
		}
	}
	for i := uint64(2); i < 30; i += 2 {
		epochs[0].Store(i)
		a.Announce()
		knows(b, "fra", i) // so it has been sent, and waits to be sent again
		for j, r := range []*running{a, b} {
			epochs[j].Store(i + 1)
			r.Announce()
		}
		knows(b, "fra", i+1)
		knows(a, "waw", i+1)
	}
}

// A node that renews its certificate stays a member for the others, who judge it by
// the new one from then on; another node's certificate is not taken.
func TestRenewedCertificateIsAnnounced(t *testing.T) {
	ca := newCA(t)
	a := start(t, ca, fra, nil, nil)
	b := start(t, ca, waw, a.addr(), nil)
	b.await(t, "fra is a member", func(s *Snapshot) bool { _, ok := s.Member("fra"); return ok })
	next := issue(t, ca, fra, time.Now().Add(-time.Minute), time.Now().Add(2*time.Hour))
	if err := a.Renew(next); err != nil {
		t.Fatal(err)
	}
	b.await(t, "fra is judged by its new certificate", func(s *Snapshot) bool {
		m, ok := s.Member("fra")
		if !ok {
			t.Fatal("fra was no member for a moment")
		}
		return m.Cert.Equal(next.Leaf) && m.Node.NotAfter.Equal(next.Leaf.NotAfter)
	})
	if n := b.log.count("node left"); n != 0 {
		t.Error("fra was logged as gone")
	}
	if err := a.Renew(issueNow(t, ca, waw)); err == nil || !strings.Contains(err.Error(), "the name is") {
		t.Errorf("another node's certificate: %v", err)
	}
}
