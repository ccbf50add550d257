package node

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/prepared"
	films "github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// Exports: what is kept of a room, put into files for its host. They are made and kept
// on the origin that keeps the originals, by permits for the class export; a link, which
// ends, is all that leaves it. Whoever asks holds a token of the room with roomAdmin, or
// is the operator at the machine.

// The kinds of exports.
const (
	exportRecording     = "recording"
	exportChat          = "chat"
	exportAttendance    = "attendance"
	exportRegistrations = "registrations"
	exportConsents      = "consents"
	exportStatistics    = "statistics"
	exportRoom          = "room"   // all of it, as ZIP
	exportTenant        = "tenant" // all rooms of it, as ZIP: for the operator
)

// maxExportDays is how long a link may be good; longer is what an archive is for.
const maxExportDays = 365

// ExportRequest says what to prepare.
type ExportRequest struct {
	Kind        string        `json:"kind"`
	Format      string        `json:"format,omitempty"`
	Recording   vault.ID      `json:"recording,omitempty"`
	View        films.View    `json:"view,omitempty"`
	Participant string        `json:"participant,omitempty"` // this one's tracks alone
	Track       vault.TrackID `json:"track,omitempty"`       // this track alone
	Password    string        `json:"password,omitempty"`    // of a ZIP
	Days        int           `json:"days,omitempty"`        // that the link is good for; default 30

	// Of the operator's requests: the token says them of others.
	Room   string `json:"room,omitempty"`
	Tenant string `json:"tenant,omitempty"`
}

// ExportState is an export as its host sees it.
type ExportState struct {
	ID        prepared.ID    `json:"id"`
	Kind      string         `json:"kind"`
	Recording string         `json:"recording,omitempty"`
	Name      string         `json:"name"`
	Type      string         `json:"type"`
	State     prepared.State `json:"state"`
	Done      int64          `json:"done"`
	Total     int64          `json:"total"`
	Size      int64          `json:"size,omitempty"`
	Created   time.Time      `json:"created"`
	Expires   time.Time      `json:"expires"`
	Problem   string         `json:"problem,omitempty"`
	Notes     []string       `json:"notes,omitempty"`
	URL       string         `json:"url,omitempty"` // where it can be fetched, below this node's address
}

func (n *Node) openExports(keys *vault.KeyStore) (err error) {
	n.exports, err = prepared.Open(filepath.Join(n.cfg.DataDir, "exports"), prepared.Options{
		Disk: n.disk(residency.ClassExport), Keys: keys, Now: n.now, Log: n.log, MinFree: n.cfg.MinFree,
		Held:    func(a prepared.About) bool { return len(n.held(retention.Subject{Tenant: a.Tenant, Room: a.Room})) > 0 },
		HeldAny: n.holdsAnything})
	return err
}

