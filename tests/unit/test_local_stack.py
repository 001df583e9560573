"""What the local stack says before it starts anything: taken ports, and what the machine lacks."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "infra" / "local"))


from audit_stack.errors import StackError  # noqa: E402
from audit_stack.ports import refuse_taken_ports  # noqa: E402
from audit_stack.settings import read_settings  # noqa: E402

REQUIRE = ROOT / "infra" / "local" / "require.sh"


def test_a_taken_port_is_named_with_the_setting_that_moves_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.1", 0)) as also,
    ):
        at, too = taken.getsockname()[1], also.getsockname()[1]
        made = read_settings({"AUDIT_STACK_KAFKA_PORT": str(at), "AUDIT_STACK_S3_PORT": str(too)})

        with pytest.raises(StackError) as refused:
            refuse_taken_ports(made, ["kafka", "s3"])
        with pytest.raises(StackError) as one:
            refuse_taken_ports(made, ["s3"])

    said = str(refused.value)
    assert f"port {at} (Kafka) is taken; set AUDIT_STACK_KAFKA_PORT" in said
    assert f"port {too} (S3 gateway) is taken; set AUDIT_STACK_S3_PORT" in said
    assert "AUDIT_STACK_PORT_BASE" in said
    assert "Kafka" not in str(one.value)
    refuse_taken_ports(made, ["kafka", "s3"])  # they are free again


# --- require.sh ---


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with a Python and a JDK that will do, and nothing else but sed and head."""
    for name in ("sed", "head"):
        found = next(Path(at) / name for at in ("/usr/bin", "/bin") if (Path(at) / name).exists())
        (tmp_path / name).symlink_to(found)
    program(tmp_path, "python3", f'exec {sys.executable} "$@"')
    program(tmp_path, "java", "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2")
    return tmp_path


def require(machine: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(REQUIRE)],
        env={"PATH": str(machine), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_that_has_all_is_told_which_python_is_used(machine: Path) -> None:
    done = require(machine)

    assert (done.returncode, done.stdout) == (0, "python3\n"), done.stderr


@pytest.mark.parametrize("script", ["exit 127", "exit 1"])  # none; one that is older than 3.11
def test_a_machine_without_a_python_that_will_do_is_told_so(machine: Path, script: str) -> None:
    program(machine, "python3", script)

    done = require(machine)

    assert (done.returncode, done.stdout) == (1, "")
    assert "Python 3.11 or newer is missing" in done.stderr
    assert "PYTHON" in done.stderr


def test_a_python_that_is_named_is_taken(machine: Path) -> None:
    (machine / "python3").unlink()

    assert require(machine).returncode == 1
    assert require(machine, PYTHON=sys.executable).stdout == f"{sys.executable}\n"


def test_a_python_without_venv_is_told_so(machine: Path) -> None:
    program(machine, "python3", f'case "$2" in *venv*) exit 1;; esac; exec {sys.executable} "$@"')

    done = require(machine)

    assert done.returncode == 1
    assert "python3 has no venv module" in done.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 127", "a JDK is missing: install JDK 17"),
        ("echo 'openjdk version \"11.0.2\"' >&2", "the JDK is 11, it must be 17 or newer"),
        ("echo 'java version \"1.8.0_381\"' >&2", "it must be 17 or newer"),
    ],
)
def test_a_machine_without_a_jdk_that_will_do_is_told_so(
    machine: Path, script: str, said: str
) -> None:
    program(machine, "java", script)

    done = require(machine)

    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "JAVA_HOME" in done.stderr


def test_the_jdk_of_java_home_is_the_one_that_counts(machine: Path, tmp_path: Path) -> None:
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    program(home / "bin", "java", "echo 'openjdk version \"11.0.2\"' >&2")

    assert "the JDK is 11" in require(machine, JAVA_HOME=str(home)).stderr
