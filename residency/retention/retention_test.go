package retention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func order(kind Kind, s Subject, n int, at time.Time) Order {
	return New(kind, s, fmt.Sprintf("%08d", n), []byte(fmt.Sprintf("salt%012d", n)), at).Arrived(at)
}

var policies = func(x Object) *residency.Policy {
	switch x.Policy {
	case "short":
		return &residency.Policy{Retention: map[residency.Kept]residency.Hours{residency.KeptRecording: 24, residency.KeptChat: 48}}
	case "long":
		return &residency.Policy{}
	}
	return nil
}

// told writes verdicts in a line each.
func told(list []Verdict) string {
	var b strings.Builder
	for _, v := range list {
		fmt.Fprintf(&b, "%s%s", v.ID, v.Part)
		switch {
		case v.Erase && len(v.Gone) > 0:
			fmt.Fprintf(&b, " loses %s by %s", strings.Join(v.Gone, ","), v.Rule)
		case v.Erase:
			fmt.Fprintf(&b, " goes by %s", v.Rule)
		default:
			fmt.Fprintf(&b, " is held by %s", strings.Join(v.Held, ","))
		}
		b.WriteString("; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestJudge(t *testing.T) {
	track := func(id, room, who string, began time.Time) Object {
		return Object{ID: id, Part: "/" + who, Kind: residency.KeptRecording, Room: room, Tenant: "acme", Policy: "short", People: []string{who}, Recording: id, Began: began, Ended: began.Add(time.Hour)}
	}
	objects := []Object{
		track("r1", "board", "anna", t0), track("r1", "board", "ben", t0), track("r2", "town", "anna", t0),
		{ID: "c1", Kind: residency.KeptChat, Room: "board", Tenant: "acme", Policy: "short", People: []string{"anna", "ben"}, Lines: true, Began: t0, Ended: t0.Add(time.Hour)},
		{ID: "e1", Kind: residency.KeptExport, Room: "board", Tenant: "acme", Policy: "long", Anyone: true, Recording: AnyRecording, Began: t0, Ended: t0},
		{ID: "e2", Kind: residency.KeptExport, Room: "hall", Tenant: "acme", Policy: "gone", Anyone: true, Began: t0, Ended: t0},
		{ID: "m1", Kind: residency.KeptMetadata, Room: "board", Tenant: "acme", Policy: "long", Began: t0, Ended: t0},
		{ID: "live", Kind: residency.KeptRecording, Room: "hall", Policy: "short", People: []string{"carl"}, Began: t0},
		{ID: "lost", Kind: residency.KeptRecording, Recording: "lost", Unknown: true},
	}
	for name, c := range map[string]struct {
		orders []Order
		after  time.Duration
		want   string
	}{
		"nothing is due":     {nil, 24 * time.Hour, ""},
		"a policy's time":    {nil, 25 * time.Hour, "r1/anna goes by retention; r1/ben goes by retention; r2/anna goes by retention"},
		"exports after 30 d": {nil, 30 * 24 * time.Hour, "e1 goes by retention; r1/anna goes by retention; r1/ben goes by retention; r2/anna goes by retention; c1 goes by retention"},
		"a room":             {[]Order{order(Erasure, Subject{Room: "town"}, 1, t0.Add(time.Hour))}, time.Hour, "r2/anna goes by erasure"},
		"a room's record last": {[]Order{order(Erasure, Subject{Room: "board"}, 1, t0.Add(time.Hour))}, time.Hour,
			"e1 goes by erasure; r1/anna goes by erasure; r1/ben goes by erasure; c1 goes by erasure; m1 goes by erasure"},
		"a participant": {[]Order{order(Erasure, Subject{Participant: "anna"}, 1, t0.Add(time.Hour))}, time.Hour,
			"e1 goes by erasure; r1/anna goes by erasure; r2/anna goes by erasure; c1 loses anna by erasure"},
		"a recording, and what was made of it": {[]Order{order(Erasure, Subject{Tenant: "acme", Room: "board", Recording: "r1"}, 1, t0.Add(time.Hour))}, time.Hour,
			"e1 goes by erasure; r1/anna goes by erasure; r1/ben goes by erasure"},
		"a recording, of which nothing was made": {[]Order{order(Erasure, Subject{Room: "town", Recording: "r2"}, 1, t0.Add(time.Hour))}, time.Hour, "r2/anna goes by erasure"},
		"a recording under a hold on its room": {[]Order{order(Hold, Subject{Room: "board"}, 1, t0), order(Erasure, Subject{Room: "board", Recording: "r1"}, 2, t0.Add(time.Hour))}, time.Hour,
			"e1 is held by HO_00000001; r1/anna is held by HO_00000001; r1/ben is held by HO_00000001"},
		"one that cannot be read": {[]Order{order(Erasure, Subject{Recording: "lost"}, 1, t0.Add(time.Hour))}, time.Hour, "e1 goes by erasure; lost goes by erasure"},
		"one that cannot be read, and any hold": {[]Order{order(Hold, Subject{Tenant: "other", Room: "elsewhere"}, 1, t0), order(Erasure, Subject{Recording: "lost"}, 2, t0.Add(time.Hour))}, time.Hour,
			"e1 goes by erasure; lost is held by HO_00000001"},
		"a participant of a room":               {[]Order{order(Erasure, Subject{Room: "town", Participant: "anna"}, 1, t0.Add(time.Hour))}, time.Hour, "r2/anna goes by erasure"},
		"another tenant's":                      {[]Order{order(Erasure, Subject{Tenant: "other", Participant: "anna"}, 1, t0.Add(time.Hour))}, time.Hour, ""},
		"what came after the order":             {[]Order{order(Erasure, Subject{Tenant: "acme"}, 1, t0.Add(-time.Minute))}, time.Hour, ""},
		"what is being recorded":                {[]Order{order(Erasure, Subject{Room: "hall"}, 1, t0.Add(time.Minute))}, 1000 * time.Hour, "e2 goes by erasure; live goes by erasure; e1 goes by retention; r1/anna goes by retention; r1/ben goes by retention; r2/anna goes by retention; c1 goes by retention"},
		"a hold on a room, against time":        {[]Order{order(Hold, Subject{Room: "board"}, 1, t0)}, 25 * time.Hour, "r1/anna is held by HO_00000001; r1/ben is held by HO_00000001; r2/anna goes by retention"},
		"a hold on a person, against the other": {[]Order{order(Hold, Subject{Participant: "anna"}, 1, t0), order(Erasure, Subject{Participant: "ben"}, 2, t0.Add(time.Hour))}, time.Hour, "e1 is held by HO_00000001; r1/ben goes by erasure; c1 loses ben by erasure"},
		"a hold on a person, against the room":  {[]Order{order(Hold, Subject{Participant: "anna"}, 1, t0), order(Erasure, Subject{Room: "board"}, 2, t0.Add(time.Hour))}, time.Hour, "e1 is held by HO_00000001; r1/anna is held by HO_00000001; r1/ben goes by erasure; c1 is held by HO_00000001; m1 goes by erasure"},
		"a hold on a tenant":                    {[]Order{order(Hold, Subject{Tenant: "acme"}, 1, t0), order(Erasure, Subject{Room: "town"}, 2, t0.Add(time.Hour))}, time.Hour, "r2/anna is held by HO_00000001"},
	} {
		list := Judge(objects, c.orders, policies, t0.Add(c.after))
		slices.SortStableFunc(list, func(a, b Verdict) int { return 0 })
		got := told(list)
		if name == "what is being recorded" { // the order among equals is that of the objects
			for _, part := range strings.Split(c.want, "; ") {
				if !strings.Contains(got, part) {
					t.Errorf("%s: lacks %q: %s", name, part, got)
				}
			}
			continue
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// TestOrdersInAnyOrder has origins hear of the same orders and their ends in any order,
// again and again: they agree, and a hold that was lifted once stays lifted, while an
// older lift does nothing to a later hold.
func TestOrdersInAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 6))
	for range 2000 {
		var words []Order
		lifted := map[string]bool{}
		for i := range 5 {
			o := order(Hold, Subject{Room: "board"}, i, t0)
			words = append(words, o)
			if rng.IntN(2) == 0 {
				o.LiftedMS = t0.Add(time.Hour).UnixMilli()
				words, lifted[o.ID] = append(words, o), true
			}
		}
		known := map[string]Order{}
		for _, i := range append(rng.Perm(len(words)), rng.Perm(len(words))...) {
			w := words[i]
			if own, ok := known[w.ID]; ok {
				w, _ = Merge(own, w)
			}
			known[w.ID] = w
		}
		for id, o := range known {
			if o.InForce() == lifted[id] {
				t.Fatalf("%s: in force %v, lifted %v", id, o.InForce(), lifted[id])
			}
		}
	}
}

func TestOrderNamesNobody(t *testing.T) {
	a := order(Erasure, Subject{Room: "canary", Participant: "canary"}, 1, t0)
	b := order(Erasure, Subject{Room: "canary", Participant: "canary"}, 2, t0)
	if s := fmt.Sprintf("%+v", a); strings.Contains(s, "canary") || a.Room == a.Participant || a.Room == b.Room {
		t.Errorf("an order tells whom it is about: %s", s)
	}
	if err := a.Validate(); err != nil {
		t.Error(err)
	}
	if r := order(Erasure, Subject{Tenant: "acme", Room: "canary", Recording: "RE_abcdefgh"}, 3, t0); r.Validate() != nil || r.Tenant+r.Room != "" {
		t.Errorf("an order about a recording: %+v, %v", r, r.Validate())
	}
	for what, spoil := range map[string]func(*Order){
		"a name": func(o *Order) { o.Room = "board" }, "everything": func(o *Order) { o.Room, o.Participant = "", "" }, "a recording of a room": func(o *Order) { o.Recording = "RE_abcdefgh" },
		"no recording": func(o *Order) { o.Room, o.Participant, o.Recording = "", "", "../../etc" }, "no salt": func(o *Order) { o.Salt = "" },
		"a path": func(o *Order) { o.ID = "ER_../../etc" }, "lifted": func(o *Order) { o.LiftedMS = 1 }, "a rule": func(o *Order) { o.Rule = "whim" },
		"a long reason": func(o *Order) { o.Reason = strings.Repeat("x", 300) }, "another kind": func(o *Order) { o.Kind = "wish" }, "no time": func(o *Order) { o.AtMS = 0 },
	} {
		o := a
		if spoil(&o); o.Validate() == nil {
			t.Errorf("%s: %+v is an order", what, o)
		}
	}
}

// TestHoldsWin draws objects, orders and times: nothing goes that a hold in force is
// about, nothing goes that nothing asks for, and what is asked for goes once no hold is
// left.
func TestHoldsWin(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 1))
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	seen := map[string]int{}
	for range 3000 {
		var objects []Object
		for i := range 6 {
			x := Object{ID: fmt.Sprint(i), Kind: residency.KeptKinds()[rng.IntN(4)], Room: pick("a", "b"), Tenant: pick("", "t"), Policy: pick("short", "long", ""),
				People: []string{pick("p", "q")}, Began: t0.Add(time.Duration(rng.IntN(100)) * time.Hour)}
			if rng.IntN(4) > 0 {
				x.Ended = x.Began.Add(time.Hour)
			}
			objects = append(objects, x)
		}
		var orders []Order
		subjects := map[string]Subject{}
		for i := range rng.IntN(4) {
			s := Subject{Tenant: pick("", "t"), Room: pick("", "a", "b"), Participant: pick("", "p")}
			if s == (Subject{}) {
				continue
			}
			o := order([]Kind{Hold, Erasure}[rng.IntN(2)], s, i, t0.Add(time.Duration(rng.IntN(100))*time.Hour))
			if o.Kind == Hold && rng.IntN(3) == 0 {
				o.LiftedMS = 1
			}
			orders, subjects[o.ID] = append(orders, o), s
		}
		now := t0.Add(time.Duration(rng.IntN(200)) * time.Hour)
		goes := map[string]bool{}
		for _, v := range Judge(objects, orders, policies, now) {
			goes[v.ID] = v.Erase
		}
		for _, x := range objects {
			fits := func(s Subject) bool {
				return (s.Tenant == "" || s.Tenant == x.Tenant) && (s.Room == "" || s.Room == x.Room) && (s.Participant == "" || s.Participant == x.People[0])
			}
			asked, held := false, false
			for _, o := range orders {
				asked = asked || o.Kind == Erasure && fits(subjects[o.ID]) && x.Began.UnixMilli() < o.BeforeMS
				held = held || o.Kind == Hold && o.LiftedMS == 0 && fits(subjects[o.ID])
			}
			if p := policies(x); p != nil && !x.Ended.IsZero() {
				d, ends := p.Retains(x.Kind)
				asked = asked || ends && !now.Before(x.Ended.Add(d))
			}
			if want := asked && !held; goes[x.ID] != want {
				t.Fatalf("%+v goes: %v, want %v (asked %v, held %v)\n%+v", x, goes[x.ID], want, asked, held, orders)
			}
			seen[fmt.Sprint(asked, held)]++
		}
	}
	if len(seen) != 4 {
		t.Errorf("the draws try too little: %v", seen)
	}
}

