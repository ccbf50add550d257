package node

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// credentials are what the node shows of itself to other nodes: a certificate
// with its key, and what it states. They are replaced as a whole when the
// certificate is renewed; the facts but for validity and serial number stay.
type credentials struct {
	node residency.Node
	pair *tls.Certificate // nil when standalone
}

// self is this node as the certificate in use states it.
func (n *Node) self() residency.Node { return n.own.Load().node }

// certificate is the one in use, with its key: for handshakes and signatures.
func (n *Node) certificate() *tls.Certificate { return n.own.Load().pair }

// IdentityFiles say where the node's certificate and key are renewed. Empty ones
// are not followed.
type IdentityFiles struct{ Certificate, Key string }

// IdentityState is what an operator sees of the node's certificate.
type IdentityState struct {
	Serial      string         `json:"serial"`
	Fingerprint string         `json:"fingerprint"` // SHA-256 of the certificate
	NotBefore   time.Time      `json:"not_before"`
	NotAfter    time.Time      `json:"not_after"`
	SecondsLeft int64          `json:"seconds_left"` // negative once it has ended
	Stage       identity.Stage `json:"stage"`
	Revoked     bool           `json:"revoked"`           // by the policies in force: the node serves nobody
	Renewals    uint64         `json:"renewals"`          // certificates taken over since the start
	Problem     string         `json:"problem,omitempty"` // why the files cannot be taken over, and what helps
}

// renewals keeps what there is to say of the node's certificate.
type renewals struct {
	mu sync.Mutex
	// Guarded by mu.
	count   uint64
	problem string
	said    string // stage and certificate that the log was told of last
}

const (
	// identityCheck is how often the certificate's files and its end are looked at.
	identityCheck = time.Second

	// identityPatience is for how long files may be at odds before it is said: a
	// renewal writes them one after the other.
	identityPatience = 5 * time.Second
)

// identityHint is what helps when the files cannot be taken over.
const identityHint = "write the certificate and the key that belongs to it to new files and rename them into place; " +
	"a certificate with another name, country, operator, parent or roles takes a restart of the node"

