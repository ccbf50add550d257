// Package machine says where and with what something was measured, for files of
// results. It measures nothing.
package machine

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Machine is where and with what was measured.
type Machine struct {
	At      string `json:"at"`
	Go      string `json:"go"`
	Commit  string `json:"commit"`
	CPUs    int    `json:"cpus"`
	CPU     string `json:"cpu"`
	Kernel  string `json:"kernel"`
	Command string `json:"command"`
}

// Describe reads what can be known of this machine. command is what measured.
func Describe(now time.Time, command string) Machine {
	m := Machine{At: now.UTC().Format(time.RFC3339), Go: runtime.Version(), Commit: commit(), CPUs: runtime.NumCPU(), CPU: cpuModel(),
		Command: command}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	return m
}

// commit names the tree that the generator was run in, or built from.
func commit() string {
	if out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
