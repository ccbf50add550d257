// Package bucket keeps sealed objects in an S3-compatible store: it puts them there,
// reads them back, lists and removes them. What goes in is sealed before; where the
// store lies, and whether it may have something, is asked by who calls. It keeps
// nothing, retries little, answers within the deadline that it is given, and gives up a
// store that says nothing any more.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Config says where the bucket is and who asks.
type Config struct {
	Endpoint  string // host or host:port
	Bucket    string
	Region    string
	Prefix    string // of every key: several nodes may share a bucket
	Access    string
	Secret    string
	Plaintext bool // HTTP; the objects are sealed, the credentials sign and do not travel
}

// Bucket is one. It is safe for concurrent use.
type Bucket struct {
	cfg    Config
	client *minio.Client
}

// answersWithin is how long the store may take before it begins to answer: one that is
// away is known to be soon.
const answersWithin = 10 * time.Second

// Open makes a client; it does not ask the store yet, which may be away.
func Open(cfg Config) (*Bucket, error) { return open(cfg, stallsAfter) }

func open(cfg Config, stalls time.Duration) (*Bucket, error) {
	transport, err := minio.DefaultTransport(!cfg.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", cfg.Bucket, err)
	}
	transport.ResponseHeaderTimeout = answersWithin
	transport.DialContext = patiently(transport.DialContext, stalls)
	client, err := minio.New(cfg.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(cfg.Access, cfg.Secret, ""), Secure: !cfg.Plaintext, Region: cfg.Region,
		Transport: transport, MaxRetries: 1, // who calls tries again
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", cfg.Bucket, err)
	}
	return &Bucket{cfg, client}, nil
}

// Name names the bucket in lists of copies.
func (b *Bucket) Name() string { return "s3:" + b.cfg.Bucket }

func (b *Bucket) key(name string) string { return b.cfg.Prefix + name }

// Put stores an object, whole or not at all.
func (b *Bucket) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	_, err := b.client.PutObject(ctx, b.cfg.Bucket, b.key(name), r, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", SendContentMd5: true})
	return b.explain("put", name, err)
}

// Get reads an object.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	o, err := b.client.GetObject(ctx, b.cfg.Bucket, b.key(name), minio.GetObjectOptions{})
	if err == nil {
		_, err = o.Stat() // else the first read says so
	}
	if err != nil {
		return nil, b.explain("get", name, err)
	}
	return o, nil
}

// maxListed bounds what a list of one recording holds.
const maxListed = 10_000

// List returns the objects below a name, with their sizes.
func (b *Bucket) List(ctx context.Context, below string) (map[string]int64, error) {
	found := map[string]int64{}
	for o := range b.client.ListObjects(ctx, b.cfg.Bucket, minio.ListObjectsOptions{Prefix: b.key(below), Recursive: true}) {
		if o.Err != nil {
			return nil, b.explain("list", below, o.Err)
		}
		if len(found) == maxListed {
			return nil, b.explain("list", below, fmt.Errorf("more than %d objects", maxListed))
		}
		found[strings.TrimPrefix(o.Key, b.cfg.Prefix)] = o.Size
	}
	return found, nil
}

// Remove removes an object; one that is not there is no error.
func (b *Bucket) Remove(ctx context.Context, name string) error {
	return b.explain("remove", name, b.client.RemoveObject(ctx, b.cfg.Bucket, b.key(name), minio.RemoveObjectOptions{}))
}

func (b *Bucket) explain(what, name string, err error) error {
	if err == nil {
		return nil
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && answer.Code == minio.NoSuchKey {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%s %q in bucket %q: %w", what, name, b.cfg.Bucket, err)
}
