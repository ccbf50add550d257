package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is the CPU time spent up to a moment.
type usage struct {
	at      time.Time
	nodes   time.Duration // all threads of the node processes
	self    time.Duration // of this process
	busy    time.Duration // of the whole machine
	machine time.Duration // what the machine could have spent
}

func readUsage(pids []int) (u usage, err error) {
	u.at = time.Now()
	for _, pid := range pids {
		d, err := processTime(pid)
		if err != nil {
			return u, err
		}
		u.nodes += d
	}
	if u.self, err = processTime(os.Getpid()); err != nil {
		return u, err
	}
	u.busy, err = machineTime()
	return u, err
}

func (u usage) since(before usage) usage {
	return usage{nodes: u.nodes - before.nodes, self: u.self - before.self, busy: u.busy - before.busy,
		machine: u.at.Sub(before.at) * time.Duration(runtime.NumCPU())}
}

// processTime reads the CPU clock of a process, to the nanosecond where
// /proc/PID/stat counts ticks of 10 ms. The clock's id is made of the pid as
// Linux's clock_getcpuclockid(3) makes it.
func processTime(pid int) (time.Duration, error) {
	const schedClock, maxPID = 2, 1 << 22
	if pid < 1 || pid >= maxPID {
		return 0, fmt.Errorf("read CPU time of process %d: no such process", pid)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// machineTime is what all processes spent: /proc/stat without idle and waiting.
func machineTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("read /proc/stat: unexpected line %q", line)
	}
	var ticks int64
	for i, f := range fields[1:9] { // user nice system idle iowait irq softirq steal
		if i == 3 || i == 4 {
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// residentBytes is the memory that processes hold now.
func residentBytes(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(b))
		if len(fields) < 2 {
			return 0, fmt.Errorf("read memory of process %d: unexpected line %q", pid, b)
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		sum += pages * int64(os.Getpagesize())
	}
	return sum, nil
}
