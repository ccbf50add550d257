package residency

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestDisk shows a disk every permit that is not its own.
func TestDisk(t *testing.T) {
	g, at, epoch := NewGate(testBundle()), now, Epoch(3)
	disk := Disk{Node: "fra", Class: ClassMetadata, Epoch: func() Epoch { return epoch }, Now: func() time.Time { return at }}
	ask := Request{Room: "r", Class: ClassMetadata, Store: true, Peer: node("fra", "DE", RoleOrigin), PeerEpoch: 3, Now: now}
	for _, c := range []struct {
		name string
		edit func(*Request)
		disk func(*Disk)
		why  string
	}{
		{"its own", func(*Request) {}, nil, ""},
		{"none", func(r *Request) { r.PeerEpoch = 2 }, nil, "no permit"},
		{"for passing on", func(r *Request) { r.Store = false }, nil, "passing it on"},
		{"of another class", func(r *Request) { r.Class = ClassRecording }, nil, "for recording, this is metadata"},
		{"for another node", func(r *Request) { r.Peer.Name = "waw" }, nil, "for node waw, this is fra"},
		{"of another room", func(r *Request) { r.Room = "s" }, nil, "another room"},
		{"when it has ended", func(*Request) {}, func(*Disk) { at = ask.Peer.NotAfter }, "ends at"},
		{"under other policies", func(*Request) {}, func(*Disk) { epoch = 4 }, "this is epoch 4"},
		{"where nobody says by which", func(*Request) {}, func(d *Disk) { *d = Disk{} }, "by which policies"},
		{"where nobody says when", func(*Request) {}, func(d *Disk) { d.Now = nil }, "by which policies"},
	} {
		at, epoch = now, 3
		r, d := ask, disk
		c.edit(&r)
		p, _ := g.Permit(r)
		if c.disk != nil {
			c.disk(&d)
		}
		switch err := d.Admit(p, "r"); {
		case c.why == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.why != "" && (!errors.Is(err, ErrNotKept) || !strings.Contains(err.Error(), c.why)):
			t.Errorf("%s: %v, want %q", c.name, err, c.why)
		}
	}
}
