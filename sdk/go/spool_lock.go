//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package auditsdk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const lockName = "lock"

// errLocked says that another process holds a folder's lock.
var errLocked = errors.New("another process uses it")

// lockFolder holds a folder's lock until the file is closed, at the latest when the process ends. The
// error is errLocked, or the file system's; fs.ErrNotExist: the folder is gone.
func lockFolder(folder string) (*os.File, error) {
	path := filepath.Join(folder, lockName)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, err
	}
	if err := sameFile(lock, path); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// sameFile finds a lock that somebody removed between its opening and its locking: it locks nothing.
func sameFile(lock *os.File, path string) error {
	held, err := lock.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(held, there) {
		return fs.ErrNotExist
	}
	return nil
}
