// Package readme runs what the documentation shows: commands, configuration,
// names of functions, links. It has no code of its own beside these tests.
package readme

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is a fenced example of a page.
type block struct {
	page string
	line int
	lang string
	name string // of a comment "<!-- test: NAME -->" before it
	text string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

var marker = regexp.MustCompile(`^<!-- test: (\S+) -->$`)

// blocksOf reads the examples of a page, named from the repository's root.
func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	var blocks []block
	var open *block
	name := ""
	for i, line := range strings.Split(read(t, page), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case open != nil && isFence:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.text += line + "\n"
		case isFence:
			open, name = &block{page: page, line: i + 1, lang: fence, name: name}, ""
		case marker.MatchString(line):
			name = marker.FindStringSubmatch(line)[1]
		default:
			name = ""
		}
	}
	if open != nil {
		t.Fatalf("%s: the block is not closed", open)
	}
	return blocks
}

// named returns the one block of that name.
func named(t *testing.T, blocks []block, name string) block {
	t.Helper()
	for _, b := range blocks {
		if b.name == name {
			return b
		}
	}
	t.Fatalf("no block is marked <!-- test: %s -->", name)
	return block{}
}

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// command is one line of a transcript and what it shows.
type command struct {
	line   string
	output string
}

// commands cuts a transcript at its prompts.
func (b block) commands(t *testing.T) []command {
	t.Helper()
	var list []command
	for line := range strings.Lines(b.text) {
		if cmd, ok := strings.CutPrefix(line, "$ "); ok {
			list = append(list, command{line: strings.TrimSpace(cmd)})
			continue
		}
		if len(list) == 0 {
			t.Fatalf("%s: a transcript begins with \"$ \"", b)
		}
		list[len(list)-1].output += line
	}
	return list
}

// shows reports whether a program printed what a page shows; "…" stands for
// anything within a line.
func shows(page, printed string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(page)), "…", ".*")
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(strings.TrimSpace(printed))
}

func TestShows(t *testing.T) {
	tests := []struct {
		page, printed string
		want          bool
	}{
		{"a (b)\nc\n", "a (b)\nc\n", true},
		{"a (b)\nc\n", "a (b)\n", false},
		{"key …, secret …", "key API1, secret x", true},
		{"key …", "key API1\nand more", false},
		{"…/ca.pem", "/tmp/x/ca.pem\n", true},
		{"", "something", false},
	}
	for _, tt := range tests {
		if got := shows(tt.page, tt.printed); got != tt.want {
			t.Errorf("shows(%q, %q) = %v, want %v", tt.page, tt.printed, got, tt.want)
		}
	}
}