// TestExportOfWhatHadToGo: an export that was made while a hold kept what an erasure was
// about goes with it when the hold is lifted, and one of what came later does not.
func TestExportOfWhatHadToGo(t *testing.T) {
	old := Object{ID: "r1", Kind: residency.KeptRecording, Room: "board", Policy: "long", People: []string{"anna"}, Began: t0, Ended: t0.Add(time.Minute)}
	export := Object{ID: "e1", Kind: residency.KeptExport, Room: "board", Policy: "long", Anyone: true, Began: t0.Add(3 * time.Hour)}
	hold := order(Hold, Subject{Room: "board"}, 1, t0)
	erasure := order(Erasure, Subject{Room: "board"}, 2, t0.Add(time.Hour))
	at := t0.Add(4 * time.Hour)
	if got := told(Judge([]Object{old, export}, []Order{hold, erasure}, policies, at)); got != "e1 is held by HO_00000001; r1 is held by HO_00000001" {
		t.Errorf("under the hold %s", got)
	}
	hold.LiftedMS = at.UnixMilli()
	if got := told(Judge([]Object{old, export}, []Order{hold, erasure}, policies, at)); got != "e1 goes by erasure; r1 goes by erasure" {
		t.Errorf("then %s", got)
	}
	if got := told(Judge([]Object{export}, []Order{hold, erasure}, policies, at)); got != "" {
		t.Errorf("an export of a later room: %s", got)
	}
}

// TestNoTenant: who has no tenant asks for nothing of the tenants.
func TestNoTenant(t *testing.T) {
	track := func(id, tenant string) Object {
		return Object{ID: id, Kind: residency.KeptRecording, Room: "board", Tenant: tenant, Policy: "long", People: []string{"anna"}, Began: t0, Ended: t0.Add(time.Minute)}
	}
	objects := []Object{track("acme's", "acme"), track("nobody's", "")}
	own := order(Erasure, Subject{Room: "board", NoTenant: true}, 1, t0.Add(time.Hour))
	if got := told(Judge(objects, []Order{own}, policies, t0.Add(time.Hour))); got != "nobody's goes by erasure" {
		t.Errorf("%s", got)
	}
	if own.Covers(Subject{Tenant: "acme", Room: "board"}) || !own.Covers(Subject{Room: "board"}) {
		t.Error("it covers a tenant's room")
	}
	if any := order(Erasure, Subject{Room: "board"}, 1, t0.Add(time.Hour)); !any.Covers(Subject{Tenant: "acme", Room: "board"}) {
		t.Error("an operator's order is about all rooms of the name")
	}
	own.Tenant = "acme"
	if own.Validate() == nil {
		t.Error("an order about a tenant's rooms and rooms of none")
	}
}
