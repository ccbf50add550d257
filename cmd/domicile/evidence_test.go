package main

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/evidencetest"
)

// makeEvidence writes ca.pem and a room's evidence: evidence FILE [unfinished]
func makeEvidence(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: evidence FILE [unfinished]")
	}
	ts.Check(os.RemoveAll(ts.MkAbs("ca")))
	m, err := evidencetest.New(ts.MkAbs("ca"), 3, true, evidencetest.PolicyText, parsePolicy)
	ts.Check(err)
	receipts, err := m.Receipts(evidencetest.Shape{SID: "RM_a", Minutes: 2, Seed: 1})
	ts.Check(err)
	if len(args) == 2 {
		kept := receipts[:0:0]
		for _, r := range receipts {
			if says, err := evidence.Peek(r.Line); err == nil && !says.Final {
				kept = append(kept, r)
			}
		}
		receipts = kept
	}
	dir, err := os.MkdirTemp(ts.MkAbs("."), "log")
	ts.Check(err)
	l, err := m.Log(dir, receipts)
	ts.Check(err)
	defer l.Close()
	b, err := m.Export(l, "RM_a")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
	ca, err := os.ReadFile(filepath.Join(ts.MkAbs("ca"), "ca.pem"))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), ca, 0o600))
}

// tamper copies a file and changes one letter: tamper FILE COPY
func tamper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tamper FILE COPY")
	}
	b := []byte(ts.ReadFile(args[0]))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), bytes.Replace(b, []byte(`"side":"sent"`), []byte(`"side":"seen"`), 1), 0o600))
}
