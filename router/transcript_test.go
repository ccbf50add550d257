package router

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/domicile/domicile/residency"
)

var update = flag.Bool("update", false, "write what the code answers into the transcripts")

// TestTranscripts plays testdata/*.txt. A transcript is paragraphs: a line of
// command, "----", the answer. Lines with # are for the reader.
//
//	node NAME [load=F] [attendees=N] [capacity=N] [epoch=N] [up=BOOL] [at=none] [local]
//	place policy=P from=PLACE [fallback=local]
//	home policy=P room=R
//	record policy=P room=R
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { playTranscript(t, file) })
	}
}

func playTranscript(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stage := &stage{mesh: demoMesh(), gate: residency.NewGate(testBundle())}
	var out strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
		head, want, asks := strings.Cut(paragraph, "\n----\n")
		got, err := stage.play(head)
		if err != nil {
			t.Fatalf("%s: %v", head, err)
		}
		out.WriteString(head + "\n")
		if got != "" {
			out.WriteString("----\n" + got + "\n")
		}
		out.WriteString("\n")
		if !*update && (asks || got != "") && strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%s\n---- got\n%s\n---- want\n%s", head, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimSpace(out.String())+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// stage is what the commands of a transcript act on.
type stage struct {
	mesh []Candidate
	gate *residency.Gate
}

// places are what GeoIP would say of test attendees.
var places = map[string]Attendee{
	"frankfurt": {Known: true, Country: "DE", At: frankfurt, Source: "geoip"},
	"warsaw":    {Known: true, Country: "PL", At: warsaw, Source: "geoip"},
	"new-york":  {Known: true, Country: "US", At: newYork, Source: "geoip"},
	"lisbon":    {Known: true, Country: "PT", At: Point{Lat: 38.72, Lon: -9.14}, Source: "geoip"},
	"zurich":    {Known: true, Country: "CH", At: Point{Lat: 47.38, Lon: 8.54}, Source: "geoip"},
	"poland":    {Known: true, Country: "PL", Source: "geoip"},
	"private":   {Source: "private address"},
	"nothing":   {},
}

// play runs the commands of a paragraph and returns the last one's answer.
func (s *stage) play(head string) (answer string, err error) {
	for line := range strings.SplitSeq(head, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		args := map[string]string{}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			args[k] = v
		}
		switch words[0] {
		case "node":
			err = s.change(residency.NodeName(words[1]), args)
		case "place":
			a, ok := places[args["from"]]
			if !ok {
				return "", fmt.Errorf("place %q is not known", args["from"])
			}
			answer = Place(s.gate, Question{Room: "standup", Policy: args["policy"], Attendee: a, Candidates: s.mesh,
				Unknown: Fallback(args["fallback"]), Now: noon}).String()
		case "home":
			answer = Home(s.gate, args["room"], args["policy"], s.mesh, noon).String()
		case "record":
			answer = RecordingNode(s.gate, args["room"], args["policy"], s.mesh, noon).String()
		default:
			err = fmt.Errorf("command %q is not known", words[0])
		}
		if err != nil {
			return "", err
		}
	}
	return strings.TrimRight(answer, "\n"), nil
}

// change sets facts of a node.
func (s *stage) change(name residency.NodeName, args map[string]string) (err error) {
	for i := range s.mesh {
		c := &s.mesh[i]
		if c.Node.Name != name {
			continue
		}
		for k, v := range args {
			switch k {
			case "load":
				c.Load, err = strconv.ParseFloat(v, 64)
			case "attendees":
				c.Attendees, err = strconv.Atoi(v)
			case "capacity":
				c.Capacity, err = strconv.Atoi(v)
			case "epoch":
				var n int
				n, err = strconv.Atoi(v)
				c.Epoch = residency.Epoch(n)
			case "up":
				c.Up, err = strconv.ParseBool(v)
			case "at":
				c.At = Point{}
			case "local":
				c.Local = true
			case string(name):
			default:
				err = fmt.Errorf("fact %q is not known", k)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("node %q is not known", name)
}
