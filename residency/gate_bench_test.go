package residency

import (
	"fmt"
	"testing"
)

// largeBundle has as many tenants and nodes as the largest platform it is made for.
func largeBundle() *Bundle {
	b := testBundle()
	for i := range 1000 {
		b.Tenants = append(b.Tenants, Tenant{Name: fmt.Sprintf("tenant-%d", i), Policy: "eea-only", Policies: []string{"global", "scc"}, APIKeys: []string{fmt.Sprintf("key-%d", i)}})
	}
	for i := range 500 {
		b.Nodes = append(b.Nodes, Registered{Name: NodeName(fmt.Sprintf("node-%d", i)), Country: "US", Roles: Roles(), Tenants: []string{"other", "tenant-999"}})
		b.Revoked = append(b.Revoked, fmt.Sprintf("%x", 1<<20+i))
	}
	return b
}

func largeRequest() Request {
	return Request{Room: "r", Tenant: "tenant-999", Policy: "scc", Class: ClassMedia, Peer: node("node-499", "US", RoleEdge), PeerEpoch: 3, Now: now}
}

// BenchmarkPermit is what the gate adds to opening a stream, with a bundle of
// 1,000 tenants, 500 nodes and 500 revocations.
func BenchmarkPermit(b *testing.B) {
	g, r := NewGate(largeBundle()), largeRequest()
	if _, v := g.Permit(r); !v.Allow {
		b.Fatalf("%+v", v)
	}
	b.ReportAllocs()
	for b.Loop() {
		g.Permit(r)
	}
}

// BenchmarkRefuse is the same for a refusal with its hint.
func BenchmarkRefuse(b *testing.B) {
	g, r := NewGate(largeBundle()), largeRequest()
	r.Policy = "global"
	if v := g.Decide(r); v.Allow {
		b.Fatalf("%+v", v)
	}
	b.ReportAllocs()
	for b.Loop() {
		g.Permit(r)
	}
}

// BenchmarkAllows is all that is asked for a packet.
func BenchmarkAllows(b *testing.B) {
	p, _ := NewGate(largeBundle()).Permit(largeRequest())
	b.ReportAllocs()
	for b.Loop() {
		if !p.Allows("node-499", 3, now) {
			b.Fatal("refused")
		}
	}
}

// BenchmarkNewGate is what a change of the bundle costs.
func BenchmarkNewGate(b *testing.B) {
	bundle := largeBundle()
	for b.Loop() {
		NewGate(bundle)
	}
}

// TestAllowsAllocatesNothing holds the hot path to it.
func TestAllowsAllocatesNothing(t *testing.T) {
	p, v := NewGate(largeBundle()).Permit(largeRequest())
	if !v.Allow {
		t.Fatalf("%+v", v)
	}
	if n := testing.AllocsPerRun(100, func() { p.Allows("node-499", 3, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
