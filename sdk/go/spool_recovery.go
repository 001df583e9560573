package auditsdk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What processes that are gone have left in the spool. The Python SDK takes over by the same rules.

// recoveredEnding is of segments that a process took over, and has not sent yet.
const recoveredEnding = "-recovered.seg"

// left is the folder of a process that is gone, and its lock, which is this process's now.
type left struct {
	folder string
	lock   *os.File
}

// recover takes over their segments, oldest first; what it could not take over is in the error, and the
// next process finds it. They move newest first, under numbers in the order of their age: should this
// process end half way, what is left behind is older, as the folders' names say.
func (s *spool) recover() ([]*segment, error) {
	gone, err := s.findLeft()
	failures := []error{err}
	var paths []string
	for _, one := range gone {
		there, err := filepath.Glob(filepath.Join(one.folder, "*.seg"))
		slices.SortFunc(there, beforeInFolder)
		paths, failures = append(paths, there...), append(failures, err)
	}
	s.mu.Lock()
	first := s.number + 1
	s.number += len(paths)
	s.mu.Unlock()
	var found []*segment
	for i, path := range slices.Backward(paths) {
		one, err := s.takeSegment(path, first+i)
		if err != nil {
			failures = append(failures, err)
		} else if one.records > 0 {
			found = append(found, one)
		}
	}
	slices.Reverse(found)
	for _, one := range gone {
		failures = append(failures, removeFolder(one.folder), one.lock.Close())
	}
	return found, errors.Join(failures...)
}

func (s *spool) findLeft() ([]left, error) {
	folders, err := os.ReadDir(s.parent) // sorted by name, which begins with the time of the start
	if err != nil {
		return nil, err
	}
	var found []left
	var failures []error
	for _, entry := range folders {
		folder := filepath.Join(s.parent, entry.Name())
		if !entry.IsDir() || folder == s.folder {
			continue
		}
		lock, err := lockFolder(folder)
		switch {
		case err == nil:
			found = append(found, left{folder, lock})
		case errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist):
			// its process lives, or another one was first
		default:
			failures = append(failures, err)
		}
	}
	return found, errors.Join(failures...)
}

// beforeInFolder is the order of a former process's segments: what it had recovered was accepted before its own.
func beforeInFolder(a, b string) int {
	if strings.HasSuffix(a, recoveredEnding) != strings.HasSuffix(b, recoveredEnding) {
		if strings.HasSuffix(a, recoveredEnding) {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

// takeSegment moves a segment into this folder, so that its records are this process's to deliver. One
// that is damaged is kept beside the folders first, for a person, and then cut: the next process that finds
// it again keeps no second copy.
func (s *spool) takeSegment(path string, number int) (*segment, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	records, whole := wholeRecords(content)
	if whole < len(content) && !isCut(content[whole:]) {
		if err := s.keep(path, content); err != nil {
			return nil, err
		}
		if err := os.Truncate(path, int64(whole)); err != nil {
			return nil, err
		}
		content = content[:whole]
	}
	mine := &segment{
		path: s.path(number, recoveredEnding), size: int64(len(content)), records: records, sealed: true, recovered: true,
	}
	if err := os.Rename(path, mine.path); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += mine.size
	s.removeIfDone(mine)
	return mine, nil
}

// keep copies a segment; the name is that of its process and its own, so that a copy that a crash cut is
// written again, and not beside it.
func (s *spool) keep(path string, content []byte) error {
	kept := filepath.Join(s.parent, filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path)+".damaged")
	if err := os.WriteFile(kept, content, 0o600); err != nil {
		return err
	}
	s.damaged = append(s.damaged, kept)
	return nil
}
