package membership

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

const (
	// MaxSkew is what the clocks of two nodes may differ: each may be ten minutes wrong,
	// one this way and the other that, which a machine without NTP is after months, and
	// whoever is the last to have a meeting does not lose it for that. It bounds how old a claim may be that nobody
	// here has seen before. How long a known one stands is timed by the own clock alone.
	MaxSkew = 21 * time.Minute

	// staleFactor is how many announcements in a row may get lost before a claim
	// counts as old.
	staleFactor = 4

	// patience is how long a node may take to show its certificate before it is
	// listed as refused: three attempts at asking for it.
	patience = 3 * time.Second

	// askEvery is the time between two attempts.
	askEvery = time.Second

	// conflictFor is how long a conflict of names is listed after it was last
	// seen; the second node's gossip repeats more often.
	conflictFor = time.Minute
)

// roster judges peers: gossip and certificates go in, members and refusals come
// out. It performs no I/O and reads no clock; Run's loop owns it.
type roster struct {
	self   string
	roots  *x509.CertPool
	stands time.Duration                 // how long a claim counts after it came
	fresh  time.Duration                 // age at which one that nobody here has seen is old, and one that was is forgotten
	linked func(residency.NodeName) bool // see Config

	peers     map[string]peer
	certs     map[fingerprint][]byte // DER, unverified; only those that a peer's claim refers to
	accepted  map[string]accepted    // the last verified claim by name, kept while it could be replayed
	refused   map[string]Refusal
	waiting   map[string]time.Time // since when a peer's certificate is missing
	asked     map[string]time.Time // when it was last asked for
	missed    map[string]time.Time // since when gossip has lost a member whose link is up
	conflicts map[string]conflict
}

// accepted is a claim that verified.
type accepted struct {
	claim  []byte
	member Member
}

// conflict is a name that two nodes use.
type conflict struct {
	at   netip.AddrPort
	seen time.Time
}

// verdict is the outcome of judging all peers.
type verdict struct {
	members []Member // without this node, by name
	refused []Refusal
	asks    []ask
	news    []Refusal // refusals that were not there before: to be logged
}

// ask is a certificate to ask a peer for.
type ask struct {
	peer peer
	cert fingerprint
}

func newRoster(self string, roots *x509.CertPool, announceEvery time.Duration, linked func(residency.NodeName) bool) *roster {
	return &roster{
		linked: linked,
		self:   self, roots: roots, stands: staleFactor * announceEvery, fresh: staleFactor*announceEvery + MaxSkew,
		peers: map[string]peer{}, certs: map[fingerprint][]byte{}, accepted: map[string]accepted{},
		refused: map[string]Refusal{}, waiting: map[string]time.Time{}, asked: map[string]time.Time{},
		conflicts: map[string]conflict{}, missed: map[string]time.Time{},
	}
}

// take replaces the table of peers and keeps the certificates that they refer to.
func (r *roster) take(in mail, now time.Time) {
	r.peers = in.peers
	needed := map[fingerprint]bool{}
	for _, p := range r.peers {
		if c, err := identity.PeekClaim(p.claim); err == nil {
			needed[c.CertFingerprint] = true
		}
	}
	for _, der := range in.certs {
		if f := sha256.Sum256(der); needed[f] {
			r.certs[f] = der
		}
	}
	for f := range r.certs {
		if !needed[f] {
			delete(r.certs, f)
		}
	}
	for name, at := range in.conflicts {
		r.conflicts[name] = conflict{at: at, seen: now}
	}
	r.forget(now)
}

// forget drops what is kept of peers that are gone, and what time has settled.
func (r *roster) forget(now time.Time) {
	for name, a := range r.accepted {
		if _, here := r.peers[name]; !here && now.Sub(a.member.Claim.Issued) > r.fresh {
			delete(r.accepted, name)
			delete(r.missed, name)
		}
	}
	for name := range r.waiting {
		if _, here := r.peers[name]; !here {
			delete(r.waiting, name)
			delete(r.asked, name)
		}
	}
	for name, c := range r.conflicts {
		if now.Sub(c.seen) > conflictFor {
			delete(r.conflicts, name)
		}
	}
}

