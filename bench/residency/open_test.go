package main_test

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/domicile/domicile/node/witness"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/identity"
)

// largeBundle has as many tenants and nodes as the largest platform it is made for; a
// and b are among the last.
func largeBundle() *residency.Bundle {
	zone := residency.Zone{Name: "EEA", Countries: []residency.Country{"DE", "FR", "PL"}, ExcludedParentCountries: []residency.Country{"US"}}
	p := &residency.Policy{Name: "open", Zones: map[residency.Class]residency.Zone{}, SingleOrigin: true}
	for _, c := range residency.Classes() {
		p.Zones[c] = zone
	}
	b := &residency.Bundle{Epoch: 1, Default: "open", Policies: map[string]*residency.Policy{"open": p}}
	for i := range 1000 {
		b.Tenants = append(b.Tenants, residency.Tenant{Name: fmt.Sprint("tenant-", i), Policy: "open", APIKeys: []string{fmt.Sprint("key-", i)}})
	}
	for i := range 498 {
		b.Nodes = append(b.Nodes, residency.Registered{Name: residency.NodeName(fmt.Sprint("node-", i)), Country: "US", Roles: residency.Roles()})
		b.Revoked = append(b.Revoked, fmt.Sprintf("%x", 1<<20+i))
	}
	for _, n := range []residency.NodeName{"a", "b"} {
		b.Nodes = append(b.Nodes, residency.Registered{Name: n, Country: "DE"})
	}
	return b
}

// end is one of the two nodes.
type end struct {
	link *relay.Link
	side evidence.Side
	cert *x509.Certificate
	key  crypto.Signer
}

func newEnd(b *testing.B, ca *identity.CA, l *relay.Link, side evidence.Side) *end {
	b.Helper()
	key, err := identity.GenerateKey()
	if err != nil {
		b.Fatal(err)
	}
	n := residency.Node{Name: residency.NodeName(side), Country: "DE", Operator: "o", OperatorCountry: "DE", Parent: "o", ParentCountry: "DE", Roles: residency.Roles()}
	der, err := ca.Issue(key.Public(), n, identity.SANs{}, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		b.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	return &end{link: l, side: side, cert: cert, key: key}
}

// permit asks for a permit about the node at the other end.
func (e *end) permit(b *testing.B, g *residency.Gate, room string) residency.Permit {
	peer := e.link.Peer()
	peer.OperatorCountry, peer.ParentCountry = "DE", "DE"
	p, v := g.Permit(residency.Request{Room: room, Tenant: "tenant-999", Policy: "open", Class: residency.ClassMedia, Peer: peer, PeerEpoch: 1, Now: time.Now()})
	if !v.Allow {
		b.Fatal(v.Reason)
	}
	return p
}

// receipt is the book of a room in which nothing but this track was: it is opened, and
// its one receipt written and signed when the room has ended.
func (e *end) receipt(b *testing.B, room evidence.Pseudonym, p residency.Permit) {
	now, l := time.Now(), witness.NewLedger()
	about := witness.About{PeerCertificate: evidence.Fingerprint(e.cert.Raw), Class: residency.ClassMedia, Policy: "open", Tenant: "tenant-999", Rule: p.Verdict().Rule, Epoch: 1}
	id := witness.ID{Side: e.side, Peer: e.link.Peer().Name, Number: 1}
	l.Take(now, id, about, witness.Count{Packets: 3000, Bytes: 300_000, ToldPackets: 3000, ToldBytes: 300_000, Final: true})
	l.Leave(now)
	chain := evidence.NewChain(room, residency.NodeName(e.side), now)
	for _, r := range l.Due(now.Add(time.Hour)) {
		if _, err := chain.Write(r, e.cert, e.key); err != nil {
			b.Fatal(err)
		}
	}
}

// nobody is who gets the media.
type nobody struct{}

func (nobody) Media(uint8, [][]byte, time.Time)           {}
func (nobody) Report(uint8, wire.SenderReport, time.Time) {}

// BenchmarkOpenStream opens one track from one node to another, each time in a room of
// its own, so that nothing is shared with a track before: both ends ask the gate of a
// platform with 1,000 tenants, 500 nodes and 498 revocations, the sender opens the
// track and its account, the receiver binds it. Later, when the room has ended, each
// end has written one receipt. It is the time of both ends, one after the other; what
// the link sends meanwhile is not in it, and the waiting for that makes ns/op meaningless.
func BenchmarkOpenStream(b *testing.B) {
	na, _, ab, ba := relaytest.NewMesh(b, nil).Pair(b)
	ca, err := identity.CreateCA(b.TempDir(), "bench", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	key := evidence.NewRoomKey()
	g, from, to := residency.NewGate(largeBundle()), newEnd(b, ca, ab, evidence.Sent), newEnd(b, ca, ba, evidence.Received)
	var gate, accounts, receipts time.Duration
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		room := big.NewInt(int64(i)).Text(36)
		pseudonym, err := key.Pseudonym(room)
		if err != nil {
			b.Fatal(err)
		}
		t0 := time.Now()
		out, in := from.permit(b, g, room), to.permit(b, g, room)
		t1 := time.Now()
		track, err := ab.OpenTrack(out, false)
		if err != nil {
			b.Fatal(err)
		}
		if err := ba.Bind(in, track.Alias(), nobody{}); err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		from.receipt(b, pseudonym, out)
		to.receipt(b, pseudonym, in)
		receipts += time.Since(t2)
		gate, accounts = gate+t1.Sub(t0), accounts+t2.Sub(t1)
		forget(na.Fabric, ba, track)
		time.Sleep(100 * time.Microsecond) // the link says it all to the other end meanwhile: nothing queues up
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(us(gate), "µs-gate/stream")
	b.ReportMetric(us(accounts), "µs-accounts/stream")
	b.ReportMetric(us(gate+accounts), "µs-open/stream")
	b.ReportMetric(us(receipts), "µs-receipts/stream")
}

// forget ends the track, and all that is kept of it.
func forget(f *relay.Fabric, to *relay.Link, track *relay.Track) {
	track.Close()
	to.Unbind(track.Alias())
	var ids []relay.AccountID
	for _, a := range f.Accounts() {
		ids = append(ids, a.ID)
	}
	f.CloseAccounts(ids)
	f.ForgetAccounts(ids)
}
