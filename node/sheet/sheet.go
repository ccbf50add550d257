// Package sheet writes tables as spreadsheets read them: CSV and XLSX. What people
// wrote is never a formula in it, whatever it begins with.
//
// It knows nothing of what the tables tell, and keeps a table in memory: a meeting's
// records are some megabytes.
package sheet

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xuri/excelize/v2"
)

// Table is a header and rows. A cell is a string, an int64, a float64 or a time.
type Table struct {
	Name   string // of the sheet
	Header []string
	Rows   [][]any
}

// maxCell is the length of a text that a cell of XLSX holds, in characters (ECMA-376
// leaves it open; spreadsheets end there).
const maxCell = 32_767

// Text keeps a spreadsheet from taking for a formula what somebody wrote: one that
// begins with a sign of a formula, also behind spaces, gets an apostrophe before it.
// The full-width signs are those that spreadsheets of East Asia take for the others.
func Text(s string) string {
	if strings.ContainsAny(s, "\t\r") && (s[0] == '\t' || s[0] == '\r') {
		return "'" + s
	}
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(s, " \t\r\n\u00a0"))
	if strings.ContainsRune("=+-@|%＝＋－＠", first) {
		return "'" + s
	}
	return s
}

// cell is how a value is written as text.
func cell(v any) string {
	switch v := v.(type) {
	case string:
		return Text(strings.ReplaceAll(v, "\x00", ""))
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.UTC().Format(time.RFC3339)
	}
	return fmt.Sprint(v)
}

// CSV writes a table as RFC 4180 has it, in UTF-8.
func CSV(w io.Writer, t Table) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write(t.Header); err != nil {
		return err
	}
	row := make([]string, 0, len(t.Header))
	for _, cells := range t.Rows {
		row = row[:0]
		for _, c := range cells {
			row = append(row, cell(c))
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// XLSX writes tables as the sheets of one workbook (ECMA-376). Numbers are numbers,
// times are text in UTC: spreadsheets would show them in a zone of their own.
func XLSX(w io.Writer, tables ...Table) (err error) {
	f := excelize.NewFile()
	defer f.Close()
	for i, t := range tables {
		if i == 0 {
			err = f.SetSheetName("Sheet1", t.Name)
		} else {
			_, err = f.NewSheet(t.Name)
		}
		if err == nil {
			err = fill(f, t)
		}
		if err != nil {
			return fmt.Errorf("sheet %q: %w", t.Name, err)
		}
	}
	return f.Write(w)
}

func fill(f *excelize.File, t Table) error {
	header := make([]any, len(t.Header))
	for i, h := range t.Header {
		header[i] = h
	}
	if err := f.SetSheetRow(t.Name, "A1", &header); err != nil {
		return err
	}
	for i, cells := range t.Rows {
		row := make([]any, len(cells))
		for k, c := range cells {
			switch c.(type) {
			case int64, float64:
				row[k] = c
			default:
				s := []rune(cell(c))
				row[k] = string(s[:min(len(s), maxCell)])
			}
		}
		if err := f.SetSheetRow(t.Name, fmt.Sprintf("A%d", i+2), &row); err != nil {
			return err
		}
	}
	return nil
}
