//go:build unix

package main

import (
	"os"
	"syscall"
)

// upgradeSignals ask a running node to become the new version.
var upgradeSignals = []os.Signal{syscall.SIGUSR2}