// exportAPI is what a room's host asks.
func (n *Node) exportAPI(mux *http.ServeMux) {
	host := func(do func(w http.ResponseWriter, r *http.Request, rec room.Record) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			rec, err := n.hosted(r)
			var v any
			if err == nil {
				v, err = do(w, r, rec)
			}
			answer(w, v, err)
		}
	}
	mux.HandleFunc("GET /api/rooms/{room}/recordings", host(func(_ http.ResponseWriter, _ *http.Request, rec room.Record) (any, error) {
		return n.keptOf(rec)
	}))
	// All that is kept of the room, on every origin, if no hold is in the way.
	mux.HandleFunc("DELETE /api/rooms/{room}/recordings", host(func(_ http.ResponseWriter, r *http.Request, rec room.Record) (any, error) {
		return n.giveOrder(r.Context(), OrderRequest{Tenant: rec.Tenant, Room: rec.Name, Reason: "asked by the host", noTenant: true}, retention.Erasure)
	}))
	mux.HandleFunc("POST /api/rooms/{room}/erasures", host(n.eraseForHost))
	mux.HandleFunc("GET /api/rooms/{room}/erasures/{id}", host(n.erasureOf))
	mux.HandleFunc("POST /api/rooms/{room}/exports", host(func(w http.ResponseWriter, r *http.Request, rec room.Record) (any, error) {
		var q ExportRequest
		if err := reading(w, r, &q); err != nil {
			return nil, err
		}
		if q.Kind == exportTenant || q.Room != "" || q.Tenant != "" {
			return nil, &Refusal{Code: CodeForbidden, Message: "a token of a room exports that room"}
		}
		return n.beginExport(r.Context(), rec, q)
	}))
	mux.HandleFunc("GET /api/rooms/{room}/exports/{id}", host(func(_ http.ResponseWriter, r *http.Request, rec room.Record) (any, error) {
		s, err := n.exportOf(rec, prepared.ID(r.PathValue("id")))
		return n.stateOf(s), err
	}))
	mux.HandleFunc("DELETE /api/rooms/{room}/exports/{id}", host(func(_ http.ResponseWriter, r *http.Request, rec room.Record) (any, error) {
		s, err := n.exportOf(rec, prepared.ID(r.PathValue("id")))
		if err == nil {
			err = n.exports.Cancel(s.ID)
		}
		return struct{}{}, err
	}))
	mux.HandleFunc("GET /api/exports/{id}/{name}", func(w http.ResponseWriter, r *http.Request) {
		if err := n.serveExport(w, r); err != nil {
			answer(w, nil, err)
		}
	})
}

// hosted is the room whose host is asking: as it lives, or as its recordings name it
// when it does not any more.
func (n *Node) hosted(r *http.Request) (room.Record, error) {
	g, name, err := n.bearer(r)
	if err != nil {
		return room.Record{}, err
	}
	if !g.Video.RoomAdmin {
		return room.Record{}, &Refusal{Code: CodeForbidden, Message: "recordings and records are for the room's host: the token does not grant roomAdmin"}
	}
	return n.onceRoom(r.Context(), name, n.tenantOf(g.APIKey))
}

