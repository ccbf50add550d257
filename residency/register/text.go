package register

import (
	"fmt"
	"io"
	"strings"
)

// Text writes the register for a terminal or a letter.
func (r Register) Text(w io.Writer, lang Language) error {
	var b strings.Builder
	t := textWriter{&b, in(lang)}
	t.head(r)
	for _, p := range r.Processors {
		t.processor(p)
	}
	t.policies(r)
	t.tenants(r)
	if len(r.Missing) > 0 {
		t.line("\n%s:", t.say("missing"))
		for _, m := range r.Missing {
			t.line("  %s, %s", m.Name, t.place(m.Country))
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write register: %w", err)
	}
	return nil
}

type textWriter struct {
	b *strings.Builder
	speaker
}

func (t textWriter) line(format string, a ...any) { fmt.Fprintf(t.b, format+"\n", a...) }

// item writes a labelled line, none without a value.
func (t textWriter) item(label, value string) {
	if value != "" {
		t.line("    %s: %s", t.say(label), value)
	}
}

func (t textWriter) head(r Register) {
	title := t.say("title")
	t.line("%s\n%s\n", title, strings.Repeat("=", len([]rune(title))))
	t.line("%s", t.say("intro"))
	t.line("%s: %s. %s: %s", t.say("made"), t.day(r.Made), t.say("version"), t.edition(r))
	if r.Closed {
		t.line("%s", t.say("closed"))
	} else {
		t.line("%s", t.say("open"))
	}
	if len(r.Processors) == 0 {
		t.line("\n%s", t.say("none"))
	}
}

// edition names the version of the policies.
func (s speaker) edition(r Register) string {
	out := fmt.Sprint(r.Epoch)
	if !r.Issued.IsZero() {
		out += fmt.Sprintf(" %s %s", s.say("of"), s.day(r.Issued))
	}
	if !r.Expires.IsZero() {
		out += fmt.Sprintf(", %s %s", s.say("until"), s.day(r.Expires))
	}
	return out
}

func (t textWriter) processor(p Processor) {
	t.line("\n%s: %s, %s", t.say("operator"), p.Name, t.place(p.Country))
	t.line("%s: %s", t.say("parent"), t.parent(p))
	for _, n := range p.Nodes {
		third := ""
		if n.Third {
			third = ", " + t.say("third")
		}
		t.line("\n  %s %s, %s%s", t.say("node"), n.Name, t.place(n.Country), third)
		t.item("roles", t.roles(n.Roles))
		t.item("certificate", fmt.Sprintf("%s, %s %s %s %s", n.Serial, t.say("from"), t.day(n.From), t.say("until"), t.day(n.Until)))
		t.item("alone", strings.Join(n.Tenants, ", "))
		t.item("refused", t.refusal(n))
		for _, u := range n.Uses {
			t.line("    %s %s", t.say("policy"), u.Policy)
			for label, value := range t.uses(n, u) {
				t.line("      %s: %s", t.say(label), value)
			}
		}
	}
}

// uses lists what a node does under a policy, in order: label and value.
func (s speaker) uses(n Node, u Use) func(yield func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for _, l := range [][2]string{{"stores", s.classes(u.Stores)}, {"handles", s.classes(u.Handles)},
			{"outside", s.classes(u.Outside)}, {"transfer", s.transfer(n, u)}} {
			if l[1] != "" && !yield(l[0], l[1]) {
				return
			}
		}
	}
}

func (t textWriter) policies(r Register) {
	t.line("\n%s", t.say("policies"))
	for _, p := range r.Policies {
		t.line("\n  %s", t.heading(r, p))
		t.item("recording", t.say(p.Recording))
		t.item("chatlog", yesNo(t.speaker, p.ChatLog))
		t.item("qalog", yesNo(t.speaker, p.QALog))
		for _, b := range p.Transfers {
			t.item("transfer", t.basis(b)+": "+t.places(b.Countries))
		}
	}
}

// heading names a policy.
func (s speaker) heading(r Register, p Policy) string {
	out := p.Name
	if p.Title != "" {
		out += ": " + p.Title
	}
	if p.Name == r.Default {
		out += " (" + s.say("default") + ")"
	}
	return out
}

func (t textWriter) tenants(r Register) {
	if len(r.Tenants) == 0 {
		return
	}
	t.line("\n%s\n%s", t.say("tenants"), t.say("rolenote"))
	for _, c := range r.Tenants {
		t.line("\n  %s", c.Name)
		t.item("controller", t.controller(c))
		t.item("policies", strings.Join(c.Policies, ", "))
	}
}

func (s speaker) controller(t Tenant) string {
	if t.Controller == "" {
		return s.say("notstated")
	}
	return t.Controller
}
