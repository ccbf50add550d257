package node

import (
	"context"
	"time"

	"github.com/domicile/domicile/residency/bundles"
)

// settle is how long the policy file has to be left alone before it is read: it is
// two files, and nobody writes both at once.
const settle = 200 * time.Millisecond

// followPolicyFile takes the policy file over whenever it changes, as if it had been
// applied on this node. A file that is not signed, or older, changes nothing.
func (n *Node) followPolicyFile(ctx context.Context) error {
	path := n.cfg.Policies.File
	if path == "" || n.cfg.Policies.Open == nil {
		return nil
	}
	var seen bundles.Digest
	err := followFile(ctx, path, func() { seen = n.readPolicyFile(path, seen) }, func(err error) { n.log.Warn("following the policy file", "error", err) })
	if err != nil {
		n.log.Warn("the policy file is not followed; domicile policy apply works", "error", err)
	}
	return nil
}

// readPolicyFile applies the file if it has another text than the last time, and
// returns what tells its text.
func (n *Node) readPolicyFile(path string, seen bundles.Digest) bundles.Digest {
	s, err := bundles.ReadSigned(path)
	if err != nil {
		n.log.Warn("the policy file cannot be read", "error", err)
		return seen
	}
	d := s.Digest()
	if d == seen || d == n.policies.has().Digest {
		return d
	}
	if err := n.applyBundle(s, n.self().Name); err != nil {
		return bundles.Digest{} // its signature may follow
	}
	n.log.Info("the policy file has changed and is applied", "epoch", n.policies.has().Epoch)
	return d
}