// onceRoom is a room that lives or lived.
func (n *Node) onceRoom(ctx context.Context, name, tenant string) (room.Record, error) {
	if n.exports == nil {
		return room.Record{}, n.noOrigin()
	}
	spec := room.Record{Name: name, Tenant: tenant}
	rec, err := n.resolve(ctx, resolveRequest{Spec: spec})
	if err == nil || asRefusal(err).Code != CodeNotFound {
		return rec, err
	}
	if err := control.ValidRoomName(name); err != nil {
		return rec, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	spec.Policy = n.policyName(spec)
	return spec, nil
}

// noOrigin names the origins, which alone keep something.
func (n *Node) noOrigin() error {
	ref := &Refusal{Code: CodePrecondition, Message: fmt.Sprintf("node %s is no origin and keeps nothing of a room", n.self().Name), Hint: "ask an origin"}
	for _, c := range n.candidates() {
		if c.Node.Has(residency.RoleOrigin) {
			ref.Use = &Use{Node: c.Node.Name, URL: c.URL}
			break
		}
	}
	return ref
}

// keptTrack is a track of a recording.
type keptTrack struct {
	ID          vault.TrackID `json:"id"`
	Participant string        `json:"participant"`
	Name        string        `json:"name"`
	Source      string        `json:"source"`
	Kind        string        `json:"kind"`
	Type        string        `json:"type"`
	Bytes       int64         `json:"bytes"`
	Finished    bool          `json:"finished"`
	Part        int           `json:"part,omitempty"` // of a track that was gone and came back; none: the first
}

// keptRecording is a recording.
type keptRecording struct {
	ID      vault.ID    `json:"id"`
	Started time.Time   `json:"started"`
	Ended   *time.Time  `json:"ended,omitempty"`
	State   vault.State `json:"state"`
	Bytes   int64       `json:"bytes"`
	Part    int         `json:"part,omitempty"`
	Tracks  []keptTrack `json:"tracks"`
	Problem string      `json:"problem,omitempty"`
}

// kept is what this node keeps of a room, and which other nodes may keep more.
type kept struct {
	Room       string          `json:"room"`
	Node       placeJSON       `json:"node"`
	Recordings []keptRecording `json:"recordings"`
	Exports    []ExportState   `json:"exports"`
	Origins    []Use           `json:"origins,omitempty"`
}

func (n *Node) keptOf(rec room.Record) (*kept, error) {
	out := &kept{Room: rec.Name, Node: placeJSON{n.self().Name, n.self().Country, n.cfg.City}, Recordings: []keptRecording{}, Exports: []ExportState{}}
	infos, err := n.recordingsOf(rec)
	if err != nil {
		return nil, err
	}
	for _, i := range infos {
		out.Recordings = append(out.Recordings, n.describe(i))
	}
	for _, s := range n.exports.List(func(a prepared.About) bool { return a.Room == rec.Name && a.Tenant == rec.Tenant }) {
		out.Exports = append(out.Exports, n.stateOf(s))
	}
	for _, c := range n.candidates() {
		if !c.Local && c.URL != "" && c.Node.Has(residency.RoleOrigin) {
			out.Origins = append(out.Origins, Use{Node: c.Node.Name, URL: c.URL})
		}
	}
	return out, nil
}

// recordingsOf lists what this origin has recorded of a room of a tenant.
func (n *Node) recordingsOf(rec room.Record) (list []vault.Info, err error) {
	infos, err := n.vault.List()
	for _, i := range infos {
		if i.Room == rec.Name && i.Tenant == rec.Tenant {
			list = append(list, i)
		}
	}
	return list, err
}

func (n *Node) describe(i vault.Info) keptRecording {
	out := keptRecording{ID: i.ID, Started: i.Started, State: i.State, Bytes: i.Size(), Tracks: []keptTrack{}}
	if !i.Ended.IsZero() {
		out.Ended = &i.Ended
	}
	if i.After != nil {
		out.Part = i.After.Part
	}
	r, err := n.vault.Read(i.ID)
	if err != nil {
		out.Problem = "it cannot be opened here: " + err.Error()
		return out
	}
	for _, t := range r.Tracks {
		m := t.Meta
		out.Tracks = append(out.Tracks, keptTrack{t.Info.ID, m.Participant, m.Name, m.Source, m.Kind, m.MimeType, t.Info.Size, t.Info.Finished, m.Part})
	}
	return out
}

// exportOf finds an export of a room; one of another room is none.
func (n *Node) exportOf(rec room.Record, id prepared.ID) (prepared.Status, error) {
	s, err := n.exports.Find(id)
	if err != nil || s.Room != rec.Name || s.Tenant != rec.Tenant {
		return prepared.Status{}, &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("no export %q of this room", id)}
	}
	return s, nil
}

func (n *Node) stateOf(s prepared.Status) ExportState {
	out := ExportState{ID: s.ID, Kind: s.Kind, Recording: s.Recording, Name: s.Name, Type: s.Type, State: s.State, Done: s.Done, Total: s.Total,
		Size: s.Size, Created: s.Created, Expires: s.Expires, Problem: s.Problem, Notes: s.Notes}
	if s.State == prepared.Done {
		out.URL = fmt.Sprintf("/api/exports/%s/%s?until=%d&sig=%s", s.ID, url.PathEscape(s.Name), s.Expires.Unix(), n.exports.Sign(s.ID, s.Expires))
	}
	return out
}

// beginExport has an export prepared.
func (n *Node) beginExport(ctx context.Context, rec room.Record, q ExportRequest) (any, error) {
	about, making, err := n.making(ctx, &rec, q)
	if err != nil {
		return nil, err
	}
	if q.Days < 0 || q.Days > maxExportDays {
		return nil, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("days %d: want 1 to %d, 30 if you say nothing", q.Days, maxExportDays)}
	}
	last := prepared.Keep
	if q.Days > 0 {
		last = time.Duration(q.Days) * 24 * time.Hour
	}
	about.Room, about.SID, about.Tenant, about.Policy = rec.Name, rec.SID, rec.Tenant, rec.Policy
	var refusal *Refusal
	s, err := n.exports.Begin(about, last, func() (residency.Permit, error) {
		p, err := n.mayExport(rec)
		errors.As(err, &refusal)
		return p, err
	}, func(ctx context.Context, w *prepared.Writer, progress func(done, total int64)) ([]string, error) {
		counted := func(done, total int64) { progress(done, total) }
		notes, err := making(ctx, w, counted)
		if err == nil {
			n.noteStored(rec, residency.ClassExport, false, int(w.Size()))
		}
		return notes, err
	})
	switch {
	case refusal != nil:
		return nil, refusal
	case errors.Is(err, prepared.ErrBusy):
		return nil, &Refusal{Code: CodeBusy, Message: err.Error(), Hint: "ask again when some are done"}
	}
	return n.stateOf(s), err
}

