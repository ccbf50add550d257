package leaks

import (
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	release := make(chan struct{})
	go func() { <-release }()
	if find(0) == nil {
		t.Error("a goroutine that waits is not found")
	}
	time.AfterFunc(700*time.Millisecond, func() { close(release) }) // after goleak alone has given up
	if err := find(patience); err != nil {
		t.Errorf("one that ends late: %v", err)
	}
}
