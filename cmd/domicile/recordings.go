package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/residency/vault"
)

type recordingsCmd struct {
	List   recordingsListCmd   `cmd:"" help:"List the recordings on this node."`
	Export recordingsExportCmd `cmd:"" help:"Write a recording to a file that players open."`
	Page   recordingsPageCmd   `cmd:"" help:"Print a link to the page on which a room's recordings are listed, watched and exported, good for an hour."`
	Verify recordingsVerifyCmd `cmd:"" help:"Check that a recording is complete and unchanged."`
	Erase  recordingsEraseCmd  `cmd:"" help:"Erase a recording on every origin, also one that cannot be read. Exit code 3: something is under legal hold."`
}

// errNoVault is returned where nothing has ever been recorded.
var errNoVault = errors.New("no recordings on this node")

// open opens the vault of the node; the node may be running. It makes none: an
// edge has no place for recordings, and keys made by root would lock the node out.
func (t target) open() (*vault.Vault, error) {
	dir, err := t.dataDir()
	if err != nil {
		return nil, err
	}
	for _, part := range []string{"keys", "recordings"} {
		if _, err := os.Stat(filepath.Join(dir, part)); errors.Is(err, fs.ErrNotExist) {
			return nil, errNoVault
		}
	}
	keys, err := vault.OpenKeyStore(filepath.Join(dir, "keys"))
	if err != nil {
		return nil, err
	}
	return vault.Open(filepath.Join(dir, "recordings"), keys, vault.Options{ReadOnly: true})
}

// read opens one recording by the id that the user typed.
func (t target) read(id string) (*vault.Reader, error) {
	v, err := t.open()
	if err != nil {
		return nil, err
	}
	rid, err := vault.ParseID(id)
	if err != nil {
		return nil, err
	}
	return v.Read(rid)
}

type recordingsListCmd struct {
	target
	JSON bool `name:"json" help:"Print JSON."`
}

type recordingLine struct {
	ID      vault.ID    `json:"id"`
	Room    string      `json:"room"`
	Policy  string      `json:"policy"`
	Node    string      `json:"node"`
	Country string      `json:"country"`
	Started time.Time   `json:"started"`
	Ended   *time.Time  `json:"ended,omitempty"`
	State   vault.State `json:"state"`
	Tracks  int         `json:"tracks"`
	Bytes   int64       `json:"bytes"`
	Problem string      `json:"problem,omitempty"`

	// Of a recording that goes on from another, whose node was lost.
	Part  int      `json:"part,omitempty"`
	After vault.ID `json:"after,omitempty"`
	GapMS int64    `json:"gap_ms,omitempty"` // at most so much is in neither
}

