package vault

import (
	"io"

	"filippo.io/age"
)

// Seal seals what is written, in order, to everybody to whom recordings are sealed:
// for what is no recording and is read from the middle. Close ends it, and leaves w
// open. A file that was cut, or changed anywhere, fails where it is read.
func (k *KeyStore) Seal(w io.Writer) (io.WriteCloser, error) { return age.Encrypt(w, k.recipients...) }

// Open gives the content of a file that Seal wrote, and how many bytes that is. Only
// what is asked for is read and opened. It is safe for concurrent use if r is.
func (k *KeyStore) Open(r io.ReaderAt, sealed int64) (io.ReaderAt, int64, error) {
	return age.DecryptReaderAt(r, sealed, k.identity)
}
