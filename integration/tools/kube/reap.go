package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How long a child may have ended without anybody waiting for it.
const reapInterval = time.Second

// Makes this process the parent of processes whose parent has ended, such as those of a pod after the runtime that created them, and
// waits for those that nobody else waits for: the first process of a namespace ends when all others of it are reaped.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	go func() {
		ended := map[int]bool{}
		for range time.Tick(reapInterval) {
			still := map[int]bool{}
			for _, pid := range endedChildren() {
				if ended[pid] {
					unix.Wait4(pid, nil, unix.WNOHANG, nil)
				} else {
					still[pid] = true
				}
			}
			ended = still
		}
	}()
	return nil
}

func endedChildren() (pids []int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range tasks {
		children, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(children)) {
			pid, err := strconv.Atoi(child)
			if err == nil && isZombie(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Whether a process has ended and waits for its parent.
func isZombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}
