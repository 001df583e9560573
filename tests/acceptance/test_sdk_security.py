"""The SDKs on a broker that wants TLS and SCRAM, and a registry behind TLS that wants a password."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from pipeline.settings import Settings, load_settings
from tests.acceptance.raw_topics import RawTopics
from tests.acceptance.records import ROOT, cli, wait_until
from tests.acceptance.test_sdk_go import SDK as GO_SDK
from tests.tls_lines import Authority, secured_line
from tests.tls_support import Secured, secured_servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

EVENTS = 20
WRONG = "wrong-password-that-nobody-may-see"
HERE = ROOT / "tests" / "acceptance"


@pytest.fixture(scope="module")
def secured(
    settings: Settings, registered: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    """The stack's registry has the schemas; the broker's topics are made."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "ca")
    password = secrets.token_urlsafe(18)
    with ExitStack() as stack:
        made = stack.enter_context(secured_servers(folder / "servers", authority))
        line = secured_line(authority, settings.registry_url, user="audit", password=password)
        made.secrets.append(password)
        made.variables |= {
            "AUDIT_REGISTRY_URL": stack.enter_context(line),
            "AUDIT_REGISTRY_USERNAME": "audit",
            "AUDIT_REGISTRY_PASSWORD": password,
            "AUDIT_REGISTRY_CA_FILE": str(authority.ca_file),
        }
        cli("topics", "create", **made.variables)
        reached = load_settings(
            **{name.removeprefix("AUDIT_").lower(): value for name, value in made.variables.items()}
        )
        wait_until(lambda: has_leaders(reached))
        yield made


def has_leaders(settings: Settings) -> bool:
    try:
        RawTopics(settings, "authentication").close()
    except KafkaException:
        return False
    return True


def python(env: dict[str, str]) -> list[str | Path]:
    options = {
        "kafka": {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": env["AUDIT_KAFKA_USERNAME"],
            "sasl.password": env["AUDIT_KAFKA_PASSWORD"],
            "ssl.ca.location": env["AUDIT_KAFKA_CA_FILE"],
        },
        "registry_username": env["AUDIT_REGISTRY_USERNAME"],
        "registry_password": env["AUDIT_REGISTRY_PASSWORD"],
        "registry_ca_file": env["AUDIT_REGISTRY_CA_FILE"],
        "close_timeout_s": 4,
    }
    return [sys.executable, HERE / "sdk_program.py", "exit", str(EVENTS), json.dumps(options)]


def nodejs(env: dict[str, str]) -> list[str | Path]:
    options = {
        "kafka": {
            "tls": {"ca": Path(env["AUDIT_KAFKA_CA_FILE"]).read_text(encoding="ascii")},
            "sasl": {
                "mechanism": "SCRAM-SHA-512",
                "username": env["AUDIT_KAFKA_USERNAME"],
                "password": env["AUDIT_KAFKA_PASSWORD"],
            },
        },
        "registryUsername": env["AUDIT_REGISTRY_USERNAME"],
        "registryPassword": env["AUDIT_REGISTRY_PASSWORD"],
        "registryCaFile": env["AUDIT_REGISTRY_CA_FILE"],
        "closeTimeoutS": 6,
    }
    return ["node", HERE / "sdk_program.mjs", "exit", str(EVENTS), json.dumps(options)]


def go(_env: dict[str, str]) -> list[str | Path]:
    program = ROOT / "build" / "go-program"
    subprocess.run(["go", "build", "-o", program, "./internal/program"], cwd=GO_SDK, check=True)
    return [program, "-secured", f"-count={EVENTS}", "-close-timeout=4s"]


Program = Callable[[dict[str, str]], list[str | Path]]
each_program = pytest.mark.parametrize(
    "program",
    [
        python,
        pytest.param(nodejs, marks=pytest.mark.needs("node")),
        pytest.param(go, marks=pytest.mark.needs("go")),
    ],
)


def run(program: Program, secured: Secured, **changes: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/sdk/python", **secured.variables, **changes}
    return subprocess.run(
        program(env), env=env, capture_output=True, text=True, timeout=60, check=False
    )


def topics_of(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> RawTopics:
    for name, value in secured.variables.items():
        monkeypatch.setenv(name, value)
    return RawTopics(load_settings(), "authentication")


@each_program
def test_events_are_published_over_tls_with_passwords(
    program: Program, secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = topics_of(secured, monkeypatch)

    done = run(program, secured)

    assert done.returncode == 0, done.stderr
    published = {line.split(" ")[0] for line in done.stdout.splitlines()}
    assert len(published) == EVENTS
    assert set(topics.ids()) == published
    topics.close()


@pytest.mark.parametrize(
    ("changed", "says"),
    [("AUDIT_KAFKA_PASSWORD", "broker"), ("AUDIT_REGISTRY_PASSWORD", "registry")],
)
@each_program
def test_a_wrong_password_is_said_without_it_and_publishes_nothing(
    program: Program, changed: str, says: str, secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = topics_of(secured, monkeypatch)

    done = run(program, secured, **{changed: WRONG})

    assert says in done.stderr
    assert not [one for one in (WRONG, *secured.secrets) if one in done.stdout + done.stderr]
    assert topics.count() == 0
    topics.close()
