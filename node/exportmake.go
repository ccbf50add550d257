package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/prepared"
	films "github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sealedzip"
	"github.com/domicile/domicile/node/sheet"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// exportTypes are the media types of files by their ending.
var exportTypes = map[string]string{
	"mkv": "video/x-matroska", "webm": "video/webm", "mp4": "video/mp4", "zip": "application/zip",
	"txt": "text/plain; charset=utf-8", "csv": "text/csv; charset=utf-8", "json": "application/json",
	"xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

// making says what an export will be called and how it is made. The policy of a
// recording is its own, which may be an older one than the room's.
func (n *Node) making(ctx context.Context, rec *room.Record, q ExportRequest) (prepared.About, prepared.Making, error) {
	a := prepared.About{Kind: q.Kind, Recording: string(q.Recording)}
	if q.Password != "" && q.Kind != exportRoom && q.Kind != exportTenant {
		return a, nil, &Refusal{Code: CodeInvalid, Message: "password: only a ZIP has one", Hint: "export the room"}
	}
	var m prepared.Making
	var err error
	switch q.Kind {
	case exportRecording:
		m, err = n.makingRecording(rec, &q)
	case exportChat, exportAttendance, exportRegistrations, exportConsents, exportStatistics:
		m, err = n.makingTable(*rec, &q)
	case exportRoom, exportTenant:
		if q.Format == "" {
			q.Format = "zip"
		}
		if q.Format != "zip" {
			err = fmt.Errorf("format %q: all of a room is a zip", q.Format)
		} else if q.Password != "" {
			_, err = sealedzip.New(io.Discard, q.Password)
		}
		m = n.makingZIP(*rec, q)
	default:
		err = fmt.Errorf("kind %q: want recording, chat, attendance, registrations, consents, statistics or room", q.Kind)
	}
	if err != nil {
		var ref *Refusal
		if !errors.As(err, &ref) {
			err = &Refusal{Code: CodeInvalid, Message: err.Error()}
		}
		return a, nil, err
	}
	a.Name = exportName(*rec, q, n.now())
	a.Type = exportTypes[q.Format]
	return a, m, nil
}

var unsafeInName = regexp.MustCompile(`[^\p{L}\p{N} ._-]+`)

// fileName makes one that every system takes, of what somebody typed.
func fileName(s string) string {
	s = strings.Trim(unsafeInName.ReplaceAllString(s, "-"), " .-")
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60])
	}
	if s == "" {
		return "export"
	}
	return s
}

// folders are the names of an archive's folders, in lower case: where "a/b" and "A:b" are
// to be unpacked one must not lie over the other.
type folders map[string]bool

func (f folders) of(name string) string {
	dir := fileName(name)
	for n := 2; f[strings.ToLower(dir)]; n++ {
		dir = fmt.Sprintf("%s (%d)", fileName(name), n)
	}
	f[strings.ToLower(dir)] = true
	return dir
}

func exportName(rec room.Record, q ExportRequest, now time.Time) string {
	of := rec.Name
	if q.Kind == exportTenant {
		of = q.Tenant
	}
	parts := []string{fileName(of), now.UTC().Format("2006-01-02")}
	for _, s := range []string{string(q.View), q.Participant, string(q.Track)} {
		if s != "" {
			parts = append(parts, fileName(s))
		}
	}
	if q.Kind != exportRecording && q.Kind != exportRoom {
		parts = append(parts, q.Kind)
	}
	return strings.Join(parts, " ") + "." + q.Format
}

func (n *Node) makingRecording(rec *room.Record, q *ExportRequest) (prepared.Making, error) {
	if q.Format == "" {
		q.Format = string(films.MP4)
		if q.View == films.AsSent {
			q.Format = string(films.MKV)
		}
	}
	if exportTypes[q.Format] == "" || !strings.HasPrefix(exportTypes[q.Format], "video/") {
		return nil, fmt.Errorf("format %q: want mkv, webm or mp4", q.Format)
	}
	if q.View != films.AsSent && (q.View != films.Grid && q.View != films.Speaker || q.Format != string(films.MP4)) {
		return nil, fmt.Errorf("view %q as %q: want grid or speaker, as mp4", q.View, q.Format)
	}
	info, err := n.vault.Info(q.Recording)
	if err != nil || info.Room != rec.Name || info.Tenant != rec.Tenant {
		return nil, &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("no recording %q of this room on node %s", q.Recording, n.self().Name)}
	}
	rec.Policy = info.Policy
	return func(ctx context.Context, w *prepared.Writer, progress func(done, total int64)) ([]string, error) {
		sum, err := n.writeRecording(ctx, w, info.ID, films.ExportOptions{Format: films.Format(q.Format), View: q.View,
			Participant: q.Participant, Track: q.Track, Progress: progress})
		return sum.Notes, err
	}, nil
}

func (n *Node) writeRecording(ctx context.Context, w *prepared.Writer, id vault.ID, o films.ExportOptions) (films.Summary, error) {
	r, err := n.vault.Read(id)
	if err != nil {
		return films.Summary{}, err
	}
	o.To, o.Nice = w, true
	return films.Export(ctx, r, o)
}

