// Package pgtest runs a PostgreSQL for a test: a real one, from Debian's packages, in a
// directory of its own, that can be killed and started again. It listens on a Unix
// socket alone, unless it is to serve TLS. Without the packages the test fails: scripts/deps installs them.
package pgtest

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/freeport"
)

// User is the superuser, Database the database that is there, Port part of the
// socket's name.
const (
	User     = "domicile"
	Database = "postgres"
	Port     = 5432
)

// patience is how long a server may take to start on a busy machine.
const patience = 30 * time.Second

// Server is one PostgreSQL.
type Server struct {
	Dir  string // its data, and its socket: a host for clients
	args []string
	port int
	cmd  *exec.Cmd
	cred *syscall.Credential // PostgreSQL refuses to be root
}

// template is a data directory: initdb takes a second, so it runs once for all servers
// of a process.
var template struct {
	once sync.Once
	dir  string
	err  error
}

// Clear removes what is left when all tests have run. TestMain calls it.
func Clear() {
	if template.dir != "" {
		os.RemoveAll(template.dir)
	}
}

func initialise() {
	s, err := directory()
	if err != nil {
		template.err = err
		return
	}
	template.dir = s.Dir
	out, err := s.command("initdb", "-D", s.data(), "-U", User, "-A", "trust", "-E", "UTF8", "--wal-segsize=1", "--no-sync", "--locale=C").CombinedOutput()
	if err != nil {
		template.err = fmt.Errorf("initdb: %w: %s", err, out)
	}
}

// directory makes a directory. The path of a Unix socket has at most 107 bytes, so it is
// not below testing's own.
func directory() (*Server, error) {
	dir, err := os.MkdirTemp("", "domicile-pg")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir}
	if os.Getuid() != 0 {
		return s, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, err
	}
	s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return s, os.Chown(dir, uid, gid)
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

// command runs in a process group of its own, which Kill ends.
func (s *Server) command(tool string, args ...string) *exec.Cmd {
	cmd := exec.Command(find(tool), args...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	return cmd
}

// find looks where Debian keeps PostgreSQL's programs, out of PATH.
func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(all) > 0 {
		return all[len(all)-1]
	}
	return name
}

// New starts a server, which the end of the test kills.
func New(t *testing.T) *Server {
	t.Helper()
	template.once.Do(initialise)
	if template.err != nil {
		t.Fatalf("no PostgreSQL: run scripts/deps: %v", template.err)
	}
	s, err := directory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.Dir) })
	from := Server{Dir: template.dir}
	if out, err := s.command("cp", "-a", from.data(), s.Dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the data directory: %v: %s", err, out)
	}
	t.Cleanup(func() { s.Kill(t) })
	s.Start(t)
	return s
}

// ServeTLS starts the server anew, on a port of 127.0.0.1 too, with a certificate and its
// key in PEM.
func (s *Server) ServeTLS(t *testing.T, certificate, key []byte) (port int) {
	t.Helper()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	for name, pem := range map[string][]byte{"server.crt": certificate, "server.key": key} {
		path := filepath.Join(s.Dir, name)
		err = errors.Join(err, os.WriteFile(path, pem, 0o600))
		if s.cred != nil {
			err = errors.Join(err, os.Chown(path, int(s.cred.Uid), int(s.cred.Gid)))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Kill(t)
	s.port, s.args = port, []string{"-c", "listen_addresses=127.0.0.1", "-c", "ssl=on",
		"-c", "ssl_cert_file=" + filepath.Join(s.Dir, "server.crt"), "-c", "ssl_key_file=" + filepath.Join(s.Dir, "server.key")}
	s.Start(t)
	return port
}

// CreateDatabase makes a further, empty database, for tests that share a server.
func (s *Server) CreateDatabase(t *testing.T, name string) {
	t.Helper()
	if out, err := s.command("createdb", "-h", s.Dir, "-p", strconv.Itoa(cmp.Or(s.port, Port)), "-U", User, name).CombinedOutput(); err != nil {
		t.Fatalf("create database %s: %v: %s", name, err, out)
	}
}

// Start starts a killed server and waits until it takes connections.
func (s *Server) Start(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(s.data(), "postmaster.pid")); err != nil {
		t.Fatal(err)
	}
	// Without fsync: what a killed process has written is with the kernel.
	port := strconv.Itoa(cmp.Or(s.port, Port))
	s.cmd = s.command("postgres", append([]string{"-D", s.data(), "-k", s.Dir, "-p", port,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=1MB", "-c", "max_connections=20"}, s.args...)...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); s.command("pg_isready", "-q", "-h", s.Dir, "-p", port, "-d", Database, "-U", User).Run() != nil; {
		if time.Now().After(end) {
			t.Fatal("PostgreSQL does not start")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Kill ends the server with all its processes as kill -9 does.
func (s *Server) Kill(t *testing.T) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	s.cmd.Wait() //nolint:errcheck // it was killed
	s.cmd = nil
}
