package relay_test

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// notary checks proofs as nodes do.
type notary struct {
	ca   *identity.CA
	pair *tls.Certificate // the node's own
}

func (n notary) Prove(binding []byte) ([]byte, error) { return identity.Prove(n.pair, binding) }
func (n notary) Admit(residency.Node) error           { return nil }

func (n notary) Proven(known residency.Node, binding, proof []byte) (residency.Node, error) {
	node, err := identity.VerifyProof(proof, binding, n.ca.Pool(), time.Now())
	if err == nil {
		err = identity.SameFacts(known, node)
	}
	return node, err
}

// applicant is an intruder who has certificates.
type applicant struct {
	*intruder
	t  *testing.T
	ca *identity.CA
}

func applicantNode(name residency.NodeName) residency.Node {
	return residency.Node{Name: name, Country: "DE", Operator: "Op", OperatorCountry: "DE", Parent: "Op", ParentCountry: "DE", Roles: []residency.Role{residency.RoleEdge}}
}

func issue(t *testing.T, ca *identity.CA, n residency.Node, from, to time.Duration) *tls.Certificate {
	t.Helper()
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(key.Public(), n, identity.SANs{}, time.Now().Add(from), time.Now().Add(to))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newApplicant(t *testing.T) *applicant {
	t.Helper()
	ca, err := identity.CreateCA(t.TempDir(), "test CA", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	mesh := relaytest.NewMesh(t, nil)
	mesh.Configure = func(_ residency.NodeName, c *relay.Config) {
		c.Identity = notary{ca, issue(t, ca, applicantNode("b"), -time.Minute, time.Hour)}
		c.PeerNode = func(s tls.ConnectionState) (residency.Node, error) {
			seen, err := relaytest.PeerNode(s)
			n := applicantNode("a")
			n.NotBefore, n.NotAfter, n.Serial = seen.NotBefore, seen.NotAfter, seen.Serial
			return n, err
		}
	}
	return &applicant{intruder: intrudeOn(t, mesh), t: t, ca: ca}
}

// binding is what a proof for one end of the applicant's connection is made for.
func (a *applicant) binding(end string) []byte {
	state := a.conn.ConnectionState().TLS
	b, err := state.ExportKeyingMaterial("EXPERIMENTAL domicile link identity", []byte(end), 32)
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func (a *applicant) proof(pair *tls.Certificate, binding []byte) []byte {
	p, err := identity.Prove(pair, binding)
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

func (a *applicant) shows(proof []byte) { a.control.Write(wire.AppendIdentity(nil, proof)) } //nolint:errcheck // the victim may have ended it

// Whatever is no proof of the peer's own new certificate, made for this connection
// and this end of it, ends the link.
func TestHostileProofsEndTheLink(t *testing.T) {
	hour := time.Hour
	mine := func(a *applicant) *tls.Certificate { return issue(a.t, a.ca, applicantNode("a"), -time.Minute, hour) }
	for name, c := range map[string]struct {
		attack func(a *applicant)
		why    string
	}{
		"cut": {func(a *applicant) {
			p := a.proof(mine(a), a.binding("a"))
			a.shows(p[:len(p)-7])
		}, "verify proof"},
		"empty":          {func(a *applicant) { a.shows(nil) }, "no proof"},
		"huge":           {func(a *applicant) { a.control.Write(envelope(wire.TypeIdentity, 1<<24)) }, "at most"}, //nolint:errcheck // likewise
		"of 5,000 bytes": {func(a *applicant) { a.shows(make([]byte, 5000)) }, "no proof of version 1"},
		"another node's": {func(a *applicant) {
			a.shows(a.proof(issue(a.t, a.ca, applicantNode("c"), -time.Minute, hour), a.binding("a")))
		}, "renewed certificate of node \"a\""},
		"of another country": {func(a *applicant) {
			n := applicantNode("a")
			n.Country = "FR"
			a.shows(a.proof(issue(a.t, a.ca, n, -time.Minute, hour), a.binding("a")))
		}, "country"},
		"of another operator": {func(a *applicant) {
			n := applicantNode("a")
			n.ParentCountry = "US"
			a.shows(a.proof(issue(a.t, a.ca, n, -time.Minute, hour), a.binding("a")))
		}, "parent"},
		"of another authority": {func(a *applicant) {
			other, err := identity.CreateCA(a.t.TempDir(), "other CA", time.Now().Add(-hour))
			if err != nil {
				a.t.Fatal(err)
			}
			a.shows(a.proof(issue(a.t, other, applicantNode("a"), -time.Minute, hour), a.binding("a")))
		}, "verify proof"},
		"expired": {func(a *applicant) {
			a.shows(a.proof(issue(a.t, a.ca, applicantNode("a"), -hour/2, -hour/4), a.binding("a")))
		}, "expired"},
		"too early": {func(a *applicant) {
			a.shows(a.proof(issue(a.t, a.ca, applicantNode("a"), hour, 2*hour), a.binding("a")))
		}, "not yet valid"},
		"for another connection": {func(a *applicant) {
			elsewhere := newApplicant(a.t)
			a.shows(a.proof(mine(a), elsewhere.binding("a")))
		}, "did not sign this"},
		"for the other end":           {func(a *applicant) { a.shows(a.proof(mine(a), a.binding("b"))) }, "did not sign this"},
		"somebody else's certificate": {func(a *applicant) { a.shows(a.stolen()) }, "did not sign this"},
		"the victim's own, back": {func(a *applicant) {
			a.victim.Fabric.Renewed()
			a.shows(a.reads(wire.TypeIdentity))
		}, "renewed certificate of node \"a\""},
		"again and again": {func(a *applicant) {
			p := a.proof(mine(a), a.binding("a"))
			for range 17 {
				a.shows(p)
			}
		}, "more than 16 proofs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApplicant(t)
			was := a.link.Peer().Serial
			c.attack(a)
			end := relaytest.Await(t, a.victim.Down, "link is down")
			if le := linkError(t, end.Err); le.Remote || le.Code != wire.CodePeer && le.Code != wire.CodeProtocol || !strings.Contains(le.Text, c.why) {
				t.Errorf("link ended with %v, want %q", le, c.why)
			}
			if now := a.link.Peer().Serial; now != was && name != "again and again" {
				t.Errorf("the victim believes certificate %s", now)
			}
		})
	}
}

// stolen is a proof with the certificate of another key.
func (a *applicant) stolen() []byte {
	theirs := issue(a.t, a.ca, applicantNode("a"), -time.Minute, time.Hour)
	key, err := identity.GenerateKey()
	if err != nil {
		a.t.Fatal(err)
	}
	theirs.PrivateKey = key
	return a.proof(theirs, a.binding("a"))
}

// reads returns the payload of the next envelope of a type on the control stream.
func (a *applicant) reads(want wire.Type) []byte {
	a.t.Helper()
	a.control.SetReadDeadline(time.Now().Add(relaytest.Patience)) //nolint:errcheck // then reading fails
	for {
		head := make([]byte, wire.EnvelopeSize)
		if _, err := io.ReadFull(a.control, head); err != nil {
			a.t.Fatal(err)
		}
		kind, n, err := wire.ParseEnvelope(head)
		if err != nil {
			a.t.Fatal(err)
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(a.control, payload); err != nil {
			a.t.Fatal(err)
		}
		if kind == want {
			return payload
		}
	}
}

// A good proof, and sixteen of them, change nothing but the certificate: the other
// test can fail.
func TestGoodProofsKeepTheLink(t *testing.T) {
	a := newApplicant(t)
	for range 16 {
		pair := issue(t, a.ca, applicantNode("a"), -time.Minute, time.Hour)
		_, n, err := identity.Verify(pair.Certificate[0], a.ca.Pool(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		a.shows(a.proof(pair, a.binding("a")))
		eventually(t, "the new certificate is believed", func() bool { return a.link.Peer().Serial == n.Serial })
	}
	select {
	case <-a.link.Done():
		t.Error("the link ended")
	default:
	}
	if a.victim.Fabric.Link("a") != a.link {
		t.Error("it is another link")
	}
}
