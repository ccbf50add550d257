package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
)

// meetImpaired has a publisher on the host and a viewer in a lab meet on one node,
// and waits until the viewer sees the large picture.
func meetImpaired(t *testing.T, lab *netlab.Lab, o options) (viewer, publisher *tab) {
	t.Helper()
	m := startProduction(t, lab.Host, productionNode{Name: "gate", Country: "DE", Roles: "origin,edge", HTTPS: 8443, Port: 7882})
	publisher = m.joinMediaAt(startBrowsers(t, ""), lab.Host, "gate", "impaired", "publisher", options{"dynacast": true}, "")
	viewer = m.joinMediaAt(startBrowsers(t, lab.Name), lab.Host, "gate", "impaired", "viewer", nil, "")
	publisher.must(`await publishVideo(`+o.String()+`); await publishAudio()`, nil)
	watch(viewer, publisher, "sees the large picture and hears", 40*time.Second, func(g growth, s sending) bool {
		return isLargest(540)(g, s) && g.Audio > 0
	})
	return viewer, publisher
}

// TestNetworkChange has an attendee walk into another network in the middle of a
// meeting: the old address is gone. Signalling and media find a new path, and the
// other attendee sees nobody leave or come.
func TestNetworkChange(t *testing.T) {
	lab := parallelLab(t, netlab.NewImpaired)
	viewer, publisher := meetImpaired(t, lab, options{"simulcast": true})
	viewer.must(`await publishVideo({ simulcast: true }); await publishAudio()`, nil)
	for _, p := range []*tab{viewer, publisher} {
		p.until("sees and hears the other", 30*time.Second, bothOf(1))
		p.must(`events.length = 0`, nil)
	}
	if err := viewer.ask(map[string]any{"op": "keep", "page": viewer.id}, nil); err != nil {
		t.Fatal(err)
	}
	lab.Renumber(t)
	began := time.Now()
	for _, p := range []*tab{viewer, publisher} {
		p.until("sees and hears the other again", 40*time.Second, bothOf(1))
	}
	t.Logf("media went on after %s", time.Since(began).Round(100*time.Millisecond))
	var noticed, own []string
	publisher.must(`return events`, &noticed)
	viewer.must(`return events`, &own)
	if len(noticed) > 0 {
		t.Errorf("the other noticed: %v", noticed)
	}
	if slices.Contains(own, "disconnected") {
		t.Errorf("the one who moved was disconnected: %v", own)
	}
	t.Logf("the one who moved saw %v", own)
}
