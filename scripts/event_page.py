"""Write `docs/events.md` from the schemas, the contract and `samples/events`.

`--check` writes nothing and exits 1 if the page is stale.
"""

from __future__ import annotations

import json
import sys

from generated import ROOT, keep_current

from pipeline.contracts.event_page import event_page

PAGE = ROOT / "docs" / "events.md"


def main() -> int:
    """The exit status."""
    samples = {}
    for file in sorted((ROOT / "samples" / "events").glob("*.json")):
        sample = json.loads(file.read_text(encoding="utf-8"))
        samples[sample["family"]] = sample["event"]
    return keep_current(__doc__, {PAGE: event_page(samples)})


if __name__ == "__main__":
    sys.exit(main())
