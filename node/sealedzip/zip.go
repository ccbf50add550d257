// Package sealedzip writes ZIP archives in order, as a stream, and with a password
// those that WinZip calls AE-2: each file deflated or stored, then AES-256 in counter
// mode with an HMAC behind it. The older cipher of ZIP is broken, and not here.
//
// Names and sizes of the files are not sealed: the format has no place for that. It
// reads nothing, and refuses names that would lead out of a folder.
package sealedzip

import (
	"archive/zip"
	"compress/flate"
	"crypto/aes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"time"
)

// Figures of the format (AE-2, key of 256 bits). A file of an archive is
//
//	| salt 16 | verifier 2 | AES-CTR of the file | HMAC-SHA1-80 of that 10 |
//
// and says so in an extra field: 0x9901, its length 7, version 2, "AE", strength 3, and
// the method by which the file is packed. The CRC is 0, since it would tell of the content.
const (
	methodAES = 99
	extraAES  = 0x9901
	saltBytes = 16
	keyBytes  = 32
	verifier  = 2
	macBytes  = 10
	rounds    = 1000 // the format's; a password should be long
	// sizeUnknown in the flags: sizes follow the file.
	flagEncrypted, flagFollows, flagUTF8 = 0x1, 0x8, 0x800
)

// MinPassword is the least length of a password, in bytes: with the format's 1000
// rounds shorter ones are found by trying.
const MinPassword = 12

// Writer writes one archive.
type Writer struct {
	z        *zip.Writer
	password string
	open     *entry
}

// New begins an archive. Without a password it is not sealed.
func New(w io.Writer, password string) (*Writer, error) {
	if password != "" && len(password) < MinPassword {
		return nil, fmt.Errorf("password of %d bytes: want at least %d", len(password), MinPassword)
	}
	return &Writer{z: zip.NewWriter(w), password: password}, nil
}

// Create begins a file and ends the one before. Films are stored as they are: they
// do not get smaller.
func (w *Writer) Create(name string, at time.Time, pack bool) (io.Writer, error) {
	if err := w.end(); err != nil {
		return nil, err
	}
	if !fs.ValidPath(name) || name == "." {
		return nil, fmt.Errorf("file %q: not a name inside of an archive", name)
	}
	method := zip.Store
	if pack {
		method = zip.Deflate
	}
	h := &zip.FileHeader{Name: name, Method: method, Modified: at}
	if w.password == "" {
		return w.z.CreateHeader(h)
	}
	h.Method, h.Flags = methodAES, flagEncrypted|flagFollows|flagUTF8
	h.CreatorVersion, h.ReaderVersion = 3<<8|51, 51
	h.Extra = binary.LittleEndian.AppendUint16(nil, extraAES)
	h.Extra = append(h.Extra, 7, 0, 2, 0, 'A', 'E', 3, byte(method), byte(method>>8))
	raw, err := w.z.CreateRaw(h)
	if err != nil {
		return nil, err
	}
	w.open, err = newEntry(raw, h, w.password, pack)
	return w.open, err
}

// Close ends the archive.
func (w *Writer) Close() error { return errors.Join(w.end(), w.z.Close()) }

func (w *Writer) end() error {
	e := w.open
	w.open = nil
	if e == nil {
		return nil
	}
	return e.close()
}

// entry is a sealed file that is being written.
type entry struct {
	h      *zip.FileHeader
	pack   *flate.Writer // nil: stored
	sealed *sealer
	size   int64
}

func newEntry(raw io.Writer, h *zip.FileHeader, password string, pack bool) (*entry, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt) //nolint:errcheck // it never fails
	keys, err := pbkdf2.Key(sha1.New, password, salt, rounds, 2*keyBytes+verifier)
	if err != nil {
		return nil, err
	}
	s, err := newSealer(raw, keys[:keyBytes], keys[keyBytes:2*keyBytes])
	if err != nil {
		return nil, err
	}
	if _, err := raw.Write(append(salt, keys[2*keyBytes:]...)); err != nil {
		return nil, err
	}
	e := &entry{h: h, sealed: s}
	if pack {
		e.pack, err = flate.NewWriter(s, flate.DefaultCompression)
	}
	return e, err
}

// Write packs and seals.
func (e *entry) Write(b []byte) (int, error) {
	e.size += int64(len(b))
	if e.pack != nil {
		return e.pack.Write(b)
	}
	return e.sealed.Write(b)
}

// close writes what authenticates the file and tells the header, which the library
// writes behind the file and into the archive's index, how long it is.
func (e *entry) close() error {
	if e.pack != nil {
		if err := e.pack.Close(); err != nil {
			return err
		}
	}
	if _, err := e.sealed.w.Write(e.sealed.mac.Sum(nil)[:macBytes]); err != nil {
		return err
	}
	e.h.CRC32 = 0
	e.h.UncompressedSize64 = uint64(e.size)
	e.h.CompressedSize64 = uint64(e.sealed.n) + saltBytes + verifier + macBytes
	// The index has these where the others fit, and says so where they do not.
	e.h.UncompressedSize = uint32(min(e.h.UncompressedSize64, math.MaxUint32)) //nolint:staticcheck // the library reads them here
	e.h.CompressedSize = uint32(min(e.h.CompressedSize64, math.MaxUint32))     //nolint:staticcheck // likewise
	return nil
}

// sealer is AES in counter mode as the format has it: the counter begins at 1, its
// lowest byte first, which crypto/cipher counts the other way round.
type sealer struct {
	w       io.Writer
	block   interface{ Encrypt(dst, src []byte) }
	mac     hash.Hash
	counter [aes.BlockSize]byte
	stream  [aes.BlockSize]byte
	used    int
	n       int64
	buf     []byte
}

func newSealer(w io.Writer, key, macKey []byte) (*sealer, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &sealer{w: w, block: b, mac: hmac.New(sha1.New, macKey), used: aes.BlockSize}, nil
}

// Write seals.
func (s *sealer) Write(b []byte) (int, error) {
	s.buf = append(s.buf[:0], b...)
	for i := range s.buf {
		if s.used == aes.BlockSize {
			for k := range s.counter {
				if s.counter[k]++; s.counter[k] != 0 {
					break
				}
			}
			s.block.Encrypt(s.stream[:], s.counter[:])
			s.used = 0
		}
		s.buf[i] ^= s.stream[s.used]
		s.used++
	}
	s.mac.Write(s.buf)
	n, err := s.w.Write(s.buf)
	s.n += int64(n)
	return n, err
}
