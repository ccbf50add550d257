package residencytest

import (
	"fmt"
	"time"

	"github.com/domicile/domicile/residency"
)

// keeper is the node of Disk and Keep, under policies that let it keep what can be.
var keeper = residency.Node{Name: "fra", Country: "DE", Roles: []residency.Role{residency.RoleOrigin},
	NotBefore: Noon.Add(-time.Hour), NotAfter: Noon.Add(time.Hour), Serial: "fe01"}

const keeperEpoch = 7

// Disk is where node fra keeps a class at noon.
func Disk(c residency.Class) residency.Disk {
	return residency.Disk{Node: keeper.Name, Class: c,
		Epoch: func() residency.Epoch { return keeperEpoch }, Now: func() time.Time { return Noon }}
}

// Keep is the permit that Disk wants for a room of policy "eea-only" of a tenant,
// "" if of none.
func Keep(room, tenant string, c residency.Class) residency.Permit {
	return KeepAt(room, tenant, c, keeperEpoch, keeper.NotAfter)
}

// KeepAt is Keep by policies of another epoch, or with another end.
func KeepAt(room, tenant string, c residency.Class, epoch residency.Epoch, until time.Time) residency.Permit {
	return keep(room, tenant, c, epoch, until, residency.Place{})
}

// KeepIn is Keep in a place in Germany, where the policy lets it be.
func KeepIn(place residency.Place, room, tenant string, c residency.Class) residency.Permit {
	return keep(room, tenant, c, keeperEpoch, keeper.NotAfter, place)
}

func keep(room, tenant string, c residency.Class, epoch residency.Epoch, until time.Time, place residency.Place) residency.Permit {
	members := []residency.Country{"DE"}
	p := &residency.Policy{Name: "eea-only", Zones: map[residency.Class]residency.Zone{c: {Name: "DE", Countries: members}},
		Recording: residency.RecordingRule{Allowed: true}, ChatLog: true, QALog: true}
	b := &residency.Bundle{Epoch: epoch, Default: p.Name, Policies: map[string]*residency.Policy{p.Name: p}}
	if tenant != "" {
		b.Tenants = []residency.Tenant{{Name: tenant, Policy: p.Name}}
	}
	node := keeper
	node.NotAfter = until
	permit, v := residency.NewGate(b).Permit(residency.Request{Room: room, Tenant: tenant, Class: c, Store: true, Place: place,
		Peer: node, PeerEpoch: epoch, Now: Noon})
	if !v.Allow {
		panic(fmt.Sprintf("residencytest: no permit to keep %s: %+v", c, v))
	}
	return permit
}
