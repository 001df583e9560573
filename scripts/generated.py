"""What the scripts that write a file of the repository share: write it, or say that it is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def keep_current(doc: str | None, texts: Mapping[Path, str]) -> int:
    """Write each file that differs from its text; the exit status. With ``--check`` nothing is written,
    and it is 1 if a file is stale.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--check", action="store_true", help="Only say whether all is current.")
    check = parser.parse_args().check
    stale = [
        file
        for file, text in texts.items()
        if not file.is_file() or file.read_text(encoding="utf-8") != text
    ]
    for file in stale:
        if check:
            print(f"stale: {file.relative_to(ROOT)}; run scripts/{Path(sys.argv[0]).name}")
        else:
            file.write_text(texts[file], encoding="utf-8")
            print(f"written: {file.relative_to(ROOT)}")
    return 1 if check and stale else 0
