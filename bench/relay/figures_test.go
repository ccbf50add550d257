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
	"strings"
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
	Sent   Report  `json:"sent"`
	Heard  Report  `json:"heard"`
	Others float64 `json:"others_cores"`    // processors that other programs, and the kernel, used meanwhile
	Added  *Turn   `json:"added,omitempty"` // to the delays of the floor
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

// startIn is when the first turn begins: links are up then, and it is known what
// passes. turnGap lies between two turns.
const startIn, turnGap = 3 * time.Second, 250 * time.Millisecond

// measure has ways take turns, so that what the machine does besides meets all of them.
func measure(t *testing.T, at place, load Load, turns int, ways []string) map[string]way {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	type ends struct{ send, hear *process }
	running, begin := map[string]ends{}, time.Now().Add(startIn)
	for i, by := range ways {
		ids, err := Issue("a", "b")
		if err != nil {
			t.Fatal(err)
		}
		o := Order{Role: "hear", Way: by, Load: load, At: at.far, Identity: ids["b"], Profile: profile(by, "hear")}
		for turn := range turns {
			o.Turns = append(o.Turns, begin.Add(time.Duration(turn*len(ways)+i)*(load.Warm+load.Measured+turnGap)))
		}
		e := ends{hear: start(t, at.command(self), o)}
		o.Role, o.At, o.Peer, o.Identity, o.Profile = "send", at.near, e.hear.report(t).Addr, ids["a"], profile(by, "send")
		e.send = start(t, exec.Command(self), o)
		running[by] = e
	}
	all := map[string]way{}
	for by, e := range running {
		w := way{Sent: e.send.report(t), Heard: e.hear.report(t)}
		w.Others = w.Sent.Spent.Machine - w.Sent.Spent.CPU - w.Heard.Spent.CPU
		all[by] = w
	}
	for by, w := range all {
		if floor, ok := all["floor"]; ok && by != "floor" {
			h, f := w.Heard.Heard, floor.Heard.Heard
			w.Added = &Turn{PacketsP50: h.PacketsP50 - f.PacketsP50, PacketsP99: h.PacketsP99 - f.PacketsP99}
			all[by] = w
		}
	}
	return all
}

// shortest is the MTU that IPv6 asks of every way (RFC 8200 section 5), of which the heads of
// IPv4 and UDP are not the link's.
const shortest, ipAndUDP = 1280, 28

// TestFigures measures a hop: go test -tags figures -run TestFigures/NAME ./bench/relay
func TestFigures(t *testing.T) {
	lossy := impair.Profile{Delay: 20 * time.Millisecond, Loss: 0.01}
	short := impair.Profile{Delay: 20 * time.Millisecond, MTU: shortest}
	narrow := impair.Profile{Delay: 20 * time.Millisecond, Bottleneck: []impair.Step{{Rate: 4e6}}, Queue: 150_000}
	for _, c := range []struct {
		name, path string
		place      func(*testing.T) place
		load       Load
		turns      int
		ways       []string
	}{
		{"relay-20k", "loopback", func(*testing.T) place { return loopback },
			Load{Cameras: 40, Layers: 1, PerFrame: 17, Size: 1200, Warm: 2 * time.Second, Measured: 3 * time.Second}, 4, ways("floor", "udp", "quic")},
		{"relay-tracks", "loopback", func(*testing.T) place { return loopback },
			Load{Cameras: 100, Layers: 1, PerFrame: 2, Size: 1100, Voices: 500, Warm: 2 * time.Second, Measured: 3 * time.Second}, 4, ways("floor", "udp", "quic")},
		{"relay-loss", "20 ms each way (round trip 40 ms), 1 % loss each way", func(t *testing.T) place { return behind(t, lossy) },
			Load{Cameras: 10, Layers: 1, PerFrame: 17, Size: 1200, Voices: 200, Warm: 5 * time.Second, Measured: 15 * time.Second}, 1, ways("udp", "quic")},
		{"relay-narrow", "20 ms each way, 4 Mbit/s, at most 150 kB wait for it", func(t *testing.T) place { return behind(t, narrow) },
			Load{Cameras: 4, Layers: 3, PerFrame: 2, Size: 1150, Voices: 10, Measured: 20 * time.Second}, 1, ways("udp", "quic")},
		{"relay-short", fmt.Sprintf("20 ms each way, what is longer than %d bytes vanishes", shortest), func(t *testing.T) place { return behind(t, short) },
			Load{Cameras: 10, Layers: 1, PerFrame: 5, Size: 1100, Voices: 10, Warm: 5 * time.Second, Measured: 5 * time.Second}, 1, ways("udp")},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := c.place(t)
			r := result{Scenario: c.name, Path: c.path, Load: c.load, Packets: c.load.Packets(), Video: c.load.Bits() / 1e6,
				When: time.Now().UTC(), Command: "go test -tags figures -v -run TestFigures/" + c.name + " ./bench/relay -relay.record", Commit: commit()}
			r.Ways = measure(t, at, c.load, c.turns, c.ways)
			for _, by := range c.ways {
				w := r.Ways[by]
				t.Logf("%-5s tx %.2f µs, %+v", by, w.Sent.CPU, *w.Heard.Heard)
				t.Logf("      sender %+v, frames late by %.2f ms (p99), receiver %+v", w.Sent.Spent, w.Sent.LateBy, w.Heard.Spent)
				if w.Added != nil {
					t.Logf("      it adds %+v ms; other programs had %.2f cores", *w.Added, w.Others)
				}
				for _, m := range w.Sent.Trace {
					t.Logf("      %+v", m)
				}
				if w.Sent.Stats != nil {
					s := *w.Sent.Stats
					t.Logf("      over %s (%s), drops %v", s.Carriage, s.Why, s.Drops)
					if s.UDP != nil {
						t.Logf("      %+v", *s.UDP)
						t.Logf("      %+v", *w.Heard.Stats.UDP)
						if longest := shortest - ipAndUDP; c.name == "relay-short" && (s.UDP.Length > longest || s.UDP.Length < longest-50 || w.Heard.Heard.Whole < w.Heard.Heard.Frames) {
							t.Errorf("datagrams of up to %d bytes where %d pass; %d of %d frames came whole", s.UDP.Length, longest, w.Heard.Heard.Whole, w.Heard.Heard.Frames)
						}
					}
				}
			}
			if *record {
				write(t, r)
			}
		})
	}
}

var only = flag.String("relay.way", "", "measure these ways alone, of floor, udp and quic: floor,udp")

func ways(all ...string) []string {
	if *only != "" {
		return strings.Split(*only, ",")
	}
	return all
}

var profiles = flag.String("relay.profile", "", "write processor profiles into this directory")

// profile is the file for a process' profile, empty for none.
func profile(by, role string) string {
	if *profiles == "" {
		return ""
	}
	return filepath.Join(*profiles, by+"-"+role+".pprof")
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
