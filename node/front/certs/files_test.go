package certs

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pairPEM makes a certificate of that common name, for the names, valid at a time.
func pairPEM(t *testing.T, common string, from, to time.Time, names ...string) (cert, key []byte) {
	t.Helper()
	signer, key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: common}, DNSNames: names, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

// filesTest is a keeper of files whose seconds the test counts.
type filesTest struct {
	t    *testing.T
	dir  string
	now  time.Time
	log  *lockedLog
	keep *Keeper
}

const filesName = "meet.example.org"

func newFilesTest(t *testing.T, from, to time.Duration) *filesTest {
	t.Helper()
	f := &filesTest{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), log: &lockedLog{}}
	f.write(f.pair("one", from, to))
	f.open()
	return f
}

func (f *filesTest) open() {
	f.t.Helper()
	var err error
	f.keep, err = FromFiles(FilesConfig{Certificate: f.path("cert"), Key: f.path("key"), Names: []string{filesName},
		Clock: Clock{Now: func() time.Time { return f.now }}, Log: slog.New(slog.NewTextHandler(f.log, nil))})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *filesTest) path(name string) string { return filepath.Join(f.dir, name) }

func (f *filesTest) pair(common string, from, to time.Duration) (cert, key []byte) {
	return pairPEM(f.t, common, f.now.Add(from), f.now.Add(to), filesName)
}

func (f *filesTest) put(name string, b []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *filesTest) write(cert, key []byte) { f.put("cert", cert); f.put("key", key) }

// wait lets seconds pass, and the keeper look in each.
func (f *filesTest) wait(seconds int) {
	for range seconds {
		f.now = f.now.Add(f.keep.source.look(context.Background(), At{}))
	}
}

func (f *filesTest) expect(when, common string) {
	f.t.Helper()
	pair, err := f.keep.Get(nil)
	if err != nil || pair.Leaf.Subject.CommonName != common {
		f.t.Errorf("%s: the certificate of %q is in use, want %q (%v)\n%s", when, pair.Leaf.Subject.CommonName, common, err, f.log)
	}
}

// A renewal that writes one file after the other: the old pair stays in use
// between, and nothing is said about it.
func TestReplacedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -day, 90*day)
	cert, key := f.pair("two", -time.Hour, 90*day)
	f.put("cert", cert)
	f.wait(3)
	f.expect("key missing", "one")
	f.put("key", key)
	f.wait(1)
	f.expect("both there", "two")
	if s := f.keep.State(); s.Renewals != 1 || s.Problem != "" || len(s.Failures) != 0 || strings.Contains(f.log.String(), "WARN") {
		t.Errorf("state %+v, log\n%s", s, f.log)
	}
}

// The key of another certificate, for good: said once, after a while, and its
// end is said too.
func TestKeyDoesNotMatch(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -day, 90*day)
	cert, key := f.pair("two", -time.Hour, 90*day)
	_, other := f.pair("three", -time.Hour, 90*day)
	f.write(cert, other)
	f.wait(100)
	f.expect("key of another", "one")
	if s := f.keep.State(); s.Failures[Files] != 1 || !strings.Contains(s.Problem, "private key does not match") ||
		strings.Count(f.log.String(), "the last good certificate stays in use") != 1 {
		t.Errorf("state %+v, log\n%s", s, f.log)
	}
	f.put("key", key)
	f.wait(1)
	f.expect("mended", "two")
	if s := f.keep.State(); s.Problem != "" || !strings.Contains(f.log.String(), "well again") {
		t.Errorf("state %+v, log\n%s", s, f.log)
	}
}

