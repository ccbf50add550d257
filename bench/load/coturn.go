package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/internal/freeport"
)

// coturn is a running turnserver of Debian's, the yardstick for TURN. It has no
// database, one user, and the privileges of nobody in particular.
type coturn struct {
	client.Server
	pid  int
	stop func() error
}

// startCoturn starts it on loopback; the error is exec.ErrNotFound where it is
// not installed.
func startCoturn(ctx context.Context) (*coturn, error) {
	bin, err := exec.LookPath("turnserver")
	if err != nil {
		return nil, exec.ErrNotFound
	}
	dir, err := os.MkdirTemp("", "domicile-coturn-")
	if err != nil {
		return nil, err
	}
	c, err := runCoturn(ctx, bin, dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start coturn: %w", err), os.RemoveAll(dir))
	}
	return c, nil
}

func runCoturn(ctx context.Context, bin, dir string) (*coturn, error) {
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := writeCertificate(cert, key); err != nil {
		return nil, err
	}
	var ports [2]int
	for i := range ports {
		var err error
		if ports[i], err = freeport.Find(); err != nil {
			return nil, err
		}
	}
	plain, secure := "127.0.0.1:"+strconv.Itoa(ports[0]), "127.0.0.1:"+strconv.Itoa(ports[1])
	password := rand.Text()
	cmd := exec.Command(bin, "-n", // no configuration file
		"--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--listening-port", strconv.Itoa(ports[0]), "--tls-listening-port", strconv.Itoa(ports[1]),
		"--cert", cert, "--pkey", key, "--user", "bench:"+password, "--realm", "bench", "--lt-cred-mech", "--userdb", filepath.Join(dir, "none.db"),
		"--allow-loopback-peers", "--no-cli", "--no-dtls", "--no-tlsv1", "--no-tlsv1_1", "--log-file", "stdout", "--pidfile", filepath.Join(dir, "pid"))
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() error {
		_ = cmd.Process.Kill() // it takes its time over anything else
		_ = cmd.Wait()
		return os.RemoveAll(dir)
	}
	if err := accepts(ctx, secure); err != nil {
		_ = stop()
		return nil, fmt.Errorf("%w; it said:\n%s", err, said.Bytes())
	}
	return &coturn{client.Server{User: "bench", Password: password,
		URLs: []string{"turn:" + plain + "?transport=udp", "turns:" + secure + "?transport=tcp"}}, cmd.Process.Pid, stop}, nil
}

// accepts waits until a TCP port is open.
func accepts(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if !pause(ctx, 20*time.Millisecond) {
			return err
		}
	}
}

// writeCertificate makes a certificate of the kind that the nodes have, ECDSA on
// P-256, so that handshakes cost the same.
func writeCertificate(cert, key string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	c, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}
