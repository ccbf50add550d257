package main

import (
	"strings"
	"testing"
)

func TestOneDemoADirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDemo(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDemo(dir); err == nil || !strings.Contains(err.Error(), "another demo runs in "+dir) {
		t.Errorf("a second demo on the directory: %v", err)
	}
	first.Close()
	again, err := lockDemo(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again.Close()
}
