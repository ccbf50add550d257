package whereabouts

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func node(name residency.NodeName, c residency.Country) residency.Node {
	return residency.Node{Name: name, Country: c}
}

func nobody(residency.NodeName) bool { return false }

// watchOf is a node in Frankfurt that looks at one other.
type watchOf struct {
	*Watch
	t       *testing.T
	now     time.Time
	members []residency.Node
}

func inFrankfurt(t *testing.T, members ...residency.Node) *watchOf {
	self := node("fra", "DE")
	return &watchOf{Watch: New(self), t: t, now: noon, members: append(members, self)}
}

// looks sees a node once a second for some time.
func (w *watchOf) looks(times int, s Sighting) {
	for range times {
		w.now = w.now.Add(time.Second)
		w.See(s, w.now)
	}
}

// wants compares who is doubted: "nyc round-trip, waw witnesses".
func (w *watchOf) wants(want string) {
	w.t.Helper()
	if got := w.doubts(nobody); got != want {
		w.t.Errorf("%s: doubted are %q, want %q", w.now.Format(time.TimeOnly), got, want)
	}
}

func (w *watchOf) doubts(believed func(residency.NodeName) bool) string {
	var all []string
	for _, d := range w.Judge(w.members, believed, w.now) {
		if d.Reason == "" || d.Since.IsZero() {
			w.t.Errorf("no grounds: %+v", d)
		}
		all = append(all, fmt.Sprintf("%s %s", d.Node, d.Ground))
	}
	return strings.Join(all, ", ")
}

func TestRoundTrips(t *testing.T) {
	nyc := node("nyc", "US")
	for _, c := range []struct {
		name string
		rtt  time.Duration
		want string
	}{
		{"as through the Atlantic", 82 * time.Millisecond, ""},
		{"as through a vacuum", 35 * time.Millisecond, ""},
		{"impossible", 30 * time.Millisecond, "nyc round-trip"},
		{"next door", 300 * time.Microsecond, "nyc round-trip"},
		{"none measured", 0, ""},
		{"a clock that went back", -time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := inFrankfurt(t, nyc)
			w.looks(60, Sighting{Peer: nyc, RTT: c.rtt})
			w.wants(c.want)
		})
	}
}

// One or two impossible answers may be due to a virtual machine that was halted;
// once it is certain, slow answers change nothing.
func TestThreeStrikes(t *testing.T) {
	nyc := node("nyc", "US")
	near, far := Sighting{Peer: nyc, RTT: time.Millisecond}, Sighting{Peer: nyc, RTT: 90 * time.Millisecond}
	w := inFrankfurt(t, nyc)
	w.looks(2, near)
	w.wants("")
	w.looks(int(within/time.Second), far)
	w.looks(2, near)
	w.wants("")
	w.looks(1, near)
	w.wants("nyc round-trip")
	w.looks(3600, far)
	w.wants("nyc round-trip")
	d := w.Judge(w.members, nobody, w.now)[0]
	if !strings.Contains(d.Reason, "it answered DE within 1.0 ms; light takes 33.") || !strings.Contains(d.Reason, "to US and back") {
		t.Errorf("the reason is %q", d.Reason)
	}
}

// A certificate that states another country is another statement.
func TestAnotherCertificate(t *testing.T) {
	w := inFrankfurt(t, node("nyc", "US"))
	w.looks(3, Sighting{Peer: node("nyc", "US"), RTT: time.Millisecond})
	w.wants("nyc round-trip")
	w.members[0] = node("nyc", "DE")
	w.looks(1, Sighting{Peer: w.members[0], RTT: time.Millisecond})
	w.wants("")
}

func TestAddresses(t *testing.T) {
	waw := node("waw", "PL")
	in := func(c residency.Country) Sighting { return Sighting{Peer: waw, RTT: 20 * time.Millisecond, SeenIn: c} }
	w := inFrankfurt(t, waw)
	w.looks(100, in(""))
	w.looks(100, in("PL"))
	w.looks(100, in("XX")) // no country: a database may say anything
	w.wants("")
	w.looks(3, in("RU"))
	w.wants("waw address")
	w.looks(3600, in("")) // unknown takes nothing back
	w.wants("waw address")
	w.looks(int(calm/time.Second)/2, in("PL"))
	w.looks(1, in("RU"))
	w.looks(int(calm/time.Second)/2+1, in("PL"))
	w.wants("waw address")
	w.looks(int(calm/time.Second), in("PL"))
	w.wants("")
}

func TestPlacesStated(t *testing.T) {
	waw := node("waw", "PL")
	at := func(lat, lon float64) Sighting { return Sighting{Peer: waw, At: Place{lat, lon}} }
	w := inFrankfurt(t, waw)
	w.looks(9, at(52.23, 21.01))
	w.looks(9, at(0, 0))       // not stated
	w.looks(9, at(200, 21))    // nowhere
	w.looks(9, at(54.7, 20.5)) // Kaliningrad: near enough
	w.wants("")
	w.looks(3, at(21.01, 52.23)) // the wrong way round: Oman
	w.wants("waw place")
	w.looks(int(calm/time.Second)+1, at(52.23, 21.01))
	w.wants("")
}

