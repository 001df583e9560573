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

// recover takes over their segments, oldest first; what it could not take over is in the error, and the
// next process finds it.
func (s *spool) recover() ([]*segment, error) {
	folders, err := os.ReadDir(s.parent) // sorted by name, which begins with the time of the start
	if err != nil {
		return nil, err
	}
	var found []*segment
	var failures []error
	for _, entry := range folders {
		folder := filepath.Join(s.parent, entry.Name())
		if !entry.IsDir() || folder == s.folder {
			continue
		}
		lock, err := lockFolder(folder)
		if errors.Is(err, errLocked) || errors.Is(err, fs.ErrNotExist) {
			continue // its process lives, or another one was first
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		taken, err := s.takeOver(folder)
		found = append(found, taken...)
		failures = append(failures, err, removeFolder(folder), lock.Close())
	}
	return found, errors.Join(failures...)
}

func (s *spool) takeOver(folder string) ([]*segment, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.seg"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(paths, beforeInFolder)
	var found []*segment
	for _, path := range paths {
		one, err := s.takeSegment(path)
		if err != nil {
			return found, err
		}
		if one.records > 0 {
			found = append(found, one)
		}
	}
	return found, nil
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
func (s *spool) takeSegment(path string) (*segment, error) {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := &segment{
		path: s.nextPath(recoveredEnding), size: int64(len(content)), records: records, sealed: true, recovered: true,
	}
	if err := os.Rename(path, mine.path); err != nil {
		return nil, err
	}
	s.held += mine.size
	s.removeIfDone(mine)
	return mine, nil
}

// keep copies a segment; the name is that of its process and its own, so that a copy that a crash cut is
// written again, and not beside it.
func (s *spool) keep(path string, content []byte) error {
	name := filepath.Base(filepath.Dir(path)) + "-" + strings.TrimSuffix(filepath.Base(path), ".seg")
	kept := filepath.Join(s.parent, name+".damaged")
	if err := os.WriteFile(kept, content, 0o600); err != nil {
		return err
	}
	s.damaged = append(s.damaged, kept)
	return nil
}
