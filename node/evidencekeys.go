package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// roomKey is what an origin keeps of a room for as long as its receipts: which
// room a pseudonym is, and the key that proves it. An origin that has taken a room
// over, and was not given the key, has the pseudonym alone.
type roomKey struct {
	SID       string             `json:"sid"`
	Name      string             `json:"name"`
	Key       evidence.RoomKey   `json:"key"`
	Pseudonym evidence.Pseudonym `json:"pseudonym"`
	CreatedMS int64              `json:"created_ms"` // Unix milliseconds
	Tenant    string             `json:"tenant,omitempty"`
	Policy    string             `json:"policy,omitempty"`
}

// errOtherKey says that a room has another pseudonym here.
var errOtherKey = errors.New("the room has another key here")

// valid reports whether the key makes the pseudonym of the room.
func (k roomKey) valid() error {
	if k.SID != filepath.Base(k.SID) || k.Name == "" {
		return fmt.Errorf("room key: id %q", k.SID)
	}
	p, err := k.Key.Pseudonym(k.SID)
	if err == nil && p != k.Pseudonym {
		err = errors.New("room key: it does not make the pseudonym")
	}
	return err
}

// roomKeys are files beside the log, one for each room whose home this origin is or
// could become. They outlive the room's record.
type roomKeys struct {
	dir  string
	disk residency.Disk

	mu sync.Mutex // held while a file is read or written
}

func openRoomKeys(dir string, disk residency.Disk) (*roomKeys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open room keys: %w", err)
	}
	return &roomKeys{dir: dir, disk: disk}, nil
}

// ensure returns the key of a room. If there is none it makes one, by a permit to
// keep the room's metadata: the file names the room.
func (k *roomKeys) ensure(p residency.Permit, rec room.Record) (roomKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if rk, err := k.read(rec.SID); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return rk, err
	}
	if err := k.disk.Admit(p, rec.Name); err != nil {
		return roomKey{}, fmt.Errorf("keep room key: %w", err)
	}
	rk := roomKey{SID: rec.SID, Name: rec.Name, Key: evidence.NewRoomKey(), CreatedMS: rec.CreatedMS, Tenant: rec.Tenant, Policy: rec.Policy}
	var err error
	if rk.Pseudonym, err = rk.Key.Pseudonym(rec.SID); err != nil {
		return rk, err
	}
	return rk, k.write(rk)
}

// get returns the key of a room, if it is known.
func (k *roomKeys) get(sid string) (roomKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	rk, err := k.read(sid)
	return rk, err == nil && rk.Key != ""
}

// put keeps what another origin says of a room, by a permit to keep its metadata: its
// key, or its pseudonym alone. A room has one pseudonym for good.
func (k *roomKeys) put(p residency.Permit, rk roomKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.disk.Admit(p, rk.Name); err != nil {
		return fmt.Errorf("keep room key: %w", err)
	}
	old, err := k.read(rk.SID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return k.write(rk)
	case err != nil:
		return err
	case old.Pseudonym != rk.Pseudonym:
		return errOtherKey
	case old.Key == "" && rk.Key != "":
		if old.Name == "" { // of a room that was erased
			rk.Name, rk.Tenant, rk.Policy = "", "", ""
		}
		return k.write(rk)
	}
	return nil
}

func (k *roomKeys) path(sid string) string { return filepath.Join(k.dir, filepath.Base(sid)+".json") }

func (k *roomKeys) read(sid string) (rk roomKey, err error) {
	b, err := os.ReadFile(k.path(sid))
	if err == nil {
		err = json.Unmarshal(b, &rk)
	}
	if err != nil {
		return rk, fmt.Errorf("read room key: %w", err)
	}
	return rk, nil
}

// write puts the file in place as a whole, on the disk before anybody is told
// the pseudonym.
func (k *roomKeys) write(rk roomKey) error {
	b, err := json.Marshal(rk)
	if err != nil {
		return fmt.Errorf("keep room key: %w", err)
	}
	tmp := k.path(rk.SID) + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep room key: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, k.path(rk.SID))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep room key: %w", err), os.Remove(tmp))
	}
	return nil
}

// find returns the keys of a room by its id or name, the newest room first.
func (k *roomKeys) find(nameOrSID string) (found roomKey, ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list, err := os.ReadDir(k.dir)
	if err != nil {
		return found, false, fmt.Errorf("find room key: %w", err)
	}
	for _, e := range list {
		sid, isKey := trimJSON(e.Name())
		if !isKey {
			continue
		}
		rk, err := k.read(sid)
		if err != nil {
			return found, false, err
		}
		if rk.SID == nameOrSID {
			return rk, true, nil
		}
		if rk.Name == nameOrSID && (!ok || rk.CreatedMS > found.CreatedMS) {
			found, ok = rk, true
		}
	}
	return found, ok, nil
}

// all returns every key.
func (k *roomKeys) all() (found []roomKey, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, fmt.Errorf("list room keys: %w", err)
	}
	for _, e := range list {
		if sid, isKey := trimJSON(e.Name()); isKey {
			rk, failed := k.read(sid)
			if err = errors.Join(err, failed); failed == nil {
				found = append(found, rk)
			}
		}
	}
	return found, err
}

// of returns the key of the room of a name that something of which began then: rooms
// of one name follow each other.
func (k *roomKeys) of(name string, began time.Time) (found roomKey, ok bool) {
	list, _ := k.all() //nolint:errcheck // what cannot be read is not found
	for _, rk := range list {
		if rk.Name == name && (!ok || rk.CreatedMS > found.CreatedMS && rk.CreatedMS <= began.UnixMilli() || found.CreatedMS > began.UnixMilli() && rk.CreatedMS < found.CreatedMS) {
			found, ok = rk, true
		}
	}
	return found, ok
}

// forget takes the room's name off its key, or the key away.
func (k *roomKeys) forget(sid string, all bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	rk, err := k.read(sid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case all:
		return os.Remove(k.path(sid))
	}
	rk.Name, rk.Tenant, rk.Policy = "", "", ""
	return k.write(rk)
}

func trimJSON(name string) (string, bool) {
	ext := filepath.Ext(name)
	return name[:len(name)-len(ext)], ext == ".json"
}
