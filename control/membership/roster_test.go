package membership

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

var nycAddr = netip.MustParseAddrPort("192.0.2.1:7946")

// court is a roster under test with a clock of its own.
type court struct {
	*roster
	now time.Time
}

func newCourt(ca *identity.CA) *court {
	// Claims travel in milliseconds.
	return &court{newRoster("fra", ca.Pool(), defaultAnnounceEvery, func(residency.NodeName) bool { return false }), time.Now().Truncate(time.Millisecond)}
}

// hear judges one peer, nyc, by its metadata and the certificates that came.
func (c *court) hear(meta []byte, certs ...tls.Certificate) verdict {
	return c.hearFrom(nycAddr, meta, certs...)
}

func (c *court) hearFrom(addr netip.AddrPort, meta []byte, certs ...tls.Certificate) verdict {
	in := mail{peers: map[string]peer{"nyc": {name: "nyc", addr: addr, claim: meta}}}
	for _, cert := range certs {
		in.certs = append(in.certs, cert.Certificate[0])
	}
	c.take(in, c.now)
	return c.judge(c.now)
}

// say writes a verdict in a line.
func say(v verdict) string {
	var out []string
	for _, m := range v.members {
		out = append(out, fmt.Sprintf("member %s", m.Node.Name))
	}
	for _, r := range v.refused {
		out = append(out, fmt.Sprintf("refused %s: %s", r.Name, r.Rule))
	}
	for _, r := range v.news {
		out = append(out, fmt.Sprintf("log %s: %s", r.Name, r.Rule))
	}
	for _, a := range v.asks {
		out = append(out, "ask "+a.peer.name)
	}
	return strings.Join(out, ", ")
}

func expect(t *testing.T, v verdict, want string) {
	t.Helper()
	if got := say(v); got != want {
		t.Errorf("got  %q\nwant %q; refused %v", got, want, v.refused)
	}
}

func TestCertificateExpiresWhileMember(t *testing.T) {
	ca := newCA(t)
	c := newCourt(ca)
	cert := issue(t, ca, nyc, c.now.Add(-time.Hour), c.now.Add(time.Minute).Truncate(time.Second))
	meta := claimOf(t, cert, nycAddr, c.now, nil)
	expect(t, c.hear(meta, cert), "member nyc")
	c.now = c.now.Add(time.Minute)
	expect(t, c.hear(meta), "refused nyc: certificate, log nyc: certificate")
	c.now = c.now.Add(time.Second)
	meta = claimOf(t, cert, nycAddr, c.now, nil)
	v := c.hear(meta)
	expect(t, v, "refused nyc: certificate") // for the same reason: not logged again
	if since := v.refused[0].Since; !since.Equal(c.now.Add(-time.Second)) {
		t.Errorf("since %v", since)
	}
}

func TestNotYetValidCertificate(t *testing.T) {
	ca := newCA(t)
	c := newCourt(ca)
	cert := issue(t, ca, nyc, c.now.Add(time.Minute), c.now.Add(time.Hour))
	expect(t, c.hear(claimOf(t, cert, nycAddr, c.now, nil), cert), "refused nyc: certificate, log nyc: certificate")
}

func TestSilentNodeFallsOut(t *testing.T) {
	ca := newCA(t)
	c := newCourt(ca)
	cert := issueNow(t, ca, nyc)
	meta := claimOf(t, cert, nycAddr, c.now, nil)
	expect(t, c.hear(meta, cert), "member nyc")
	c.now = c.now.Add(staleFactor * defaultAnnounceEvery)
	expect(t, c.hear(meta), "member nyc")
	c.now = c.now.Add(time.Second)
	expect(t, c.hear(meta), "refused nyc: clock, log nyc: clock")
}

func TestClocksThatDiffer(t *testing.T) {
	ca := newCA(t)
	for ahead, want := range map[time.Duration]string{
		MaxSkew - time.Second: "member nyc",
		MaxSkew + time.Second: "refused nyc: clock, log nyc: clock",
		-time.Hour:            "refused nyc: clock, log nyc: clock",
	} {
		c := newCourt(ca)
		cert := issueNow(t, ca, nyc)
		expect(t, c.hear(claimOf(t, cert, nycAddr, c.now.Add(ahead), nil), cert), want)
	}
}

// Two nodes whose clocks are wrong by ten minutes, even one this way and the other that, stay members of each other, and the one
// that hangs falls out as soon as any other.
func TestTenMinutesWrong(t *testing.T) {
	ca := newCA(t)
	for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute, 20 * time.Minute, -20 * time.Minute} {
		c := newCourt(ca)
		cert := issueNow(t, ca, nyc)
		var meta []byte
		for range 20 {
			meta = claimOf(t, cert, nycAddr, c.now.Add(ahead), nil)
			expect(t, c.hear(meta, cert), "member nyc")
			c.now = c.now.Add(defaultAnnounceEvery)
		}
		c.now = c.now.Add(staleFactor * defaultAnnounceEvery)
		expect(t, c.hear(meta), "refused nyc: clock, log nyc: clock")
	}
}

