package verify

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// judged is what the gate's answer depends on, apart from the time.
type judged struct {
	subject evidence.Hash // whose certificate is asked for
	policy  string
	tenant  string
	class   residency.Class
	epoch   residency.Epoch
	qa      bool
	store   bool
	outside bool
}

// answer is the gate's, with the time until which it holds.
type answer struct {
	residency.Verdict
	from int64
}

// judgeAll asks the gate of a node about every receipt: might the peer have had
// this then, and might the node itself?
func (v *verifier) judgeAll() {
	memo := map[judged]answer{}
	told := map[string]bool{}
	for i := range v.receipts {
		e := &v.receipts[i]
		if v.gates[e.Epoch] == nil {
			if key := fmt.Sprint(e.Epoch, e.Node); !told[key] {
				told[key] = true
				v.find(NoPolicy, e.Epoch, e.Node)
			}
			continue
		}
		if e.Side == evidence.Refused || e.Side == evidence.Erased {
			continue // kept away, or gone; what for is the node's word
		}
		store := e.Side == evidence.Stored || e.Side == evidence.Recorded
		about := judged{e.PeerCertificate, e.Policy, e.Tenant, e.Class, e.Epoch, e.QA, store, e.Rule == residency.RuleEdgeOutside}
		v.judge(e, about, true, memo, told)
		if e.Side == evidence.Received {
			// Whether somebody from outside was connected through the node itself
			// stands in the receipt of the other end.
			about.subject, about.outside = e.Certificate, true
			v.judge(e, about, false, memo, told)
		}
	}
}

// judge asks about one node at both ends of the receipt's time. The gate's
// answer holds until a moment that it states, so it is asked once for each.
func (v *verifier) judge(e *entry, about judged, rule bool, memo map[judged]answer, told map[string]bool) {
	h := v.certs[about.subject]
	if h == nil {
		if key := string(about.subject) + string(e.Peer); !told[key] {
			told[key] = true
			v.find(NoCertificate, e.Peer, about.subject)
		}
		return
	}
	name := e.Peer
	if !rule {
		name = e.Node
	}
	if h.node.Name != name {
		if key := "name " + string(name); !told[key] {
			told[key] = true
			v.find(WrongName, name, h.node.Name)
		}
	}
	a, known := memo[about]
	if !known || e.First < a.from || !a.Allow || !evidence.Time(e.Last).Before(a.Until) {
		a = answer{v.ask(h.node, about, e.First), e.First}
		if a.Allow && !evidence.Time(e.Last).Before(a.Until) {
			a = answer{v.ask(h.node, about, e.Last), e.First}
		}
		memo[about] = a
	}
	if a.Allow && (!rule || a.Rule == e.Rule) {
		return
	}
	key := fmt.Sprint(e.Node, about, a.Rule, a.Allow, e.Rule, rule)
	switch {
	case told[key]:
	case !a.Allow:
		told[key] = true
		v.find(NotAllowed, name, e.Side, e.Class, other(e, name), a.Reason)
	case rule && a.Rule != e.Rule:
		told[key] = true
		v.find(OtherRule, e.Node, e.Rule, e.Class, e.Peer, a.Rule)
	}
}

func other(e *entry, name residency.NodeName) residency.NodeName {
	if name == e.Node {
		return e.Peer
	}
	return e.Node
}

func (v *verifier) ask(peer residency.Node, about judged, at int64) residency.Verdict {
	return v.gates[about.epoch].Decide(residency.Request{Tenant: about.tenant, Policy: about.policy, Class: about.class, QA: about.qa, Peer: peer,
		PeerEpoch: about.epoch, Store: about.store, OutsideParticipant: about.outside, Now: evidence.Time(at)})
}

// grace is how long nodes may differ about the epoch, in ms: clocks differ, and
// a node that was away comes back.
const grace = 60_000

