package relay

import (
	"errors"
	"fmt"
	"time"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Identity is how links outlive the certificates that they began with. A node
// whose certificate was renewed proves the new one on its links; nothing is
// interrupted, and from then on the link is judged by the new one alone.
type Identity interface {
	// Prove shows that this node holds its present certificate. The binding is
	// exported from the keys of one connection, for this node's end of it.
	Prove(binding []byte) ([]byte, error)
	// Proven checks what a peer proves at its end and returns the node that its
	// certificate states. Facts other than known's are an error: such a node has
	// to begin a new link. An error ends the link.
	Proven(known residency.Node, binding, proof []byte) (residency.Node, error)
	// Admit asks whether a link with a node's certificate may stand under the
	// policies in force: whether they revoke it. An error ends the link. It is
	// asked before a link comes up, for each proof, by Recheck and at each
	// heartbeat, so it has to be quick.
	Admit(peer residency.Node) error
}

// maxProofs bounds the proofs of one peer in a proofPeriod: each costs two
// verifications of signatures, and a certificate is renewed in months.
const (
	maxProofs   = 16
	proofPeriod = time.Minute
)

// bindingLabel is for private use without registration (RFC 5705 section 4).
const bindingLabel = "EXPERIMENTAL domicile link identity"

// binding is the connection's exported secret for one end of it (RFC 8446
// section 7.5). The name of the end keeps one's proof from being the other's.
func (l *Link) binding(end residency.NodeName) ([]byte, error) {
	state := l.conn.ConnectionState().TLS
	return state.ExportKeyingMaterial(bindingLabel, []byte(end), 32)
}

// Renewed has this node's certificate, which has changed, proven on every link.
// It never waits.
func (f *Fabric) Renewed() {
	f.renewed.Store(true) // first: a link that comes up now looks after it is registered
	for _, l := range f.Links() {
		l.proveSoon()
	}
}

// proveSoon queues a proof; the latest certificate is proven once.
func (l *Link) proveSoon() {
	if l.cfg.Identity == nil {
		return
	}
	select {
	case l.proving <- struct{}{}:
	default:
	}
}

// prove sends the proof of this node's certificate.
func (l *Link) prove() error {
	binding, err := l.binding(l.cfg.Self.Name)
	if err != nil {
		return fmt.Errorf("prove certificate: %w", err)
	}
	proof, err := l.cfg.Identity.Prove(binding)
	if err != nil {
		l.cfg.Log.Error("relay: cannot prove the renewed certificate", "peer", l.peer.Name, "err", err)
		return nil
	}
	return l.write(wire.AppendIdentity(nil, proof))
}

// takeProof judges the link by the certificate that the peer proves.
func (l *Link) takeProof(proof []byte) error {
	if l.proofs.excess(l.cfg.Now()) {
		return protocolError(fmt.Errorf("more than %d proofs in %s", maxProofs, proofPeriod))
	}
	if l.cfg.Identity == nil {
		return protocolError(errors.New("certificates are not renewed on links here"))
	}
	binding, err := l.binding(l.peer.Name)
	if err != nil {
		return fmt.Errorf("renewed certificate: %w", err)
	}
	old := l.Peer()
	peer, err := l.cfg.Identity.Proven(old, binding, proof)
	switch {
	case err == nil && peer.Name != l.peer.Name:
		err = fmt.Errorf("it is that of node %q", peer.Name)
	case err == nil && !peer.ValidAt(l.cfg.Now()):
		err = errors.New("it is not valid now")
	}
	if err != nil {
		return &LinkError{Peer: l.peer.Name, Code: wire.CodePeer, Text: fmt.Sprintf("renewed certificate of node %q: %v", l.peer.Name, err)}
	}
	if err := l.admitPeer(peer); err != nil {
		return err
	}
	l.node.Store(&peer)
	if peer.Serial != old.Serial {
		l.cfg.Log.Info("relay: peer renewed its certificate", "peer", peer.Name, "serial", peer.Serial, "not_after", peer.NotAfter.UTC())
	}
	return nil
}

// admitPeer asks whether the policies let a link with that certificate stand.
func (l *Link) admitPeer(peer residency.Node) error { return l.f.admitPeer(peer) }

func (f *Fabric) admitPeer(peer residency.Node) error {
	if f.cfg.Identity == nil {
		return nil
	}
	if err := f.cfg.Identity.Admit(peer); err != nil {
		return &LinkError{Peer: peer.Name, Code: wire.CodeRevoked, Text: err.Error()}
	}
	return nil
}

// proofCount counts the proofs of a peer. It reads no clock.
type proofCount struct {
	since time.Time
	n     int
}

func (c *proofCount) excess(now time.Time) bool {
	if now.Sub(c.since) >= proofPeriod {
		*c = proofCount{since: now}
	}
	c.n++
	return c.n > maxProofs
}
