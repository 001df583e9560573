"""Write `sdk/python/audit_sdk/fields.py`: what a call of each family takes, as types, from the schemas.

`--check` writes nothing and exits 1 if the file is stale.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from generated import ROOT, keep_current

import avro_schemas
from pipeline.domain.logs import SERVICE_FAMILIES

FILE = ROOT / "sdk" / "python" / "audit_sdk" / "fields.py"
HEAD = '''"""What each call takes: the fields of docs/events.md, as types. Made by scripts/python_types.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Required, TypedDict

'''
# What a call names itself; the rest of its family's fields are its keywords.
NAMED = {
    "data-access": {"action", "operation"},
    "profile-update": {"self_service"},
    "admin-action": {"action", "operation"},
    "security-change": {"action", "change_kind"},
}
FROM_HERE = {"producer"}  # the client's own
COMMON = set(avro_schemas.common_fields()) - {"action"}  # a call of its own names it
SCALARS = {"string": "str", "int": "int", "long": "int", "boolean": "bool"}


def main() -> int:
    """The exit status."""
    text = formatted(HEAD + "\n\n".join(definitions()) + "\n")
    return keep_current(__doc__, {FILE: text})


def definitions() -> Iterator[str]:
    """Each shared record once, then each family."""
    done: set[str] = set()
    for family in SERVICE_FAMILIES:
        schema = avro_schemas.load(family)
        names: dict[str, dict[str, Any]] = {}
        wanted = [one for one in schema["fields"] if one["name"] not in FROM_HERE]
        for field in wanted:
            for record in records(field["type"], names):
                if record["name"] not in done:
                    done.add(record["name"])
                    yield typed(record["name"], record["doc"], record["fields"], names)
        if family == SERVICE_FAMILIES[0]:
            shared = [one for one in wanted if one["name"] in COMMON]
            doc = "What every call takes; the client fills in what is left out."
            yield typed("CommonFields", doc, shared, names, all_optional=True)
        named = NAMED.get(family, set())
        own = [one for one in wanted if one["name"] not in COMMON | named]
        yield typed(
            f"{schema['name']}Fields", schema["doc"], own, names, "CommonFields", all_optional=True
        )


def records(schema: Any, names: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records within a type, inner ones first; ``names`` gets every named type."""
    if isinstance(schema, list):
        for branch in schema:
            yield from records(branch, names)
    elif isinstance(schema, dict):
        for part in (schema.get("items"), schema.get("type")):
            if isinstance(part, (dict, list)):
                yield from records(part, names)
        for field in schema.get("fields", ()):
            yield from records(field["type"], names)
        if "name" in schema:
            names[f"{avro_schemas.NAMESPACE}.{schema['name']}"] = schema
        if schema["type"] == "record":
            yield schema


def typed(
    name: str,
    doc: str,
    fields: list[dict[str, Any]],
    names: dict[str, dict[str, Any]],
    base: str = "TypedDict",
    *,
    all_optional: bool = False,
) -> str:
    """A TypedDict; what a default stands for may be left out."""
    lines = [f"class {name}({base}, total=False):", f'    """{doc}"""', ""]
    for field in fields:
        kind = hint(field["type"], names)
        if field["name"] == "occurred_at":
            kind = "int | datetime"
        needed = "default" not in field and not all_optional
        lines += [f"    {field['name']}: " + (f"Required[{kind}]" if needed else kind)]
        lines += [f'    """{field["doc"]}"""']
    return "\n".join(lines) + "\n"


def hint(schema: Any, names: dict[str, dict[str, Any]]) -> str:
    """The type of a value, as an annotation."""
    if isinstance(schema, list):
        inner = next(branch for branch in schema if branch != "null")
        return f"{hint(inner, names)} | None"
    if isinstance(schema, str):
        return SCALARS[schema] if schema in SCALARS else hint(names[schema], names)
    if schema["type"] == "enum":
        return f"Literal[{', '.join(map(repr, schema['symbols']))}]"
    if schema["type"] == "array":
        return f"Sequence[{hint(schema['items'], names)}]"
    if schema["type"] == "map":
        return f"Mapping[str, {hint(schema['values'], names)}]"
    return str(schema["name"]) if schema["type"] == "record" else SCALARS[schema["type"]]


def formatted(text: str) -> str:
    """As the repository's formatter writes it."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FILE), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
