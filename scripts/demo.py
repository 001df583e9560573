"""`make demo` and `make up`: the stack, the application on it, and where to look.

Everything is kept between runs; a second run finds the servers up and takes seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STACK = [sys.executable, str(ROOT / "infra" / "local" / "stack.py")]
OWN = ("worker", "signer", "keeper")  # the trail's own processes, on a migrated database
AUDIT_TRAIL = [sys.executable, "-m", "pipeline.entrypoints.cli"]


def main() -> int:
    """The exit status: that of the first command that failed, or of the demo's own verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--no-import",
        action="store_true",
        help="Only bring the stack, worker, signer and keeper up.",
    )
    options = parser.parse_args()
    for command in (["up"], *(["stop", name] for name in OWN)):
        status = subprocess.run(
            [*STACK, *command], stdout=subprocess.DEVNULL, check=False
        ).returncode
        if status and command == ["up"]:
            return status
    environment = os.environ | stack_environment()
    words = ["migrate"] if options.no_import else ["demo", "--samples", str(ROOT / "samples")]
    verdict = subprocess.run([*AUDIT_TRAIL, *words], env=environment, check=False).returncode
    if verdict:
        return verdict
    for name in OWN:
        started = subprocess.run([*STACK, "start", name], check=False).returncode
        if started:
            return started
    where_to_look(environment)
    return 0


def stack_environment() -> dict[str, str]:
    """The settings that the stack wrote for the application."""
    done = subprocess.run([*STACK, "env", "--path"], capture_output=True, text=True, check=True)
    path = done.stdout.strip()
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return {"AUDIT_ENV_FILE": path, **dict(line.split("=", 1) for line in lines if "=" in line)}


def where_to_look(environment: dict[str, str]) -> None:
    """How a person reaches each part; passwords stay in the file that holds them."""
    file = environment["AUDIT_ENV_FILE"]
    port = own_port("WORKER", 8, 9108)
    signer_port = own_port("SIGNER", 11, 9109)
    keeper_port = own_port("KEEPER", 12, 9111)
    print(
        f"""
The stack, a worker, a signer and a keeper keep running. Where to look (settings: {file}):
  ledger    (set -a; . {file}; psql "$AUDIT_DATABASE_URL" -c 'SELECT family, action, outcome, occurred_at FROM audit_logs LIMIT 10')
  index     {environment["AUDIT_ELASTICSEARCH_URL"]}/audit-events-*/_search?pretty&size=3
  archive   bucket {environment["AUDIT_S3_ARCHIVE_BUCKET"]} at {environment["AUDIT_S3_ENDPOINT_URL"]} (key id and secret in that file)
  metrics   http://127.0.0.1:{port}/metrics   health /healthz /readyz
  signer    http://127.0.0.1:{signer_port}/readyz   verifier keys: {environment["AUDIT_VERIFIER_KEYS_FILE"]}
  keeper    http://127.0.0.1:{keeper_port}/healthz   redaction, retention and holds, every hour
  commands  AUDIT_ENV_FILE={file} .venv/bin/audit-trail status
`make down` stops it, `make clean` forgets it.""",
        file=sys.stderr,
    )


def own_port(name: str, place: int, default: int) -> str:
    """The port of a listener of the trail's own; ``place``: from the base of all ports."""
    base = os.environ.get("AUDIT_STACK_PORT_BASE")
    chosen = str(int(base) + place) if base else str(default)
    return os.environ.get(f"AUDIT_STACK_{name}_PORT", chosen)


if __name__ == "__main__":
    sys.exit(main())
