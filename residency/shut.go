package residency

// Shut returns a gate of the same bundle that refuses everything under a rule: that
// of a node which the bundle itself excludes. Such a node may still be told of a
// newer bundle, and of nothing else.
func (g *Gate) Shut(rule, why string) *Gate {
	s := *g
	s.shut.rule, s.shut.why = rule, why
	return &s
}

// Excludes says by which rule a bundle excludes a node from the mesh, and why; the
// rule is empty if it does not.
func (b *Bundle) Excludes(n Node) (rule, why string) {
	if b == nil {
		return "", ""
	}
	if b.Revokes(n.Serial) {
		return RuleRevoked, "the policies revoke the certificate of this node, " + string(n.Name)
	}
	if ok, why := b.Registers(n); !ok {
		return RuleRegister, why
	}
	return "", ""
}
