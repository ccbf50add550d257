package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/domicile/domicile/node/prepared"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// What an origin keeps, as the sweep sees it.

// recordings are those of the vault, with the copies of other origins'.
type recordings struct{ n *Node }

func (s recordings) objects(_ context.Context, people bool) (out []retention.Object, err error) {
	infos, err := s.n.vault.List()
	if err != nil {
		return nil, err
	}
	var bad unreadables
	for _, i := range infos {
		if i.Problem != nil {
			out, bad = s.n.unread(out, bad, s.n.vault, residency.KeptRecording, i.ID, i.Problem)
			continue
		}
		x := retention.Object{ID: string(i.ID), Kind: residency.KeptRecording, Room: i.Room, Tenant: i.Tenant, Policy: i.Policy, Recording: string(i.ID), Began: i.Started, Ended: endOf(i)}
		if !people {
			x.Size = i.Size()
			out = append(out, x)
			continue
		}
		metas, readErr := s.n.vault.Metas(i.ID)
		if errors.Is(readErr, vault.ErrNotFound) {
			continue // erased meanwhile
		}
		if readErr != nil {
			out, bad = s.n.unread(out, bad, s.n.vault, residency.KeptRecording, i.ID, readErr)
			continue
		}
		if len(metas) == 0 {
			out = append(out, x)
		}
		for _, t := range i.Tracks {
			m, ok := metas[t.ID]
			if !ok {
				continue // erased
			}
			part := x
			part.Part, part.People, part.Began = string(t.ID), []string{m.Participant}, i.Started.Add(m.Start)
			part.Size = t.Size
			out = append(out, part)
		}
	}
	return out, bad.or(nil)
}

// endOf is from when the time of retention counts; zero as long as it goes on. A copy may
// be one whose node is lost: nobody completes it, and it counts from its last byte.
func endOf(i vault.Info) time.Time {
	switch {
	case i.State != vault.StateRecording:
		return i.Ended
	case i.Copy && i.Written.IsZero():
		return i.Started
	case i.Copy:
		return i.Written
	}
	return time.Time{}
}

func (s recordings) erase(_ context.Context, due []retention.Verdict) (out []gone, err error) {
	byID := map[string][]retention.Verdict{}
	var ids []string
	for _, v := range due {
		if byID[v.ID] == nil {
			ids = append(ids, v.ID)
		}
		byID[v.ID] = append(byID[v.ID], v)
	}
	for _, id := range ids {
		if v := byID[id][0]; v.Unknown {
			failed := s.n.vault.Erase(vault.ID(id))
			if failed == nil {
				out = append(out, gone{v, v.Size})
			}
			err = errors.Join(err, failed)
			continue
		}
		info, failed := s.n.vault.Info(vault.ID(id))
		if errors.Is(failed, vault.ErrNotFound) {
			failed, info = nil, vault.Info{ID: vault.ID(id)}
		}
		size, left := map[string]int64{}, 0
		for _, t := range info.Tracks {
			if !t.Erased {
				size[string(t.ID)], left = t.Size, left+1
			}
		}
		if failed == nil && (byID[id][0].Part == "" || len(byID[id]) >= left && info.State != vault.StateRecording) {
			if failed = s.n.vault.Erase(vault.ID(id)); failed == nil {
				for _, v := range byID[id] {
					bytes := size[v.Part]
					if v.Part == "" {
						bytes = info.Size()
					}
					out = append(out, gone{v, bytes})
				}
			}
			err = errors.Join(err, failed)
			continue
		}
		for _, v := range byID[id] {
			if failed := s.n.vault.EraseTrack(vault.ID(id), vault.TrackID(v.Part)); failed != nil {
				err = errors.Join(err, failed)
				continue
			}
			out = append(out, gone{v, size[v.Part]})
		}
	}
	return out, err
}

// lineFiles are a vault of files with one message, or the like, in a line.
type lineFiles struct {
	n     *Node
	vault *vault.Vault
	kind  func(vault.TrackID) residency.Kept
	whose func(line []byte) []string // identities
	close func(vault.ID) error       // completes the file if it is being written
}

