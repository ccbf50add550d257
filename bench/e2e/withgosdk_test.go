package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestGoSDK has two clients of LiveKit's Go SDK meet on two nodes: they publish,
// receive, are recorded by the Egress API, mute, send data and leave. Compiling them
// takes a minute the first time. The parallel test that is declared last is among the
// first to run, so that the minute passes beside the others.
func TestGoSDK(t *testing.T) {
	t.Parallel()
	client := build("gosdk", "gosdk")
	m := sharedMesh(t)
	ws := func(node string) string { return "ws" + strings.TrimPrefix(m.node(node).Plain, "http") }
	cmd := exec.Command(client, "-a", ws("waw"), "-b", ws("nyc"), "-key", m.Key)
	cmd.Env = append(os.Environ(), "API_SECRET="+m.Secret)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	took := map[string]string{}
	if err := json.Unmarshal(out, &took); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if d, err := time.ParseDuration(took["leave"]); err != nil || d > prompt {
		t.Errorf("the departure was seen after %q, want at most %s", took["leave"], prompt)
	}
	t.Logf("%s", out)
}