// judge decides about every peer.
func (r *roster) judge(now time.Time) verdict {
	var v verdict
	refused := map[string]Refusal{}
	for name, p := range r.peers {
		member, ask, no := r.judgePeer(p, now)
		if member == nil {
			member = r.held(name, now)
		}
		if member != nil {
			v.members = append(v.members, *member)
		}
		if ask != nil {
			v.asks = append(v.asks, *ask)
		}
		if no != nil {
			refused[name] = *no
		}
	}
	for name := range r.accepted {
		if _, here := r.peers[name]; here {
			delete(r.missed, name)
			continue
		}
		member := r.held(name, now)
		if member == nil {
			delete(r.missed, name)
			continue
		}
		v.members = append(v.members, *member)
		if r.missedFor(name, now) >= patience {
			refused[name] = Refusal{Rule: RuleSuspicion, Reason: fmt.Sprintf("gossip says that node %q is gone, but the link to it is up", name)}
		}
	}
	for name, c := range r.conflicts {
		if _, already := refused[name]; !already {
			refused[name] = Refusal{Rule: RuleConflict, Reason: fmt.Sprintf("a second node at %s uses the name %q", c.at, name)}
		}
	}
	v.refused, v.news = r.settle(refused, now)
	slices.SortFunc(v.members, func(a, b Member) int { return cmp.Compare(a.Node.Name, b.Node.Name) })
	return v
}

// held returns the member that had a name before gossip told otherwise, as long
// as the link to it is up and its last claim stands; nil if there is none.
func (r *roster) held(name string, now time.Time) *Member {
	last, known := r.accepted[name]
	if !known || !r.linked(residency.NodeName(name)) {
		return nil
	}
	m, _, _ := r.stillGood(last.member, now)
	return m
}

// missedFor is how long gossip has lost a member whose link is up. A node that
// leaves ends both, one after the other.
func (r *roster) missedFor(name string, now time.Time) time.Duration {
	since, known := r.missed[name]
	if !known {
		since, r.missed[name] = now, now
	}
	return now.Sub(since)
}

// settle dates the refusals and finds those that are new. One that goes on for
// the same rule is the same, though its words may differ.
func (r *roster) settle(refused map[string]Refusal, now time.Time) (all, news []Refusal) {
	for name, f := range refused {
		f.Name, f.Since = residency.NodeName(name), now
		old, known := r.refused[name]
		if known && old.Rule == f.Rule {
			f.Since = old.Since
		} else {
			news = append(news, f)
		}
		refused[name] = f
		all = append(all, f)
	}
	r.refused = refused
	byName := func(a, b Refusal) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(all, byName)
	slices.SortFunc(news, byName)
	return all, news
}

// judgePeer asks the rules in order. A peer can be a member and refused at once:
// its last verified claim then stands while what came after it is a replay, or
// refers to a renewed certificate that is still on its way.
func (r *roster) judgePeer(p peer, now time.Time) (*Member, *ask, *Refusal) {
	last, known := r.accepted[p.name]
	if known && bytes.Equal(last.claim, p.claim) && last.member.Gossip == p.addr {
		return r.stillGood(last.member, now)
	}
	claim, err := identity.PeekClaim(p.claim)
	if err != nil {
		return refuse(RuleMetadata, "%v", err)
	}
	if string(claim.Name) != p.name {
		return refuse(RuleName, "gossip calls it %q, its claim %q", p.name, claim.Name)
	}
	der, ok := r.certs[claim.CertFingerprint]
	if !ok {
		return r.await(p, claim.CertFingerprint, now)
	}
	delete(r.waiting, p.name)
	delete(r.asked, p.name)
	member, no := r.verify(p, der, now)
	switch {
	case no != nil:
		return nil, nil, no
	case known && !member.Claim.Newer(last.member.Claim):
		m, _, _ := r.stillGood(last.member, now)
		_, _, no := refuse(RuleReplay, "a claim issued at %s came after one of %s: a replay, or its clock went back",
			stamp(member.Claim.Issued), stamp(last.member.Claim.Issued))
		return m, nil, no
	}
	r.accepted[p.name] = accepted{claim: p.claim, member: *member}
	return member, nil, nil
}