func (n *Node) chatFiles() lineFiles {
	return lineFiles{n, n.chats.vault, func(t vault.TrackID) residency.Kept {
		if t == qaTrack {
			return residency.KeptQA
		}
		return residency.KeptChat
	}, chatIdentity, func(id vault.ID) error { return n.chats.complete(id, n.now()) }}
}

func chatIdentity(line []byte) []string {
	var l room.ChatLine
	if json.Unmarshal(line, &l) != nil {
		return nil
	}
	return []string{l.Identity}
}

func (s lineFiles) objects(_ context.Context, people bool) (out []retention.Object, err error) {
	infos, err := s.vault.List()
	if err != nil {
		return nil, err
	}
	var bad unreadables
	for _, i := range infos {
		if i.Problem != nil {
			out, bad = s.n.unread(out, bad, s.vault, s.kind(""), i.ID, i.Problem)
			continue
		}
		x := retention.Object{ID: string(i.ID), Room: i.Room, Tenant: i.Tenant, Policy: i.Policy, Lines: true, Began: i.Started, Ended: endOf(i)}
		x.Kind, x.Size = s.kind(""), i.Size()
		for _, t := range i.Tracks {
			x.Part, x.Kind = string(t.ID), s.kind(t.ID)
		}
		if people {
			var failed error
			x.People, failed = s.people(i.ID)
			if errors.Is(failed, vault.ErrNotFound) {
				continue // erased meanwhile
			}
			if failed != nil {
				out, bad = s.n.unread(out, bad, s.vault, x.Kind, i.ID, failed)
				continue
			}
		}
		out = append(out, x)
	}
	return out, bad.or(nil)
}

// people are those of whom there is a line in a file.
func (s lineFiles) people(id vault.ID) (who []string, err error) {
	r, err := s.vault.Read(id)
	if err != nil {
		return nil, err
	}
	for _, t := range r.Tracks {
		if t.Locked {
			continue // only its tenant can tell
		}
		c, err := t.Open()
		if err != nil {
			return nil, err
		}
		for {
			line, failed := c.Next()
			if errors.Is(failed, io.EOF) {
				break
			}
			if err = failed; err != nil {
				break
			}
			for _, p := range s.whose(line) {
				if !slices.Contains(who, p) {
					who = append(who, p)
				}
			}
		}
		if err = errors.Join(err, c.Close()); err != nil {
			return nil, err
		}
	}
	return who, nil
}

func (s lineFiles) erase(_ context.Context, due []retention.Verdict) (out []gone, err error) {
	for _, v := range due {
		size, failed := s.eraseOne(v)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		out = append(out, gone{v, size})
	}
	return out, err
}

func (s lineFiles) eraseOne(v retention.Verdict) (size int64, err error) {
	id := vault.ID(v.ID)
	if err := s.close(id); err != nil {
		return 0, err
	}
	if v.Unknown {
		return v.Size, s.vault.Erase(id)
	}
	info, err := s.vault.Info(id)
	if errors.Is(err, vault.ErrNotFound) {
		return 0, s.vault.Erase(id)
	}
	if err != nil {
		return 0, err
	}
	if len(v.Gone) == 0 {
		return info.Size(), s.vault.Erase(id)
	}
	_, left, err := s.vault.Rewrite(id, vault.TrackID(v.Part), func(line []byte) bool {
		return !slices.ContainsFunc(s.whose(line), func(p string) bool { return slices.Contains(v.Gone, p) })
	})
	if err == nil && left == 0 {
		return info.Size(), s.vault.Erase(id)
	}
	after, infoErr := s.vault.Info(id)
	return info.Size() - after.Size(), errors.Join(err, infoErr)
}

// exportFiles are the exports that are prepared, or being so. Their last day is their own.
type exportFiles struct{ n *Node }

