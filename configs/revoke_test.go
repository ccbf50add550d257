package configs

import (
	"strings"
	"testing"
)

// TestRevoke edits policy files in the forms that people write, and loses nothing
// of them.
func TestRevoke(t *testing.T) {
	const head = "# our policy\nepoch: 7   # raise it\ndefault: p\n"
	const tail = "policies: {p: {title: \"tïtle\", classes: {all: EEA}, few_origins: accepted}} # end\n"
	for name, c := range map[string]struct{ before, after string }{
		"empty":         {head + "revoked: []  # none yet\n" + tail, "revoked: [\"abc\"]  # none yet\n"},
		"flow":          {head + "revoked: [\"1\", '2'] # two\n" + tail, "revoked: [\"1\", '2', \"abc\"] # two\n"},
		"block":         {head + "revoked:\n  # lost in May\n  - \"1\" # fra\n  - \"2\" # waw\n" + tail, "  - \"1\" # fra\n  - \"2\" # waw\n  - \"abc\"\n"},
		"block in line": {head + "revoked:\n- \"1\"\n" + tail, "revoked:\n- \"1\"\n- \"abc\"\n"},
		"at the end":    {head + tail + "revoked:\n  - \"1\"", "revoked:\n  - \"1\"\n  - \"abc\""},
		"not there":     {head + tail, "# end\nrevoked:\n  - \"abc\"\n"},
		"wide letters":  {strings.Replace(head+"revoked: [] # ünï\n"+tail, "# our", "# öur", 1), "revoked: [\"abc\"] # ünï\n"},
	} {
		t.Run(name, func(t *testing.T) {
			next, b, err := Revoke("policy.yaml", []byte(c.before), "abc")
			if err != nil {
				t.Fatal(err)
			}
			got := string(next)
			if !strings.Contains(got, c.after) || !strings.Contains(got, "epoch: 8   # raise it\n") || !strings.Contains(got, tail[:len(tail)-1]) {
				t.Errorf("got\n%s", got)
			}
			if b.Epoch != 8 || !b.Revokes("abc") {
				t.Errorf("epoch %d, revoked %v", b.Epoch, b.Revoked)
			}
			if _, _, err := Revoke("policy.yaml", next, "abc"); err == nil || !strings.Contains(err.Error(), "already") {
				t.Errorf("twice: %v", err)
			}
		})
	}
}

func TestRevokeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"epoch: 1\n": "policies",
		"epoch: 1\ndefault: p\nrevoked:\npolicies: {p: {title: t, classes: {all: EEA}, few_origins: accepted}}\n": "revoked",
	} {
		if _, _, err := Revoke("policy.yaml", []byte(text), "abc"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