// makingTable writes one table, or the chat as text.
func (n *Node) makingTable(rec room.Record, q *ExportRequest) (prepared.Making, error) {
	if q.Format == "" {
		q.Format = "csv"
	}
	if q.Format != "csv" && q.Format != "xlsx" && (q.Format != "txt" || q.Kind != exportChat) {
		return nil, fmt.Errorf("format %q: want csv or xlsx, of chat also txt", q.Format)
	}
	return func(ctx context.Context, w *prepared.Writer, _ func(done, total int64)) ([]string, error) {
		return n.writeTable(ctx, w, rec, q.Kind, q.Format)
	}, nil
}

func (n *Node) writeTable(ctx context.Context, w io.Writer, rec room.Record, kind, format string) (notes []string, err error) {
	if format == "txt" {
		lines, err := n.chats.read(rec)
		if err != nil {
			return nil, err
		}
		return nil, writeChatText(w, lines)
	}
	t, notes, err := n.table(ctx, rec, kind)
	if err != nil {
		return nil, err
	}
	if format == "xlsx" {
		return notes, sheet.XLSX(w, t)
	}
	return notes, sheet.CSV(w, t)
}

// makingZIP puts all that this node keeps of a room, or of a tenant's rooms, together.
func (n *Node) makingZIP(rec room.Record, q ExportRequest) prepared.Making {
	return func(ctx context.Context, w *prepared.Writer, progress func(done, total int64)) (notes []string, err error) {
		z, err := sealedzip.New(w, q.Password)
		if err != nil {
			return nil, err
		}
		rooms := []room.Record{rec}
		if q.Kind == exportTenant {
			if rooms, err = n.keptRooms(rec.Tenant); err != nil {
				return nil, err
			}
		}
		p := packer{n: n, w: w, z: z, progress: progress}
		if err := p.measure(rooms); err != nil {
			return nil, err
		}
		folders := folders{}
		for _, r := range rooms {
			dir := ""
			if q.Kind == exportTenant {
				dir = folders.of(r.Name) + "/"
			}
			if err := p.room(ctx, r, dir); err != nil {
				return nil, err
			}
		}
		return p.notes, z.Close()
	}
}

// keptRooms are the rooms of which something is kept here, each once.
func (n *Node) keptRooms(tenant string) (list []room.Record, err error) {
	seen := map[string]bool{}
	add := func(r room.Record) {
		if r.Tenant == tenant && !seen[r.Name] {
			seen[r.Name] = true
			list = append(list, r)
		}
	}
	stored, err := n.store.all(n.ctx)
	for _, r := range stored {
		add(r)
	}
	infos, listErr := n.vault.List()
	for _, i := range infos {
		if i.Problem == nil {
			add(room.Record{Name: i.Room, Tenant: i.Tenant, Policy: i.Policy})
		}
	}
	return list, errors.Join(err, listErr)
}

// packer fills an archive.
type packer struct {
	n           *Node
	w           *prepared.Writer
	z           *sealedzip.Writer
	progress    func(done, total int64)
	done, total int64 // bytes of recordings
	notes       []string
	gaps        [][]any // rows of the table of what is missing in recordings
}

func (p *packer) measure(rooms []room.Record) error {
	for _, rec := range rooms {
		infos, err := p.n.recordingsOf(rec)
		if err != nil {
			return err
		}
		for _, i := range infos {
			p.total += 2 * i.Size()
		}
	}
	return nil
}

// room adds what is kept of one room, if the gate lets it be exported here.
func (p *packer) room(ctx context.Context, rec room.Record, dir string) error {
	if _, err := p.n.mayExport(rec); err != nil {
		p.notes = append(p.notes, fmt.Sprintf("room %q is left out: %v", rec.Name, err))
		return nil
	}
	p.w.Of(prepared.Part{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy})
	now := p.n.now()
	e, err := p.z.Create(dir+"chat.txt", now, true)
	if err == nil {
		_, err = p.n.writeTable(ctx, e, rec, exportChat, "txt")
	}
	var tables []sheet.Table
	for _, kind := range exportTables {
		if err != nil {
			return err
		}
		var t sheet.Table
		var notes []string
		if t, notes, err = p.n.table(ctx, rec, kind); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		for _, note := range notes {
			p.notes = append(p.notes, fmt.Sprintf("%s%s: %s", dir, kind, note))
		}
		tables = append(tables, t)
		if e, err = p.z.Create(dir+kind+".csv", now, true); err == nil {
			err = sheet.CSV(e, t)
		}
	}
	if err == nil {
		e, err = p.z.Create(dir+"records.xlsx", now, false)
	}
	if err == nil {
		err = sheet.XLSX(e, tables...)
	}
	if err != nil {
		return err
	}
	infos, err := p.n.recordingsOf(rec)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if err := p.recording(ctx, rec, i, dir); err != nil {
			return err
		}
	}
	return p.writeGaps(dir)
}

// writeGaps adds the table of what is missing in the recordings of a room.
func (p *packer) writeGaps(dir string) error {
	e, err := p.z.Create(dir+"gaps.csv", p.n.now(), true)
	if err != nil {
		return err
	}
	t := gapTable(p.gaps)
	p.gaps = nil
	return sheet.CSV(e, t)
}

