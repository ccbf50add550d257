package outbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/domicile/domicile/residency/evidence"
)

// The file is lines, each a certificate or a receipt:
//
//	8 digits: CRC-32C of what follows the space
//	|        {"certificate":"base64"} or {"item":{…}}
//	1f0a77c2 {"item":{"room":"board","policy":"eea-only","line":"{\"version\":1,…"}}
//
// It is appended to and flushed once for all receipts of a second. When nothing in it
// waits any more it is cut to nothing; what is sent twice because of a crash between
// the two is in the log once.
type line struct {
	Certificate []byte `json:"certificate,omitempty"`
	Item        *Item  `json:"item,omitempty"`
}

const (
	// maxLine bounds a line: a receipt has at most 4096 bytes, a certificate 2 kB,
	// and JSON in JSON doubles the quotes.
	maxLine = 32 << 10
	// rewriteAt is the size above which the file is written anew when most of it
	// waits no longer.
	rewriteAt = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendLine(b []byte, l line) []byte {
	body, err := json.Marshal(l)
	if err != nil {
		panic(fmt.Sprintf("outbox: encoding a line: %v", err)) // text and numbers alone
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(body, castagnoli))
	return append(append(b, body...), '\n')
}

// readLine reads what appendLine wrote.
func readLine(b []byte) (l line, ok bool) {
	b, whole := bytes.CutSuffix(b, []byte("\n"))
	if !whole || len(b) < 10 || b[8] != ' ' {
		return line{}, false
	}
	sum, err := strconv.ParseUint(string(b[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(b[9:], castagnoli) {
		return line{}, false
	}
	err = json.Unmarshal(b[9:], &l)
	return l, err == nil && (l.Item == nil) != (l.Certificate == nil)
}

// load reads the file. A damaged line is counted and left out, and so is what is
// behind the bound; the next write goes behind the last whole line.
func (b *Box) load() error {
	r := bufio.NewReaderSize(b.file, maxLine)
	for at, long := int64(0), false; ; {
		text, err := r.ReadSlice('\n')
		at += int64(len(text))
		switch {
		case errors.Is(err, io.EOF):
			return b.file.Truncate(b.size) // a line without its end was being written
		case errors.Is(err, bufio.ErrBufferFull):
			long = true // the ends of lines before it are damaged
		case err != nil:
			return err
		case long:
			b.dropped[Damaged]++
			b.size, long = at, false
		default:
			b.take(text)
			b.size = at
		}
	}
}

func (b *Box) take(text []byte) {
	l, ok := readLine(text)
	switch {
	case !ok:
		b.dropped[Damaged]++
	case l.Item == nil:
		fp := evidence.Fingerprint(l.Certificate)
		b.certs[fp], b.known[fp] = l.Certificate, true
	case len(b.items) >= Max:
		b.dropped[Full]++
	default:
		l.Item.durable = true
		b.items = append(b.items, *l.Item)
	}
}

// write puts those of new items on the disk that may be there; mu is held.
func (b *Box) write(items []Item) error {
	out := b.lines(items)
	if len(out) == 0 {
		return nil
	}
	_, err := b.file.WriteAt(out, b.size)
	if err == nil {
		err = b.file.Sync()
	}
	if b.broken = err; err != nil {
		clear(b.known) // whether certificates are there nobody knows
		return errors.Join(ErrDisk, err, b.file.Truncate(b.size))
	}
	b.size += int64(len(out))
	return nil
}

// lines is items as they stand in the file, each certificate before its first use.
func (b *Box) lines(items []Item) (out []byte) {
	if b.file == nil {
		return nil
	}
	for i := range items {
		if !items[i].durable {
			continue
		}
		for _, fp := range items[i].Certificates {
			if der := b.certs[fp]; der != nil && !b.known[fp] {
				b.known[fp] = true
				out = appendLine(out, line{Certificate: der})
			}
		}
		out = appendLine(out, line{Item: &items[i]})
	}
	return out
}

// tidy makes the file smaller when little of it waits; mu is held.
func (b *Box) tidy() error {
	if b.file == nil || b.size == 0 {
		return nil
	}
	durable := 0
	for _, i := range b.items {
		if i.durable {
			durable += len(i.Line)
		}
	}
	switch {
	case durable == 0:
		clear(b.known)
		b.size = 0
		return b.file.Truncate(0)
	case b.size > rewriteAt && int64(durable) < b.size/4:
		return b.rewrite()
	}
	return nil
}

// rewrite puts a new file in place of one that holds little that waits.
func (b *Box) rewrite() error {
	f, err := os.CreateTemp(filepath.Dir(b.path), ".outbox-*")
	if err != nil {
		return fmt.Errorf("write outbox anew: %w", err)
	}
	clear(b.known)
	out := b.lines(b.items)
	if _, err = f.Write(out); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), b.path)
	}
	if err != nil {
		clear(b.known)
		return errors.Join(fmt.Errorf("write outbox anew: %w", err), f.Close(), os.Remove(f.Name()))
	}
	old := b.file
	b.file, b.size = f, int64(len(out))
	return old.Close()
}
