package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/node/prepared"
	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/residency/vault"
)

type exportCmd struct {
	target
	Kind         string `arg:"" enum:"recording,chat,attendance,registrations,consents,statistics,room,tenant" help:"What: recording, chat, attendance, registrations, consents, statistics; room or tenant: all of it, as ZIP."`
	Of           string `arg:"" optional:"" help:"Of which recording (RE_…), room or tenant."`
	Output       string `short:"o" type:"path" help:"The file to write. Default: the export's own name, here."`
	Format       string `help:"mkv, webm or mp4; csv, xlsx or txt. Default: mkv, and csv."`
	View         string `enum:"grid,speaker," default:"" help:"Compose one picture: everybody (grid), or who speaks (speaker)."`
	Participant  string `help:"Of a recording: this identity's tracks alone."`
	Track        string `help:"Of a recording: this track alone."`
	Tenant       string `help:"Whose the room is, where rooms have tenants."`
	PasswordFile string `type:"existingfile" help:"A file with the password of the ZIP (AES-256), at least 12 bytes."`
	Link         bool   `help:"Leave the export on the node and print a link to it, which ends."`
	Days         int    `help:"How long the link is good. Default: 30 days."`
	Quiet        bool   `short:"q" help:"Show no progress."`
}

// request is what the node is asked for.
func (c *exportCmd) request() (node.ExportRequest, error) {
	q := node.ExportRequest{Kind: c.Kind, Format: c.Format, View: record.View(c.View), Participant: c.Participant, Track: vault.TrackID(c.Track), Tenant: c.Tenant, Days: c.Days}
	switch {
	case c.Of == "" && c.Kind != "tenant":
		return q, usage("export %s: say of which", c.Kind)
	case c.Kind == "recording":
		q.Recording = vault.ID(c.Of)
	case c.Kind == "tenant":
		q.Tenant = cmp.Or(c.Of, c.Tenant)
	default:
		q.Room = c.Of
	}
	if c.PasswordFile != "" {
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return q, err
		}
		q.Password = strings.TrimRight(string(b), "\r\n")
	}
	return q, nil
}

// Run has the node prepare an export, and fetches it.
func (c *exportCmd) Run(ctx context.Context) error {
	q, err := c.request()
	if err != nil {
		return err
	}
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	var s node.ExportState
	if err := tell(ctx, dir, "/exports", q, &s); err != nil {
		return err
	}
	if s, err = c.wait(ctx, dir, s); err != nil {
		return err
	}
	for _, note := range s.Notes {
		fmt.Fprintln(os.Stderr, "note:", note)
	}
	if c.Link {
		fmt.Println(s.URL)
		fmt.Fprintf(os.Stderr, "good until %s, at this node's address\n", s.Expires.Local().Format(time.DateTime))
		return nil
	}
	defer drop(dir, s.ID)
	path := cmp.Or(c.Output, s.Name)
	if err := download(ctx, dir, s, path); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

// wait follows an export until it is done; who gives up ends it.
func (c *exportCmd) wait(ctx context.Context, dir string, s node.ExportState) (node.ExportState, error) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	show := progress()
	for s.State == prepared.Waiting || s.State == prepared.Running {
		if !c.Quiet {
			show(s.Done, s.Total)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			drop(dir, s.ID)
			return s, ctx.Err()
		}
		if err := ask(ctx, dir, "/exports/"+string(s.ID), nil, &s); err != nil {
			drop(dir, s.ID)
			return s, err
		}
	}
	if !c.Quiet {
		show(1, 1)
		fmt.Fprintln(os.Stderr)
	}
	if s.State == prepared.Failed {
		return s, fmt.Errorf("export: %s", s.Problem)
	}
	return s, nil
}

// drop takes an export away that nobody wants any more; the node forgets it by itself
// if it does not hear that.
func drop(dir string, id prepared.ID) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	call(ctx, dir, http.MethodDelete, "/exports/"+string(id), nil, maxAnswer) //nolint:errcheck // see above
}

// download writes the export to a file, which appears when it is complete.
func download(ctx context.Context, dir string, s node.ExportState, path string) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return node.DialAdmin(ctx, dir) }}}
	defer client.CloseIdleConnections()
	_, query, _ := strings.Cut(s.URL, "?")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/exports/"+string(s.ID)+"/file?"+query, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("fetch the export: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch the export: %s", resp.Status)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	n, err := io.Copy(f, resp.Body)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && n != s.Size {
		err = fmt.Errorf("%d bytes of %d", n, s.Size)
	}
	if err != nil {
		return fmt.Errorf("fetch the export: %w", err)
	}
	return os.Rename(f.Name(), path)
}
