package configs

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxFile bounds a file, in bytes. A policy for hundreds of nodes has a
	// tenth of it.
	maxFile = 1 << 20

	// maxDepth bounds how deep values nest on a line; our files need five. The
	// parser recurses, so a file of brackets could exhaust the stack. Nesting by
	// indentation needs no bound of its own: it takes the square of its depth in
	// bytes.
	maxDepth = 32

	// maxFaults bounds what is reported of one file: after so many, mending the
	// first ones helps more than reading on.
	maxFaults = 50
)

// document is a file being read: its lines, where its values stand, and what is
// wrong with it.
type document struct {
	file   string
	lines  []string
	places map[string]place // by path, such as "listen.https" or "nodes.0.name"
	keys   map[string]place // likewise, of the keys before the values
	faulty map[string]bool  // paths with a fault: one is enough for each
	faults Faults
}

func newDocument(file string) *document {
	return &document{file: file, places: map[string]place{}, keys: map[string]place{}, faulty: map[string]bool{}}
}

// place is where a value stands, and its text.
type place struct {
	line, column int
	text         string
	secret       bool // the text must not be shown
}

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > maxFile {
		return nil, tooLarge(path, info.Size())
	}
	return os.ReadFile(path)
}

func tooLarge(file string, size int64) Faults {
	return Faults{{File: file, Message: fmt.Sprintf("the file has %d bytes", size), Allowed: fmt.Sprintf("at most %d", maxFile)}}
}

// parse reads the one mapping that a file holds. On faults of syntax the
// mapping is nil and the document says what they are.
func parse(file string, b []byte) (*document, *ast.MappingNode) {
	d := newDocument(file)
	switch {
	case len(b) > maxFile:
		d.faults = tooLarge(file, int64(len(b)))
		return d, nil
	case !utf8.Valid(b) || strings.ContainsRune(string(b), 0):
		d.add(Fault{Message: "the file is not UTF-8 text"})
		return d, nil
	}
	d.lines = strings.Split(string(b), "\n")
	root, err := d.parseRoot(string(b))
	if err != nil {
		d.syntax(err)
	}
	return d, root
}

func (d *document) parseRoot(text string) (root *ast.MappingNode, err error) {
	// The parser is someone else's; an operator's typo must not end the process.
	defer func() {
		if r := recover(); r != nil {
			root, err = nil, fmt.Errorf("the YAML parser failed: %v", r)
		}
	}()
	tokens := lexer.Tokenize(text)
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // duplicates are ours to report
	if err != nil {
		return nil, err
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return nil, errors.New("the file is empty")
	case 1:
		if root := asMapping(bodies[0]); root != nil {
			return root, nil
		}
		return nil, &yaml.SyntaxError{Message: "the file holds no mapping of keys to values", Token: firstToken(bodies[0])}
	}
	return nil, &yaml.SyntaxError{Message: "a second YAML document begins; a file holds one", Token: firstToken(bodies[1])}
}

// checkTokens refuses what must not reach the parser or the reader behind it.
func checkTokens(tokens token.Tokens) error {
	flow, line, dashes := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			dashes++
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return &yaml.SyntaxError{Message: "anchors, aliases and merge keys are not used here; write the value out", Token: t}
		case token.TagType, token.DirectiveType:
			return &yaml.SyntaxError{Message: "tags and directives are not used here; quote what is text", Token: t}
		}
		if max(flow, dashes) > maxDepth {
			return &yaml.SyntaxError{Message: fmt.Sprintf("nested deeper than %d levels", maxDepth), Token: t}
		}
	}
	return nil
}

// secretLike finds what may be a key in a line of which nothing is known but
// that it does not parse.
var secretLike = regexp.MustCompile(`[A-Za-z0-9+/=_-]{16,}`)

func (d *document) syntax(err error) {
	f := Fault{Message: err.Error()}
	var s *yaml.SyntaxError
	if errors.As(err, &s) && s.Token != nil {
		f.Message = s.Message
		f.Line, f.Column = s.Token.Position.Line, s.Token.Position.Column
		hide := func(s string) string { return strings.Repeat("…", utf8.RuneCountInString(s)) }
		f.Source = secretLike.ReplaceAllStringFunc(d.line(f.Line), hide)
	}
	f.Message = secretLike.ReplaceAllString(f.Message, "…")
	d.add(f)
}

func (d *document) line(n int) string {
	if n < 1 || n > len(d.lines) {
		return ""
	}
	return d.lines[n-1]
}

func (d *document) add(f Fault) {
	f.File = d.file
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, f)
	}
}

// faultIn adds a fault with place and text.
func (d *document) faultIn(p place, f Fault) {
	f.Line, f.Column = p.line, p.column
	if !p.secret {
		f.Text, f.Source = p.text, d.line(p.line)
	}
	d.add(f)
}

// fault adds a fault of the value at a path, the first one of each path. If
// nothing stands there, the place is that of the nearest key around it.
func (d *document) fault(path string, f Fault) {
	p, ok := d.places[path]
	if ok && d.faulty[path] {
		return
	}
	d.faulty[path] = ok
	for !ok && path != "" {
		path = path[:max(0, strings.LastIndexByte(path, '.'))]
		if p, ok = d.keys[path]; ok {
			p.text = ""
		}
	}
	if !ok {
		f.Line, f.Column = 1, 1 // the file as a whole
		d.add(f)
		return
	}
	d.faultIn(p, f)
}

// faultf adds a fault that needs no more than a message.
func (d *document) faultf(path, format string, a ...any) {
	d.fault(path, Fault{Message: fmt.Sprintf(format, a...)})
}

// faultKey adds a fault of the key at a path rather than of its value.
func (d *document) faultKey(path string, f Fault) { d.faultIn(d.keys[path], f) }

// has reports whether a value stands at a path.
func (d *document) has(path string) bool {
	_, ok := d.places[path]
	return ok
}

// again returns the document without faults, for a second look at the same text.
func (d *document) again() *document {
	return &document{file: d.file, lines: d.lines, places: d.places, keys: d.keys, faulty: map[string]bool{}}
}

// placeAt is where a token stands, and its text.
func placeAt(t *token.Token) place {
	return place{line: t.Position.Line, column: t.Position.Column, text: t.Value}
}

// firstToken is where a node begins; GetToken gives the colon of a mapping.
func firstToken(n ast.Node) *token.Token {
	if m := asMapping(n); m != nil && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

// asMapping returns a node as a mapping, nil if it is none.
func asMapping(n ast.Node) *ast.MappingNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n
	case *ast.MappingValueNode:
		return &ast.MappingNode{BaseNode: n.BaseNode, Start: n.Start, Values: []*ast.MappingValueNode{n}}
	}
	return nil
}
