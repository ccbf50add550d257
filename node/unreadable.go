package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// What lies here and cannot be read, because a disk or somebody has damaged it: nobody can
// tell whose it is. An erasure that may be about it stays pending and says so, until the
// operator has erased it by its id, or put it back from a backup.

// unreadables are things that a source could not read, when it could read the others.
type unreadables []unreadable

type unreadable struct {
	id  vault.ID
	err error
}

// Error is error's: what is wrong, and what helps.
func (u unreadables) Error() string {
	var list []string
	for _, x := range u {
		list = append(list, fmt.Sprintf("%s: %v: nobody can tell whose it is; put it back from a backup, or give it up with: domicile recordings erase %s", x.id, x.err, x.id))
	}
	return strings.Join(list, "; ")
}

// or is nil if there are none.
func (u unreadables) or(err error) error {
	if len(u) == 0 {
		return err
	}
	return u
}

// givenUp reports whether an order is about a recording by its id.
func (n *Node) givenUp(id vault.ID) bool {
	return slices.ContainsFunc(n.retaining.book.All(), func(o retention.Order) bool {
		return o.Kind == retention.Erasure && o.Recording == string(id)
	})
}

// unread notes something that cannot be read. It is an object for the sweep only when
// somebody has ordered by its id that it goes.
func (n *Node) unread(out []retention.Object, bad unreadables, v *vault.Vault, kind residency.Kept, id vault.ID, err error) ([]retention.Object, unreadables) {
	if n.givenUp(id) {
		return append(out, retention.Object{ID: string(id), Kind: kind, Recording: string(id), Unknown: true, Size: v.Stored(id)}), bad
	}
	return out, append(bad, unreadable{id, err})
}

// isUnreadable reports whether something of that id lies here and cannot be read.
func (n *Node) isUnreadable(id vault.ID) bool {
	bad := func(err error) bool { return err != nil && !errors.Is(err, vault.ErrNotFound) }
	if _, err := vault.ParseID(string(id)); err != nil {
		return false
	}
	if _, err := n.vault.Metas(id); bad(err) {
		return true
	}
	files := []lineFiles{n.chatFiles()}
	for _, l := range n.lists.all() {
		if l.vault != nil {
			files = append(files, n.listFiles(l))
		}
	}
	return slices.ContainsFunc(files, func(s lineFiles) bool { _, err := s.people(id); return bad(err) })
}