// Two who are not doubted have to say so, and it has to be impossible by this
// node's own reckoning.
func TestWitnesses(t *testing.T) {
	bos, chi, iad, lie := node("bos", "US"), node("chi", "US"), node("iad", "US"), node("lie", "DE")
	near := Word{Of: "lie", Country: "DE", RTT: time.Millisecond}
	type said struct {
		by   residency.NodeName
		word Word
	}
	for _, c := range []struct {
		name string
		said []said
		want string
	}{
		{"one", []said{{"bos", near}}, ""},
		{"two", []said{{"bos", near}, {"chi", near}}, "lie witnesses"},
		{"one twice", []said{{"bos", near}, {"bos", near}}, ""},
		{"one is no member", []said{{"bos", near}, {"xyz", near}}, ""},
		{"itself", []said{{"bos", near}, {"lie", near}}, ""},
		{"possible", []said{{"bos", near}, {"chi", Word{Of: "lie", Country: "DE", RTT: 60 * time.Millisecond}}}, ""},
		{"of an older certificate", []said{{"bos", near}, {"chi", Word{Of: "lie", Country: "FR", RTT: time.Millisecond}}}, ""},
		{"one by its address", []said{{"bos", near}, {"chi", Word{Of: "lie", Country: "DE", SeenIn: "US"}}}, "lie witnesses"},
		{"of this node", []said{{"bos", Word{Of: "fra", Country: "DE", RTT: 1}}, {"chi", Word{Of: "fra", Country: "DE", RTT: 1}}}, ""},
		{"the liar accuses them all", []said{{"bos", near}, {"chi", near}, {"lie", Word{Of: "bos", Country: "US", RTT: 1}}}, "lie witnesses"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := inFrankfurt(t, bos, chi, iad, lie)
			words := map[residency.NodeName][]Word{}
			for _, s := range c.said {
				words[s.by] = append(words[s.by], s.word)
			}
			for by, list := range words {
				w.Hear(by, list, w.now)
			}
			w.wants(c.want)
		})
	}
}

// A quarantine on others' word does not flap when a link does.
func TestWordsLast(t *testing.T) {
	bos, chi, lie := node("bos", "US"), node("chi", "US"), node("lie", "DE")
	near := []Word{{Of: "lie", Country: "DE", RTT: time.Millisecond}}
	w := inFrankfurt(t, bos, chi, lie)
	w.Hear("bos", near, w.now)
	w.Hear("chi", near, w.now)
	w.wants("lie witnesses")
	w.now = w.now.Add(calm - time.Second) // nobody repeats it
	w.wants("lie witnesses")
	w.now = w.now.Add(2 * time.Second)
	w.wants("")
}

// Doubted nodes are no witnesses, unless the operator vouches for their place.
func TestDoubtedWitnesses(t *testing.T) {
	bos, chi, lie := node("bos", "US"), node("chi", "US"), node("lie", "FR")
	near := []Word{{Of: "lie", Country: "FR", RTT: time.Millisecond}}
	w := inFrankfurt(t, bos, chi, lie)
	w.looks(3, Sighting{Peer: bos, RTT: time.Millisecond})
	w.Hear("bos", near, w.now)
	w.Hear("chi", near, w.now)
	w.wants("bos round-trip")
	vouched := func(name residency.NodeName) bool { return name == "bos" }
	if got := w.doubts(vouched); got != "bos round-trip, lie witnesses" {
		t.Errorf("with an override for bos: %q", got)
	}
}

// What this node tells others is what it saw itself, no more.
func TestWords(t *testing.T) {
	nyc, waw := node("nyc", "US"), node("waw", "PL")
	w := inFrankfurt(t, nyc, waw)
	w.looks(2, Sighting{Peer: nyc, RTT: 2 * time.Millisecond})
	if got := w.Words(); len(got) != 0 {
		t.Errorf("it says %v before it is certain", got)
	}
	w.looks(1, Sighting{Peer: nyc, RTT: time.Millisecond, SeenIn: "DE"})
	w.looks(3, Sighting{Peer: waw, SeenIn: "RU"})
	w.Hear("nyc", []Word{{Of: "fra", Country: "DE", RTT: 1}, {Of: "waw", Country: "PL", RTT: 1}}, w.now)
	want := []Word{{Of: "nyc", Country: "US", RTT: time.Millisecond}, {Of: "waw", Country: "PL", SeenIn: "RU"}}
	if got := w.Words(); !slices.Equal(got, want) {
		t.Errorf("it says %v, want %v", got, want)
	}
	if by := w.AccusedBy(w.members, w.now); !slices.Equal(by, []residency.NodeName{"nyc"}) {
		t.Errorf("this node is accused by %v", by)
	}
}

// What names a thousand nodes costs no more than what a node may say.
func TestWordsAreBounded(t *testing.T) {
	w := inFrankfurt(t)
	var flood []Word
	for i := range 100_000 {
		flood = append(flood, Word{Of: residency.NodeName(fmt.Sprint("n", i)), Country: "DE", RTT: 1})
	}
	w.Hear("bos", flood, w.now)
	if n := len(w.words["bos"].words); n != MaxWords {
		t.Errorf("%d words are kept", n)
	}
	w.now = w.now.Add(wordLasts + time.Second)
	w.wants("")
	if len(w.words) != 0 {
		t.Error("words are kept for ever")
	}
}
