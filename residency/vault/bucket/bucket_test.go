//go:build s3

package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

// server is a real one: versitygw over a folder (make s3-test builds it).
type server struct {
	t    *testing.T
	addr string
	dir  string
	cmd  *exec.Cmd
}

func startServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: l.Addr().String(), dir: t.TempDir()}
	l.Close()
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(os.Getenv("VERSITYGW"), "--port", s.addr, "--access", "access", "--secret", "secret", "--quiet", "posix", s.dir)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("the S3 server (VERSITYGW=%q): %v: run make s3-test", os.Getenv("VERSITYGW"), err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.addr); err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatal("the S3 server does not listen")
		}
	}
}

func (s *server) stop() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

func (s *server) bucket() *Bucket {
	s.t.Helper()
	b, err := Open(Config{Endpoint: s.addr, Bucket: "records", Region: "us-east-1", Prefix: "fra/", Access: "access", Secret: "secret", Plaintext: true})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := b.client.MakeBucket(context.Background(), "records", minio.MakeBucketOptions{}); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestServer puts, reads, lists and removes objects of a real S3 server.
func TestServer(t *testing.T) {
	b := startServer(t).bucket()
	ctx := t.Context()
	big := bytes.Repeat([]byte("0123456789"), 2_000_000)
	for name, body := range map[string][]byte{"RE_a/x.dtr": big, "RE_a/recording.json": []byte("{}"), "RE_b/x.dtr": {}} {
		must(t, b.Put(ctx, name, bytes.NewReader(body), int64(len(body))))
		r, err := b.Get(ctx, name)
		must(t, err)
		got, err := io.ReadAll(r)
		must(t, errors.Join(err, r.Close()))
		if !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes of %d", name, len(got), len(body))
		}
	}
	found, err := b.List(ctx, "RE_a/")
	must(t, err)
	if len(found) != 2 || found["RE_a/x.dtr"] != int64(len(big)) {
		t.Errorf("listed: %v", found)
	}
	if _, err := b.Get(ctx, "RE_c/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is not there: %v", err)
	}
	must(t, b.Remove(ctx, "RE_a/x.dtr"))
	must(t, b.Remove(ctx, "RE_a/x.dtr"))
	if found, err = b.List(ctx, ""); err != nil || len(found) != 2 {
		t.Errorf("afterwards: %v, %v", found, err)
	}
}

// TestRecordingsInABucket takes a vault through a life with a real server, which is
// killed meanwhile.
func TestRecordingsInABucket(t *testing.T) {
	s := startServer(t)
	b := s.bucket()
	place := residency.Place{What: "object store", Country: "DE"}
	disk := residencytest.Disk(residency.ClassRecording)
	shelf := disk
	shelf.Place = place
	dir := t.TempDir()
	keys, err := vault.OpenKeyStore(filepath.Join(dir, "keys"))
	must(t, err)
	v, err := vault.Open(filepath.Join(dir, "recordings"), keys, vault.Options{Disk: disk, Remote: b, Shelf: shelf})
	must(t, err)
	permit := residencytest.KeepIn(place, "room", "", residency.ClassRecording)
	make := func() vault.ID {
		rec, err := v.Create(permit, vault.Meta{Room: "room", Policy: "eea-only", Node: "fra"}, time.Now())
		must(t, err)
		w, err := rec.Track(vault.TrackMeta{TrackID: "TR_a"})
		must(t, err)
		for range 50 {
			must(t, w.Write(bytes.Repeat([]byte("canary"), 1000)))
		}
		must(t, errors.Join(w.Close(), rec.Finish(time.Now())))
		return rec.ID()
	}
	clusters := func(id vault.ID) (n int) {
		r, err := v.Read(id)
		must(t, err)
		c, err := r.Tracks[0].Open()
		must(t, err)
		defer c.Close()
		for ; ; n++ {
			if _, err := c.Next(); err == io.EOF {
				if !c.End().Finished {
					t.Error("not finished")
				}
				return n
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	first := make()
	must(t, v.Ship(t.Context(), permit, first))
	if n := clusters(first); n != 50 {
		t.Errorf("%d clusters from the bucket", n)
	}
	s.stop()
	second := make() // while it is away
	if err := v.Ship(t.Context(), permit, second); err == nil {
		t.Error("brought to a server that is away")
	}
	if n := clusters(second); n != 50 {
		t.Errorf("%d clusters, from the folder", n)
	}
	if err := v.Erase(first); err == nil {
		t.Error("erased in a server that is away")
	}
	s.start()
	must(t, v.Ship(t.Context(), permit, second))
	if n := clusters(second); n != 50 {
		t.Errorf("%d clusters from the bucket", n)
	}
	if left, err := v.SettleRemote(t.Context()); left != 0 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
	found, err := b.List(t.Context(), "")
	must(t, err)
	if len(found) != 2 {
		t.Errorf("the bucket has %v", found)
	}
	err = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		if bytes.Contains(body, []byte("canary")) {
			t.Errorf("%s holds something in clear", path)
		}
		return err
	})
	must(t, err)
	must(t, v.Erase(second))
	if found, err = b.List(t.Context(), ""); err != nil || len(found) != 0 {
		t.Errorf("after the erasure: %v, %v", found, err)
	}
}