func TestWaitingForACertificate(t *testing.T) {
	ca := newCA(t)
	c := newCourt(ca)
	cert := issueNow(t, ca, nyc)
	meta := claimOf(t, cert, nycAddr, c.now, nil)
	expect(t, c.hear(meta), "ask nyc")
	expect(t, c.hear(meta), "") // asked a moment ago
	c.now = c.now.Add(askEvery)
	expect(t, c.hear(meta), "ask nyc")
	c.now = c.now.Add(patience)
	expect(t, c.hear(meta), "refused nyc: no-certificate, log nyc: no-certificate, ask nyc")
	expect(t, c.hear(meta, issueNow(t, ca, nyc)), "refused nyc: no-certificate") // another one does not help
	expect(t, c.hear(meta, cert), "member nyc")
}

// A node that renews its certificate stays a member while the new one travels.
func TestRenewedCertificate(t *testing.T) {
	ca := newCA(t)
	c := newCourt(ca)
	old, renewed := issueNow(t, ca, nyc), issueNow(t, ca, nyc)
	expect(t, c.hear(claimOf(t, old, nycAddr, c.now, nil), old), "member nyc")
	c.now = c.now.Add(time.Second)
	meta := claimOf(t, renewed, nycAddr, c.now, nil)
	expect(t, c.hear(meta), "member nyc, ask nyc")
	v := c.hear(meta, renewed)
	expect(t, v, "member nyc")
	if v.members[0].Cert != nil && !v.members[0].Cert.Equal(renewed.Leaf) {
		t.Error("the old certificate still counts")
	}
	if len(c.certs) != 1 {
		t.Errorf("%d certificates kept, want the one in use", len(c.certs))
	}
}

func TestWhatAClaimMayNotDo(t *testing.T) {
	ca := newCA(t)
	cert, others := issueNow(t, ca, nyc), issueNow(t, ca, nyc)
	now := time.Now()
	forged := claimOf(t, others, nycAddr, now, func(c *identity.Claim) { c.CertFingerprint = identity.Fingerprint(cert.Leaf) })
	flipped := claimOf(t, cert, nycAddr, now, nil)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string]struct {
		meta []byte
		from netip.AddrPort
		want string
	}{
		"another key's signature": {forged, nycAddr, RuleClaim},
		"a flipped bit":           {flipped, nycAddr, RuleClaim},
		"no metadata":             {nil, nycAddr, RuleMetadata},
		"cut":                     {flipped[:100], nycAddr, RuleMetadata},
		"another address":         {claimOf(t, cert, nycAddr, now, nil), netip.MustParseAddrPort("192.0.2.9:7946"), RuleAddress},
		"no address at all":       {claimOf(t, cert, netip.AddrPort{}, now, nil), netip.AddrPort{}, RuleAddress},
		"another operator":        {claimOf(t, cert, nycAddr, now, func(c *identity.Claim) { c.Operator = "Nice GmbH" }), nycAddr, RuleClaim},
		"another parent country":  {claimOf(t, cert, nycAddr, now, func(c *identity.Claim) { c.ParentCountry = "DE" }), nycAddr, RuleClaim},
		"more roles":              {claimOf(t, cert, nycAddr, now, func(c *identity.Claim) { c.Roles = residency.Roles() }), nycAddr, RuleClaim},
	} {
		t.Run(name, func(t *testing.T) {
			court := newCourt(ca)
			v := court.hearFrom(c.from, c.meta, cert)
			expect(t, v, fmt.Sprintf("refused nyc: %s, log nyc: %s", c.want, c.want))
		})
	}
}

// The memory of claims must outlive the node's absence, or an old one could be
// played back after the node was made to look dead; and it must end.
func TestReplayAfterAbsence(t *testing.T) {
	ca := newCA(t)
	c := newCourt(ca)
	cert := issueNow(t, ca, nyc)
	old := claimOf(t, cert, nycAddr, c.now.Add(-time.Second), nil)
	expect(t, c.hear(claimOf(t, cert, nycAddr, c.now, nil), cert), "member nyc")
	c.take(mail{}, c.now)
	expect(t, c.judge(c.now), "")
	expect(t, c.hear(old, cert), "member nyc, refused nyc: replay, log nyc: replay")
	c.now = c.now.Add(c.fresh + time.Second)
	c.take(mail{}, c.now)
	if len(c.accepted)+len(c.certs)+len(c.waiting)+len(c.asked) != 0 {
		t.Errorf("kept of a node long gone: %d claims, %d certificates", len(c.accepted), len(c.certs))
	}
}

