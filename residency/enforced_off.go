//go:build gateoff

package residency

// enforced switches the gate off: every request about a known policy is allowed.
const enforced = false

// RuleGateOff is the rule of a binary without the gate.
const RuleGateOff = "gate-off"

func init() {
	println("WARNING: built with the tag gateoff: residency is NOT enforced; for tests alone")
}
