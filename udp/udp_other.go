//go:build !linux

package udp

import (
	"net"
	"net/netip"
	"time"
)

// kernel can do nothing more for a socket than what package net does.
type kernel struct{}

func (*kernel) use(*net.UDPConn) error { return nil }
func (*kernel) segments() bool         { return false }
func (*kernel) receiver() *receiver    { return nil }

type receiver struct{}

func (*receiver) receive(func([]byte, time.Time)) error { return nil }

type sender struct{}

func (*sender) setTo(netip.AddrPort)        {}
func (*sender) send(*Socket, []message) int { return 0 }

func pause(d time.Duration) { time.Sleep(d) }
