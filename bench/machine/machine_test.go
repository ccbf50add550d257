package machine

import (
	"testing"
	"time"
)

func TestDescribe(t *testing.T) {
	m := Describe(time.Unix(1_700_000_000, 0), "measure")
	if m.At != "2023-11-14T22:13:20Z" || m.Command != "measure" {
		t.Errorf("at %q by %q", m.At, m.Command)
	}
	if m.Go == "" || m.CPUs < 1 || m.CPU == "" || m.Kernel == "" || m.Commit == "" {
		t.Errorf("something is not known: %+v", m)
	}
}
