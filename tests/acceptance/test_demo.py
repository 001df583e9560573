"""`audit-trail demo`, what `make demo` runs on its stack: real vendor records reach every store."""

from __future__ import annotations

import json

import pytest

from tests.acceptance.records import ROOT, cli

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.mark.usefixtures("registered")
def test_the_records_of_the_samples_are_in_every_store() -> None:
    samples = [file for file in (ROOT / "samples").glob("*.jsonl") if file.stat().st_size]
    records = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in samples)

    found = json.loads(cli("demo", "--samples", str(ROOT / "samples"), "--output", "json"))

    assert found["passed"]
    assert found["import"]["read"] <= records
    assert found["stored"] >= 0.9 * found["import"]["mapped"] > 100
    events = {store["store"]: store["events"] for store in found["stores"]["stores"]}
    assert events["ledger"] == events["index"] == events["archive"] >= found["stored"]
    # Each mapped record that is not stored is named with its reason.
    assert len(found["not_stored"]) == found["import"]["published"] - found["stored"]
    assert all(one["reason"] != "lost" for one in found["not_stored"])
