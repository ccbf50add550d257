// Package samples keeps in a file what a release sends to other nodes, so that tests of
// later ones can read it: two releases work in one mesh, and what is kept has to be
// understood for as long as a node of that release may be met.
package samples

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Shape is a message of one kind with every field set, and how it is read.
type Shape struct {
	Full func() any
	Read func([]byte) (any, error)
}

// Of is the shape of a type that is read by read (nil: as JSON). Every field is filled;
// mend (nil: nothing) sets those that are not free, such as messages within the message.
func Of[T any](mend func(*T), read func([]byte) (T, error)) Shape {
	return Shape{
		Full: func() any {
			var v T
			fill(reflect.ValueOf(&v).Elem(), new(int))
			if mend != nil {
				mend(&v)
			}
			return v
		},
		Read: func(b []byte) (any, error) {
			if read != nil {
				return read(b)
			}
			var v T
			err := json.Unmarshal(b, &v)
			return v, err
		},
	}
}

// File is what is kept of a release.
type File struct {
	Path string
	// Write adds what is not in the file. What is in it stays: a message that a newer
	// release writes in another way gets a second sample, under its name and a word.
	Write bool
	// Maps are the names of fields that hold a map, to which a newer release adds no fields.
	Maps []string
}

type kept struct {
	Constants map[string]any             `json:"constants,omitempty"`
	Messages  map[string]json.RawMessage `json:"messages"`
}

// Check reads what is kept of each shape: as it was, and with fields that a newer release
// might add. Constants are the numbers and words that say what a message is; they stay.
func (f File) Check(t *testing.T, shapes map[string]Shape, constants map[string]any) {
	t.Helper()
	k := f.read(t)
	for name, v := range constants {
		was, ok := k.Constants[name]
		switch now := plain(t, v); {
		case !ok && !f.Write:
			t.Errorf("%s is not kept: run the tests of this package so that they write what is missing", name)
		case !ok:
			k.Constants[name] = now
		case was != now:
			t.Errorf("%s is %v: nodes of the release before say %v", name, now, was)
		}
	}
	for name := range k.Constants {
		if _, ok := constants[name]; !ok {
			t.Errorf("nobody knows %s any more", name)
		}
	}
	for name, s := range shapes {
		if _, ok := k.Messages[name]; ok {
			continue
		}
		if !f.Write {
			t.Errorf("no sample of %s: run the tests of this package so that they write what is missing", name)
			continue
		}
		b, err := json.Marshal(s.Full())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		k.Messages[name] = b
	}
	if f.Write {
		b, err := json.MarshalIndent(k, "", "\t")
		if err == nil {
			err = os.WriteFile(f.Path, append(b, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range k.Messages {
		kind, _, _ := strings.Cut(name, " ")
		s, ok := shapes[kind]
		if !ok {
			t.Errorf("nobody reads %s any more", name)
			continue
		}
		f.understood(t, name, text, s)
	}
}

// understood reads one message, and looks whether all of it arrives.
func (f File) understood(t *testing.T, name string, text json.RawMessage, s Shape) {
	t.Helper()
	sample := plain(t, text)
	newer, err := json.Marshal(f.newer(sample))
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{"as it was": text, "with new fields": newer} {
		v, err := s.Read(b)
		if err != nil {
			t.Errorf("%s %s: %v", name, what, err)
			continue
		}
		if at := missing(sample, plain(t, v)); at != "" {
			t.Errorf("%s %s: %s is lost or another", name, what, at)
		}
	}
}

func (f File) read(t *testing.T) kept {
	t.Helper()
	k := kept{Constants: map[string]any{}, Messages: map[string]json.RawMessage{}}
	b, err := os.ReadFile(f.Path)
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil && !f.Write {
		t.Fatal(err)
	}
	return k
}

// Constants checks that a map has every constant of a package whose name begins with a
// prefix and a capital letter: the constants of the sources in the current folder.
func Constants(t *testing.T, prefix string, have map[string]any) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range constants(f) {
			rest, ok := strings.CutPrefix(name, prefix)
			if !ok || rest == "" || rest[0] < 'A' || rest[0] > 'Z' {
				continue
			}
			found++
			if _, ok := have[name]; !ok {
				t.Errorf("%s of %s is not in the table", name, path)
			}
		}
	}
	if found == 0 {
		t.Errorf("no constant begins with %q", prefix)
	}
}

// constants are the names of the constants of a file, but those within functions.
func constants(f *ast.File) (names []string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, name := range s.(*ast.ValueSpec).Names {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

// plain is a value as JSON tells it.
func plain(t *testing.T, v any) (out any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fill sets every exported field, to numbers that differ where they are large enough to.
// What is written in a way of its own may not be read again as filled: it is for mend.
func fill(v reflect.Value, n *int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("sample")
	case reflect.Uint8:
		v.SetUint(1)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		*n++
		v.SetUint(uint64(*n))
	case reflect.Int, reflect.Int32, reflect.Int64:
		*n++
		v.SetInt(int64(*n))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			// An embedded struct cannot be set if its name is unexported, its fields can.
			if v.Field(i).CanSet() || v.Type().Field(i).Anonymous && v.Field(i).Kind() == reflect.Struct {
				fill(v.Field(i), n)
			}
		}
	default:
		panic(fmt.Sprintf("a message has a %s", v.Type()))
	}
}

// newer adds a field to every object whose keys are fields.
func (f File) newer(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{"added_later": map[string]any{"x": []any{1, "y"}}}
		for k, x := range v {
			if slices.Contains(f.Maps, k) {
				out[k] = x
				continue
			}
			out[k] = f.newer(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = f.newer(v[i])
		}
		return out
	}
	return v
}

// missing names what a value lacks of a sample, "" if nothing.
func missing(sample, v any) string {
	switch s := sample.(type) {
	case map[string]any:
		m, _ := v.(map[string]any)
		for _, k := range slices.Sorted(maps.Keys(s)) {
			if y, ok := m[k]; !ok {
				return k
			} else if at := missing(s[k], y); at != "" {
				return k + "." + at
			}
		}
		return ""
	case []any:
		l, _ := v.([]any)
		if len(l) != len(s) {
			return "a list"
		}
		for i := range s {
			if at := missing(s[i], l[i]); at != "" {
				return fmt.Sprintf("%d.%s", i, at)
			}
		}
		return ""
	}
	if sample != v {
		return fmt.Sprint(sample)
	}
	return ""
}
