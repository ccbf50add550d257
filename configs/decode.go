package configs

import (
	"encoding"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/domicile/domicile/residency"
)

// The reader fills plain structs from a file. Their fields have the tag
//
//	yaml:"key"           the key may be left out
//	yaml:"key,required"  it may not
//	empty:"…"            the list must not be empty; the text is the hint
//
// Every value's place is kept under its path, so that checks made later can
// point at it.

// scalarReader is a type that reads itself from a scalar, for what a
// TextUnmarshaler cannot see: whether the text was quoted.
type scalarReader interface {
	readScalar(s scalar) *Fault // nil, or a fault without its place
}

// scalar is a value that is neither a list nor a mapping.
type scalar struct {
	text   string
	kind   token.Type
	quoted bool
}

// secretText is a type whose text is never shown.
type secretText interface{ isSecret() }

var (
	scalarReaderType    = reflect.TypeFor[scalarReader]()
	secretTextType      = reflect.TypeFor[secretText]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// read fills the struct that v points to.
func (d *document) read(root *ast.MappingNode, v any) {
	d.readStruct(root, reflect.ValueOf(v).Elem(), "")
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (d *document) readValue(n ast.Node, v reflect.Value, path string) {
	s, isScalar := scalarOf(n)
	isNull := s.kind == token.NullType || s.kind == token.ImplicitNullType
	p := placeAt(firstToken(n))
	if p.text = s.text; !isScalar {
		p.text = ""
	}
	if key, ok := d.keys[path]; ok && (isNull || asMapping(n) != nil) {
		p = key // where people look for what is missing
	}
	p.secret = v.Type().Implements(secretTextType)
	d.places[path] = p
	switch {
	case isNull:
		d.fault(path, Fault{Message: "there is no value", Hint: "leave the key out to have its default"})
	case v.Addr().Type().Implements(scalarReaderType), v.Addr().Type().Implements(textUnmarshalerType):
		d.readText(s, isScalar, v, path)
	case v.Kind() == reflect.Struct:
		if m := asMapping(n); m != nil {
			d.readStruct(m, v, path)
		} else {
			d.fault(path, Fault{Message: "want a mapping of keys to values", Allowed: strings.Join(keysOf(v.Type()), ", ")})
		}
	case v.Kind() == reflect.Map:
		if m := asMapping(n); m != nil {
			d.readMap(m, v, path)
		} else {
			d.faultf(path, "want a mapping of names to values")
		}
	case v.Kind() == reflect.Slice:
		d.readList(n, v, path)
	default:
		d.readScalar(s, isScalar, v, path)
	}
}

// entries calls each with the key and the value of every entry of a mapping
// whose key is text and stands there for the first time.
func (d *document) entries(m *ast.MappingNode, each func(key string, entry *ast.MappingValueNode)) {
	first := map[string]place{}
	for _, entry := range m.Values {
		at := placeAt(entry.Key.GetToken())
		key, ok := scalarOf(entry.Key)
		if !ok || key.kind == token.NullType {
			d.faultIn(at, Fault{Message: "want a key that is text"})
			continue
		}
		if before, ok := first[key.text]; ok {
			d.faultIn(at, Fault{Message: fmt.Sprintf("the key stands here a second time, after line %d", before.line)})
			continue
		}
		first[key.text] = at
		each(key.text, entry)
	}
}

func (d *document) readStruct(m *ast.MappingNode, v reflect.Value, path string) {
	seen := map[string]bool{}
	d.entries(m, func(key string, entry *ast.MappingValueNode) {
		i := fieldOf(v.Type(), key)
		if i < 0 {
			d.faultIn(placeAt(entry.Key.GetToken()), Fault{Message: "unknown key", Allowed: strings.Join(keysOf(v.Type()), ", ")})
			return
		}
		seen[key] = true
		d.keys[join(path, key)] = placeAt(entry.Key.GetToken())
		d.readValue(entry.Value, v.Field(i), join(path, key))
		if hint := v.Type().Field(i).Tag.Get("empty"); hint != "" && isEmptyList(entry.Value) {
			d.fault(join(path, key), Fault{Message: "an empty list is nobody, not everybody", Hint: hint})
		}
	})
	for i := range v.NumField() {
		key, required := tagOf(v.Type().Field(i))
		if required && !seen[key] {
			d.fault(join(path, key), Fault{Message: fmt.Sprintf("the key %q is missing", key)})
		}
	}
}

func (d *document) readMap(m *ast.MappingNode, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(m, func(key string, entry *ast.MappingValueNode) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.keys[join(path, key)] = placeAt(entry.Key.GetToken())
		d.readValue(entry.Value, item, join(path, key))
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
	})
}

func (d *document) readList(n ast.Node, v reflect.Value, path string) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(path, Fault{Message: "want a list", Hint: "put the value in brackets: [value]"})
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
	for i, item := range list.Values {
		d.readValue(item, v.Index(i), join(path, strconv.Itoa(i)))
	}
}