// mayExport asks the gate whether an export of a room may be kept on this node.
func (n *Node) mayExport(rec room.Record) (residency.Permit, error) {
	q := keeping(rec, residency.ClassExport)
	q.NoEvidence = n.noEvidenceOf(rec.Name)
	p, v := n.keep(q)
	if !v.Allow {
		return p, refused(v)
	}
	return p, nil
}

// serveExport answers whoever holds a link, with any part of the file. The gate is
// asked again: a policy that has been tightened ends what was prepared before.
func (n *Node) serveExport(w http.ResponseWriter, r *http.Request) error {
	if n.exports == nil {
		return n.noOrigin()
	}
	id := prepared.ID(r.PathValue("id"))
	switch err := n.exports.Check(id, r.FormValue("until"), r.FormValue("sig")); {
	case errors.Is(err, prepared.ErrExpired):
		return &Refusal{Code: CodeGone, Message: err.Error(), Hint: "ask the host for another one"}
	case err != nil:
		return &Refusal{Code: CodeForbidden, Message: err.Error()}
	}
	about, f, err := n.exports.Read(id)
	if errors.Is(err, prepared.ErrNotFound) {
		return &Refusal{Code: CodeGone, Message: "what this link leads to has been removed", Hint: "ask the host for another one"}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	rec := room.Record{Name: about.Room, SID: about.SID, Tenant: about.Tenant, Policy: about.Policy}
	q := keeping(rec, residency.ClassExport)
	q.NoEvidence = n.noEvidenceOf(rec.Name)
	permit, v := n.tell(q)
	if !v.Allow {
		return refused(v)
	}
	for _, part := range about.Rooms {
		q := keeping(room.Record{Name: part.Room, Tenant: part.Tenant, Policy: part.Policy}, residency.ClassExport)
		q.NoEvidence = n.noEvidenceOf(part.Room)
		if _, v := n.tell(q); !v.Allow {
			return refused(v) // one that may not be exported any more is enough
		}
	}
	return n.sendExport(permit, w, r, about, f)
}

// sendExport writes an export to the holder of its link, by a permit to export here.
func (n *Node) sendExport(p residency.Permit, w http.ResponseWriter, r *http.Request, a prepared.About, f *prepared.File) error {
	if p.Class() != residency.ClassExport || p.Room() != a.Room || !p.Allows(n.self().Name, n.gate().Epoch(), n.now()) {
		return fmt.Errorf("send export: %w", errNoExport)
	}
	how := "attachment"
	if r.FormValue("watch") != "" {
		how = "inline"
	}
	h := w.Header()
	h.Set("Content-Type", a.Type)
	h.Set("Content-Disposition", mime.FormatMediaType(how, map[string]string{"filename": a.Name}))
	h.Set("Content-Security-Policy", "default-src 'none'; media-src 'self'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, no-store")
	h.Set("ETag", strconv.Quote(string(a.ID)))
	http.ServeContent(&patient{ResponseWriter: w}, r, "", a.Created, f)
	return nil
}

// patient writes an answer that takes as long as it takes, if only something of it gets
// through every while.
type patient struct {
	http.ResponseWriter
}

// sendPause is how long a reader may take none of 32 KiB: players stop reading while
// they are paused, and ask for the rest when they go on.
const sendPause = 2 * time.Minute

// Write is http.ResponseWriter's.
func (p *patient) Write(b []byte) (int, error) {
	err := http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(sendPause))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}
