package evidence

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// One proof for many receipts. A log is a tree: its receipts are the leaves, and
// a range of more than one leaf is split after the greatest power of two that is
// smaller than its length (RFC 6962 section 2.1). To prove that some leaves are
// in it, the proof lists the hash of every greatest range that holds none of
// them, from left to right. Who checks walks the tree the same way: a range
// without a wanted leaf takes the next hash of the proof, a wanted leaf is hashed,
// any other range is the hash of its two parts.

// proveLeaves lists the hashes for the leaves, which are in ascending order.
func proveLeaves(size int64, leaves []int64, r tlog.HashReader) ([]Hash, error) {
	if err := ascending(size, leaves); err != nil {
		return nil, err
	}
	proof := []Hash{}
	var walk func(lo, hi int64, leaves []int64) error
	walk = func(lo, hi int64, leaves []int64) error {
		if len(leaves) == 0 {
			h, err := rangeHash(lo, hi, r)
			proof = append(proof, textOf(h))
			return err
		}
		if hi-lo == 1 {
			return nil
		}
		mid := lo + splitAt(hi-lo)
		n := countBelow(leaves, mid)
		if err := walk(lo, mid, leaves[:n]); err != nil {
			return err
		}
		return walk(mid, hi, leaves[n:])
	}
	return proof, walk(0, size, leaves)
}

// rootOf computes the hash of a log from some leaves and the proof for them.
func rootOf(size int64, leaves []int64, hashes []tlog.Hash, proof []tlog.Hash) (tlog.Hash, error) {
	if err := ascending(size, leaves); err != nil {
		return tlog.Hash{}, err
	}
	if len(leaves) != len(hashes) {
		return tlog.Hash{}, errors.New("as many hashes as leaves are needed")
	}
	short := false
	var walk func(lo, hi int64, leaves []int64, hashes []tlog.Hash) tlog.Hash
	walk = func(lo, hi int64, leaves []int64, hashes []tlog.Hash) tlog.Hash {
		switch {
		case len(leaves) == 0 && len(proof) == 0:
			short = true
			return tlog.Hash{}
		case len(leaves) == 0:
			h := proof[0]
			proof = proof[1:]
			return h
		case hi-lo == 1:
			return hashes[0]
		}
		mid := lo + splitAt(hi-lo)
		n := countBelow(leaves, mid)
		left := walk(lo, mid, leaves[:n], hashes[:n])
		return tlog.NodeHash(left, walk(mid, hi, leaves[n:], hashes[n:]))
	}
	root := walk(0, size, leaves, hashes)
	if short || len(proof) > 0 {
		return tlog.Hash{}, errors.New("the proof is too short or too long")
	}
	return root, nil
}

func ascending(size int64, leaves []int64) error {
	if size < 1 || len(leaves) == 0 {
		return errors.New("nothing to prove")
	}
	before := int64(-1)
	for _, n := range leaves {
		if n <= before || n >= size {
			return fmt.Errorf("receipt %d after %d in a log of %d", n, before, size)
		}
		before = n
	}
	return nil
}

// splitAt is the greatest power of two below n, for n > 1.
func splitAt(n int64) int64 { return 1 << (bits.Len64(uint64(n-1)) - 1) }

func countBelow(leaves []int64, limit int64) int {
	lo, hi := 0, len(leaves)
	for lo < hi {
		if mid := (lo + hi) / 2; leaves[mid] < limit {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// rangeHash reads the hash of a range of the tree; only the last range of a log
// is put together from parts.
func rangeHash(lo, hi int64, r tlog.HashReader) (tlog.Hash, error) {
	n := hi - lo
	if n&(n-1) == 0 {
		level := bits.TrailingZeros64(uint64(n))
		hashes, err := r.ReadHashes([]int64{tlog.StoredHashIndex(level, lo>>level)})
		if err != nil {
			return tlog.Hash{}, err
		}
		return hashes[0], nil
	}
	mid := lo + splitAt(n)
	left, err := rangeHash(lo, mid, r)
	if err != nil {
		return tlog.Hash{}, err
	}
	right, err := rangeHash(mid, hi, r)
	return tlog.NodeHash(left, right), err
}
