package configs

import "strings"

// Bucket is an S3-compatible object store to which an origin brings its recordings when
// they are over. Until then, and while the store is away, they lie in data_dir.
type Bucket struct {
	// Endpoint is the store's name or address, with a port if it is another than that
	// of HTTPS. Required.
	Endpoint string `yaml:"endpoint,required"`
	Name     string `yaml:"name,required"` // of the bucket, which must exist
	Region   string `yaml:"region"`        // as the store calls it. Default "us-east-1", which most stores take
	Prefix   string `yaml:"prefix"`        // of every key. Default: none; nodes that share a bucket should have one each

	// AccessKey and the first line of SecretKeyFile, readable by its owner alone, are
	// what the store knows this node by.
	AccessKey     string `yaml:"access_key,required"`
	SecretKeyFile string `yaml:"secret_key_file,required"`

	// Plaintext speaks HTTP. What is stored is sealed, but who listens sees when and
	// how much. Default false.
	Plaintext bool `yaml:"plaintext"`

	// KeepLocal leaves recordings on the node's disk, too. Default false: their tracks
	// go when the bucket has them.
	KeepLocal bool `yaml:"keep_local"`

	// Place is where the bucket is and who runs it: your word, by which the gate judges
	// it like a node. Required: a recording whose policy does not let it be kept there
	// is refused from the start.
	Place Place `yaml:"place,required"`
}

// Set reports whether there is a bucket.
func (b Bucket) Set() bool { return b.Endpoint != "" }

func (d *document) validateBucket(b Bucket) {
	if !b.Set() {
		return
	}
	if strings.Contains(b.Endpoint, "/") {
		d.fault("recordings.bucket.endpoint", Fault{Message: "the endpoint is a host and maybe a port, not a URL", Hint: "for example s3.example.eu"})
	}
	d.validatePlace("recordings.bucket.place", b.Place)
}
