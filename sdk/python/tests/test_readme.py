"""The README's program prints what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str, *, having: str = "") -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if having in block)


def test_the_program_without_a_broker_prints_what_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python", having="frame(")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == (block("text"), "")
