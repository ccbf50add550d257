//go:build network

package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

var (
	filmsIn     = flag.String("films", "", "the folder of films that TestFilmsOpen opens")
	filmsRecord = flag.String("films.record", "", "the result, in bench/results, to which TestFilmsOpen adds how many opened")
)

// opening is JavaScript that opens films in video elements, four at a time: each is to
// have a picture or a sound, and to play on from its middle.
const opening = `
	const films = %s, wrong = []
	const open = (name) => new Promise((done) => {
		const v = document.createElement('video')
		const end = (why) => { clearTimeout(late); v.remove(); if (why) wrong.push(name + ': ' + why); done() }
		const late = setTimeout(() => end('nothing after 30 s, ready state ' + v.readyState), 30000)
		v.muted = true
		v.onerror = () => end(v.error.message)
		v.onloadeddata = () => { v.currentTime = v.duration / 2 }
		v.onseeked = () => v.play().catch((e) => end(e.message))
		v.onended = () => end(v.duration > 0 ? '' : 'it has no length')
		v.src = name
		document.body.append(v)
	})
	await Promise.all([0, 1, 2, 3].map(async () => { for (let f; (f = films.pop()); ) await open(f) }))
	return wrong`

// TestFilmsOpen opens each film of a folder in Chromium: it is decoded, and plays from its
// middle to its end. TestKilledRecorder (node/record) leaves such a folder.
func TestFilmsOpen(t *testing.T) {
	if *filmsIn == "" {
		t.Skip("no folder of films: make recorder-kills gives one")
	}
	paths, err := filepath.Glob(filepath.Join(*filmsIn, "*.webm"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d films in %s: %v", len(paths), *filmsIn, err)
	}
	files := http.FileServer(http.Dir(*filmsIn))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte("<!doctype html><title>films</title>"))
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer srv.Close()
	p := startBrowsers(t, "").open("films", srv.URL)
	for from := 0; from < len(paths); from += filmsAtOnce { // each answer comes within the driver's patience
		var names, wrong []string
		for _, path := range paths[from:min(from+filmsAtOnce, len(paths))] {
			names = append(names, filepath.Base(path))
		}
		list, _ := json.Marshal(names)
		p.must(fmt.Sprintf(opening, list), &wrong)
		for _, w := range wrong {
			t.Error(w)
		}
	}
	t.Logf("%d films opened", len(paths))
	if *filmsRecord == "" || t.Failed() {
		return
	}
	b, err := os.ReadFile(*filmsRecord)
	var result map[string]map[string]any
	if err == nil {
		err = json.Unmarshal(b, &result)
	}
	if err != nil {
		t.Fatal(err)
	}
	result["outcome"]["opened_in_chromium"] = len(paths)
	b, _ = json.MarshalIndent(result, "", "  ")
	if err := os.WriteFile(*filmsRecord, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// filmsAtOnce are asked for together: two seconds each at most, four at a time.
const filmsAtOnce = 40
