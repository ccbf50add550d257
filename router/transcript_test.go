package router

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
//	between NODE NODE=MS
//	rules [room=W] [load=MS] [open=MS] [move=MS] [reserve=F] [max-rtt=MS] [max-nodes=N]
//	region NAME [nodes=A,B] [countries=A,B] [continents=A,B]
//	override NAME [networks=…] [countries=…] [continents=…] [tenants=…] [only=…] [not=…] [prefer=…] [by=MS]
//	place policy=P from=PLACE [fallback=local] [addr=IP] [carriers=NODE:N,…] [trips=NODE:MS,…] [before=NODE]
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
	bundle := testBundle()
	bundle.Tenants = []residency.Tenant{{Name: "acme", Policy: "eea-only"}}
	stage := &stage{mesh: demoMesh(), gate: residency.NewGate(bundle), rules: DefaultRules(), links: map[[2]residency.NodeName]Trip{}}
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
	mesh  []Candidate
	gate  *residency.Gate
	rules *Rules
	links map[[2]residency.NodeName]Trip
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
			answer, err = s.place(a, args)
		case "between":
			for k, v := range args {
				if k != words[1] {
					s.links[[2]residency.NodeName{residency.NodeName(words[1]), residency.NodeName(k)}] = Trip{MS: millis(v), How: Measured}
				}
			}
		case "rules":
			s.tune(args)
		case "region":
			s.rules.Regions = map[string]Region{words[1]: {Nodes: listOf[residency.NodeName](args["nodes"]), Countries: listOf[residency.Country](args["countries"]), Continents: listOf[Continent](args["continents"])}}
		case "override":
			s.override(words[1], args)
		case "home":
			answer = Home(s.gate, Room{Name: args["room"], Tenant: args["tenant"], Policy: args["policy"]}, s.mesh, noon).String()
		case "record":
			answer = RecordingNode(s.gate, Room{Name: args["room"], Tenant: args["tenant"], Policy: args["policy"]}, s.mesh, noon).String()
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

// place asks where an attendee goes.
func (s *stage) place(a Attendee, args map[string]string) (string, error) {
	q := Question{Room: Room{Name: "standup", Tenant: args["tenant"], Policy: args["policy"]}, Attendee: a, Candidates: s.mesh,
		Unknown: Fallback(args["fallback"]), Now: noon, Rules: s.rules, Before: residency.NodeName(args["before"]), Between: s.between}
	q.Attendee.Trips = map[residency.NodeName]Trip{}
	for _, pair := range listOf[string](args["trips"]) {
		n, ms, _ := strings.Cut(pair, ":")
		q.Attendee.Trips[residency.NodeName(n)] = Trip{MS: millis(ms), How: Measured}
	}
	for _, pair := range listOf[string](args["carriers"]) {
		n, count, _ := strings.Cut(pair, ":")
		q.Carriers = append(q.Carriers, Carrier{residency.NodeName(n), int(millis(count))})
	}
	if args["addr"] != "" {
		addr, err := netip.ParseAddr(args["addr"])
		if err != nil {
			return "", err
		}
		q.Attendee.Addr = addr
	}
	return Place(s.gate, q).String(), nil
}

func (s *stage) between(a, b residency.NodeName) Trip {
	if t, ok := s.links[[2]residency.NodeName{a, b}]; ok {
		return t
	}
	return s.links[[2]residency.NodeName{b, a}]
}

func (s *stage) tune(args map[string]string) {
	for k, v := range args {
		ms := millis(v)
		switch k {
		case "room":
			s.rules.Weights.Room = float64(ms)
		case "load":
			s.rules.Weights.Load = ms
		case "open":
			s.rules.Weights.Open = ms
		case "move":
			s.rules.Weights.Move = ms
		case "reserve":
			s.rules.Reserve = float64(ms)
		case "max-rtt":
			s.rules.Limits.RTT = ms
		case "max-nodes":
			s.rules.Limits.Nodes = int(ms)
		default:
			panic(k)
		}
	}
}

func (s *stage) override(name string, args map[string]string) {
	o := Override{Name: name, Countries: listOf[residency.Country](args["countries"]), Continents: listOf[Continent](args["continents"]), Tenants: listOf[string](args["tenants"]),
		Only: listOf[string](args["only"]), Not: listOf[string](args["not"]), Prefer: listOf[string](args["prefer"])}
	for _, p := range listOf[string](args["networks"]) {
		o.Networks = append(o.Networks, netip.MustParsePrefix(p))
	}
	if o.Prefer != nil {
		o.By = millis(args["by"])
	}
	s.rules.Overrides = append(slices.DeleteFunc(s.rules.Overrides, func(was Override) bool { return was.Name == name }), o)
}

func listOf[T ~string](s string) (list []T) {
	for item := range strings.SplitSeq(s, ",") {
		if item != "" {
			list = append(list, T(item))
		}
	}
	return list
}

func millis(s string) Millis {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return Millis(f)
}