// followIdentity takes over renewed certificates and says when one ends.
func (n *Node) followIdentity(ctx context.Context) error {
	files := identity.Files{Certificate: n.cfg.IdentityFiles.Certificate, Key: n.cfg.IdentityFiles.Key}
	tick := time.NewTicker(identityCheck)
	defer tick.Stop()
	var trouble time.Time // since when the files are no good
	for {
		now := n.now()
		if files.Certificate != "" {
			trouble = n.lookAtFiles(&files, trouble, now)
		}
		n.judgeSelf()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lookAtFiles takes over what the files hold. It returns since when they are no good.
func (n *Node) lookAtFiles(files *identity.Files, trouble, now time.Time) time.Time {
	pair, err := files.Look(now)
	if err == nil && pair != nil {
		err = n.Renew(*pair)
	} else if err == nil {
		return trouble // not changed: neither better nor worse
	}
	var final refusedPair
	switch {
	case err == nil:
		n.identityProblem("")
		return time.Time{}
	case trouble.IsZero():
		trouble = now
	}
	if errors.As(err, &final) || now.Sub(trouble) >= identityPatience {
		n.identityProblem(err.Error())
	}
	return trouble
}

// identityProblem remembers a problem, "" for none, and logs it when it is new.
func (n *Node) identityProblem(why string) {
	n.renewals.mu.Lock()
	old := n.renewals.problem
	n.renewals.problem = why
	n.renewals.mu.Unlock()
	switch {
	case why == old:
	case why != "":
		n.log.Error("the certificate of this node cannot be renewed, the one in use stays", "error", why, "hint", identityHint)
	default:
		n.log.Info("the files of this node's certificate are well again")
	}
}

// refusedPair is a pair that is one, and may not be taken over.
type refusedPair struct{ error }

func (e refusedPair) Unwrap() error { return e.error }

// Renew puts another certificate of this node in use: for handshakes from now on,
// on the links that are up, and for what is signed. Nothing is interrupted. It
// refuses one that is not valid now, that states other facts (that takes a
// restart), and that the policies in force revoke.
func (n *Node) Renew(pair tls.Certificate) error {
	if slices.EqualFunc(pair.Certificate, n.certificate().Certificate, slices.Equal) {
		return nil
	}
	next, err := n.mayTake(pair)
	if err != nil {
		return refusedPair{fmt.Errorf("renew certificate: %w", err)}
	}
	n.own.Store(next)
	n.regate()
	if n.mesh != nil {
		if err := n.mesh.Renew(pair); err != nil {
			return err
		}
		n.fabric.Renewed()
	}
	n.renewals.mu.Lock()
	n.renewals.count++
	n.renewals.mu.Unlock()
	n.log.Info("renewed certificate in use", "serial", next.node.Serial, "not_after", next.node.NotAfter.UTC())
	n.judgeSelf()
	n.recheckRooms()
	return nil
}

func (n *Node) mayTake(pair tls.Certificate) (*credentials, error) {
	if len(pair.Certificate) == 0 {
		return nil, errors.New("there is none")
	}
	_, node, err := identity.Verify(pair.Certificate[0], n.cfg.Roots, n.now())
	if err != nil {
		return nil, err
	}
	if err := identity.SameFacts(n.self(), node); err != nil {
		return nil, err
	}
	if b := n.gate().Bundle(); b != nil && b.Revokes(node.Serial) {
		return nil, fmt.Errorf("the policies of epoch %d revoke certificate %s", b.Epoch, node.Serial)
	}
	return &credentials{node: node, pair: &pair}, nil
}

// revoked reports whether the policies in force revoke this node's certificate.
func (n *Node) revoked() bool {
	b := n.gate().Bundle()
	return b != nil && b.Revokes(n.self().Serial)
}

// inForce refuses to serve anybody with a certificate that is revoked or not valid
// now. The gate would do so too, but for what this node alone is asked about.
func (n *Node) inForce() error {
	s := n.self()
	switch {
	case n.revoked():
		return &Refusal{Code: CodeRefused, Rule: residency.RuleRevoked,
			Message: fmt.Sprintf("the certificate of node %s is revoked, it serves nobody", s.Name), Hint: "join through another node"}
	case !s.ValidAt(n.now()):
		return &Refusal{Code: CodeRefused, Rule: residency.RuleCertificate,
			Message: fmt.Sprintf("the certificate of node %s is not valid now, it serves nobody", s.Name), Hint: "join through another node"}
	}
	return nil
}

// judgeSelf tells the operator once for each step on the way to the end of the
// node's certificate, and has the rooms act on it when it comes.
func (n *Node) judgeSelf() {
	s := n.identityState()
	what := string(s.Stage)
	if s.Revoked {
		what = "revoked"
	}
	n.renewals.mu.Lock()
	news := n.renewals.said != what+s.Serial
	n.renewals.said = what + s.Serial
	n.renewals.mu.Unlock()
	if !news {
		return
	}
	about := []any{"serial", s.Serial, "not_after", s.NotAfter, "hint", "see \"Life of a certificate\" in docs/operating.md"}
	switch {
	case s.Revoked:
		n.log.Error("this node's certificate is revoked: it serves nobody and no other node talks to it", about...)
		n.recheckRooms()
	case s.Stage == identity.StageEnded:
		n.log.Error("this node's certificate has ended: it serves nobody and no other node talks to it", about...)
		n.recheckRooms()
	case s.Stage == identity.StageUrgent:
		n.log.Error("this node's certificate ends soon: a tenth of its life or less is left", about...)
	case s.Stage == identity.StageDue:
		n.log.Warn("this node's certificate is to be renewed: a third of its life or less is left", about...)
	}
}

// identityState describes the certificate in use.
func (n *Node) identityState() IdentityState {
	own, now := n.own.Load(), n.now()
	s := IdentityState{Serial: own.node.Serial, NotBefore: own.node.NotBefore.UTC(), NotAfter: own.node.NotAfter.UTC(),
		SecondsLeft: int64(own.node.NotAfter.Sub(now) / time.Second), Revoked: n.revoked(),
		Stage: identity.StageOf(own.node.NotBefore, own.node.NotAfter, now)}
	if own.pair != nil && len(own.pair.Certificate) > 0 {
		sum := identity.FingerprintOf(own.pair.Certificate[0])
		s.Fingerprint = hex.EncodeToString(sum[:])
	}
	n.renewals.mu.Lock()
	defer n.renewals.mu.Unlock()
	s.Renewals, s.Problem = n.renewals.count, n.renewals.problem
	return s
}

// proofs is how links follow renewals and revocations.
type proofs struct{ n *Node }

// Prove implements relay.Identity.
func (p proofs) Prove(binding []byte) ([]byte, error) {
	return identity.Prove(p.n.certificate(), binding)
}

// Proven implements relay.Identity.
func (p proofs) Proven(known residency.Node, binding, proof []byte) (residency.Node, error) {
	node, err := identity.VerifyProof(proof, binding, p.n.cfg.Roots, p.n.now())
	if err == nil {
		err = identity.SameFacts(known, node)
	}
	return node, err
}

// Admit implements relay.Identity. Only what is revoked ends a link: the policies
// themselves travel on links, to nodes that are behind too, and nothing of a room
// leaves without the gate's permit.
func (p proofs) Admit(peer residency.Node) error {
	b := p.n.gate().Bundle()
	switch {
	case b == nil:
		return nil
	case b.Revokes(peer.Serial):
		return fmt.Errorf("the policies of epoch %d revoke certificate %s of node %q", b.Epoch, peer.Serial, peer.Name)
	case b.Revokes(p.n.self().Serial):
		return fmt.Errorf("the policies of epoch %d revoke certificate %s of this node, %q", b.Epoch, p.n.self().Serial, p.n.self().Name)
	}
	return nil
}