// Run prints one line a recording.
func (c *recordingsListCmd) Run() error {
	var infos []vault.Info
	v, err := c.open()
	if err == nil {
		infos, err = v.List()
	}
	if err != nil && !errors.Is(err, errNoVault) {
		return err
	}
	lines := make([]recordingLine, 0, len(infos))
	for _, i := range infos {
		lines = append(lines, lineOf(i))
	}
	if c.JSON {
		return printJSON(lines)
	}
	if len(lines) == 0 {
		fmt.Fprintln(os.Stderr, "no recordings")
		return nil
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tROOM\tSTATE\tSTARTED\tLENGTH\tTRACKS\tBYTES\tNODE")
	for i, l := range lines {
		length := "-"
		if l.Ended != nil {
			length = l.Ended.Sub(l.Started).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s (%s)\n", l.ID, l.Room, l.State,
			l.Started.Local().Format(time.DateTime), length, l.Tracks, l.Bytes, l.Node, l.Country)
		if l.Problem != "" {
			fmt.Fprintf(w, "\t%s\n", l.Problem)
		}
		if infos[i].After != nil {
			fmt.Fprintf(w, "\t%s\n", goesOn(infos[i].After))
		}
	}
	return w.Flush()
}

// goesOn says in words which recording another one goes on from.
func goesOn(a *vault.After) string {
	return fmt.Sprintf("part %d, goes on from %s of node %s; up to %s are in neither", a.Part, a.ID, a.Node, a.Gap.Round(100*time.Millisecond))
}

func lineOf(i vault.Info) recordingLine {
	l := recordingLine{ID: i.ID, Room: i.Room, Policy: i.Policy, Node: string(i.Node), Country: string(i.Country),
		Started: i.Started, State: i.State, Tracks: len(i.Tracks), Bytes: i.Size()}
	if !i.Ended.IsZero() {
		l.Ended = &i.Ended
	}
	if i.Problem != nil {
		l.Problem = i.Problem.Error()
	}
	if i.After != nil {
		l.Part, l.After, l.GapMS = i.After.Part, i.After.ID, i.After.Gap.Milliseconds()
	}
	return l
}

type recordingsExportCmd struct {
	target
	ID          string `arg:"" help:"The recording, RE_…"`
	Output      string `short:"o" type:"path" help:"The file to write. Default: the recording's id with the format's ending."`
	Format      string `enum:"mkv,webm,mp4," default:"" help:"mkv or webm (as it was sent), mp4 (encoded again by ffmpeg). Default: by the file's ending, else mkv."`
	View        string `enum:"grid,speaker," default:"" help:"Compose one picture, as mp4: everybody (grid), or who speaks (speaker)."`
	Track       string `help:"Only this track."`
	Participant string `help:"Only the tracks of this identity."`
	Quiet       bool   `short:"q" help:"Show no progress."`
}

// Run exports the recording.
func (c *recordingsExportCmd) Run(ctx context.Context) error {
	r, err := c.read(c.ID)
	if err != nil {
		return err
	}
	format := record.Format(c.Format)
	if format == "" {
		format = record.MKV
		switch ext := filepath.Ext(c.Output); {
		case ext == ".mp4" || c.View != "":
			format = record.MP4
		case ext == ".webm":
			format = record.WebM
		}
	}
	path := c.Output
	if path == "" {
		path = c.ID + "." + string(format)
	}
	opts := record.ExportOptions{Path: path, Format: format, View: record.View(c.View), Participant: c.Participant, Track: vault.TrackID(c.Track)}
	if !c.Quiet {
		opts.Progress = progress()
	}
	summary, err := record.Export(ctx, r, opts)
	if !c.Quiet {
		fmt.Fprintln(os.Stderr)
	}
	if err != nil {
		return err
	}
	if a := r.Info.After; a != nil {
		fmt.Fprintln(os.Stderr, "note:", goesOn(a))
	}
	for _, note := range summary.Notes {
		fmt.Fprintln(os.Stderr, "note:", note)
	}
	fmt.Println(path)
	return nil
}

// progress draws one line that grows.
func progress() func(done, total int64) {
	last := int64(-1)
	return func(done, total int64) {
		if total <= 0 {
			return
		}
		if p := min(100, done*100/total); p != last {
			last = p
			fmt.Fprintf(os.Stderr, "\rexporting: %3d %%", p)
		}
	}
}

type recordingsVerifyCmd struct {
	target
	ID string `arg:"" help:"The recording, RE_…"`
}

// Run opens every cluster of the recording.
func (c *recordingsVerifyCmd) Run(ctx context.Context) error {
	r, err := c.read(c.ID)
	if err != nil {
		return err
	}
	checks, err := record.Verify(ctx, r)
	if err != nil {
		return err
	}
	if a := r.Info.After; a != nil {
		fmt.Fprintln(os.Stderr, "note:", goesOn(a))
	}
	return printJSON(checks)
}

type recordingsPageCmd struct {
	target
	Room   string `arg:"" help:"The room."`
	Tenant string `help:"Whose the room is, where rooms have tenants."`
}

// Run prints the link.
func (c *recordingsPageCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	var out struct{ URL string }
	if err := tell(ctx, dir, "/exports/page", map[string]string{"Room": c.Room, "Tenant": c.Tenant}, &out); err != nil {
		return err
	}
	fmt.Println(out.URL)
	return nil
}

type recordingsEraseCmd struct {
	target
	ID     string        `arg:"" help:"The recording, or a file of chat, attendance, registrations or consents that cannot be read: RE_…"`
	Reason string        `help:"A file number or the like, kept with it on every origin. No names."`
	Yes    bool          `help:"Do not ask."`
	Wait   time.Duration `default:"60s" help:"How long to wait for the origins that are there."`
	JSON   bool          `name:"json" help:"Print JSON."`
}

// Run does what domicile erase --recording does.
func (c *recordingsEraseCmd) Run(ctx context.Context) error {
	e := eraseCmd{target: c.target, subject: subject{Reason: c.Reason}, Recording: c.ID, Yes: c.Yes, Wait: c.Wait, JSON: c.JSON}
	return e.Run(ctx)
}
