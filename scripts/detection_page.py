"""Write `docs/detections.md` from `agents/rules`.

`--check` writes nothing and exits 1 if the page is stale.
"""

from __future__ import annotations

import sys

from generated import ROOT, keep_current

from pipeline.detections.files import load_rules
from pipeline.detections.page import detections_page

PAGE = ROOT / "docs" / "detections.md"


def main() -> int:
    """The exit status."""
    loaded = load_rules(ROOT / "agents" / "rules")
    for refusal in loaded.refusals:
        print(refusal)
    return 1 if loaded.refusals else keep_current(__doc__, {PAGE: detections_page(loaded.files)})


if __name__ == "__main__":
    sys.exit(main())
