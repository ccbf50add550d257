package vault

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// tenantVault is a node that has the public key of a tenant, and the vault of the
// tenant, who has the private one, with the same recordings.
func tenantVault(t *testing.T) (node, tenant *Vault) {
	t.Helper()
	dir, theirs := t.TempDir(), t.TempDir()
	own, err := OpenKeyStore(theirs)
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "keys", tenantsDir), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "keys", tenantsDir, "acme.recipients"), []byte(own.PublicKey()+"\n"), 0o600))
	node = openVault(t, dir, Options{})
	tenant, err = Open(node.dir, own, Options{})
	must(t, err)
	return node, tenant
}

func recordTenant(t *testing.T, v *Vault, tenant string) ID {
	t.Helper()
	r, err := v.Create(residencytest.Keep("room", tenant, residency.ClassRecording), Meta{Room: "room", Tenant: tenant, Policy: "eea-only", Node: "fra"}, t0)
	must(t, err)
	w, err := r.Track(TrackMeta{TrackID: "TR_a", Participant: "anna"})
	must(t, err)
	for i := range 3 {
		must(t, w.Write(cluster(i)))
	}
	must(t, w.Close())
	must(t, r.Finish(t0))
	return r.ID()
}

// A node writes what it cannot read: with a tenant's keys, what is recorded of its
// rooms opens with those alone. The node still knows what it is and whose, and erases it.
func TestTenantKeys(t *testing.T) {
	node, tenant := tenantVault(t)
	id := recordTenant(t, node, "acme")
	r, err := node.Read(id)
	must(t, err)
	if tr := r.Tracks[0]; !tr.Locked || tr.Meta.Participant != "anna" || r.Info.State != StateFinished || r.Info.Tenant != "acme" {
		t.Errorf("the node sees %+v of %+v", tr, r.Info)
	}
	if _, _, err := readAll(t, r.Tracks[0]); !errors.Is(err, ErrLocked) {
		t.Errorf("the node reads it: %v", err)
	}
	r, err = tenant.Read(id)
	must(t, err)
	if n, end, err := readAll(t, r.Tracks[0]); n != 3 || !end.Finished || err != nil || r.Tracks[0].Locked {
		t.Errorf("the tenant reads %d clusters, %+v, %v", n, end, err)
	}
	other := recordTenant(t, node, "") // of no tenant: with the node's own key
	if r, err = node.Read(other); err != nil || r.Tracks[0].Locked {
		t.Errorf("without a tenant: %v", err)
	}
	if _, err := tenant.Read(other); err == nil {
		t.Error("a tenant reads what is not its own")
	}

	// A copy of it is as unreadable for who holds it, and opens for the tenant.
	held := openVault(t, t.TempDir(), Options{})
	m, _, err := node.Manifest(id)
	must(t, err)
	p := residencytest.Keep("room", "acme", residency.ClassRecording)
	_, _, err = held.Receive(p, m)
	must(t, err)
	b := make([]byte, m.Parts[0].Size)
	_, err = node.ReadTrack(id, "TR_a", 0, b)
	must(t, err)
	must(t, held.Append(p, id, "TR_a", 0, b))
	if _, whole, err := held.Receive(p, m); !whole || err != nil {
		t.Fatalf("the copy is whole: %v, %v", whole, err)
	}
	if r, err = held.Read(id); err != nil || !r.Tracks[0].Locked {
		t.Errorf("the copy: %+v, %v", r, err)
	}

	must(t, node.EraseTrack(id, "TR_a"))
	must(t, node.Erase(id))
	if _, err := node.Read(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("erased: %v", err)
	}
}

// A file of keys that names nobody does not mean that anybody may read.
func TestTenantWithoutKeys(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, tenantsDir), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, tenantsDir, "acme.recipients"), []byte("# to come\n"), 0o600))
	if _, err := OpenKeyStore(dir); err == nil {
		t.Error("a key store opens with a tenant that has no keys")
	}
}
