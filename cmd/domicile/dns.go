package main

import (
	"net/netip"
	"strings"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/node/names"
	"github.com/domicile/domicile/residency"
)

// answerer is what the node answers in DNS.
func answerer(y *configs.Node) node.DNS {
	d := node.DNS{Listen: y.Listen.DNS, Zone: strings.ToLower(y.DNS.Zone), Servers: y.DNS.Servers, Answers: y.DNS.Answers,
		TTL: time.Duration(y.DNS.TTLSeconds) * time.Second, Rooms: map[string]names.Target{}, Addresses: map[residency.NodeName][]netip.Addr{}}
	for label, of := range y.DNS.Names {
		d.Rooms[strings.ToLower(label)] = names.Target{Tenant: of.Tenant, Policy: of.Policy}
	}
	for name, addrs := range y.DNS.Addresses {
		for _, a := range addrs {
			d.Addresses[residency.NodeName(name)] = append(d.Addresses[residency.NodeName(name)], a.Unmap())
		}
	}
	return d
}