// rounds asks whether old policies were in use when newer ones had come.
func (v *verifier) rounds() {
	begun := map[residency.Epoch]int64{}
	epochs := map[residency.Epoch]*Epoch{}
	for _, e := range v.receipts {
		if t, ok := begun[e.Epoch]; !ok || e.First < t {
			begun[e.Epoch] = e.First
		}
		if epochs[e.Epoch] == nil {
			epochs[e.Epoch] = &Epoch{Number: e.Epoch, First: e.First}
			if p, err := v.bundles[e.Epoch].Policy(e.Policy); err == nil {
				epochs[e.Epoch].Title, epochs[e.Epoch].Description = p.Title, p.Description
			}
		}
		x := epochs[e.Epoch]
		x.First, x.Last = min(x.First, e.First), max(x.Last, e.Last)
	}
	for _, x := range epochs {
		v.result.Epochs = append(v.result.Epochs, *x)
	}
	slices.SortFunc(v.result.Epochs, func(a, b Epoch) int { return cmp.Compare(a.Number, b.Number) })
	told := map[residency.NodeName]bool{}
	for _, e := range v.receipts {
		for newer, t := range begun {
			if newer > e.Epoch && e.Last > t+grace && !told[e.Node] {
				told[e.Node] = true
				v.find(OldPolicy, e.Node, e.Epoch, stamp(e.Last), newer)
			}
		}
	}
}

// hop is one class on its way from a node to another.
type hop struct {
	from, to residency.NodeName
	class    residency.Class
}

// count is what one end of a hop states.
type count struct {
	packets, bytes, lost, lostBytes uint64
}

const (
	// tolerance is the part by which two ends may differ: 1/1000.
	tolerance = 1000
	// slack is what may be on its way when two ends look last, in packets.
	slack = 3
	// maxPacket is what such a packet has at most, in bytes.
	maxPacket = 1500
)

// counterparts compares what both ends of each hop state. Sums can be compared
// when both have written their final receipt; who has not is named already.
func (v *verifier) counterparts() {
	sent, received := map[hop]count{}, map[hop]count{}
	for i := range v.receipts {
		e := &v.receipts[i]
		ends, key := sent, hop{e.Node, e.Peer, e.Class}
		switch e.Side {
		case evidence.Received:
			ends, key = received, hop{e.Peer, e.Node, e.Class}
		case evidence.Sent:
		default:
			continue
		}
		c := ends[key]
		c.packets, c.bytes, c.lost, c.lostBytes = c.packets+e.Packets, c.bytes+e.Bytes, c.lost+e.Lost, c.lostBytes+e.LostBytes
		ends[key] = c
	}
	for _, k := range hops(sent, received) {
		s, there := sent[k]
		r, here := received[k]
		running := v.open[k.from] || v.open[k.to]
		switch {
		case !here && s.packets > slack && !(running && v.writes[k.to]):
			v.find(NoCounterpart, k.from, evidence.Sent, k.class, k.to)
		case !there && r.packets > 0 && !(running && v.writes[k.from]):
			v.find(NoCounterpart, k.to, evidence.Received, k.class, k.from)
		case here && there && !running:
			if why := differ(s, r); why != "" {
				v.find(CountsDiffer, k.from, k.to, k.class, why)
			}
		}
	}
}

func hops(a, b map[hop]count) (keys []hop) {
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b hop) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.class, b.class))
	})
	return keys
}

// differ says in numbers how two ends disagree, nothing if they do not.
func differ(s, r count) string {
	if d := apart(s.packets, r.packets+r.lost); d > s.packets/tolerance+slack {
		return fmt.Sprintf("%d packets sent, %d received and %d lost", s.packets, r.packets, r.lost)
	}
	if d := apart(s.bytes, r.bytes+r.lostBytes); d > s.bytes/tolerance+slack*maxPacket {
		return fmt.Sprintf("%d bytes sent, %d received and %d lost", s.bytes, r.bytes, r.lostBytes)
	}
	return ""
}

func apart(a, b uint64) uint64 { return max(a, b) - min(a, b) }
