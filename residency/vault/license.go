package vault

import (
	"sync"
	"time"

	"github.com/domicile/domicile/residency"
)

// license is the permit by which a recording is written at this moment. It has a
// lock of its own, because who renews it must not wait for the disk.
type license struct {
	// Static after construction.
	disk residency.Disk
	room string

	// Guarded by mu.
	mu      sync.Mutex
	permit  residency.Permit
	revoked bool          // no other permit will come
	renewed chan struct{} // closed when the permit is replaced
}

// renewWait is how long what is to be written waits for the permit of newer
// policies: their room is told of them at once and asks the gate. Nothing is
// written meanwhile, and whoever waits is no part of the live meeting.
const renewWait = 2 * time.Second

func newLicense(disk residency.Disk, p residency.Permit, room string) (*license, error) {
	return &license{disk: disk, room: room, permit: p, renewed: make(chan struct{})}, disk.Admit(p, room)
}

func (l *license) renew(p residency.Permit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.disk.Admit(p, l.room); err != nil {
		return err
	}
	if !l.revoked && p != l.permit {
		l.permit = p
		close(l.renewed)
		l.renewed = make(chan struct{})
	}
	return nil
}

func (l *license) revoke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.revoked {
		l.permit, l.revoked = residency.Permit{}, true
		close(l.renewed)
	}
}

// permitted returns once there is a permit in force, or why there is none.
func (l *license) permitted() error {
	var end <-chan time.Time
	for {
		err, renewed := l.ask()
		if err == nil || renewed == nil {
			return err
		}
		if end == nil {
			timer := time.NewTimer(renewWait)
			defer timer.Stop()
			end = timer.C
		}
		select {
		case <-renewed:
		case <-end:
			return err
		}
	}
}

// ask shows the permit to the disk; renewed is nil if no other one will come.
func (l *license) ask() (err error, renewed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err = l.disk.Admit(l.permit, l.room); !l.revoked {
		renewed = l.renewed
	}
	return err, renewed
}
