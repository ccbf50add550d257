package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// namePattern is nameForm as a regular expression.
const namePattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"

// TestSchemasAreCurrent makes the schemas from the structs and compares them with
// the committed ones.
func TestSchemasAreCurrent(t *testing.T) {
	for name, v := range map[string]any{"policy": policyFile{}, "node": Node{}, "routing": routingFile{}} {
		want, err := json.MarshalIndent(makeSchema(t, name, v), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		want = append(oneLine(want), '\n')
		if *update {
			if err := os.WriteFile("schema/"+name+".json", want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := Schema(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("schema/%s.json is not what the structs say (%v); make it again with -update", name, err)
		}
	}
	if _, err := Schema("../node"); err == nil {
		t.Error("a schema of nothing")
	}
}

var wordList = regexp.MustCompile(`\[\s+("[^\[\]]*")\s+\]`)

// oneLine puts each list of words on a line of its own.
func oneLine(b []byte) []byte {
	return wordList.ReplaceAllFunc(b, func(list []byte) []byte { return bytes.Join(bytes.Fields(list), []byte(" ")) })
}

func makeSchema(t *testing.T, name string, v any) *jsonschema.Schema {
	comments := fieldComments(t)
	r := jsonschema.Reflector{FieldNameTag: "yaml", ExpandedStruct: true, Anonymous: true, Mapper: schemaOf,
		LookupComment: func(t reflect.Type, field string) string {
			return comments[strings.TrimSuffix(t.Name()+"."+field, ".")]
		}}
	s := r.Reflect(v)
	s.Title = name + ".yaml of Domicile"
	tighten(s, s.Definitions, reflect.TypeOf(v), map[reflect.Type]bool{})
	return s
}

// schemaOf says what the types that read themselves look like.
func schemaOf(t reflect.Type) *jsonschema.Schema {
	text := func(pattern string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: pattern} }
	switch t {
	case reflect.TypeFor[country]():
		return enum(residency.Countries())
	case reflect.TypeFor[continent]():
		return enum(router.Continents())
	case reflect.TypeFor[countrySet]():
		return enum(append(residency.NamedZones(), texts(residency.Countries())...))
	case reflect.TypeFor[moment]():
		return text(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9:]+))?$`)
	case reflect.TypeFor[serialNumber]():
		return text(`^[0-9A-Fa-f:]+$`)
	case reflect.TypeFor[residency.NodeName]():
		return text(namePattern)
	case reflect.TypeFor[role]():
		return enum(residency.Roles())
	case reflect.TypeFor[edgeRule]():
		return enum([]string{edgeNever, edgeLocal})
	case reflect.TypeFor[originRule]():
		return enum([]string{originsAccepted, originsRefused})
	case reflect.TypeFor[e2eeRule]():
		return enum(residency.E2EERules())
	case reflect.TypeFor[evidenceRule]():
		return enum(residency.EvidenceRules())
	case reflect.TypeFor[withdrawalRule]():
		return enum([]string{withdrawalKeeps, withdrawalErases})
	case reflect.TypeFor[consentLogRule]():
		return enum([]string{consentLogKept, consentLogNone})
	case reflect.TypeFor[startRule]():
		return enum([]string{startHost, startAlways})
	case reflect.TypeFor[retentionSpans]():
		s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
		for _, kind := range residency.KeptKinds() {
			s.Properties.Set(string(kind), text(`^([1-9][0-9]{0,6}[hdwy]|`+unlimited+`)$`))
		}
		return s
	case reflect.TypeFor[transferRule]():
		return enum([]string{transferRequired, transferNotRequired})
	case reflect.TypeFor[transferKind]():
		return enum(residency.TransferKinds())
	case reflect.TypeFor[classZones]():
		s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
		for _, class := range append([]string{allClasses}, texts(residency.Classes())...) {
			s.Properties.Set(class, &jsonschema.Schema{Type: "string"})
		}
		return s
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.AddrPort](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[GossipKey](), reflect.TypeFor[Secret]():
		return text("")
	}
	return nil
}

func enum[S ~string](words []S) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, w := range words {
		s.Enum = append(s.Enum, string(w))
	}
	return s
}

func texts[S ~string](words []S) (out []string) {
	for _, w := range words {
		out = append(out, string(w))
	}
	return out
}

// tighten adds what our tags say beyond those that the reflector knows: which keys
// are required, which lists must not be empty, what names look like.
func tighten(s *jsonschema.Schema, defs jsonschema.Definitions, t reflect.Type, seen map[reflect.Type]bool) {
	if seen[t] || s == nil {
		return
	}
	seen[t], s.Required = true, nil
	for i := range t.NumField() {
		f := t.Field(i)
		key, required := tagOf(f)
		if key == "" {
			s.Properties.Delete(f.Name)
			continue
		}
		p, _ := s.Properties.Get(key)
		if required {
			s.Required = append(s.Required, key)
		}
		if f.Tag.Get("empty") != "" {
			one := uint64(1)
			p.MinItems = &one
		}
		inner := f.Type
		if inner.Kind() == reflect.Map && schemaOf(inner) == nil {
			if inner = inner.Elem(); inner.Kind() == reflect.Struct && inner != reflect.TypeFor[zoneFile]() {
				p.PropertyNames = &jsonschema.Schema{Pattern: namePattern}
			}
		} else if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && schemaOf(inner) == nil {
			tighten(defs[inner.Name()], defs, inner, seen)
		}
	}
}

// fieldComments reads this package's own comments: TYPE and TYPE.FIELD.
func fieldComments(t *testing.T) map[string]string {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					text := f.Doc.Text()
					if text == "" {
						text = f.Comment.Text()
					}
					for _, id := range f.Names {
						comments[spec.Name.Name+"."+id.Name] = strings.Join(strings.Fields(text), " ")
					}
				}
			}
			return false
		})
	}
	return comments
}

// compiled is a committed schema, ready to judge files.
func compiled(t *testing.T, name string) *validator.Schema {
	t.Helper()
	b, err := Schema(name)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validator.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource(name+".json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func judge(t *testing.T, s *validator.Schema, path string) error {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return err
	}
	text, err := json.Marshal(v) // as an editor hands it over
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if v, err = validator.UnmarshalJSON(bytes.NewReader(text)); err != nil {
		return err
	}
	return s.Validate(v)
}

// TestSchemasAcceptWhatIsValid takes every example and profile.
func TestSchemasAcceptWhatIsValid(t *testing.T) {
	for name, patterns := range map[string][]string{"policy": {"examples/policy.yaml", "profiles/*.yaml"}, "node": {"examples/node.yaml"}, "routing": {"examples/routing.yaml"}} {
		s := compiled(t, name)
		for _, pattern := range patterns {
			files, err := filepath.Glob(pattern)
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %v", pattern, err)
			}
			for _, file := range files {
				if err := judge(t, s, file); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
}

// meaning lists the bad policies whose fault is in what values mean together; a
// schema cannot see it, and only the reader refuses them.
var meaning = strings.Fields(`adequacy-none adequacy-privacy-shield adequacy-privacy-shield-too-long anywhere-and-countries
	anywhere-false class-missing classes-empty consent-without-notice contradicting-parents e2ee-chat-log e2ee-recorded edge-outside-anywhere
	epoch-zero expires-before-issued expires-year-zero no-policies norway-unquoted operator-empty origins-none origins-of-a-tenant
	origins-of-no-tenant origins-one origins-without-roles override-ended override-no-reason override-not-registered override-twice
	register-roles-twice register-unknown-tenant retention-export retention-too-long start-not-allowed tenant-controller-empty tenant-key-of-two
	tenant-policy-twice tenant-unknown-policy title-empty transfer-day transfer-ends-first transfer-norway transfer-in-the-eea transfer-year-zero
	transfer-zone-uncovered transfers-unasked two-nodes-of-one-name unknown-default unknown-zone withdrawal-unasked zone-name zone-shadows-adequate
	zone-shadows-eea zone-empty zone-without-countries`)

// TestSchemaRefusesWhatItCanSee takes every bad policy.
func TestSchemaRefusesWhatItCanSee(t *testing.T) {
	s := compiled(t, "policy")
	files, err := filepath.Glob("testdata/bad/policy/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad policies: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if strings.HasPrefix(name, "alias-") {
			continue // an editor expands these; the reader does not
		}
		err := judge(t, s, file)
		if blind := slices.Contains(meaning, name); (err == nil) != blind {
			t.Errorf("%s: the schema says %v, thought to be blind to it: %v", name, err, blind)
		}
	}
}
