package auditsdk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// segmentBytes is where a segment ends and the next one begins: what is removed at once when the broker
// has it.
const segmentBytes = 4 << 20

// segment is one file: how many of its records are appended and how many the broker has.
type segment struct {
	path      string
	size      int64
	records   int
	delivered int
	sealed    bool // nothing more is appended
	recovered bool // a process that is gone wrote it
}

// spool is events in append-only files until the broker has them, over crashes and outages.
//
// A folder per process, in it segments of records (spool_file.go), one write each: what was appended
// survives the process, not the loss of power. A process holds a lock on its folder; a folder whose lock
// is free is of a process that is gone, and the next one takes over what is in it. Safe for concurrent use.
type spool struct {
	parent, folder string
	maxBytes       int64
	lock           *os.File

	mu      sync.Mutex
	held    int64 // bytes of every segment that is there
	number  int   // of the last segment
	current *segment
	file    *os.File // of current
	damaged []string // copies of damaged segments, for a person
}

// openSpool makes this process's folder under parent and locks it. The error is a *ConfigurationError.
func openSpool(parent, name string, maxBytes int64) (*spool, error) {
	folder, lock, err := ownFolder(parent, name)
	if err != nil {
		return nil, &ConfigurationError{fmt.Sprintf("SpoolDir %s cannot be written: %v", parent, plainError(err))}
	}
	made := &spool{parent: parent, folder: folder, maxBytes: maxBytes, lock: lock}
	if err := made.nextSegment(); err != nil {
		lock.Close()
		return nil, &ConfigurationError{fmt.Sprintf("SpoolDir %s cannot be written: %v", parent, plainError(err))}
	}
	return made, nil
}

// ownFolder is a new folder and its lock. Another process may take a folder for one that is left before
// it is locked: then a second name is tried, and a third.
func ownFolder(parent, name string) (string, *os.File, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	var last error
	for attempt := range 3 {
		folder := filepath.Join(parent, name)
		if attempt > 0 {
			folder = fmt.Sprintf("%s-%d", folder, attempt)
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			last = err
			continue
		}
		lock, err := lockFolder(folder)
		if err == nil {
			return folder, lock, nil
		}
		last = err
	}
	return "", nil, last
}

// append adds a record; it survives this process on return. The error is a *NotAccepted: the spool is
// full, or the disk is; nothing of the record is left then.
func (s *spool) append(family string, key, body []byte) (*spooled, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := int64(recordSize(family, key, body))
	if s.held+size > s.maxBytes {
		return nil, &NotAccepted{fmt.Sprintf("the spool holds %d bytes (SpoolMaxBytes)", s.maxBytes)}
	}
	if s.current.size >= segmentBytes {
		full := s.current
		if err := s.nextSegment(); err != nil {
			return nil, &NotAccepted{fmt.Sprintf("the spool cannot be written: %v", plainError(err))}
		}
		full.sealed = true
		s.removeIfDone(full)
	}
	record := recordBuffers.Get().(*[]byte)
	defer recordBuffers.Put(record)
	*record = appendRecord((*record)[:0], family, key, body)
	if _, err := s.file.Write(*record); err != nil {
		why := fmt.Sprintf("the spool cannot be written: %v", plainError(err))
		if cut := s.file.Truncate(s.current.size); cut != nil {
			why += fmt.Sprintf("; nor cut: %v", plainError(cut))
		}
		return nil, &NotAccepted{why}
	}
	start := s.current.size
	s.current.size += size
	s.current.records++
	s.held += size
	return &spooled{family: family, segment: s.current, start: start, end: start + size}, nil
}

// confirm says that the broker has a record; a sealed segment of which it has all is removed.
func (s *spool) confirm(one *spooled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.segment.delivered++
	s.removeIfDone(one.segment)
}

// trim empties the segment that is appended to, if the broker has all of it.
func (s *spool) trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.current
	if one.size == 0 || one.delivered < one.records || s.file.Truncate(0) != nil {
		return // what cannot be emptied is sent again after a crash, which doubles nothing
	}
	s.held -= one.size
	one.size, one.records, one.delivered = 0, 0, 0
}

// close gives the folder up: it goes if it is empty, else the next process finds it.
func (s *spool) close() error {
	s.trim()
	s.mu.Lock()
	defer s.mu.Unlock()
	var failures []error
	failures = append(failures, s.file.Close())
	if s.current.size == 0 {
		failures = append(failures, os.Remove(s.current.path))
	}
	failures = append(failures, removeFolder(s.folder), s.lock.Close())
	return errors.Join(failures...)
}

// sizeOf is how many bytes of a segment hold whole records.
func (s *spool) sizeOf(one *segment) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return one.size
}

// --- under the lock ---

// removeIfDone forgets a segment of which the broker has everything.
func (s *spool) removeIfDone(one *segment) {
	if !one.sealed || one.delivered < one.records || one.path == "" {
		return
	}
	// A file that cannot be removed is sent again by the next process, which doubles nothing.
	_ = os.Remove(one.path)
	s.held -= one.size
	one.path = ""
}

func (s *spool) nextSegment() error {
	s.number++
	path := s.path(s.number, ".seg")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if s.file != nil {
		_ = s.file.Close() // every write to it has returned
	}
	s.file, s.current = file, &segment{path: path}
	return nil
}

func (s *spool) path(number int, ending string) string {
	return filepath.Join(s.folder, fmt.Sprintf("%08d%s", number, ending))
}

// removeFolder removes a folder of the spool that holds no segment; one that holds any stays.
func removeFolder(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != lockName {
			return nil
		}
	}
	return os.RemoveAll(folder)
}
