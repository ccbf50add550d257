package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault/bucket"
)

// withBucket has a node bring its recordings to the bucket that its configuration names.
func withBucket(cfg *node.Config, b configs.Bucket) error {
	if !b.Set() {
		return nil
	}
	fi, err := os.Stat(b.SecretKeyFile)
	if err != nil {
		return fmt.Errorf("recordings.bucket.secret_key_file: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("recordings.bucket.secret_key_file: %q has mode %04o, so others can read it: chmod 0600 it", b.SecretKeyFile, fi.Mode().Perm())
	}
	secret, err := os.ReadFile(b.SecretKeyFile)
	if err != nil {
		return fmt.Errorf("recordings.bucket.secret_key_file: %w", err)
	}
	first, _, _ := strings.Cut(string(secret), "\n")
	store, err := bucket.Open(bucket.Config{Endpoint: b.Endpoint, Bucket: b.Name, Region: b.Region, Prefix: b.Prefix,
		Access: b.AccessKey, Secret: strings.TrimSpace(first), Plaintext: b.Plaintext})
	if err != nil {
		return err
	}
	cfg.Bucket = node.Bucket{Store: store, KeepLocal: b.KeepLocal}
	if cfg.Places == nil {
		cfg.Places = node.Places{}
	}
	cfg.Places[residency.ClassRecording] = b.Place.Of(cfg.Self, "object store")
	return nil
}
