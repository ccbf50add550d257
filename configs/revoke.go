package configs

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/domicile/domicile/residency"
)

// Revoke returns the text of a policy file with one more certificate revoked and
// the next epoch. Everything else stays as it is written, comments included. It
// proves so before it returns: what the new text says is what the old one says,
// but for these two.
func Revoke(name string, text []byte, serial string) ([]byte, *residency.Bundle, error) {
	old, err := ParsePolicy(name, text)
	if err != nil {
		return nil, nil, err
	}
	if old.Revokes(serial) {
		return nil, nil, fmt.Errorf("revoke certificate %s: %s does so already, with epoch %d", serial, name, old.Epoch)
	}
	next, err := revokeIn(text, serial, uint64(old.Epoch)+1)
	if err != nil {
		return nil, nil, fmt.Errorf("revoke certificate %s in %s: %w", serial, name, err)
	}
	b, err := ParsePolicy(name, next)
	if err != nil {
		return nil, nil, fmt.Errorf("revoke certificate %s: the file would not be a policy any more: %w", serial, err)
	}
	want := *old
	want.Epoch++
	want.Revoked = append(slices.Clone(old.Revoked), serial)
	if !reflect.DeepEqual(*b, want) {
		return nil, nil, fmt.Errorf("revoke certificate %s: %s cannot be edited without changing more than that: add the serial number to \"revoked\" by hand and raise the epoch", serial, name)
	}
	return next, b, nil
}

// revokeIn edits two places of the text, found by the parser, and no other byte.
func revokeIn(text []byte, serial string, epoch uint64) ([]byte, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, err
	}
	if len(file.Docs) != 1 {
		return nil, fmt.Errorf("it holds %d documents", len(file.Docs))
	}
	root, ok := file.Docs[0].Body.(*ast.MappingNode)
	if !ok {
		return nil, errors.New("it is not a mapping")
	}
	var edits []edit
	listed := false
	for _, v := range root.Values {
		switch v.Key.String() {
		case "epoch":
			e, err := replaceToken(text, v.Value.GetToken(), strconv.FormatUint(epoch, 10))
			if err != nil {
				return nil, err
			}
			edits = append(edits, e)
		case "revoked":
			listed = true
			e, err := addTo(text, v.Value, serial)
			if err != nil {
				return nil, err
			}
			edits = append(edits, e)
		}
	}
	if !listed {
		end := bytes.TrimRight(text, "\n")
		edits = append(edits, edit{len(end), len(text), fmt.Sprintf("\nrevoked:\n  - %q\n", serial)})
	}
	return apply(text, edits), nil
}

// edit replaces text[from:to].
type edit struct {
	from, to int
	with     string
}

func apply(text []byte, edits []edit) []byte {
	slices.SortFunc(edits, func(a, b edit) int { return b.from - a.from })
	out := slices.Clone(text)
	for _, e := range edits {
		out = slices.Concat(out[:e.from], []byte(e.with), out[e.to:])
	}
	return out
}

// addTo adds a serial number to a list in either of YAML's forms.
func addTo(text []byte, list ast.Node, serial string) (edit, error) {
	seq, ok := list.(*ast.SequenceNode)
	if !ok {
		if _, null := list.(*ast.NullNode); null {
			return edit{}, errors.New("\"revoked\" is empty: write [] there")
		}
		return edit{}, errors.New("\"revoked\" is no list")
	}
	if seq.IsFlowStyle {
		at, err := offset(text, seq.End)
		if err != nil {
			return edit{}, err
		}
		comma := ", "
		if len(seq.Values) == 0 {
			comma = ""
		}
		return edit{at, at, fmt.Sprintf("%s%q", comma, serial)}, nil
	}
	if len(seq.Values) == 0 {
		return edit{}, errors.New("\"revoked\" is empty: write [] there")
	}
	// A line of its own before the first, with the dash where the first has it.
	at, err := offset(text, seq.Start)
	if err != nil {
		return edit{}, err
	}
	line := bytes.LastIndexByte(text[:at], '\n') + 1
	last, err := offset(text, seq.Values[len(seq.Values)-1].GetToken())
	if err != nil {
		return edit{}, err
	}
	end := len(text)
	if i := bytes.IndexByte(text[last:], '\n'); i >= 0 {
		end = last + i
	}
	return edit{end, end, fmt.Sprintf("\n%s- %q", text[line:at], serial)}, nil
}

// replaceToken replaces one scalar.
func replaceToken(text []byte, t *token.Token, with string) (edit, error) {
	at, err := offset(text, t)
	return edit{at, at + len(t.Value), with}, err
}

// offset finds a token's first byte by its line and column, and makes sure that it
// stands there: what the parser counts are characters, and the rest of an edit
// that misses would be worse than none.
func offset(text []byte, t *token.Token) (int, error) {
	rest, at := text, 0
	for range t.Position.Line - 1 {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return 0, fmt.Errorf("line %d is not there", t.Position.Line)
		}
		rest, at = rest[i+1:], at+i+1
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	runes := []rune(string(line))
	if t.Position.Column < 1 || t.Position.Column > len(runes)+1 {
		return 0, fmt.Errorf("line %d has no column %d", t.Position.Line, t.Position.Column)
	}
	at += len(string(runes[:t.Position.Column-1]))
	for _, quote := range []string{"", "\"", "'"} {
		if bytes.HasPrefix(text[at:], []byte(quote+t.Value)) {
			return at, nil
		}
	}
	return 0, fmt.Errorf("line %d, column %d: want %q there", t.Position.Line, t.Position.Column, t.Value)
}
