//go:build !unix

package main

import "os"

// upgradeSignals are none: see sockets.Set.Exec.
var upgradeSignals []os.Signal