// verify checks a claim against the certificate that it refers to.
func (r *roster) verify(p peer, der []byte, now time.Time) (*Member, *Refusal) {
	no := func(rule, format string, a ...any) (*Member, *Refusal) {
		return nil, &Refusal{Rule: rule, Reason: fmt.Sprintf(format, a...)}
	}
	cert, node, err := identity.Verify(der, r.roots, now)
	if err != nil {
		return no(RuleCertificate, "%v", err)
	}
	claim, err := identity.VerifyClaim(p.claim, cert)
	if err != nil {
		return no(RuleClaim, "%v", err)
	}
	// Whoever holds the gossip key could repeat a fresh claim from an address of
	// its own while the node itself is away.
	if !p.addr.IsValid() || claim.GossipAddr != p.addr {
		return no(RuleAddress, "it gossips from %s, its claim says %s", p.addr, claim.GossipAddr)
	}
	m := &Member{
		Node: node, Claim: claim, Gossip: p.addr, RelayAddr: claim.RelayAddr, URL: claim.URL,
		At: router.Point{Lat: claim.Latitude, Lon: claim.Longitude}, Load: claim.Load, Epoch: claim.Epoch, Cert: cert, Seen: now,
	}
	if late := r.clock(claim, now); late != "" {
		return no(RuleClock, "%s", late)
	}
	return m, nil
}

// stillGood asks again what time alone can change.
func (r *roster) stillGood(m Member, now time.Time) (*Member, *ask, *Refusal) {
	if !m.Node.ValidAt(now) {
		return refuse(RuleCertificate, "its certificate is valid from %s to %s", stamp(m.Node.NotBefore), stamp(m.Node.NotAfter))
	}
	if now.Sub(m.Seen) > r.stands {
		return refuse(RuleClock, "its last claim came at %s, more than %v ago: it hangs", stamp(m.Seen), r.stands)
	}
	return &m, nil, nil
}

// clock says what is wrong with the age of a claim, "" if nothing is.
func (r *roster) clock(c identity.Claim, now time.Time) string {
	switch age := now.Sub(c.Issued); {
	case age > r.fresh:
		return fmt.Sprintf("its claim was issued at %s, more than %v ago: it hangs, or a clock is wrong", stamp(c.Issued), r.fresh)
	case age < -MaxSkew:
		return fmt.Sprintf("its claim was issued at %s, in the future: a clock is wrong", stamp(c.Issued))
	}
	return ""
}

// await has the peer asked for its certificate, and refuses it if it does not
// come. Meanwhile the last verified claim stands.
func (r *roster) await(p peer, f fingerprint, now time.Time) (m *Member, a *ask, no *Refusal) {
	if last, known := r.accepted[p.name]; known {
		m, _, _ = r.stillGood(last.member, now)
	}
	since, waiting := r.waiting[p.name]
	if !waiting {
		since = now
		r.waiting[p.name] = now
	}
	if at, asked := r.asked[p.name]; !asked || now.Sub(at) >= askEvery {
		r.asked[p.name] = now
		a = &ask{peer: p, cert: f}
	}
	if now.Sub(since) >= patience {
		_, _, no = refuse(RuleNoCert, "it has not shown the certificate with fingerprint %x…", f[:8])
	}
	return m, a, no
}

// refuse is the verdict on a peer that is not a member.
func refuse(rule, format string, a ...any) (*Member, *ask, *Refusal) {
	return nil, nil, &Refusal{Rule: rule, Reason: fmt.Sprintf(format, a...)}
}

// stamp writes a time as logs have it, to the millisecond of claims.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
