package vault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// erasedDir holds an empty file for each recording that was erased here, so that no
// copy of it that another node still has is taken again. Its name is the recording's
// id, which says nothing of anybody.
const erasedDir = "erased"

// entomb notes that a recording is erased, before anything of it is.
func (v *Vault) entomb(id ID) error {
	dir := filepath.Join(v.dir, erasedDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return explain(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, string(id)), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return explain(err)
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(dir), syncDir(v.dir))
}

// Erased reports whether a recording was erased from this vault.
func (v *Vault) Erased(id ID) bool {
	if _, err := ParseID(string(id)); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(v.dir, erasedDir, string(id)))
	return err == nil
}
