"""What stands in `infra` for people who have Docker, checked by schema."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]


def test_the_compose_file_follows_the_schema_of_compose_files() -> None:
    # check-jsonschema ships the schema; its command line needs another click than Faust does.
    package = find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    vendored = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    compose = YAML(typ="safe").load(ROOT / "infra" / "docker-compose.yml")

    found = [
        f"{'.'.join(map(str, error.path))}: {error.message}"
        for error in Draft202012Validator(schema).iter_errors(compose)
    ]

    assert found == []
    assert {
        "kafka",
        "registry",
        "postgres",
        "elasticsearch",
        "kibana",
        "s3",
        "prometheus",
        "grafana",
        "worker",
        "relay",
        "signer",
        "log-server",
    } <= set(compose["services"])
    compose["services"]["worker"]["imagee"] = "x"
    assert not Draft202012Validator(schema).is_valid(compose)