// recording adds a recording with all its tracks. A film's head is written last, an
// archive in order: so it is made, sealed, beside the archive first.
func (p *packer) recording(ctx context.Context, rec room.Record, i vault.Info, dir string) error {
	rec.Policy = i.Policy
	base := p.done
	f, done, err := p.n.exports.Scratch(ctx, rec.Name, func() (residency.Permit, error) { return p.n.mayExport(rec) }, func(w *prepared.Writer) error {
		sum, err := p.n.writeRecording(ctx, w, i.ID, films.ExportOptions{Format: films.MKV, Progress: func(done, total int64) {
			p.progress(base+done, p.total)
		}})
		p.notes = append(p.notes, sum.Notes...)
		p.gaps = append(p.gaps, gapRows(i.ID, sum.Gaps)...)
		return err
	})
	p.done = base + 2*i.Size()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.notes = append(p.notes, fmt.Sprintf("recording %s is left out: %v", i.ID, err))
		return nil
	}
	defer done()
	p.w.Of(prepared.Part{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy})
	e, err := p.z.Create(dir+"recordings/"+i.Started.UTC().Format("2006-01-02 150405")+" "+string(i.ID)+".mkv", i.Started, false)
	if err == nil {
		_, err = io.Copy(e, f)
	}
	return err
}

// exportAdmin is what the operator at the machine asks (domicile export).
func (n *Node) exportAdmin(mux *http.ServeMux) {
	mux.HandleFunc("POST /exports", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.operatorExport(w, r)
		answer(w, v, err)
	})
	mux.HandleFunc("POST /exports/page", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.exportPage(w, r)
		answer(w, v, err)
	})
	mux.HandleFunc("GET /exports/{id}", func(w http.ResponseWriter, r *http.Request) {
		if n.exports == nil {
			answer(w, nil, n.noOrigin())
			return
		}
		s, err := n.exports.Find(prepared.ID(r.PathValue("id")))
		answer(w, n.stateOf(s), notFoundExport(err))
	})
	mux.HandleFunc("DELETE /exports/{id}", func(w http.ResponseWriter, r *http.Request) {
		if n.exports == nil {
			answer(w, nil, n.noOrigin())
			return
		}
		answer(w, struct{}{}, notFoundExport(n.exports.Cancel(prepared.ID(r.PathValue("id")))))
	})
	mux.HandleFunc("GET /exports/{id}/file", func(w http.ResponseWriter, r *http.Request) {
		if err := n.serveExport(w, r); err != nil {
			answer(w, nil, err)
		}
	})
}

// pageTTL is how long the operator's ticket to a room's recordings is good.
const pageTTL = time.Hour

// exportPage gives the operator the page of a room's recordings, with a ticket.
func (n *Node) exportPage(w http.ResponseWriter, r *http.Request) (any, error) {
	var q struct{ Room, Tenant string }
	if err := reading(w, r, &q); err != nil {
		return nil, err
	}
	if err := control.ValidRoomName(q.Room); err != nil {
		return nil, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	for _, key := range slices.Sorted(maps.Keys(n.cfg.Keys)) {
		if n.tenantOf(key) != q.Tenant {
			continue
		}
		token, err := control.MintToken(key, n.cfg.Keys[key], control.Grants{Identity: "operator", Video: &auth.VideoGrant{Room: q.Room, RoomAdmin: true}}, pageTTL, n.now())
		link := strings.TrimRight(n.cfg.PublicURL, "/") + "/?recordings=" + url.QueryEscape(q.Room) + "#token=" + url.QueryEscape(token)
		return map[string]string{"url": link}, err
	}
	return nil, &Refusal{Code: CodePrecondition, Message: fmt.Sprintf("no API key of tenant %q", q.Tenant), Hint: "say whose the room is"}
}

func notFoundExport(err error) error {
	if errors.Is(err, prepared.ErrNotFound) {
		return &Refusal{Code: CodeNotFound, Message: err.Error()}
	}
	return err
}

// operatorExport begins an export for the operator, whose request names the room, the
// recording or the tenant.
func (n *Node) operatorExport(w http.ResponseWriter, r *http.Request) (any, error) {
	var q ExportRequest
	if err := reading(w, r, &q); err != nil {
		return nil, err
	}
	if n.exports == nil {
		return nil, n.noOrigin()
	}
	rec := room.Record{Tenant: q.Tenant}
	switch {
	case q.Kind == exportTenant:
		rec.Policy = n.policyName(rec)
	case q.Kind == exportRecording:
		info, err := n.vault.Info(q.Recording)
		if err != nil {
			return nil, &Refusal{Code: CodeNotFound, Message: err.Error()}
		}
		rec = room.Record{Name: info.Room, Tenant: info.Tenant, Policy: info.Policy}
	default:
		var err error
		if rec, err = n.onceRoom(r.Context(), q.Room, q.Tenant); err != nil {
			return nil, err
		}
	}
	return n.beginExport(r.Context(), rec, q)
}
