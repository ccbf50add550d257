package identity

import (
	"crypto/tls"
	"os"
	"time"
)

// Files are the certificate and the key of a node as they lie on disk, followed
// while the node runs. It belongs to one goroutine.
type Files struct {
	Certificate, Key string

	seen    [2]os.FileInfo // when they were last read
	read    time.Time      // when that was
	trouble bool           // what was read was no pair
}

// reread is how often the files are read whatever stat says, for changes that leave
// time and size as they were.
const reread = time.Minute

// Look returns the pair if the files may have changed since the last look, or
// could not be read then; nil if not. Links are followed, so the swap of one is a
// change. The first look returns what is there.
func (f *Files) Look(now time.Time) (*tls.Certificate, error) {
	var stat [2]os.FileInfo
	for i, path := range []string{f.Certificate, f.Key} {
		var err error
		if stat[i], err = os.Stat(path); err != nil {
			f.trouble = true
			return nil, err
		}
	}
	if !f.trouble && now.Sub(f.read) < reread && same(stat[0], f.seen[0]) && same(stat[1], f.seen[1]) {
		return nil, nil
	}
	f.seen, f.read = stat, now // taken before reading: a write meanwhile shows at the next look
	pair, err := LoadPair(f.Certificate, f.Key)
	if f.trouble = err != nil; f.trouble {
		return nil, err
	}
	return &pair, nil
}

func same(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// Stage says how much of a certificate's life is left.
type Stage string

// The stages. A certificate should be renewed when it is due: a third of its life
// is then left for whatever goes wrong with that.
const (
	StageEarly  Stage = "not-yet-valid"
	StageGood   Stage = "good"
	StageDue    Stage = "due"    // a third of its life or less is left
	StageUrgent Stage = "urgent" // a tenth or less
	StageEnded  Stage = "ended"
)

// StageOf tells the stage at now.
func StageOf(notBefore, notAfter, now time.Time) Stage {
	left, life := notAfter.Sub(now), notAfter.Sub(notBefore)
	switch {
	case left <= 0:
		return StageEnded
	case now.Before(notBefore):
		return StageEarly
	case left <= life/10:
		return StageUrgent
	case left <= life/3:
		return StageDue
	}
	return StageGood
}
