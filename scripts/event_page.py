"""Write `docs/events.md` from the schemas, the contract and `samples/events`.

`--check` writes nothing and exits 1 if the page is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pipeline.contracts.event_page import event_page

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "events.md"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="Only say whether the page is current."
    )
    check = parser.parse_args().check
    samples = {}
    for file in sorted((ROOT / "samples" / "events").glob("*.json")):
        sample = json.loads(file.read_text(encoding="utf-8"))
        samples[sample["family"]] = sample["event"]
    text = event_page(samples)
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print("stale: docs/events.md; run scripts/event_page.py")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print("written: docs/events.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
