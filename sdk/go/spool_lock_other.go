//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package auditsdk

import (
	"errors"
	"os"
)

const lockName = "lock"

var errLocked = errors.New("another process uses it")

// lockFolder has no lock here that ends with its process: SpoolDir is refused.
func lockFolder(string) (*os.File, error) {
	return nil, errors.New("this system has no flock(2)")
}
