package sheet

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/xuri/excelize/v2"
)

var nasty = []string{"=1+1", "+49 30 123", "-2", "@SUM(A1)", "\t=1+1", "\r=1", " =1+1", "\n=1", "|cmd", "%x", "＝1+1", `=HYPERLINK("http://x","y")`,
	"plain", "", "a,b", "say \"hi\"", "two\nlines", "Zoë 🎉", "a=b", "'quoted", "nul\x00byte"}

func table() Table {
	t := Table{Name: "Chat", Header: []string{"at", "text", "n", "part"}}
	for i, s := range nasty {
		t.Rows = append(t.Rows, []any{time.Date(2026, 3, 1, 10, i, 0, 0, time.UTC), s, int64(-i), 0.5})
	}
	return t
}

// neutral reports whether no spreadsheet takes a text for a formula.
func neutral(s string) bool {
	s = strings.TrimLeft(s, " \t\r\n")
	return s == "" || !strings.ContainsRune("=+-@|%＝＋－＠", []rune(s)[0])
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	if err := CSV(&b, table()); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != len(nasty)+1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, r := range rows[1:] {
		if !neutral(r[1]) || r[0] != time.Date(2026, 3, 1, 10, i, 0, 0, time.UTC).Format(time.RFC3339) {
			t.Errorf("%q became %q", nasty[i], r)
		}
		want := strings.NewReplacer("\r", "", "\x00", "").Replace(nasty[i])
		if got := strings.ReplaceAll(r[1], "\r", ""); got != want && got != "'"+want {
			t.Errorf("%q became %q", want, got)
		}
	}
}

// TestXLSX reads the workbook as a spreadsheet does, and looks for formulas in its XML.
func TestXLSX(t *testing.T) {
	var b bytes.Buffer
	second := table()
	second.Name = "People"
	if err := XLSX(&b, table(), second); err != nil {
		t.Fatal(err)
	}
	f, err := excelize.OpenReader(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{"Chat", "People"} {
		rows, err := f.GetRows(name)
		if err != nil || len(rows) != len(nasty)+1 {
			t.Fatalf("%s: %d rows, %v", name, len(rows), err)
		}
		for i, r := range rows[1:] {
			if !neutral(r[1]) || r[3] != "0.5" {
				t.Errorf("%q became %q", nasty[i], r)
			}
		}
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range z.File {
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		x, err := io.ReadAll(r)
		if err != nil || strings.HasPrefix(e.Name, "xl/worksheets/") && bytes.Contains(x, []byte("<f")) {
			t.Errorf("%s holds a formula (%v)", e.Name, err)
		}
		r.Close()
	}
}
