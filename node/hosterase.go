package node

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// What a room's host may erase of it without erasing all: one recording, with its copies
// and the files made of it, or all that there is of one person.

// hostErasure is what a host asks for: one of the two.
type hostErasure struct {
	Recording   vault.ID `json:"recording,omitempty"`
	Participant string   `json:"participant,omitempty"` // identity, or the address of a registration
}

// maxErasedName bounds whom somebody asks to erase: an address, the longest name there is.
const maxErasedName = maxEmail

// eraseForHost gives an order: POST /api/rooms/{room}/erasures. The name is in the body,
// not in the address, which proxies write into their logs.
func (n *Node) eraseForHost(w http.ResponseWriter, r *http.Request, rec room.Record) (any, error) {
	var q hostErasure
	if err := reading(w, r, &q); err != nil {
		return nil, err
	}
	if (q.Recording == "") == (q.Participant == "") || len(q.Participant) > maxErasedName {
		return nil, &Refusal{Code: CodeInvalid, Message: "name a recording, or a participant, to erase", Hint: "DELETE …/recordings erases all that is kept of the room"}
	}
	if q.Recording != "" {
		if err := n.erasable(rec, q.Recording); err != nil {
			return nil, err
		}
	}
	return n.giveOrder(r.Context(), OrderRequest{Tenant: rec.Tenant, Room: rec.Name, Recording: string(q.Recording), Participant: q.Participant,
		Reason: "asked by the host", noTenant: true}, retention.Erasure)
}

// erasable reports why a recording cannot be erased by itself.
func (n *Node) erasable(rec room.Record, id vault.ID) error {
	infos, err := n.recordingsOf(rec)
	if err != nil {
		return err
	}
	switch i := slices.IndexFunc(infos, func(i vault.Info) bool { return i.ID == id }); {
	case i < 0:
		return &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("no recording %q of this room on node %s", id, n.self().Name)}
	case infos[i].State == vault.StateRecording:
		return &Refusal{Code: CodePrecondition, Message: "it is still being recorded", Hint: "stop the recording first"}
	}
	return nil
}

// ofRecording completes what the operator asks of a recording: of which room it is, holds
// on which are in the way.
func (n *Node) ofRecording(q *OrderRequest, kind retention.Kind) error {
	if kind != retention.Erasure || q.Room+q.Participant+q.Tenant != "" {
		return &Refusal{Code: CodeInvalid, Message: "a recording is erased by itself, or held with its room"}
	}
	if n.vault == nil {
		return n.noOrigin()
	}
	info, err := n.vault.Info(vault.ID(q.Recording))
	if err != nil && n.isUnreadable(vault.ID(q.Recording)) {
		return nil // of which room it is nobody can tell: any hold keeps it
	}
	if err != nil {
		return &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("no recording %q on node %s", q.Recording, n.self().Name), Hint: "ask an origin that keeps it: domicile recordings list"}
	}
	q.Room, q.Tenant, q.noTenant = info.Room, info.Tenant, true
	return n.erasable(room.Record{Name: info.Room, Tenant: info.Tenant}, info.ID)
}

// erasureOf tells a host how far an erasure is: GET /api/rooms/{room}/erasures/{id}.
func (n *Node) erasureOf(_ http.ResponseWriter, r *http.Request, rec room.Record) (any, error) {
	if n.retaining.book == nil {
		return nil, n.noOrigin()
	}
	o, ok := n.retaining.book.Get(r.PathValue("id"))
	if !ok || o.Kind != retention.Erasure || !o.OfRoom(rec.Tenant, rec.Name) {
		return nil, &Refusal{Code: CodeNotFound, Message: "no such erasure of this room"}
	}
	return n.orderReport(r.Context(), o), nil
}
