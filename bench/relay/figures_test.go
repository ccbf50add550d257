//go:build linux && figures

package relay

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/bench/netlab/impair"
)

var record = flag.Bool("relay.record", false, "write what was measured into bench/results")

const asProcess = "DOMICILE_BENCH_RELAY"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		Process(os.Stdin, os.Stdout)
		return
	}
	os.Exit(m.Run())
}

// result is a scenario, of each way.
type result struct {
	Scenario string         `json:"scenario"`
	Command  string         `json:"command"`
	Commit   string         `json:"commit"`
	When     time.Time      `json:"when"`
	Path     string         `json:"path"`
	Load     Load           `json:"load"`
	Packets  float64        `json:"packets_per_second"`
	Video    float64        `json:"video_mbps"`
	Ways     map[string]way `json:"ways"`
}

type way struct {
	Sent  Report `json:"sent"`
	Heard Report `json:"heard"`
}

// place is where the two ends are.
type place struct {
	near, far netip.Addr
	command   func(name string, args ...string) *exec.Cmd // of the far end
}

var loopback = place{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"), exec.Command}

func behind(t *testing.T, p impair.Profile) place {
	lab := netlab.NewImpaired(t)
	if err := lab.Impair(p); err != nil {
		t.Fatal(err)
	}
	return place{lab.Host, lab.Inside, lab.Command}
}

// process runs one end.
type process struct {
	cmd *exec.Cmd
	out *json.Decoder
}

func start(t *testing.T, cmd *exec.Cmd, o Order) *process {
	t.Helper()
	cmd.Env, cmd.Stderr = append(os.Environ(), asProcess+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := json.NewEncoder(in).Encode(o); err != nil {
		t.Fatal(err)
	}
	in.Close()
	return &process{cmd, json.NewDecoder(out)}
}

func (p *process) report(t *testing.T) (r Report) {
	t.Helper()
	if err := p.out.Decode(&r); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if r.Failed != "" {
		t.Fatal(r.Failed)
	}
	return r
}

func measure(t *testing.T, at place, by string, load Load) way {
	t.Helper()
	ids, err := Issue("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(3 * time.Second) // links are up, and it is known what passes
	hear := start(t, at.command(self), Order{Role: "hear", Way: by, Load: load, At: at.far, Begin: begin, Identity: ids["b"]})
	addr := hear.report(t).Addr
	send := start(t, exec.Command(self), Order{Role: "send", Way: by, Load: load, At: at.near, Peer: addr, Begin: begin, Identity: ids["a"]})
	return way{Sent: send.report(t), Heard: hear.report(t)}
}

// TestFigures measures a hop: go test -tags figures -run TestFigures/NAME ./bench/relay
func TestFigures(t *testing.T) {
	lossy := impair.Profile{Delay: 20 * time.Millisecond, Loss: 0.01}
	narrow := impair.Profile{Delay: 20 * time.Millisecond, Bottleneck: []impair.Step{{Rate: 4e6}}, Queue: 150_000}
	for _, c := range []struct {
		name, path string
		place      func(*testing.T) place
		load       Load
		ways       []string
	}{
		{"relay-20k", "loopback", func(*testing.T) place { return loopback },
			Load{Cameras: 40, Layers: 1, PerFrame: 17, Size: 1200, Warm: 4 * time.Second, Measured: 8 * time.Second}, ways("floor", "udp", "quic")},
		{"relay-tracks", "loopback", func(*testing.T) place { return loopback },
			Load{Cameras: 100, Layers: 1, PerFrame: 2, Size: 1100, Voices: 500, Warm: 4 * time.Second, Measured: 8 * time.Second}, ways("floor", "udp", "quic")},
		{"relay-loss", "20 ms each way (round trip 40 ms), 1 % loss each way", func(t *testing.T) place { return behind(t, lossy) },
			Load{Cameras: 10, Layers: 1, PerFrame: 17, Size: 1200, Voices: 200, Warm: 5 * time.Second, Measured: 15 * time.Second}, ways("udp", "quic")},
		{"relay-narrow", "20 ms each way, 4 Mbit/s, at most 150 kB wait for it", func(t *testing.T) place { return behind(t, narrow) },
			Load{Cameras: 4, Layers: 3, PerFrame: 2, Size: 1150, Voices: 10, Warm: 5 * time.Second, Measured: 15 * time.Second}, ways("udp", "quic")},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := c.place(t)
			r := result{Scenario: c.name, Path: c.path, Load: c.load, Packets: c.load.Packets(), Video: c.load.Bits() / 1e6, Ways: map[string]way{},
				When: time.Now().UTC(), Command: "go test -tags figures -v -run TestFigures/" + c.name + " ./bench/relay -relay.record", Commit: commit()}
			for _, by := range c.ways {
				r.Ways[by] = measure(t, at, by, c.load)
				w := r.Ways[by]
				t.Logf("%-5s tx %.2f µs, %+v", by, w.Sent.CPU, *w.Heard.Heard)
				for _, m := range w.Sent.Trace {
					t.Logf("      %+v", m)
				}
				if w.Sent.Stats != nil {
					s := *w.Sent.Stats
					t.Logf("      over %s (%s), drops %v", s.Carriage, s.Why, s.Drops)
					if s.UDP != nil {
						t.Logf("      %+v", *s.UDP)
						t.Logf("      %+v", *w.Heard.Stats.UDP)
					}
				}
			}
			if *record {
				write(t, r)
			}
		})
	}
}

var only = flag.String("relay.way", "", "measure this way alone: floor, udp or quic")

func ways(all ...string) []string {
	if *only != "" {
		return []string{*only}
	}
	return all
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return string(out[:len(out)-1])
}

func write(t *testing.T, r result) {
	t.Helper()
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("..", "results", fmt.Sprintf("%s-%s.json", r.When.Format(time.DateOnly), r.Scenario))
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