func (s exportFiles) objects(context.Context, bool) (out []retention.Object, err error) {
	for _, x := range s.n.exports.List(func(prepared.About) bool { return true }) {
		o := retention.Object{ID: string(x.ID), Kind: residency.KeptExport, Room: x.Room, Tenant: x.Tenant, Policy: x.Policy, Anyone: true, Recording: x.Recording, Began: x.Created, Size: x.Size}
		if x.Kind == exportRoom || x.Kind == exportTenant {
			o.Recording = retention.AnyRecording
		}
		out = append(out, o)
	}
	if left := s.n.exports.SweepBroken(); len(left) > 0 {
		err = fmt.Errorf("exports %v cannot be opened, and stay while there is a legal hold: nobody can tell of whom they are", left)
	}
	return out, err
}

func (s exportFiles) erase(_ context.Context, due []retention.Verdict) (out []gone, err error) {
	for _, v := range due {
		x, failed := s.n.exports.Find(prepared.ID(v.ID))
		if failed == nil {
			_, failed = s.n.exports.Erase(func(a prepared.About) bool { return a.ID == x.ID })
		}
		if failed != nil && !errors.Is(failed, prepared.ErrNotFound) {
			err = errors.Join(err, failed)
			continue
		}
		out = append(out, gone{v, x.Size})
	}
	return out, err
}

// roomRecords are the rooms' records.
type roomRecords struct{ n *Node }

func (s roomRecords) objects(ctx context.Context, _ bool) (out []retention.Object, err error) {
	rows, err := s.n.store.s.Rooms(ctx)
	for _, row := range rows {
		x := retention.Object{ID: row.SID, Kind: residency.KeptMetadata, Room: row.Name, Tenant: row.Tenant, Policy: row.Policy, Began: row.Created, Size: int64(len(row.Name) + len(row.Metadata))}
		// The home has the room live while anybody is in it, on any node.
		at := s.n.home(room.Record{Name: row.Name, Tenant: row.Tenant, Policy: row.Policy})
		if at == s.n.self().Name && s.n.rooms.get(row.Name) == nil {
			x.Ended = row.Created
		}
		out = append(out, x)
	}
	return out, err
}

func (s roomRecords) erase(ctx context.Context, due []retention.Verdict) (out []gone, err error) {
	for _, v := range due {
		rec, ok, failed := s.n.store.load(ctx, v.Room)
		if failed == nil && ok && rec.SID == v.ID {
			s.n.deleted.add(rec.SID)
			s.n.replicas.bury(rec)
			failed = s.n.store.writer.erase(rec)
		}
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		out = append(out, gone{v, int64(len(rec.Name) + len(rec.Metadata))})
	}
	return out, err
}

// keyFiles are the names behind the pseudonyms of receipts.
type keyFiles struct{ n *Node }

func (s keyFiles) objects(context.Context, bool) (out []retention.Object, err error) {
	list, err := s.n.testimony.keys.all()
	for _, k := range list {
		if k.Name == "" {
			continue // gone already
		}
		at := time.UnixMilli(k.CreatedMS)
		out = append(out, retention.Object{ID: k.SID, Kind: residency.KeptEvidence, Room: k.Name, Tenant: k.Tenant, Policy: k.Policy, Began: at, Ended: at, Size: int64(len(k.Name))})
	}
	return out, err
}

// erase takes the name off the key of an erasure: who has the room's id can still
// prove what was done. When the policy's time is over the key goes, too.
func (s keyFiles) erase(_ context.Context, due []retention.Verdict) (out []gone, err error) {
	for _, v := range due {
		if failed := s.n.testimony.keys.forget(v.ID, v.Rule == retention.RuleRetention); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		out = append(out, gone{v, int64(len(v.Room))})
	}
	return out, err
}

// keptClass is the data class of a kind.
func keptClass(k residency.Kept) residency.Class {
	switch k {
	case residency.KeptRecording, residency.KeptConsent:
		return residency.ClassRecording
	case residency.KeptChat, residency.KeptQA:
		return residency.ClassChat
	case residency.KeptExport:
		return residency.ClassExport
	}
	return residency.ClassMetadata
}