// certbot replaces a symbolic link; the directory of the pair is swapped at once.
func TestLinkSwap(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -day, 90*day)
	for _, v := range []string{"v1", "v2"} {
		if err := os.Mkdir(f.path(v), 0o700); err != nil {
			t.Fatal(err)
		}
		cert, key := f.pair(v, -time.Hour, 90*day)
		f.put(v+"/cert", cert)
		f.put(v+"/key", key)
	}
	swap := func(to string) {
		t.Helper()
		for _, name := range []string{"cert", "key"} {
			if err := os.Symlink(f.path(to+"/"+name), f.path("new")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(f.path("new"), f.path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, v := range []string{"v1", "v2", "v1"} {
		swap(v)
		f.wait(1)
		f.expect("link to "+v, v)
	}
}

// Half a file, an empty one, none, a directory, and one without end.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -day, 90*day)
	cert, key := f.pair("two", -time.Hour, 90*day)
	remove := func() { os.RemoveAll(f.path("cert")) }
	for _, tt := range []struct {
		name string
		make func()
	}{
		{"half", func() { f.write(cert[:len(cert)/2], key) }},
		{"empty", func() { f.write(nil, key) }},
		{"the key twice", func() { f.write(key, key) }},
		{"none", remove},
		{"a directory", func() { remove(); os.Mkdir(f.path("cert"), 0o700) }},
		{"large", func() { remove(); f.put("cert", make([]byte, 2*maxPEM)) }},
		{"a device without end", func() { remove(); os.Symlink("/dev/zero", f.path("cert")) }},
		{"a link to itself", func() { remove(); os.Symlink(f.path("cert"), f.path("cert")) }},
	} {
		tt.make()
		f.wait(10)
		f.expect(tt.name, "one")
		if f.keep.State().Problem == "" {
			t.Errorf("%s: there is no problem", tt.name)
		}
	}
	remove()
	f.write(cert, key)
	f.wait(1)
	f.expect("written", "two")
}

// What browsers would refuse does not take the place of what they take.
func TestWorseIsNotTaken(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -day, 90*day)
	for name, write := range map[string]func(){
		"ended":         func() { f.write(f.pair("ended", -2*day, -day)) },
		"not yet valid": func() { f.write(f.pair("early", day, 2*day)) },
		"other name":    func() { f.write(pairPEM(t, "other", f.now, f.now.Add(day), "other.example.org")) },
	} {
		write()
		f.wait(10)
		f.expect(name, "one")
		if f.keep.State().Problem == "" {
			t.Errorf("%s: there is no problem", name)
		}
	}
	f.write(f.pair("shorter", -time.Hour, day))
	f.wait(1)
	f.expect("valid, though it ends sooner", "shorter")
}

// An early certificate is taken when its time has come, without being touched.
func TestEarlyIsTakenInTime(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -day, 90*day)
	f.write(f.pair("early", 20*time.Second, 90*day))
	f.wait(19)
	f.expect("early", "one")
	f.wait(2)
	f.expect("in time", "early")
}

// Files that have ended at the start are served all the same; whoever starts the
// node has been told (domicile check). A new pair replaces them, good or bad.
func TestEnded(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -90*day, -time.Second)
	f.expect("ended", "one")
	f.keep.warn()
	f.keep.warn()
	if got := strings.Count(f.log.String(), "the certificate has ended"); got != 1 {
		t.Errorf("said %d times, want once:\n%s", got, f.log)
	}
	f.write(f.pair("two", -time.Hour, day))
	f.wait(1)
	f.expect("replaced", "two")
}

// A change that leaves size and time as they were is seen within a minute.
func TestSameStamp(t *testing.T) {
	t.Parallel()
	f := newFilesTest(t, -day, 90*day)
	at := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	pad := func(b []byte) []byte { return append(b, make([]byte, 2000-len(b))...) }
	for _, name := range []string{"one", "two"} {
		cert, key := f.pair(name, -time.Hour, 90*day)
		f.write(pad(cert), pad(key))
		for _, file := range []string{"cert", "key"} {
			if err := os.Chtimes(f.path(file), at, at); err != nil {
				t.Fatal(err)
			}
		}
		if name == "one" {
			f.wait(2)
		}
	}
	f.wait(1 + int(reread/recheck))
	f.expect("same stamp", "two")
}

func TestFromFilesRefuses(t *testing.T) {
	f := newFilesTest(t, -day, day)
	for _, cfg := range []FilesConfig{
		{Certificate: f.path("none"), Key: f.path("key")},
		{Certificate: f.path("cert"), Key: f.path("none")},
		{Certificate: f.path("key"), Key: f.path("key")},
		{Certificate: f.dir, Key: f.path("key")},
	} {
		if _, err := FromFiles(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

// A handshake costs no allocation and no system call of ours.
func TestGetAllocatesNothing(t *testing.T) {
	f := newFilesTest(t, -day, day)
	if n := testing.AllocsPerRun(100, func() { f.keep.Get(nil) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}
