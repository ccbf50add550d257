// Package configs reads the files an operator writes: node.yaml, one per node,
// policy.yaml, one for the mesh, and routing.yaml, for a mesh or a node.
//
// It is strict. A key it does not know, a key given twice, a list that is empty
// where a set of countries is meant, a country that YAML may take for false:
// each is a fault with file, line, column, the faulty text and what is allowed,
// and all faults of a file are reported at once. It refuses anchors, aliases,
// merge keys and tags, so a value is what stands at its place. It fills in
// defaults and never guesses.
package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Fault is one thing wrong with a file.
type Fault struct {
	File         string
	Line, Column int    // from 1; 0 if the fault has no place in the file
	Message      string // what is wrong
	Text         string // the faulty text; empty if there is none or it is secret
	Allowed      string // what may stand there, if that can be said
	Hint         string // how to mend it, if Allowed does not say so
	Source       string // the line as it stands in the file; empty if it may hold a secret
}

// Error writes the fault as `file:line:column: message: "text"; allowed: …`, then
// the line with a caret under the place, then the hint.
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": " + f.Message)
	if f.Text != "" {
		fmt.Fprintf(&b, ": %q", shorten(f.Text))
	}
	if f.Allowed != "" {
		b.WriteString("; allowed: " + f.Allowed)
	}
	if f.Source != "" {
		number := fmt.Sprint(f.Line)
		line, caret := excerpt(f.Source, f.Column)
		fmt.Fprintf(&b, "\n  %s | %s\n  %*s | %s^", number, line, len(number), "", caret)
	}
	if f.Hint != "" {
		b.WriteString("\n  hint: " + f.Hint)
	}
	return b.String()
}

// maxText bounds how much of a faulty text is shown, in characters.
const maxText = 80

func shorten(s string) string {
	if utf8.RuneCountInString(s) <= maxText {
		return s
	}
	return string([]rune(s)[:maxText]) + "…"
}

// excerpt returns the part of a line around a column (from 1), fit for a
// terminal, and the space that puts a caret under that column.
func excerpt(line string, column int) (text, space string) {
	runes := []rune(strings.TrimRight(line, "\r"))
	at := min(max(column-1, 0), len(runes))
	from := max(0, at-maxText)
	to := min(len(runes), at+maxText)
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = ' ' // tabs too: the caret stays under its character
		}
	}
	return strings.TrimRight(string(runes[from:to]), " "), strings.Repeat(" ", at-from)
}

// Faults is all that is wrong with a file, in the order of its lines.
type Faults []Fault

// Error writes the faults one below the other.
func (f Faults) Error() string {
	texts := make([]string, len(f))
	for i := range f {
		texts[i] = f[i].Error()
	}
	return strings.Join(texts, "\n")
}

// sorted orders faults by file and place and returns them as an error, nil if
// there are none.
func (f Faults) sorted() error {
	if len(f) == 0 {
		return nil
	}
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return f
}
