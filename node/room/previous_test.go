package room

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
)

// The messages of each kind as the release of 2026-11 sends them, with every field set. Two
// releases work in one mesh: what is here has to be understood for as long as such a node
// may be met. Run the tests with -messages.write to add kinds that are not in the file;
// what is in it stays. A kind that a newer release writes in another way gets a second
// sample, under its name and a word.
const previousMessages = "testdata/messages-2026-11.json"

var writeMessages = flag.Bool("messages.write", false, "add samples of kinds of messages that have none")

// kinds are what nodes tell each other of a room in JSON.
var kinds = map[string]shape{
	"KindHello":        shapeOf[Hello](nil),
	"KindRoster":       shapeOf[Roster](nil),
	"KindParticipants": shapeOf(func(p *Participants) { p.Changed[0].Info = sampleInfo() }),
	"KindSubscribe":    shapeOf[Subscribe](nil),
	"KindTrackOpen":    shapeOf[TrackOpen](nil),
	"KindTrackClosed":  shapeOf[TrackClosed](nil),
	"KindKeyframe":     shapeOf[Keyframe](nil),
	"KindLayers":       shapeOf[Layers](nil),
	"KindData":         shapeOf[Data](nil),
	"KindSpeaking":     shapeOf[Speaking](nil),
	"KindDataAsk":      shapeOf[DataAsk](nil),
	"KindDataHead":     shapeOf[DataHead](nil),
	"KindQuality":      shapeOf[Qualities](nil),
	"KindTrackVia":     shapeOf[TrackVia](nil),
	"handover":         {func() any { h := Handover{}; fill(reflect.ValueOf(&h).Elem(), new(int)); return h }, func(b []byte) (any, error) { return ReadHandover(b) }},
}

// shape is a message with every field set, and how it is read.
type shape struct {
	full func() any
	read func([]byte) (any, error)
}

func shapeOf[T any](mend func(*T)) shape {
	return shape{
		full: func() any {
			var v T
			fill(reflect.ValueOf(&v).Elem(), new(int))
			if mend != nil {
				mend(&v)
			}
			return v
		},
		read: func(b []byte) (any, error) { return decode[T](b) },
	}
}

func sampleInfo() []byte {
	b, err := proto.Marshal(&livekit.ParticipantInfo{Sid: "PA_sample", Identity: "sample"})
	if err != nil {
		panic(err)
	}
	return b
}

// fill sets every field, to numbers that differ where they are large enough to.
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
			fill(v.Field(i), n)
		}
	default:
		panic(fmt.Sprintf("a message has a %s", v.Type()))
	}
}

// TestMessagesOfTheReleaseBefore reads what an older release sends, and what a newer one
// adds to it.
func TestMessagesOfTheReleaseBefore(t *testing.T) {
	kept := map[string]json.RawMessage{}
	b, err := os.ReadFile(previousMessages)
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil && !*writeMessages {
		t.Fatal(err)
	}
	for _, name := range kindsOfMessages(t) {
		if _, ok := kinds[name]; !ok {
			t.Errorf("%s is in no shape: add it to kinds", name)
		}
	}
	for name, k := range kinds {
		if _, ok := kept[name]; ok {
			continue
		}
		if !*writeMessages {
			t.Errorf("no sample of %s: run the tests of this package with -messages.write", name)
		}
		kept[name] = encode(k.full())
	}
	if *writeMessages {
		b, err := json.MarshalIndent(kept, "", "\t")
		if err == nil {
			err = os.WriteFile(previousMessages, append(b, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range kept {
		kind, _, _ := strings.Cut(name, " ")
		k, ok := kinds[kind]
		if !ok {
			t.Errorf("nobody reads %s any more", name)
			continue
		}
		var sample any
		if err := json.Unmarshal(text, &sample); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for what, b := range map[string][]byte{"as it was": text, "with new fields": encode(newer(sample))} {
			read, err := k.read(b)
			if err != nil {
				t.Errorf("%s %s: %v", name, what, err)
				continue
			}
			var again any
			if err := json.Unmarshal(encode(read), &again); err != nil {
				t.Fatal(err)
			}
			if at := missing(sample, again); at != "" {
				t.Errorf("%s %s: %s is lost or another", name, what, at)
			}
		}
	}
}

// kindsOfMessages are the constants of messages.go.
func kindsOfMessages(t *testing.T) (names []string) {
	f, err := parser.ParseFile(token.NewFileSet(), "messages.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Kind") {
			names = append(names, v.Names[0].Name)
		}
		return true
	})
	if len(names) < 14 || !slices.Contains(names, "KindTrackVia") {
		t.Fatalf("kinds %v", names)
	}
	return names
}

// newer adds a field to every object whose keys are fields.
func newer(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{"added_later": map[string]any{"x": []any{1, "y"}}}
		for k, x := range v {
			if k == "media" { // a map of tracks
				out[k] = x
				continue
			}
			out[k] = newer(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = newer(v[i])
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
		for k, x := range s {
			if y, ok := m[k]; !ok {
				return k
			} else if at := missing(x, y); at != "" {
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
