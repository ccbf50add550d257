package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
)

// TestBucketOfTheConfiguration has the node's places name the bucket, by which the gate
// judges it, and takes no secret that others can read.
func TestBucketOfTheConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hush\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := configs.Bucket{Endpoint: "s3.example.eu", Name: "records", AccessKey: "a", SecretKeyFile: file, Place: configs.Place{Country: "DE"}}
	cfg := node.Config{Self: residency.Node{Name: "fra", Country: "DE", Operator: "Example GmbH", OperatorCountry: "DE"}}
	if err := withBucket(&cfg, b); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("a secret that others read: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := withBucket(&cfg, b); err != nil {
		t.Fatal(err)
	}
	if p := cfg.Places[residency.ClassRecording]; cfg.Bucket.Store.Name() != "s3:records" || p.Country != "DE" || p.Operator != "Example GmbH" || p.What == "" {
		t.Errorf("%+v", p)
	}
	b.Place.Operator, b.Place.OperatorCountry = "Cloud Inc.", "US"
	if err := withBucket(&cfg, b); err != nil {
		t.Fatal(err)
	}
	if p := cfg.Places[residency.ClassRecording]; p.Operator != "Cloud Inc." || p.ParentCountry != "US" {
		t.Errorf("%+v", p)
	}
}
