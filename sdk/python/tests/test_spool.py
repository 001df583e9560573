"""The spool: what was appended is found again, whatever a crash left, and nothing else is."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from audit_sdk import spool as module
from audit_sdk.errors import AuditConfigurationError, NotAccepted
from audit_sdk.spool import Segment, Spool

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
        assert kept.read_bytes() == bytes(content)


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
