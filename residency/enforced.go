//go:build !gateoff

package residency

// enforced is false only in binaries that tests build with the tag gateoff, to
// show that what they measure is the gate's doing.
const enforced = true

// RuleGateOff is the rule of a binary without the gate; a real one never states it.
const RuleGateOff = "gate-off"
