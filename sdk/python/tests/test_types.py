"""A checker of types finds a wrong call before it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """\
from audit_sdk import Audit
audit = Audit("x")
audit.login(actor={"type": "user", "tenant": "a", "id_type": "user_id", "id": "1"})
audit.login(actr=1)
audit.login(actor={"type": "usr", "tenant": "a", "id_type": "user_id"})
audit.data_access("record.read", "read", operation="read")
audit.admin_action("role.make", "create", occurred_at="today")
audit.security_change("role.grant", "role", resources=[{"type": "role"}])
"""


def test_a_wrong_call_is_found_by_a_type_checker(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [int(line.split(":")[1]) for line in errors] == [4, 5, 6, 7, 8], done.stdout
    assert "actr" in errors[0]
    assert "usr" in errors[1]
