"""The doctor's checks: side by side, each with its own time, none hiding another."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.entrypoints.cli.checks import Check, Finding, run_checks
from pipeline.entrypoints.cli.doctor_access import CLUSTER_NEEDS, INDEX_NEEDS, index_finding
from pipeline.entrypoints.cli.doctor_database import clock_finding, durability


def good() -> Sequence[Finding]:
    return [Finding("good", "ok", "fine")]


def down() -> Sequence[Finding]:
    raise Unavailable("s3", "refused")


def wrong() -> Sequence[Finding]:
    raise ConfigurationError("no topics; run: audit-trail topics create")


def broken() -> Sequence[Finding]:
    raise ValueError("a@example.com")


def hanging() -> Sequence[Finding]:
    time.sleep(5)
    return good()


def test_findings_come_in_order_whatever_fails() -> None:
    checks = [Check("down", down), Check("wrong", wrong), Check("broken", broken)]

    findings = run_checks([*checks, Check("good", good)], timeout_s=2)

    assert [finding.check for finding in findings] == ["down", "wrong", "broken", "good"]
    assert [finding.status for finding in findings] == ["fail", "fail", "fail", "ok"]
    assert findings[1].what_to_do == "run: audit-trail topics create"
    assert "example.com" not in findings[2].detail


def test_a_check_that_hangs_is_given_up_and_the_others_are_not() -> None:
    started = time.monotonic()

    findings = run_checks([Check("hanging", hanging), Check("good", good)], timeout_s=0.1)

    assert time.monotonic() - started < 2
    assert [finding.status for finding in findings] == ["fail", "ok"]
    assert "no answer" in findings[0].detail


@pytest.mark.parametrize(
    ("clock", "status"),
    [(100.5, "ok"), (101.5, "ok"), (103.5, "warn"), (97.0, "warn"), (200.0, "fail"), (0, "fail")],
)
def test_a_clock_is_judged_with_the_way_there_and_back_in_its_favour(
    clock: float, status: str
) -> None:
    assert clock_finding("kafka", clock, before=100.0, after=101.0).status == status


@pytest.mark.parametrize(
    ("mode", "fsync", "statuses"),
    [
        ("on", "on", []),
        ("remote_apply", "on", []),
        ("off", "on", ["fail"]),
        ("local", "on", ["fail"]),
        ("on", "off", ["warn"]),
    ],
)
def test_commits_that_may_be_lost_are_refused_as_the_worker_refuses_them(
    mode: str, fsync: str, statuses: list[str]
) -> None:
    assert [finding.status for finding in durability(mode, fsync)] == statuses


def test_a_user_of_the_index_lacks_what_the_server_does_not_say_it_has() -> None:
    cluster = dict.fromkeys(CLUSTER_NEEDS, True)
    index = dict.fromkeys(INDEX_NEEDS, True)

    def finding(**answer: object) -> Finding:
        return index_finding("privileges", "audit-*", answer)

    assert finding(cluster=cluster, index={"audit-*": index}).status == "ok"
    lacking = finding(cluster=cluster, index={"audit-*": {**index, "create_doc": False}})
    assert (lacking.status, lacking.detail) == ("fail", "lacks create_doc on audit-*")
    lacking = finding(cluster={}, index={"audit-*": index})
    assert (lacking.status, lacking.detail) == ("fail", "lacks manage_index_templates")
    assert finding().status == "fail"
