"""Avro schema resolution between two versions, both ways, and a fingerprint that names a schema.

Source: Avro 1.12 specification, "Schema Resolution" and "Parsing Canonical Form"; Confluent's
compatibility type FULL_TRANSITIVE.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import fastavro.schema


def incompatibilities(
    schema: Mapping[str, Any], earlier: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """(path, what) for each reason that one of the two cannot read what the other writes."""
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
    from avro.schema import parse

    checker: Any = ReaderWriterCompatibilityChecker  # its package says of no call what it returns
    new, old = parse(json.dumps(schema)), parse(json.dumps(earlier))
    for reader, names, writer, which in (
        (new, schema, old, "cannot read what it wrote"),
        (old, earlier, new, "it cannot read what this writes"),
    ):
        found = checker().get_compatibility(reader, writer)
        if found.compatibility is not SchemaCompatibilityType.compatible:
            places = sorted(found.locations - {"/"}) or ["/"]
            what = ", ".join(sorted(kind.value for kind in found.incompatibilities))
            detail = "; ".join(sorted(found.messages))
            yield ", ".join(_path(names, place) for place in places), f"{which}: {what}: {detail}"


def fingerprint(schema: Mapping[str, Any]) -> str:
    """SHA-256 of the schema's Parsing Canonical Form, hexadecimal: alike for schemas that decode alike."""
    canonical = fastavro.schema.to_parsing_canonical_form(dict(schema))
    return str(fastavro.schema.fingerprint(canonical, "SHA-256"))


def _path(schema: Any, place: str) -> str:
    """``/fields/3/type/symbols`` as the field's path."""
    names: list[str] = []
    at = schema
    for part in place.replace("//", "/").strip("/").split("/"):
        if isinstance(at, dict) and part in at:
            at = at[part]
        elif isinstance(at, list) and part.isdigit() and int(part) < len(at):
            at = at[int(part)]
            if isinstance(at, dict) and "name" in at and "type" in at and "symbols" not in at:
                names.append(at["name"])
        else:
            break
    return ".".join(names)
