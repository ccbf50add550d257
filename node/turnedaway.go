package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// What other nodes send is counted when it is dropped because of who sends it, or
// of what it is said to be. Nodes, classes and rules are few, so the map is bounded.

// ruleClass drops what does not belong to the class that its link counts it as: it
// would be guarded by one zone and proved as of another.
const ruleClass = "class"

// turnedAway counts what was dropped, by who sent it and why.
type turnedAway struct {
	mu    sync.Mutex
	count map[turned]uint64
}

// turned is one reason to drop what a node sends.
type turned struct {
	Node  residency.NodeName `json:"node"`
	Class residency.Class    `json:"class"`
	Rule  string             `json:"rule"`
}

// TurnedAway is how often something was dropped.
type TurnedAway struct {
	turned
	Count uint64 `json:"count"`
}

func (t *turnedAway) add(from residency.NodeName, c residency.Class, rule string) {
	t.first(from, c, rule)
}

// first counts, too, and reports whether it was the first of its kind.
func (t *turnedAway) first(from residency.NodeName, c residency.Class, rule string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(residency.Classes(), c) {
		c = "" // what a node made up has no counter of its own
	}
	if t.count == nil {
		t.count = map[turned]uint64{}
	}
	t.count[turned{from, c, rule}]++
	return t.count[turned{from, c, rule}] == 1
}

func (t *turnedAway) list() []TurnedAway {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]TurnedAway, 0, len(t.count))
	for k, n := range t.count {
		list = append(list, TurnedAway{k, n})
	}
	slices.SortFunc(list, func(a, b TurnedAway) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Rule, b.Rule))
	})
	return list
}

// ofClass reports whether a message belongs to the class that it says it is of.
func (n *Node) ofClass(from residency.NodeName, kind relay.Kind, said residency.Class) bool {
	want := room.Class(kind)
	if said == want {
		return true
	}
	if n.turned.first(from, want, ruleClass) { // a node that sends a flood of them fills no log
		n.log.Warn("messages of a node are dropped: they are not of the class that they are counted as", "peer", from, "kind", int(kind), "class", want)
	}
	return false
}

// question is a request of another node.
type question struct {
	from  residency.NodeName
	room  string          // "" if it is about none in particular
	class residency.Class // as which it is counted
	body  []byte
}

// about refuses a question that is counted as one about another room or class
// than it is about.
func (q question) about(name string, c residency.Class) error {
	if q.room == name && q.class == c {
		return nil
	}
	return &Refusal{Code: CodeInvalid, Rule: ruleClass, Message: fmt.Sprintf("a question about %s of a room is counted as one about %s, or of another room", c, q.class)}
}

// answerer answers a question, by a permit to tell it to who asks.
type answerer func(context.Context, question) ([]byte, residency.Permit, error)
