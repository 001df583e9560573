"""What `make bench` holds its figures to."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))  # it adds its folder
    spec = util.spec_from_file_location("bench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_peak_of_memory_that_is_measured_has_a_bound(bench: ModuleType) -> None:
    figures = {bench.CPU: 40.0, "peak_rss_mb": 401.0}
    latency = {"latency_peak_rss_mb": 402.0}
    results = {
        **bench.bounded(bench.kinds.REALISTIC, figures | {"peak_rss_mb": 400.0}),
        **bench.bounded(bench.kinds.LEAN, figures),
        **latency,
    }

    assert bench.missed(results) == ["lean_peak_rss_mb", "latency_peak_rss_mb"]
    source = "".join(
        path.read_text(encoding="utf-8") for path in (SCRIPT.parent / "benchmark").glob("*.py")
    )
    for name in latency:
        assert f'"{name}"' in source
