//go:build !unix

package sockets

import (
	"errors"
	"os"
)

// Exec needs a system on which a process can become another program.
func (s *Set) Exec(string, []string, []string) error {
	return errors.New("upgrades in place need Unix")
}

func fromPredecessor() ([]*os.File, error) { return nil, nil }
