// Package evidencetest makes evidence of rooms that never were, for tests: nodes
// with certificates, their receipts minute by minute, an origin's log and its
// witnesses. It pretends nothing about time or chance: both are given.
package evidencetest

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/identity"
)

// Start is when every made room begins.
var Start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// Node is one node of the mesh.
type Node struct {
	residency.Node
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Identity is what a log signs with.
func (n *Node) Identity() (*x509.Certificate, crypto.Signer) { return n.Cert, n.Key }

// Mesh is an authority, its nodes and its policies.
type Mesh struct {
	CA     *identity.CA
	Nodes  []*Node
	Policy evidence.Policy
	Parse  func([]byte) (*residency.Bundle, error)
}

// places are where nodes of a mesh stand; the first is the origin.
var places = []residency.Country{"DE", "FR", "PL", "NL", "IT", "ES", "SE", "AT", "IE", "CZ"}

// PolicyText is a policy under which a room of New is allowed: everything in the
// European Economic Area, an edge outside for its own attendees.
const PolicyText = `epoch: 7
default: europe
policies:
  europe:
    title: Everything in the European Economic Area
    description: All data of a meeting stays in the EEA, edges outside carry it for their own attendees.
    classes: {all: EEA}
    edge_outside: only-for-local-participants
    recording: {allowed: true, notice: true}
    chat_log: true
`

// New makes a mesh of n nodes in as many countries; with outside, the last one
// is an edge in the United States. Its authority's files lie in dir.
func New(dir string, n int, outside bool, policy string, parse func([]byte) (*residency.Bundle, error)) (*Mesh, error) {
	ca, err := identity.CreateCA(dir, "Example authority", Start.Add(-48*time.Hour))
	if err != nil {
		return nil, err
	}
	m := &Mesh{CA: ca, Parse: parse}
	for i := range n {
		country := places[i%len(places)]
		roles := []residency.Role{residency.RoleEdge}
		if i == 0 {
			roles = []residency.Role{residency.RoleOrigin, residency.RoleEdge}
		}
		if outside && i == n-1 {
			country = "US"
		}
		if err := m.Add(residency.Node{Name: residency.NodeName(fmt.Sprintf("%s%d", strings.ToLower(string(country)), i)), Country: country, Roles: roles}); err != nil {
			return nil, err
		}
	}
	sig, err := ca.Sign([]byte(policy))
	if err != nil {
		return nil, err
	}
	bundle, err := parse([]byte(policy))
	if err != nil {
		return nil, err
	}
	m.Policy = evidence.Policy{Epoch: bundle.Epoch, Text: []byte(policy), Signature: sig}
	return m, nil
}

// Add issues a certificate to another node.
func (m *Mesh) Add(n residency.Node) error {
	key, err := identity.GenerateKey()
	if err != nil {
		return err
	}
	n.Operator, n.OperatorCountry, n.Parent, n.ParentCountry = "Example Hosting GmbH", "DE", "Example Holding AG", "CH"
	der, err := m.CA.Issue(key.Public(), n, identity.SANs{}, Start.Add(-time.Hour), Start.Add(30*24*time.Hour))
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if n, err = identity.Parse(cert); err != nil {
		return err
	}
	m.Nodes = append(m.Nodes, &Node{n, cert, key})
	return nil
}

// Signed is a receipt on its way to the log, and who wrote it.
type Signed struct {
	By   *Node
	Line []byte
}

// Shape says how large a room is.
type Shape struct {
	SID     string
	Minutes int // with a receipt a minute for each stream
	Seed    uint64
	Also    []evidence.Receipt // by the origin, in the first minute; what they leave open is filled in
}

// Key is the key of every made room's pseudonym.
const Key = evidence.RoomKey("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")

// Receipts writes what a room's nodes write: media, signalling and chat between
// every two of them, a record stored on the origin and a recording there.
func (m *Mesh) Receipts(s Shape) ([]Signed, error) {
	room, err := Key.Pseudonym(s.SID)
	if err != nil {
		return nil, err
	}
	w := &writer{mesh: m, chance: rand.New(rand.NewPCG(s.Seed, 1)), chains: map[*Node]*evidence.Chain{}, also: s.Also}
	for _, n := range m.Nodes {
		w.chains[n] = evidence.NewChain(room, n.Name, Start)
	}
	for minute := range s.Minutes {
		w.minute(minute, minute == s.Minutes-1)
	}
	return w.out, w.err
}

// writer makes the receipts of one room.
type writer struct {
	mesh   *Mesh
	chance *rand.Rand
	chains map[*Node]*evidence.Chain
	also   []evidence.Receipt
	out    []Signed
	err    error
}

var classes = []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat}

