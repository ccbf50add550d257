// Package orders keeps the holds and erasures of an origin on its disk.
//
// The file only grows: one line for each order, and one more when a hold is lifted. A
// line is on the disk before anybody is told that the order is known; one that a
// crash has cut off is forgotten, and whoever sent it sends it again. What an order
// means is not decided here.
package orders

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/residency/retention"
)

// ErrFull says that no more orders are kept.
var ErrFull = errors.New("too many holds and erasures are known")

// Book is all the orders that an origin knows. It is safe for concurrent use.
type Book struct {
	mu     sync.Mutex
	f      *os.File
	orders map[string]retention.Order
	told   []string // ids in the order in which they came or changed, for whoever tells others
}

// Open reads the book at path, making it if there is none.
func Open(path string) (*Book, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open orders: %w", err)
	}
	b := &Book{f: f, orders: map[string]retention.Order{}}
	end, err := b.read(f)
	if err == nil { // what is behind the last whole line is cut
		_, seekErr := f.Seek(end, io.SeekStart)
		err = errors.Join(f.Truncate(end), seekErr, syncDir(filepath.Dir(path)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open orders: %w", err), f.Close())
	}
	return b, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read takes whole lines, and returns where the last of them ends. A disk that does not
// give all of the file is an error: what is not read must not be cut.
func (b *Book) read(f io.Reader) (end int64, err error) {
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return end, nil // the rest is no line
		}
		if err != nil {
			return end, err
		}
		var o retention.Order
		if err := json.Unmarshal(line, &o); err != nil {
			return end, fmt.Errorf("byte %d: %w", end, err)
		}
		if err := o.Validate(); err != nil {
			return end, fmt.Errorf("byte %d: %w", end, err)
		}
		b.take(o)
		end += int64(len(line))
	}
}

// take notes an order; the caller has mu, or is alone.
func (b *Book) take(o retention.Order) (retention.Order, bool) {
	own, known := b.orders[o.ID]
	if known {
		var more bool
		if o, more = retention.Merge(own, o); !more {
			return own, false
		}
	}
	b.orders[o.ID] = o
	b.told = append(b.told, o.ID)
	return o, true
}

// Add keeps an order that was given or told at now, and reports whether that says
// anything new. After an error it is not known.
func (b *Book) Add(o retention.Order, now time.Time) (news bool, err error) {
	if err := o.Validate(); err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	own, known := b.orders[o.ID]
	o = o.Arrived(now)
	if known {
		if o, news = retention.Merge(own, o); !news {
			return false, nil
		}
	} else if len(b.orders) >= retention.MaxOrders {
		return false, ErrFull
	}
	line, err := json.Marshal(o)
	if err != nil {
		return false, err
	}
	if err := b.write(append(bytes.TrimSpace(line), '\n')); err != nil {
		return false, fmt.Errorf("keep an order: %w", err)
	}
	b.take(o)
	return true, nil
}

func (b *Book) write(line []byte) error {
	end, err := b.f.Seek(0, 1)
	if err != nil {
		return err
	}
	_, err = b.f.Write(line)
	if err = errors.Join(err, b.f.Sync()); err != nil {
		_, back := b.f.Seek(end, 0)
		return errors.Join(err, b.f.Truncate(end), back)
	}
	return nil
}

// Get returns an order.
func (b *Book) Get(id string) (retention.Order, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.orders[id]
	return o, ok
}

// All returns every order, oldest first.
func (b *Book) All() []retention.Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]retention.Order, 0, len(b.orders))
	for _, o := range b.orders {
		list = append(list, o)
	}
	slices.SortFunc(list, func(x, y retention.Order) int { return cmp.Or(cmp.Compare(x.AtMS, y.AtMS), cmp.Compare(x.ID, y.ID)) })
	return list
}

// Since returns at most limit orders that came or changed after the first n, as others
// are told them, and the number to ask with next.
func (b *Book) Since(n, limit int) (list []retention.Order, next int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for next = min(n, len(b.told)); next < len(b.told) && len(list) < limit; next++ {
		list = append(list, b.orders[b.told[next]].Sent())
	}
	return list, next
}

// Version is another number whenever something was added.
func (b *Book) Version() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.told)
}

// Close closes the file.
func (b *Book) Close() error { return b.f.Close() }
