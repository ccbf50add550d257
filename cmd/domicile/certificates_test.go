package main

import (
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/node/front/certs"
	"github.com/domicile/domicile/residency"
)

func TestDescribeCertificate(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	at := func(days int) time.Time { return now.AddDate(0, 0, days) }
	for _, tt := range []struct {
		state certs.State
		want  string
	}{
		{certs.State{NotBefore: at(-10), NotAfter: at(80)}, ""},
		{certs.State{NotBefore: at(-83), NotAfter: at(7)}, "warning: the certificate for attendees ends in less than 7 days (2026-03-08T00:00:00Z)"},
		{certs.State{NotBefore: at(-90), NotAfter: at(1)}, "warning: the certificate for attendees ends in less than a day (2026-03-02T00:00:00Z)"},
		{certs.State{NotBefore: at(-90), NotAfter: now}, "warning: the certificate for attendees has ended (2026-03-01T00:00:00Z)"},
		{certs.State{Authority: "acme.example.org", Names: []string{"a.example.org", "b.example.org"}, NotBefore: at(-1), NotAfter: at(89)},
			"certificate for a.example.org, b.example.org: from acme.example.org, until 2026-05-29T00:00:00Z"},
		{certs.State{Authority: "acme.example.org", Names: []string{"a.example.org"}, NotBefore: at(-1), NotAfter: at(364), SelfMade: true, Problem: "the file is damaged"},
			"certificate for a.example.org: none yet, acme.example.org will be asked when the node runs; until it comes browsers refuse the node\nwarning: the file is damaged"},
	} {
		if got := strings.Join(describeCertificate(tt.state, now), "\n"); got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}

func TestDescribeIdentity(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	n := residency.Node{Name: "fra", Serial: "1f", NotBefore: start, NotAfter: start.AddDate(0, 0, 90)}
	for days, want := range map[int]string{
		0:  "certificate of node fra: serial number 1f, until 2026-05-30T12:00:00Z, 90 days",
		59: "certificate of node fra: serial number 1f, until 2026-05-30T12:00:00Z, 31 days",
		60: "warning: certificate of node fra: serial number 1f, until 2026-05-30T12:00:00Z, 30 days: renew it",
		81: "warning: certificate of node fra: serial number 1f, until 2026-05-30T12:00:00Z, 9 days: renew it now",
		90: "warning: certificate of node fra: serial number 1f, until 2026-05-30T12:00:00Z, none: it has ended",
		-1: "warning: certificate of node fra: serial number 1f, until 2026-05-30T12:00:00Z, not valid yet",
	} {
		if got := describeIdentity(n, start.AddDate(0, 0, days)); len(got) != 1 || got[0] != want {
			t.Errorf("day %d: got %q, want %q", days, got, want)
		}
	}
}