func (w *writer) minute(minute int, last bool) {
	from := Start.Add(time.Duration(minute) * time.Minute)
	due := map[*Node][]evidence.Receipt{}
	for _, a := range w.mesh.Nodes {
		for _, b := range w.mesh.Nodes {
			if a == b {
				continue
			}
			for _, class := range classes {
				s, r := w.hop(a, b, class, from)
				due[a], due[b] = append(due[a], s), append(due[b], r)
			}
		}
	}
	origin := w.mesh.Nodes[0]
	if minute == 0 {
		due[origin] = append(due[origin], w.receipt(evidence.Stored, origin, residency.ClassMetadata, 1, 400, from))
		for _, r := range w.also {
			like := w.receipt(r.Side, origin, r.Class, r.Packets, r.Bytes, from)
			r.Policy, r.Epoch, r.First, r.Last = like.Policy, like.Epoch, like.First, like.Last
			due[origin] = append(due[origin], r)
		}
	}
	due[origin] = append(due[origin], w.receipt(evidence.Recorded, origin, residency.ClassRecording, 3000, 3_000_000, from))
	for _, n := range w.mesh.Nodes {
		for i, r := range due[n] {
			r.Final = last && i == len(due[n])-1
			w.write(n, r)
		}
	}
}

// hop is a minute of one class from a to b, as both ends count it.
func (w *writer) hop(a, b *Node, class residency.Class, at time.Time) (s, r evidence.Receipt) {
	packets, size := uint64(20+w.chance.IntN(40)), uint64(150)
	if class == residency.ClassMedia {
		packets, size = uint64(9000+w.chance.IntN(3000)), 1100
	}
	s = w.receipt(evidence.Sent, b, class, packets, packets*size, at)
	r = w.receipt(evidence.Received, a, class, packets, packets*size, at)
	if class == residency.ClassMedia {
		r.Lost = uint64(w.chance.IntN(5))
		r.LostBytes = r.Lost * size
		r.Packets, r.Bytes = packets-r.Lost, (packets-r.Lost)*size
	}
	return s, r
}

func (w *writer) receipt(side evidence.Side, peer *Node, class residency.Class, packets, bytes uint64, at time.Time) evidence.Receipt {
	rule := residency.RuleZone
	if eea, _ := residency.NamedZone("EEA"); !slices.Contains(eea, peer.Country) {
		rule = residency.RuleEdgeOutside
	}
	return evidence.Receipt{Side: side, Peer: peer.Name, PeerCertificate: evidence.Fingerprint(peer.Cert.Raw), Class: class,
		Policy: "europe", Rule: rule, Epoch: w.mesh.Policy.Epoch, Packets: packets, Bytes: bytes,
		First: evidence.Millis(at), Last: evidence.Millis(at.Add(59 * time.Second))}
}

func (w *writer) write(n *Node, r evidence.Receipt) {
	line, err := w.chains[n].Write(r, n.Cert, n.Key)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.out = append(w.out, Signed{n, line})
}

// Log puts receipts into a new log of the origin in dir, with other rooms' beside
// them, and has the first two other nodes countersign it.
func (m *Mesh) Log(dir string, receipts []Signed) (*evidence.Log, error) {
	l, err := evidence.OpenLog(dir, evidence.LogOptions{Node: m.Nodes[0].Name, Identity: m.Nodes[0].Identity})
	if err != nil {
		return nil, err
	}
	if err := l.KeepPolicy(m.Policy); err != nil {
		return nil, err
	}
	for _, n := range m.Nodes {
		if err := l.KeepCertificate(n.Cert.Raw); err != nil {
			return nil, err
		}
	}
	end := Start
	for chunk := range slices.Chunk(receipts, 2000) {
		var lines [][]byte
		for _, r := range chunk {
			lines = append(lines, r.Line)
		}
		end = end.Add(time.Second)
		if _, err := l.Append(end, lines...); err != nil {
			return nil, err
		}
	}
	return l, m.Witness(l, m.Nodes[1:min(3, len(m.Nodes))])
}

// Witness has nodes countersign the log's head.
func (m *Mesh) Witness(l *evidence.Log, by []*Node) error {
	origin := m.Nodes[0]
	for _, n := range by {
		w := evidence.NewWitness()
		a, err := l.Announce(0)
		if err != nil {
			return err
		}
		if _, err := w.Observe(a, origin.Name, origin.Cert); err != nil {
			return err
		}
		signed, err := w.Countersign(origin.Name, n.Name, n.Cert, n.Key, Start.Add(2*time.Hour))
		if err != nil {
			return err
		}
		if err := l.Countersigned(signed, n.Cert); err != nil {
			return err
		}
	}
	return nil
}

// Export makes the file of a room.
func (m *Mesh) Export(l *evidence.Log, sid string) ([]byte, error) {
	return l.Export(evidence.ExportOptions{SID: sid, Key: Key, Authorities: []*x509.Certificate{m.CA.Certificate()},
		Parse: m.Parse, Now: Start.Add(3 * time.Hour)})
}

// Room makes a room's evidence from its start to the file.
func (m *Mesh) Room(dir string, s Shape) ([]byte, error) {
	receipts, err := m.Receipts(s)
	if err != nil {
		return nil, err
	}
	l, err := m.Log(dir, receipts)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return m.Export(l, s.SID)
}
