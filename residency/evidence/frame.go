package evidence

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// The file of a log is a row of frames, written a batch at a time: receipts,
// then the head over everything so far. A batch is one write and one fsync, and
// who wanted a receipt in it is told so after that. So what stands before the
// last head was promised; what stands behind it was not.
//
//	0      1           5                5+n      9+n
//	+------+-----------+----------------+--------+
//	| kind | length n  | signed line    | CRC-32C of all before
//	+------+-----------+----------------+--------+
//	 R or H  big-endian
type frameKind byte

const (
	frameReceipt frameKind = 'R'
	frameHead    frameKind = 'H'

	frameBefore = 5
	frameAfter  = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendFrame(b []byte, kind frameKind, line []byte) []byte {
	start := len(b)
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(line)))
	b = append(b, line...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

var (
	errFrameCut = errors.New("it is cut")
	errFrameBad = errors.New("it is damaged")
)

// readFrame reads the frame at the start of b and returns its whole length.
func readFrame(b []byte) (kind frameKind, line []byte, size int, err error) {
	if len(b) < frameBefore {
		return 0, nil, 0, errFrameCut
	}
	kind = frameKind(b[0])
	n := int(binary.BigEndian.Uint32(b[1:]))
	if kind != frameReceipt && kind != frameHead || n > MaxStatement {
		return 0, nil, 0, errFrameBad
	}
	size = frameBefore + n + frameAfter
	if len(b) < size {
		return 0, nil, 0, errFrameCut
	}
	if crc32.Checksum(b[:frameBefore+n], castagnoli) != binary.BigEndian.Uint32(b[frameBefore+n:]) {
		return 0, nil, 0, errFrameBad
	}
	return kind, b[frameBefore : frameBefore+n], size, nil
}

// holdsHead says whether a whole frame of a head begins anywhere in b: then
// what stands before it was promised once.
func holdsHead(b []byte) bool {
	for i, c := range b {
		if frameKind(c) != frameHead {
			continue
		}
		if kind, line, _, err := readFrame(b[i:]); err == nil && kind == frameHead {
			if _, err := PeekHead(line); err == nil {
				return true
			}
		}
	}
	return false
}
