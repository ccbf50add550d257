package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/report"
	"github.com/domicile/domicile/residency/evidence/verify"
	"github.com/domicile/domicile/residency/identity"
)

type evidenceCmd struct {
	Export evidenceExportCmd `cmd:"" help:"Write the evidence of a room, from the running origin that keeps it, to one file."`
	Verify evidenceVerifyCmd `cmd:"" help:"Check a file of evidence offline. Exits with 0 if all is proved, 3 if something is missing, 1 if something is wrong."`
	Report evidenceReportCmd `cmd:"" help:"Write what a file of evidence proves for people: English or German, HTML or text."`
	Show   evidenceShowCmd   `cmd:"" help:"Print the receipts in a file of evidence as JSON, a line each. Nothing is checked."`
}

type evidenceExportCmd struct {
	target
	Room   string `required:"" help:"The room's name, or its id, RM_…; ended rooms have an id only."`
	Output string `short:"o" type:"path" help:"The file to write. Default: the room with the ending .evidence."`
}

// Run asks the node and writes what it says, unread.
func (c *evidenceExportCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	b, err := askBytes(ctx, dir, "/evidence/export", url.Values{"room": {c.Room}}, evidence.MaxFile)
	if err != nil {
		return err
	}
	path := c.Output
	if path == "" {
		path = filepath.Base(filepath.Clean("/"+c.Room)) + ".evidence"
	}
	// It names the room and holds the key of its pseudonym: not for everybody.
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("export evidence: %w", err)
	}
	fmt.Println(path)
	return nil
}

// evidenceFile says which file, and whom its reader trusts.
type evidenceFile struct {
	Files []string `arg:"" name:"file" type:"existingfile" help:"The file of evidence; several of one room if several origins have been its home."`
	CA    string   `name:"ca" required:"" type:"existingfile" placeholder:"ca.pem" help:"The certificates of the operator's authorities, from the operator and not from the file's sender."`
	Heads []string `name:"heads" type:"existingfile" placeholder:"FILE" help:"Files with signed heads of the log that somebody else holds, a line each: the log must go with them."`
}

// check reads the file and verifies it.
func (f evidenceFile) check() (*verify.Result, error) {
	cas, err := identity.LoadCertificates(f.CA)
	if err != nil {
		return nil, err
	}
	var files [][]byte
	for _, path := range f.Files {
		b, err := readEvidence(path)
		if err != nil {
			return nil, err
		}
		files = append(files, b)
	}
	o := verify.Options{Roots: cas, Parse: parsePolicy}
	for _, path := range f.Heads {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read heads: %w", err)
		}
		for line := range bytes.Lines(text) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				o.Held = append(o.Held, string(line))
			}
		}
	}
	return verify.Files(files, o), nil
}

func parsePolicy(b []byte) (*residency.Bundle, error) {
	return configs.ParsePolicy("policy in the evidence", b)
}

func readEvidence(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, evidence.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	return b, nil
}

type evidenceVerifyCmd struct {
	evidenceFile
	Lang string `enum:"en,de" default:"en" help:"Language: en or de."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// exitMissing says that nothing is wrong and something is missing.
const exitMissing = 3

// Run prints what was found in words.
func (c *evidenceVerifyCmd) Run() error {
	r, err := c.check()
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(r)
	} else {
		_, err = os.Stdout.Write(report.Summary(r, verify.Lang(c.Lang)))
	}
	if err != nil {
		return err
	}
	switch r.Worst() {
	case verify.None:
		return nil
	case verify.Gap:
		return silent(exitMissing)
	}
	return silent(exitFailed)
}

// silent is an exit code of a command that has said all there is to say.
type silent int

func (s silent) Error() string { return fmt.Sprintf("exit code %d", int(s)) }

type evidenceReportCmd struct {
	evidenceFile
	Lang   string `enum:"en,de" default:"en" help:"Language: en or de."`
	Format string `enum:"html,text" default:"html" help:"html (one page that needs nothing else, also for printing) or text."`
	Output string `short:"o" type:"path" help:"The file to write. Default: to the terminal."`
}

// Run writes the report, whatever it says.
func (c *evidenceReportCmd) Run() error {
	r, err := c.check()
	if err != nil {
		return err
	}
	b := report.Text(r, verify.Lang(c.Lang))
	if c.Format == "html" {
		if b, err = report.HTML(r, verify.Lang(c.Lang)); err != nil {
			return err
		}
	}
	if c.Output == "" {
		_, err = os.Stdout.Write(b)
		return err
	}
	if err := os.WriteFile(c.Output, b, 0o600); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	fmt.Println(c.Output)
	return nil
}

type evidenceShowCmd struct {
	File string `arg:"" type:"existingfile" help:"The file of evidence."`
}

// Run prints each receipt as its node wrote it, without the signature.
func (c *evidenceShowCmd) Run() error {
	b, err := readEvidence(c.File)
	if err != nil {
		return err
	}
	f, err := evidence.ReadFile(b)
	if err != nil {
		return err
	}
	for _, l := range f.Logs {
		for _, line := range l.Receipts {
			body, _, _ := bytes.Cut(line.Signed, []byte("} "))
			fmt.Printf("%s}\n", body)
		}
	}
	return nil
}
