//go:build unix && !linux

package main

// Other systems have neither a death signal nor adoption: there only the process group is ended.

import "syscall"

func childAttributes(group int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pgid: group}
}

func adoptOrphans() error { return nil }

func killOrphans() {}
