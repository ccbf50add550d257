package node

import (
	"github.com/domicile/domicile/residency/register"
)

// processors is the register of processors, as this node sees the mesh.
func (n *Node) processors() register.Register {
	nodes := []register.Entry{{Node: n.self()}}
	if n.mesh != nil {
		for _, m := range n.mesh.Snapshot().Members {
			if m.Node.Name != n.self().Name {
				nodes = append(nodes, register.Entry{Node: m.Node, Contradiction: n.contradiction(m.Node.Name)})
			}
		}
	}
	return register.Make(n.gate(), nodes, n.now())
}
