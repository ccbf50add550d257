package node

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/prepared"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// What lies on this node's disk was let in by the policies of its day. When those in
// force would not let it in any more, the operator is told, and nothing else: what
// was recorded may be somebody's only evidence, and a mistake in a policy file must
// not erase it.

// overstayEvery is how often the disk is looked at without a change of the policies:
// certificates and transfer bases end without one.
const overstayEvery = time.Minute

// Overstay is something kept here that may not be kept here any more.
type Overstay struct {
	ID     string          `json:"id"` // of the room, recording, file of lines or export
	Class  residency.Class `json:"class"`
	Policy string          `json:"policy"`
	Rule   string          `json:"rule"`
	Reason string          `json:"reason"`
	Hint   string          `json:"hint,omitempty"`
}

// overstays is what was found last.
type overstays struct {
	wake chan struct{} // the policies are others
	list atomic.Pointer[[]Overstay]
}

func (o *overstays) found() []Overstay {
	if list := o.list.Load(); list != nil {
		return *list
	}
	return []Overstay{}
}

// runOverstays looks at what is kept after each change of the policies, and now and
// then, until ctx ends.
func (n *Node) runOverstays(ctx context.Context) error {
	if n.store == nil {
		return nil
	}
	tick := time.NewTicker(overstayEvery)
	defer tick.Stop()
	for {
		n.doOverstays(ctx)
		select {
		case <-n.overstays.wake:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// doOverstays asks the gate about all that is kept, and tells what is new.
func (n *Node) doOverstays(ctx context.Context) {
	before, list := n.overstays.found(), n.overstaying(ctx)
	n.overstays.list.Store(&list)
	for _, o := range list {
		if !slices.ContainsFunc(before, func(b Overstay) bool { return b.ID == o.ID && b.Rule == o.Rule }) {
			n.log.Warn("what is kept here may not be kept here any more, and is not deleted by itself",
				"object", o.ID, "class", o.Class, "policy", o.Policy, "rule", o.Rule, "reason", o.Reason, "hint", o.Hint)
		}
	}
}

func (n *Node) overstaying(ctx context.Context) []Overstay {
	list := []Overstay{}
	stored, err := n.store.s.Rooms(ctx) // as they lie there: to look writes nothing
	if err != nil && ctx.Err() == nil {
		n.log.Error("reading the stored rooms", "error", err)
	}
	tenants := map[string]string{}
	for _, row := range stored {
		rec, err := fromStore(row)
		if err != nil {
			n.log.Error("reading the stored rooms", "error", err)
			continue
		}
		tenants[rec.Name] = rec.Tenant
		list = n.overstayed(list, rec.SID, keeping(rec, residency.ClassMetadata))
	}
	for _, k := range n.vaults() {
		infos, err := k.vault.List()
		if err != nil {
			n.log.Error("reading what is kept", "class", k.class, "error", err)
		}
		for _, i := range infos {
			if i.Problem == nil {
				rec := recordOfInfo(i)
				rec.Tenant = cmp.Or(rec.Tenant, tenants[i.Room]) // older documents do not say whose
				list = n.overstayed(list, string(i.ID), keeping(rec, k.class))
			}
		}
	}
	for _, x := range n.exports.List(func(prepared.About) bool { return true }) {
		rec := room.Record{Name: x.Room, Tenant: x.Tenant, Policy: x.Policy}
		list = n.overstayed(list, string(x.ID), keeping(rec, residency.ClassExport))
	}
	slices.SortFunc(list, func(a, b Overstay) int { return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.ID, b.ID)) })
	return list
}

// classVault is a vault and the class of what is in it.
type classVault struct {
	class residency.Class
	vault *vault.Vault
}

// vaults are all that this node has; an edge has none.
func (n *Node) vaults() (list []classVault) {
	if n.vault != nil {
		list = append(list, classVault{residency.ClassRecording, n.vault})
	}
	for _, l := range append(n.lists.all(), &n.chats.lineLog) {
		if l.vault != nil {
			list = append(list, classVault{l.class, l.vault})
		}
	}
	return list
}

// overstayed adds an object if the gate would not let it in today. Evidence of it was
// a question of its day.
func (n *Node) overstayed(list []Overstay, id string, q residency.Request) []Overstay {
	_, v := n.keep(q)
	may := v.Allow
	if !may && q.Class == residency.ClassChat {
		q.QA = true // a file may hold either
		_, questions := n.keep(q)
		may = questions.Allow
	}
	if may {
		return list
	}
	return append(list, Overstay{ID: id, Class: q.Class, Policy: q.Policy, Rule: v.Rule, Reason: v.Reason,
		Hint: cmp.Or(v.Hint, "move it to an origin that may have it, or delete it")})
}
