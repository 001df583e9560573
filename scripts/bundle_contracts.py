"""Write the contract that the SDKs carry: `sdk/*/…/bundle.json`, from `avro_schemas`.

Run it after a change there; a test keeps the copies current. `--check` writes nothing and exits 1
if a copy is stale.
"""

from __future__ import annotations

import json
import sys

from generated import ROOT, keep_current

from avro_schemas import contract

COPIES = tuple(
    ROOT / "sdk" / place / "bundle.json" for place in ("python/audit_sdk", "nodejs/src", "go")
)


def main() -> int:
    """The exit status."""
    text = json.dumps(contract.bundle(), ensure_ascii=False, indent=1) + "\n"
    return keep_current(__doc__, dict.fromkeys(COPIES, text))


if __name__ == "__main__":
    sys.exit(main())
