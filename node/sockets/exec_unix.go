//go:build unix

package sockets

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// environment carries the sockets through Exec, since systemd's own variables
// want descriptors without gaps: "name=descriptor", separated by commas.
//
//	DOMICILE_SOCKETS=https=7,media=9,media=10
const environment = "DOMICILE_SOCKETS"

// maxInherited bounds what the environment may name.
const maxInherited = 256

// Exec makes this process another program, which inherits the sockets that were
// kept; its process id stays. It returns only if that fails.
func (s *Set) Exec(path string, args, env []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for name, files := range s.kept {
		for _, f := range files {
			fd, err := inheritable(f)
			if err != nil {
				return fmt.Errorf("hand on socket %q: %w", name, err)
			}
			list = append(list, name+"="+strconv.Itoa(fd))
		}
	}
	env = append(env, environment+"="+strings.Join(list, ","))
	if err := syscall.Exec(path, args, env); err != nil {
		return fmt.Errorf("become %q: %w", path, err)
	}
	return nil
}

// inheritable lets a descriptor survive exec. It must not be had by File.Fd, which
// would make the socket wait.
func inheritable(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := -1
	var flag error
	if err := raw.Control(func(fd uintptr) {
		n = int(fd)
		_, flag = unix.FcntlInt(fd, unix.F_SETFD, 0)
	}); err != nil {
		return 0, err
	}
	return n, flag
}

// fromPredecessor takes the sockets of the process that this one was before Exec.
func fromPredecessor() ([]*os.File, error) {
	list := os.Getenv(environment)
	if err := os.Unsetenv(environment); err != nil || list == "" {
		return nil, err
	}
	return parseSockets(list)
}

func parseSockets(list string) ([]*os.File, error) {
	entries := strings.Split(list, ",")
	if len(entries) > maxInherited {
		return nil, fmt.Errorf("%d of them, at most %d", len(entries), maxInherited)
	}
	var files []*os.File
	for _, e := range entries {
		name, number, ok := strings.Cut(e, "=")
		fd, err := strconv.ParseUint(number, 10, 31)
		if !ok || err != nil || name == "" || fd <= 2 {
			return files, fmt.Errorf("%s: %q names no descriptor", environment, e)
		}
		unix.CloseOnExec(int(fd))
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files, nil
}