func TestConflictIsListedForAWhile(t *testing.T) {
	ca := newCA(t)
	c := newCourt(ca)
	c.take(mail{conflicts: map[string]netip.AddrPort{"fra": nycAddr}}, c.now)
	expect(t, c.judge(c.now), "refused fra: conflict, log fra: conflict")
	c.now = c.now.Add(conflictFor)
	c.take(mail{}, c.now)
	expect(t, c.judge(c.now), "refused fra: conflict")
	c.now = c.now.Add(time.Second)
	c.take(mail{}, c.now)
	expect(t, c.judge(c.now), "")
}

func TestSmallChangesOfLoadAreNotNews(t *testing.T) {
	ca := newCA(t)
	a, err := identity.ClaimOf(issueNow(t, ca, nyc).Leaf)
	if err != nil {
		t.Fatal(err)
	}
	b := a
	b.Load, b.Issued = a.Load+loadStep/2, time.Now()
	if differs(a, b) {
		t.Error("half a step of load is announced")
	}
	b.Load = a.Load + loadStep
	if !differs(a, b) {
		t.Error("a step of load is not announced")
	}
	b = a
	b.Epoch++
	if !differs(a, b) {
		t.Error("a new epoch is not announced")
	}
}

func TestBackoffGrowsAndStarts(t *testing.T) {
	var b backoff
	var got []time.Duration
	for range 8 {
		got = append(got, b.next(errDown))
	}
	want := []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, joinMost, joinMost}
	if !slices.Equal(got, want) {
		t.Errorf("waits %v, want %v", got, want)
	}
	if b.next(nil) != joinAgain || b.next(errDown) != joinFirst {
		t.Error("a success does not start it again")
	}
}

var errDown = fmt.Errorf("down")

func TestStateOfManyCertificatesIsBounded(t *testing.T) {
	ders := make([][]byte, maxCertificates+1)
	for i := range ders {
		ders[i] = bytes.Repeat([]byte{1}, maxCertificate)
	}
	got, err := decodeState(encodeState(ders))
	if err != nil || len(got) != maxCertificates {
		t.Errorf("%d certificates, %v", len(got), err)
	}
}

func TestInboxIsBounded(t *testing.T) {
	in := newInbox("fra")
	der := encodeCert([]byte{1})
	w := encodeWant(want{from: "nyc"})
	for range 2 * maxCertificates {
		in.NotifyMsg(der)
		in.NotifyMsg(w)
	}
	got := in.empty()
	if len(got.certs) != maxCertificates || len(got.wants) != maxCertificates || in.dropped.Load() != maxCertificates {
		t.Errorf("%d certificates, %d wants, %d dropped", len(got.certs), len(got.wants), in.dropped.Load())
	}
}

// What gossip says against a member counts for nothing while the link to it is
// up: that it is dead, that it is elsewhere, that it has another name.
func TestLinkedMembersAreHeld(t *testing.T) {
	ca := newCA(t)
	cert, other := issueNow(t, ca, nyc), issueNow(t, ca, waw)
	elsewhere := netip.MustParseAddrPort("203.0.113.9:7946")
	for _, linked := range []bool{true, false} {
		c := newCourt(ca)
		c.linked = func(residency.NodeName) bool { return linked }
		meta := claimOf(t, cert, nycAddr, c.now, nil)
		wants := func(what string, v verdict, held, alone string) {
			t.Helper()
			want := alone
			if linked {
				want = held
			}
			if got := say(v); got != want {
				t.Errorf("%s, linked %v: %q, want %q", what, linked, got, want)
			}
		}
		wants("at first", c.hear(meta, cert), "member nyc", "member nyc")
		wants("a second node repeats its claim", c.hearFrom(elsewhere, meta, cert),
			"member nyc, refused nyc: address, log nyc: address", "refused nyc: address, log nyc: address")
		wants("a second node has a certificate of its own", c.hearFrom(elsewhere, claimOf(t, other, elsewhere, c.now, nil), other),
			"member nyc, refused nyc: name, log nyc: name", "refused nyc: name, log nyc: name")
		gone := func() verdict { c.take(mail{}, c.now); return c.judge(c.now) }
		wants("gossip has it dead", gone(), "member nyc", "")
		c.now = c.now.Add(patience)
		wants("and still", gone(), "member nyc, refused nyc: suspicion, log nyc: suspicion", "")
		c.now = c.now.Add(c.fresh)
		wants("its claim is old", gone(), "", "")
	}
}
