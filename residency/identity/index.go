package identity

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/domicile/domicile/residency"
)

// IndexFile is where an authority writes down what it issued and revoked: one JSON
// object on each line, appended before a certificate leaves its hands. The file is
// the operator's memory; what counts is the certificate, and the policy that
// revokes it.
const IndexFile = "issued.jsonl"

// maxIndex bounds the index that is read: some ten thousand certificates.
const maxIndex = 32 << 20

// Entry is a line of the index. Of Certificate and Revoked one is set.
type Entry struct {
	At          time.Time `json:"at"`
	Serial      string    `json:"serial"`
	Certificate []byte    `json:"certificate,omitempty"` // DER, base64
	Replaces    string    `json:"replaces,omitempty"`    // serial number of the one that was renewed
	Revoked     bool      `json:"revoked,omitempty"`
	Epoch       uint64    `json:"epoch,omitempty"` // of the policy that revokes it
	Reason      string    `json:"reason,omitempty"`
}

// Record appends an entry to the index of the authority in dir, and waits until it
// is on the disk.
func Record(dir string, e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, IndexFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// Listed is a certificate in the index, with what became of it.
type Listed struct {
	Cert       *x509.Certificate
	Issued     time.Time
	ReplacedBy string // serial number
	Revoked    bool
	Reason     string
}

// ReadIndex reads what the authority in dir issued, the oldest first. There may be
// no index yet.
func ReadIndex(dir string) ([]Listed, error) {
	path := filepath.Join(dir, IndexFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() > maxIndex {
		err = fmt.Errorf("%d bytes: want at most %d", info.Size(), maxIndex)
	}
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", path, err)
	}
	list, err := parseIndex(f)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", path, err)
	}
	return list, nil
}

func parseIndex(r io.Reader) (list []Listed, err error) {
	at := map[string]int{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxPEM)
	for n := 1; lines.Scan(); n++ {
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("line %d: %w (if writing it was interrupted, remove it: no certificate left the authority with it)", n, err)
		}
		i, known := at[e.Serial]
		switch {
		case e.Revoked && known:
			list[i].Revoked, list[i].Reason = true, e.Reason
		case e.Revoked: // of a certificate from before there was an index
		case known:
			return nil, fmt.Errorf("line %d: certificate %s is there twice", n, e.Serial)
		default:
			cert, err := x509.ParseCertificate(e.Certificate)
			if err != nil || serial(cert) != e.Serial {
				return nil, fmt.Errorf("line %d: it holds no certificate of serial number %q (%v)", n, e.Serial, err)
			}
			if j, ok := at[e.Replaces]; ok {
				list[j].ReplacedBy = e.Serial
			}
			at[e.Serial] = len(list)
			list = append(list, Listed{Cert: cert, Issued: e.At})
		}
	}
	return list, lines.Err()
}

// Serial is a certificate's serial number as policies revoke it: lower-case
// hexadecimal without leading zeros.
func Serial(cert *x509.Certificate) string { return serial(cert) }

// NodeOf returns what a certificate states if it is a node's; false for those of
// servers and authorities.
func NodeOf(cert *x509.Certificate) (residency.Node, bool) {
	n, err := Parse(cert)
	return n, err == nil && !cert.IsCA
}
