package auditsdk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// heldBytes is the size of every segment that is there.
func (s *spool) heldBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func opened(t *testing.T, folder, name string, maxBytes int64) *spool {
	t.Helper()
	made, err := openSpool(folder, name, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.lock.Close() })
	return made
}

func textOf(number int) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("body %d", number), 20))
}

// filled is a spool of so many records of one size.
func filled(t *testing.T, folder, name string, count int) (*spool, []*spooled) {
	t.Helper()
	made := opened(t, folder, name, room)
	var records []*spooled
	for number := range count {
		one, err := made.append(family, []byte("acme/u"), textOf(number))
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, one)
	}
	return made, records
}

// crash ends a process without a word: its lock goes with it.
func crash(one *spool) {
	_ = one.file.Close()
	_ = one.lock.Close()
}

func recovered(t *testing.T, one *spool) []*segment {
	t.Helper()
	found, err := one.recover()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// all reads segments in small pieces.
func all(t *testing.T, one *spool, segments []*segment) []spooled {
	t.Helper()
	var found []spooled
	for _, part := range segments {
		for at := int64(0); at < part.size; {
			records, end, err := part.read(at, one.sizeOf(part), 300)
			if err != nil {
				t.Fatal(err)
			}
			if len(records) == 0 {
				break
			}
			found, at = append(found, records...), end
		}
	}
	return found
}

func hasTexts(t *testing.T, found []spooled, count int) {
	t.Helper()
	if len(found) != count {
		t.Errorf("%d records, not %d", len(found), count)
		return
	}
	for number, one := range found {
		if string(one.body) != string(textOf(number)) || string(one.key) != "acme/u" || one.family != family {
			t.Errorf("record %d is %q", number, one.body)
		}
	}
}

func isEmpty(t *testing.T, folder string) {
	t.Helper()
	if there, err := os.ReadDir(folder); err != nil || len(there) != 0 {
		t.Error(there, err)
	}
}

func TestSegmentsAreCutAndRemovedOneByOne(t *testing.T) {
	folder := t.TempDir()
	mine := opened(t, folder, "1", 64<<20)
	var records []*spooled
	for range 12 * segmentBytes / 50_000 {
		one, err := mine.append(family, []byte("k"), make([]byte, 50_000))
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, one)
	}
	count := func() int {
		there, _ := filepath.Glob(filepath.Join(folder, "1", "*.seg"))
		return len(there)
	}
	before, held := count(), mine.heldBytes()
	for _, one := range records[:len(records)/2] {
		mine.confirm(one)
	}
	if half := count(); half >= before || half <= 1 || mine.heldBytes() >= held {
		t.Error(before, half, mine.heldBytes())
	}
	for _, one := range records[len(records)/2:] {
		mine.confirm(one)
	}
	if err := mine.close(); err != nil || mine.heldBytes() != 0 {
		t.Error(err, mine.heldBytes())
	}
	isEmpty(t, folder)
}

func TestItIsBoundedAndHasRoomAgainOnceDelivered(t *testing.T) {
	mine := opened(t, t.TempDir(), "1", 1_000)
	var records []*spooled
	for range 7 {
		one, err := mine.append(family, []byte("k"), make([]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, one)
	}
	var full *NotAccepted
	if _, err := mine.append(family, []byte("k"), make([]byte, 200)); !errors.As(err, &full) {
		t.Error(err)
	}
	for _, one := range records {
		mine.confirm(one)
	}
	mine.trim()
	if _, err := mine.append(family, []byte("k"), make([]byte, 700)); err != nil {
		t.Error(err)
	}
}

func TestATrimForgetsNothingThatIsNotDelivered(t *testing.T) {
	folder := t.TempDir()
	one, records := filled(t, folder, "1", 3)
	one.confirm(records[0])
	one.confirm(records[1])
	one.trim()
	crash(one)
	mine := opened(t, folder, "2", room)
	hasTexts(t, all(t, mine, recovered(t, mine)), 3)
}

func TestAWriteThatFailsLeavesNothingOfTheRecord(t *testing.T) {
	one, _ := filled(t, t.TempDir(), "1", 3)
	held := one.heldBytes()
	_ = one.file.Close()
	var not *NotAccepted
	if _, err := one.append(family, []byte("k"), textOf(3)); !errors.As(err, &not) || one.heldBytes() != held {
		t.Error(err, one.heldBytes(), held)
	}
}

func TestFilesAreForThisAccountOnly(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "spool")
	filled(t, folder, "1", 1)
	err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		found, statErr := os.Stat(path)
		if err == nil && found.Mode().Perm()&0o077 != 0 {
			t.Error(path, found.Mode())
		}
		return errors.Join(err, statErr)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAFolderThatCannotBeMadeIsASettingToMend(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wrong *ConfigurationError
	if _, err := openSpool(file, "1", room); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "SpoolDir") {
		t.Error(err)
	}
}

func TestAFolderThatAnotherProcessTookFirstGetsAnotherName(t *testing.T) {
	folder := t.TempDir()
	first, _ := filled(t, folder, "1", 1)
	second := opened(t, folder, "1", room)
	if first.folder == second.folder {
		t.Error(second.folder)
	}
}

func TestALockWhoseFileIsGoneLocksNothing(t *testing.T) {
	folder := t.TempDir()
	lock, err := lockFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := os.Remove(lock.Name()); err != nil {
		t.Fatal(err)
	}
	if err := sameFile(lock, lock.Name()); err == nil {
		t.Error("it is held to lock")
	}
	if _, err := lockFolder(folder); err != nil {
		t.Error(err)
	}
}

// The format is the Python SDK's: these bytes were written by it.
func TestARecordIsWhatThePythonSDKWrites(t *testing.T) {
	const python = "0000001822237e420b0006646174612d61636365737361636d652f75626f6479"
	if found := fmt.Sprintf("%x", appendRecord(nil, family, []byte("acme/u"), []byte("body"))); found != python {
		t.Errorf("%s is not %s", found, python)
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add(appendRecord(nil, family, []byte("k"), []byte("b")))
	f.Add([]byte{0, 0, 0, 3, 0, 0, 0, 0, 255, 255, 255})
	f.Fuzz(func(t *testing.T, content []byte) {
		record, size := readRecord(content)
		if size > 0 && string(appendRecord(nil, record.family, record.key, record.body)) != string(content[:size]) {
			t.Error("it reads what it would not write")
		}
	})
}
