"""Write the contract that the SDKs carry: `sdk/*/…/bundle.json`, from `avro_schemas`.

Run it after a change there; a test keeps the copies current. `--check` writes nothing and exits 1
if a copy is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from avro_schemas import contract

ROOT = Path(__file__).resolve().parents[1]
COPIES = tuple(
    ROOT / "sdk" / place / "bundle.json" for place in ("python/audit_sdk", "nodejs/src", "go")
)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="Only say whether the copies are current."
    )
    check = parser.parse_args().check
    text = json.dumps(contract.bundle(), ensure_ascii=False, indent=1) + "\n"
    stale = [
        copy for copy in COPIES if not copy.is_file() or copy.read_text(encoding="utf-8") != text
    ]
    for copy in stale:
        if not check:
            copy.write_text(text, encoding="utf-8")
        print(f"{'stale' if check else 'written'}: {copy.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