// readText fills a type that reads itself.
func (d *document) readText(s scalar, isScalar bool, v reflect.Value, path string) {
	if !isScalar {
		d.fault(path, Fault{Message: "want a single value", Allowed: allowedFor(v.Type())})
		return
	}
	var f *Fault
	switch r := v.Addr().Interface().(type) {
	case scalarReader:
		f = r.readScalar(s)
	case encoding.TextUnmarshaler:
		if err := r.UnmarshalText([]byte(s.text)); err != nil {
			f = &Fault{Message: "cannot be read", Allowed: allowedFor(v.Type())}
		}
	}
	if f != nil {
		d.fault(path, *f)
	}
}

// readScalar fills text, numbers and switches. A number is never taken for
// text, nor text for a switch.
func (d *document) readScalar(s scalar, isScalar bool, v reflect.Value, path string) {
	if !isScalar {
		d.fault(path, Fault{Message: "want a single value", Allowed: allowedFor(v.Type())})
		return
	}
	ok := true
	switch kind := v.Kind(); kind {
	case reflect.String:
		ok = s.isText()
		v.SetString(s.text)
	case reflect.Bool:
		ok = s.kind == token.BoolType
		v.SetBool(strings.EqualFold(s.text, "true"))
	case reflect.Int, reflect.Uint64:
		// ParseUint before the kind: a number too large is not an integer to the lexer.
		number, err := strconv.ParseUint(s.text, 10, 63)
		if ok = err == nil && !s.quoted; ok && kind == reflect.Int {
			v.SetInt(int64(number))
		} else if ok {
			v.SetUint(number)
		}
	case reflect.Float64:
		number, err := strconv.ParseFloat(s.text, 64)
		ok = err == nil && !s.quoted && !math.IsNaN(number) && !math.IsInf(number, 0)
		v.SetFloat(number)
	default:
		panic(fmt.Sprintf("configs: no reader for %s", v.Type()))
	}
	if !ok {
		d.fault(path, Fault{Message: "cannot be read", Allowed: allowedFor(v.Type())})
	}
}

// isText reports whether the scalar is text rather than a number or a switch.
func (s scalar) isText() bool {
	switch s.kind {
	case token.StringType, token.SingleQuoteType, token.DoubleQuoteType:
		return true
	}
	return false
}

// scalarOf returns a node as a scalar with its text as it stands in the file.
func scalarOf(n ast.Node) (s scalar, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return scalar{text: n.Value, kind: n.Token.Type, quoted: quoted}, true
	case *ast.LiteralNode:
		return scalar{text: n.Value.Value, kind: token.StringType, quoted: true}, true
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		t := n.GetToken()
		return scalar{text: strings.TrimSpace(t.Value), kind: t.Type}, true
	}
	return scalar{}, false
}

func isEmptyList(n ast.Node) bool {
	list, ok := n.(*ast.SequenceNode)
	return ok && len(list.Values) == 0
}

// tagOf returns the key of a field, empty if files do not hold it.
func tagOf(f reflect.StructField) (key string, required bool) {
	key, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return key, option == "required"
}

func fieldOf(t reflect.Type, key string) int {
	for i := range t.NumField() {
		if k, _ := tagOf(t.Field(i)); k != "" && k == key {
			return i
		}
	}
	return -1
}

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if key, _ := tagOf(t.Field(i)); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// allowedFor says in words what a value of a type looks like.
func allowedFor(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[netip.AddrPort]():
		return "an address with a port, such as 127.0.0.1:443, 0.0.0.0:443 or [::]:443"
	case reflect.TypeFor[netip.Addr]():
		return "an IP address, such as 203.0.113.5"
	case reflect.TypeFor[netip.Prefix]():
		return "a range of addresses, such as 10.0.0.0/8"
	case reflect.TypeFor[moment]():
		return "a day or a time, such as 2026-01-31 or 2026-01-31T12:00:00Z"
	case reflect.TypeFor[retentionSpan]():
		return retentionForm
	case reflect.TypeFor[GossipKey]():
		return "32 bytes in base64, as `openssl rand -base64 32` prints them"
	case reflect.TypeFor[country]():
		return "a code of ISO 3166-1, such as DE or \"NO\""
	case reflect.TypeFor[continent]():
		return "AF, AS, EU, NA, OC, SA"
	case reflect.TypeFor[countrySet]():
		return "codes of ISO 3166-1, such as DE or \"NO\", and " + strings.Join(residency.NamedZones(), ", ")
	}
	switch t.Kind() {
	case reflect.String:
		return "text; quote what looks like a number or a switch"
	case reflect.Bool:
		return "true, false"
	case reflect.Int, reflect.Uint64:
		return "a whole number, 0 or more"
	case reflect.Float64:
		return "a number"
	}
	return ""
}
