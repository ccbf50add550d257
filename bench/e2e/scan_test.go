package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// controlWord is the name of a node, which nodes may tell everybody and write everywhere:
// what finds it there would find a word that must not be there.
const controlWord = "control-of-scans"

// TestCanaryScan puts words into all that people say and are called in a room: media,
// the name of the room and what is known about it, the names of people, a message. On
// the node in New York, which has no part in the room, they are on no disk, in no log
// and metric, not in what `domicile state` says, in no packet of gossip or of a link,
// and in no core dump, neither as they are nor as JSON writes bytes. The same scan
// finds them in the core dump of the node where the room is; and in all those places,
// on both nodes, it finds a word that is meant to be there.
func TestCanaryScan(t *testing.T) {
	f := startField(t, own(controlWord, "AT", "AT", edge))
	words := map[string]string{"media": newCanary(), "room": newCanary(), "metadata": newCanary(), "name": newCanary(), "message": newCanary()}
	for _, w := range words {
		f.tap.watch(w)
	}
	f.tap.watch(controlWord)
	f.twirp("fra", "CreateRoom", map[string]any{"name": words["room"], "metadata": words["metadata"], "room_preset": "eea-only"}, nil)
	f.mustEnter("fra", guest{room: words["room"], policy: "eea-only", name: words["name"], canary: words["media"]})
	f.receives(f.mustEnter("waw", guest{room: words["room"], policy: "eea-only", name: "viewer"}), "the viewer in Warsaw")
	f.twirp("fra", "SendData", map[string]any{"room": words["room"], "data": []byte(words["message"]), "kind": "RELIABLE"}, nil)
	for _, w := range words {
		f.passed(w, "fra", "waw")
	}
	f.bundle.Epoch++ // policies that were applied are kept on every disk
	f.apply("fra")
	f.goesBy(f.bundle.Epoch)
	all := maps.Clone(words)
	all["control"] = controlWord
	inside, outside := f.scan("fra", all), f.scan("nyc", all)
	f.findsControl("fra", inside["control"])
	f.findsControl("nyc", outside["control"])
	for _, what := range []string{"media", "room", "metadata", "name"} {
		if !slices.Contains(inside[what], inCore) {
			t.Errorf("inside, the canary of %s is in no core dump: the scan finds nothing", what)
		}
	}
	for what, word := range words {
		t.Logf("inside, the canary of %s is in %v, and in %d packets", what, inside[what], f.tap.sightings(word)["fra"].packets)
		if len(outside[what]) > 0 {
			t.Errorf("outside, the canary of %s is in %v", what, outside[what])
		}
		f.untouched(word, "fra", "waw")
	}
	f.tap.opened(t)
}

// findsControl checks that each part of the scan finds what is there.
func (f *field) findsControl(node string, places []string) {
	f.t.Helper()
	for _, want := range []string{"file /node.log", "file /data/policy/", inMetrics, inState, inCore} {
		if !slices.ContainsFunc(places, func(p string) bool { return strings.HasPrefix(p, want) }) {
			f.t.Errorf("the scan of %s finds the name of a node in %v, and not in %s", node, places, want)
		}
	}
	gossip := 0
	for _, p := range f.tap.sightings(controlWord)[node].passed {
		if p.by == byGossip {
			gossip++
		}
	}
	if gossip == 0 {
		f.t.Errorf("the scan finds the name of a node in no gossip at %s", node)
	}
	f.t.Logf("the control is at %s in %v, and in %d packets of gossip", node, places, gossip)
}

// Places that are no files.
const inMetrics, inState, inCore = "metrics", "state", "core dump"

// scan lists where on a node words are.
func (f *field) scan(node string, words map[string]string) map[string][]string {
	f.t.Helper()
	n, found := f.node(node), map[string][]string{}
	look := func(place string, b []byte) {
		for what, word := range words {
			if slices.ContainsFunc(forms(word), func(form string) bool { return bytes.Contains(b, []byte(form)) }) && !slices.Contains(found[what], place) {
				found[what] = append(found[what], place)
			}
		}
	}
	for path := range files(f.t, n.dir()) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		look("file "+strings.TrimPrefix(path, n.dir()), b)
	}
	b, err := f.metrics(node)
	if err != nil || len(b) < 1000 {
		f.t.Errorf("the metrics of %s are %d bytes: %v", node, len(b), err)
	}
	look(inMetrics, b)
	out, _ := f.domicile("state", "--node", node)
	look(inState, []byte(out))
	f.dump(node, func(b []byte) { look(inCore, b) })
	return found
}

// dump makes a core dump of a node that goes on, and shows it piece by piece.
func (f *field) dump(node string, look func([]byte)) {
	f.t.Helper()
	dir, err := os.MkdirTemp(f.Dir, "core-")
	if err != nil {
		f.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pid := f.node(node).PID
	if out, err := exec.Command("gcore", "-o", filepath.Join(dir, "core"), fmt.Sprint(pid)).CombinedOutput(); err != nil {
		f.t.Fatalf("gcore: %v\n%s", err, tail(out, 2000))
	}
	core, err := os.Open(filepath.Join(dir, fmt.Sprint("core.", pid)))
	if err != nil {
		f.t.Fatal(err)
	}
	defer core.Close()
	size, err := core.Seek(0, io.SeekEnd)
	if err != nil || size < 10<<20 {
		f.t.Errorf("the core dump of %s has %d bytes: %v", node, size, err)
	}
	core.Seek(0, io.SeekStart)
	const piece, overlap = 4 << 20, 64
	r := bufio.NewReaderSize(core, piece)
	for {
		b, err := r.Peek(piece)
		look(b)
		if err != nil {
			return
		}
		r.Discard(piece - overlap)
	}
}

// forms are a word as it is, and as it appears in base64, wherever it begins in what is
// encoded: by what of it does not depend on its neighbours.
func forms(word string) []string {
	list := []string{word}
	for before := range 3 {
		s := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("-", before) + word))
		list = append(list, s[(before*8+5)/6:(before+len(word))*8/6])
	}
	return list
}

// TestForms finds words in base64 wherever they are.
func TestForms(t *testing.T) {
	word := newCanary()
	for before := range 7 {
		s := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + word + "yz"))
		if !slices.ContainsFunc(forms(word)[1:], func(f string) bool { return strings.Contains(s, f) }) {
			t.Errorf("%d bytes before %s: %s has none of %q", before, word, s, forms(word))
		}
	}
}
