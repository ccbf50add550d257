package node

import (
	"context"

	"github.com/domicile/domicile/node/front/certs"
)

// runCertificates keeps the certificate for attendees up to date. The ports are
// bound by now, so that an authority that comes to look finds them.
func (n *Node) runCertificates(ctx context.Context) error {
	return n.cfg.Certificates.Run(ctx, certs.At{Plain: n.front.RedirectAddr(), TLS: n.front.Addr()})
}
