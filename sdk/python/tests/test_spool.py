"""The spool: what was appended is found again, whatever a crash left, and nothing else is."""

from __future__ import annotations

import errno
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from audit_sdk import spool as module
from audit_sdk.errors import AuditConfigurationError, NotAccepted
from audit_sdk.segments import Segment
from audit_sdk.spool import Spool

MAX = 1 << 20


def filled(folder: Path, name: str, count: int) -> Spool:
    made = Spool(folder, name, max_bytes=MAX)
    for number in range(count):
        made.append("data-access", b"acme/u", f"body {number}".encode() * 20)
    return made


def crash(one: Spool) -> None:
    """The process ends without a word: its lock goes with it."""
    one.abandon()


def bodies(one: Spool, segments: list[Segment]) -> list[bytes]:
    return [record.body for segment in segments for record in one.read(segment, 0, max_bytes=MAX)]


def expected(count: int) -> list[bytes]:
    return [f"body {number}".encode() * 20 for number in range(count)]


def test_a_crash_leaves_every_record_and_delivering_them_removes_all(tmp_path: Path) -> None:
    crash(filled(tmp_path, "1", 30))
    mine = Spool(tmp_path, "2", max_bytes=MAX)
    segments = mine.recover()

    assert bodies(mine, segments) == expected(30)
    for segment in segments:
        for record in mine.read(segment, 0, max_bytes=MAX):
            mine.delivered(record)
    mine.close()
    assert list(tmp_path.iterdir()) == []


def test_the_spool_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    living = filled(tmp_path, "1", 3)
    mine = Spool(tmp_path, "2", max_bytes=MAX)

    assert mine.recover() == []
    living.close()
    assert bodies(mine, mine.recover()) == expected(3)


def test_a_record_that_a_crash_cut_is_not_read(tmp_path: Path) -> None:
    crash(filled(tmp_path, "1", 10))
    (path,) = (tmp_path / "1").glob("*.seg")
    whole = path.stat().st_size
    for cut in range(1, whole // 10, 7):
        os.truncate(path, whole - cut)
        mine = Spool(tmp_path, "2", max_bytes=MAX)
        segments = mine.recover()
        assert bodies(mine, segments) == expected(9)
        assert mine.damaged == []
        path = next((tmp_path / "2").glob("*-recovered.seg"))
        (tmp_path / "1").mkdir()
        path = path.rename(tmp_path / "1" / "00000001.seg")
        mine.close()


@pytest.mark.parametrize("at", [0, 3, 5, 9, 40, 200])
def test_damage_in_the_middle_is_kept_for_a_person(tmp_path: Path, at: int) -> None:
    crash(filled(tmp_path, "1", 10))
    (path,) = (tmp_path / "1").glob("*.seg")
    content = bytearray(path.read_bytes())
    size = len(content) // 10
    content[4 * size + min(at, size - 1)] ^= 0x01
    path.write_bytes(content)
    mine = Spool(tmp_path, "2", max_bytes=MAX)

    found = bodies(mine, mine.recover())

    assert found == expected(4)
    if at >= 4 or at == 3:  # a length that grew beyond the file looks like a cut
        (kept,) = mine.damaged
        assert kept == tmp_path / "1-00000001.seg.damaged"
        assert kept.read_bytes() == bytes(content)
        assert kept.stat().st_mode & 0o077 == 0


def test_a_damaged_segment_is_kept_once_however_many_processes_find_it(tmp_path: Path) -> None:
    crash(filled(tmp_path, "1", 10))
    (path,) = (tmp_path / "1").glob("*.seg")
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x01
    path.write_bytes(content)
    for number in range(2, 6):
        mine = Spool(tmp_path, f"{number}", max_bytes=MAX)
        assert bodies(mine, mine.recover()) == expected(9)
        crash(mine)

    assert len(list(tmp_path.glob("*.damaged"))) == 1


def test_what_is_older_goes_first_over_any_number_of_crashes(tmp_path: Path) -> None:
    for number in range(1, 5):
        mine = Spool(tmp_path, f"{number}", max_bytes=MAX)
        mine.append("data-access", b"k", f"{number} before".encode())
        assert bodies(mine, mine.recover()) == said(number)
        mine.append("data-access", b"k", f"{number} after".encode())
        crash(mine)


def test_what_is_older_goes_first_after_a_crash_in_the_middle_of_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1)
    for number in (1, 2, 3):
        mine = Spool(tmp_path, f"{number}", max_bytes=MAX)
        mine.append("data-access", b"k", f"{number} before".encode())
        if number == 2:  # killed when it has moved one of the two
            with monkeypatch.context() as patched:
                patched.setattr(Path, "rename", once_then_gone(Path.rename))
                mine.recover()
        elif number == 3:
            assert bodies(mine, mine.recover()) == said(3)
        mine.append("data-access", b"k", f"{number} after".encode())
        crash(mine)


