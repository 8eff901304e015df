//go:build unix && !linux

package main

// Other systems have neither a death signal nor adoption: there only the process group is ended. Nor can a port be
// kept there for a component that is down.

import "syscall"

func childAttributes(group int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pgid: group}
}

func reservePort(int) error { return nil }

func adoptOrphans() error { return nil }

func killOrphans() {}
