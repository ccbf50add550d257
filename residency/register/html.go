package register

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

//go:embed register.html
var page string

// HTML writes the register as one page that needs nothing else: it prints, and
// reads well on a telephone.
func (r Register) HTML(w io.Writer, lang Language) error {
	s := in(lang)
	t, err := template.New("register").Funcs(template.FuncMap{
		"say": s.say, "place": s.place, "places": s.places, "day": s.day, "classes": s.classes, "roles": s.roles, "basis": s.basis,
		"transfer": s.transfer, "refusal": s.refusal, "parent": s.parent, "controller": s.controller,
		"edition": s.edition, "heading": s.heading, "lang": func() Language { return lang },
		"yes":  func(v bool) string { return yesNo(s, v) },
		"join": join[string],
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("write register: %w", err)
	}
	if err := t.Execute(w, r); err != nil {
		return fmt.Errorf("write register: %w", err)
	}
	return nil
}