def said(before: int) -> list[bytes]:
    return [f"{n} {when}".encode() for n in range(1, before) for when in ("before", "after")]


def once_then_gone(really: Any) -> Any:
    moved: list[Path] = []

    def rename(path: Path, to: Path) -> None:
        if moved:
            raise OSError(errno.EIO, "gone")
        moved.append(path)
        really(path, to)

    return rename


def test_a_segment_that_cannot_be_begun_refuses_the_event_and_harms_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1_000)
    mine = filled(tmp_path, "1", 7)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        with pytest.raises(NotAccepted, match="many"):
            mine.append("data-access", b"k", b"refused")
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    mine.append("data-access", b"k", b"taken")

    assert os.fstat(other).st_size == 0
    os.close(other)
    crash(mine)
    after = Spool(tmp_path, "2", max_bytes=MAX)
    assert bodies(after, after.recover()) == [*expected(7), b"taken"]


def test_what_was_delivered_counts_so_though_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Spool(tmp_path, "1", max_bytes=MAX)
    first = mine.append("data-access", b"k", b"first")
    with monkeypatch.context() as patched:
        for name in ("open", "ftruncate", "unlink"):
            patched.setattr(os, name, fails)
        mine.delivered(first)
    second = mine.append("data-access", b"k", b"second")
    assert bodies(mine, [second.segment]) == [b"first", b"second"]
    mine.delivered(second)

    mine.close()
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_which_a_part_cannot_be_taken_back_has_nothing_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = filled(tmp_path, "1", 1)
    really = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, record: really(file, record[:9]))
        patched.setattr(os, "ftruncate", fails)
        with pytest.raises(NotAccepted):
            mine.append("data-access", b"k", b"refused")
    mine.append("data-access", b"k", b"taken")
    crash(mine)

    after = Spool(tmp_path, "2", max_bytes=MAX)
    assert bodies(after, after.recover()) == [*expected(1), b"taken"]


def test_a_first_segment_that_cannot_be_begun_is_a_setting_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda *of: fails() if of[0].suffix == ".seg" else really(*of))
        with pytest.raises(AuditConfigurationError, match="spool_dir"):
            Spool(tmp_path, "1", max_bytes=MAX)

    assert list(tmp_path.iterdir()) == []


def fails(*_given: object) -> Any:
    raise OSError(errno.EMFILE, "too many open files")


def test_segments_are_cut_and_removed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1_000)
    mine = Spool(tmp_path, "1", max_bytes=MAX)
    records = [mine.append("data-access", b"k", bytes(100)) for _ in range(50)]
    before = len(list((tmp_path / "1").glob("*.seg")))
    for record in records[:25]:
        mine.delivered(record)
    half = len(list((tmp_path / "1").glob("*.seg")))
    for record in records[25:]:
        mine.delivered(record)

    assert before > half > 1
    mine.close()
    assert list(tmp_path.iterdir()) == []


def test_it_is_bounded_and_has_room_again_once_delivered(tmp_path: Path) -> None:
    mine = Spool(tmp_path, "1", max_bytes=1_000)
    taken = [mine.append("data-access", b"k", bytes(100)) for _ in range(7)]
    with pytest.raises(NotAccepted):
        mine.append("data-access", b"k", bytes(200))
    for record in taken:
        mine.delivered(record)

    mine.append("data-access", b"k", bytes(100))


def test_files_are_for_this_account_only(tmp_path: Path) -> None:
    filled(tmp_path, "1", 1)

    for path in [tmp_path / "1", *(tmp_path / "1").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_a_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(AuditConfigurationError, match="spool_dir"):
        Spool(tmp_path / "file", "1", max_bytes=MAX)


def test_processes_that_start_at_the_same_time_take_each_others_leavings_once(
    tmp_path: Path,
) -> None:
    """Threads stand for processes: each spool has a lock of its own."""
    found: list[bytes] = []

    def deliver(mine: Spool) -> None:
        for segment in mine.recover():
            for record in mine.read(segment, 0, max_bytes=MAX):
                found.append(record.body)
                mine.delivered(record)

    def process(number: int) -> None:
        for round_ in range(40):
            mine = Spool(tmp_path, f"{number}-{round_}", max_bytes=MAX)
            deliver(mine)
            mine.append("data-access", b"k", f"{number} {round_}".encode())
            if round_ % 2:
                crash(mine)
            else:
                mine.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(process, range(6)))
    last = Spool(tmp_path, "last", max_bytes=MAX)
    deliver(last)
    last.close()

    assert Counter(found) == Counter(f"{n} {r}".encode() for n in range(6) for r in range(40))
    assert list(tmp_path.iterdir()) == []
