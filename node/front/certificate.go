package front

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// CertificateFiles is a certificate with its key in two PEM files, which are
// read again when they have changed. Renewal is then a matter of writing them.
type CertificateFiles struct {
	certFile, keyFile string
	now               func() time.Time
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   stamp // of the files when they were last tried
	checked time.Time
}

// stamp tells one version of the two files from another.
type stamp struct {
	cert, key         time.Time
	certSize, keySize int64
}

// recheck is how often the files are looked at, at most.
const recheck = time.Second

// NewCertificateFiles loads the pair; files that are missing or do not belong
// together are an error. now is a clock such as time.Now.
func NewCertificateFiles(certFile, keyFile string, now func() time.Time, log *slog.Logger) (*CertificateFiles, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &CertificateFiles{certFile: certFile, keyFile: keyFile, now: now, log: log, checked: now()}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("front: %w", err)
	}
	return c, nil
}

// Get returns the certificate for a handshake. A pair that cannot be read (a
// renewal half done) leaves the last good one in use.
func (c *CertificateFiles) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= recheck {
		c.checked = now
		if err := c.reload(); err != nil {
			c.log.Warn("certificate kept, its files cannot be read", "error", err)
		}
	}
	return c.current, nil
}

func (c *CertificateFiles) reload() error {
	s, err := c.look()
	if err != nil || s == c.stamp {
		return err
	}
	c.stamp = s // a pair that does not load is reported once, not every second
	if err := c.load(); err != nil {
		return err
	}
	c.log.Info("certificate reloaded", "not_after", c.current.Leaf.NotAfter)
	return nil
}

func (c *CertificateFiles) load() error {
	s, err := c.look()
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("load certificate %q with key %q: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.stamp = &pair, s
	return nil
}

func (c *CertificateFiles) look() (stamp, error) {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return stamp{}, err
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return stamp{}, err
	}
	return stamp{cert: cert.ModTime(), key: key.ModTime(), certSize: cert.Size(), keySize: key.Size()}, nil
}
