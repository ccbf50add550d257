package room

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestAnswers follows what people are told and answer, a step at a time, and wants what
// is new to be written down, once.
func TestAnswers(t *testing.T) {
	type step struct{ told, consent, declined string }
	for name, c := range map[string]struct {
		withdrawn bool
		steps     []step
		want      string
	}{
		"asked, agrees":             {false, []step{{"", "", ""}, {"RE_1", "", ""}, {"RE_1", "RE_1", ""}, {"RE_1", "RE_1", ""}}, "- notice given -"},
		"agrees and takes it back":  {false, []step{{"RE_1", "RE_1", ""}, {"RE_1", "", "RE_1"}, {"RE_1", "", "RE_1"}}, "notice+given withdrawn -"},
		"says no, then yes":         {false, []step{{"RE_1", "", ""}, {"RE_1", "", "RE_1"}, {"RE_1", "RE_1", ""}, {"RE_1", "", "RE_1"}}, "notice declined given withdrawn"},
		"an answer to another":      {false, []step{{"RE_1", "RE_0", "RE_0"}}, "notice"},
		"the token says yes":        {false, []step{{"", ConsentGiven, ""}, {"RE_1", ConsentGiven, ""}}, "given notice"},
		"the token, after a no":     {true, []step{{"RE_1", ConsentGiven, ""}}, "notice"},
		"their node forgets them":   {false, []step{{"RE_1", "", ""}, {"", "", ""}, {"RE_1", "", ""}}, "notice - -"},
		"agrees before being told":  {false, []step{{"", "RE_1", ""}, {"RE_1", "RE_1", ""}}, "given notice"},
		"told of another recording": {false, []step{{"RE_2", "RE_2", ""}}, "-"},
	} {
		var a answer
		var got []string
		for _, s := range c.steps {
			events := a.hears(capture{recording: "RE_1", told: s.told, consent: s.consent, withdrawn: c.withdrawn}, s.declined)
			word := "-"
			for i, e := range events {
				if i == 0 {
					word = string(e)
				} else {
					word += "+" + string(e)
				}
			}
			got = append(got, word)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

// TestConsents puts lines of two origins together.
func TestConsents(t *testing.T) {
	line := func(at int64, sid string, e ConsentEvent) ConsentLine {
		return ConsentLine{AtMS: at, SID: sid, Identity: sid, Event: e, Recording: "RE_1"}
	}
	one := []ConsentLine{line(5, "anna", ConsentShown), line(7, "anna", ConsentAgreed), line(11, "anna", ConsentWithdrawn)}
	two := []ConsentLine{line(6, "ben", ConsentDeclined), line(8, "anna", ConsentShown), line(9, "anna", ConsentAgreed), line(12, "anna", ConsentAgreed)}
	want := "[5 anna notice 6 ben declined 7 anna given 11 anna withdrawn 12 anna given]"
	for _, lines := range [][]ConsentLine{slices.Concat(one, two), slices.Concat(two, one)} {
		var got []string
		for _, l := range Consents(lines) {
			got = append(got, fmt.Sprint(l.AtMS, " ", l.SID, " ", l.Event))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
