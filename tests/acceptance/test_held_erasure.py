"""A legal hold outranks an erasure, which waits and says so; on real servers, while a worker runs."""

from __future__ import annotations

import re
import subprocess

import pytest

from pipeline.settings import Settings
from tests.acceptance.keeping_support import a_change, look, run_cli, send

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_an_erasure_under_hold_waits_and_says_so(
    settings: Settings,
    registered: dict[str, int],
    worker: subprocess.Popen[bytes],
    signing: dict[str, str],
) -> None:
    [event] = send(settings, registered, a_change("u-held-erase"))
    hold = run_cli(
        "hold", "add", "--tenant", "acme", "--event", str(event), "--reason", "case 11",
        "--owner", "legal", "-o", "json",
    ).rows[0]["hold_id"]  # fmt: skip
    person = ["--tenant", "acme", "--id-type", "user_id", "--subject", "u-held-erase"]

    asked = run_cli(
        "erase", *person, "--reason", "Art. 17", "--yes", AUDIT_OPERATOR="ann", **signing
    )
    assert asked.status == 0, asked.err
    [request] = set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", asked.out + asked.err))
    approved = run_cli("erase", "approve", request, AUDIT_OPERATOR="ben", **signing)

    assert hold in approved.out + approved.err
    assert look(settings, event).opened["changes.1.old"] == "Bonn"
    run_cli("hold", "release", hold)
    resumed = run_cli("erase", "resume", request, AUDIT_OPERATOR="ben", **signing)
    assert resumed.status == 0, resumed.err
    assert look(settings, event).opened == {}
