package auditsdk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestACrashLeavesEveryRecordAndDeliveringThemRemovesAll(t *testing.T) {
	folder := t.TempDir()
	one, _ := filled(t, folder, "1", 30)
	crash(one)
	mine := opened(t, folder, "2", room)
	found := all(t, mine, recovered(t, mine))
	hasTexts(t, found, 30)
	for i := range found {
		mine.confirm(&found[i])
	}
	if err := mine.close(); err != nil {
		t.Error(err)
	}
	isEmpty(t, folder)
}

func TestTheSpoolOfAProcessThatLivesIsLeftAlone(t *testing.T) {
	folder := t.TempDir()
	living, _ := filled(t, folder, "1", 3)
	mine := opened(t, folder, "2", room)
	if found := recovered(t, mine); found != nil {
		t.Error(found)
	}
	if err := living.close(); err != nil {
		t.Error(err)
	}
	hasTexts(t, all(t, mine, recovered(t, mine)), 3)
}

func TestARecordThatACrashCutIsNotRead(t *testing.T) {
	for cut := 1; cut < 120; cut += 7 {
		folder := t.TempDir()
		one, records := filled(t, folder, "1", 10)
		crash(one)
		path := one.current.path
		if err := os.Truncate(path, records[9].end-int64(cut)); err != nil {
			t.Fatal(err)
		}
		mine := opened(t, folder, "2", room)
		hasTexts(t, all(t, mine, recovered(t, mine)), 9)
		if mine.damaged != nil {
			t.Error(mine.damaged)
		}
	}
}

func TestDamageInTheMiddleIsKeptForAPerson(t *testing.T) {
	for _, at := range []int64{3, 5, 9, 40, 130} {
		folder := t.TempDir()
		one, records := filled(t, folder, "1", 10)
		crash(one)
		content, err := os.ReadFile(one.current.path)
		if err != nil {
			t.Fatal(err)
		}
		content[records[4].start+at] ^= 0x01
		if err := os.WriteFile(one.current.path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		mine := opened(t, folder, "2", room)
		found := all(t, mine, recovered(t, mine))
		hasTexts(t, found, 4)
		if len(mine.damaged) != 1 {
			t.Fatal(at, mine.damaged)
		}
		if kept, err := os.ReadFile(mine.damaged[0]); err != nil || !slices.Equal(kept, content) {
			t.Error(at, err)
		}
		for i := range found {
			mine.confirm(&found[i])
		}
		if err := mine.close(); err != nil {
			t.Error(err)
		}
		if there, _ := filepath.Glob(filepath.Join(folder, "*", "*.seg")); there != nil {
			t.Error(there)
		}
	}
}

// The next process finds the damage again as long as it cannot deliver what comes before.
func TestADamagedSegmentIsKeptOnceHoweverManyProcessesFindIt(t *testing.T) {
	folder := t.TempDir()
	one, records := filled(t, folder, "1", 10)
	crash(one)
	damage, err := os.OpenFile(one.current.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := damage.WriteAt([]byte{0xff}, records[4].start+40); err != nil {
		t.Fatal(err)
	}
	_ = damage.Close()
	before, _ := os.ReadFile(one.current.path)
	for number := range 4 {
		mine := opened(t, folder, fmt.Sprint(number+2), room)
		hasTexts(t, all(t, mine, recovered(t, mine)), 4)
		crash(mine)
	}
	kept, _ := filepath.Glob(filepath.Join(folder, "*.damaged"))
	if !slices.Equal(kept, []string{filepath.Join(folder, "1-00000001.seg.damaged")}) {
		t.Fatal(kept)
	}
	if copied, err := os.ReadFile(kept[0]); err != nil || !slices.Equal(copied, before) {
		t.Error(len(copied), len(before), err)
	}
}

func TestWhatWasRecoveredBeforeTheNextCrashGoesFirst(t *testing.T) {
	folder := t.TempDir()
	first, _ := filled(t, folder, "1", 2)
	crash(first)
	second := opened(t, folder, "2", room) // its own first segment is there before it recovers
	recovered(t, second)
	if _, err := second.append(family, []byte("acme/u"), textOf(2)); err != nil {
		t.Fatal(err)
	}
	crash(second)
	for number := range 3 {
		mine := opened(t, folder, fmt.Sprint(number+3), room)
		hasTexts(t, all(t, mine, recovered(t, mine)), 3)
		crash(mine)
	}
}

func TestASegmentThatCannotBeReadHoldsNoOtherUpAndKeepsItsPlace(t *testing.T) {
	folder := t.TempDir()
	one, records := filled(t, folder, "1", 2)
	if err := one.nextSegment(); err != nil {
		t.Fatal(err)
	}
	for number := 2; number < 4; number++ {
		if _, err := one.append(family, []byte("acme/u"), textOf(number)); err != nil {
			t.Fatal(err)
		}
	}
	crash(one)
	hidden, wanted := records[0].segment.path+".hidden", records[0].segment.path
	if err := errors.Join(os.Rename(wanted, hidden), os.Mkdir(wanted, 0o700)); err != nil {
		t.Fatal(err)
	}

	second := opened(t, folder, "2", room)
	found, err := second.recover()
	if len(found) != 1 || found[0].records != 2 || err == nil {
		t.Error(found, err)
	}
	crash(second)
	if err := errors.Join(os.Remove(wanted), os.Rename(hidden, wanted)); err != nil {
		t.Fatal(err)
	}
	third := opened(t, folder, "3", room)
	hasTexts(t, all(t, third, recovered(t, third)), 4)
}
