"""Schemas of the event families: registered as this release has them, candidates checked.

A candidate must be compatible with every version before it (FULL_TRANSITIVE), must be decodable
by the worker, and must not take back a mark of personal data: an old mark holds for all later
versions (DESIGN §4).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import avro_schemas
from pipeline.codec.decoders import compile_text
from pipeline.codec.limits import Limits
from pipeline.codec.policy import SealingPolicy
from pipeline.contracts import lint
from pipeline.contracts.fields import fields_of
from pipeline.domain.errors import ConfigurationError, InvalidRecord
from pipeline.domain.logs import RAW_PREFIX, subject_of
from pipeline.entrypoints.cli.registry import COMPATIBILITY, RegistryClient

_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How one family's schema stands.

    ``state`` is ``registered``, ``missing``, ``compatible`` (new, and may be registered) or
    ``incompatible``; ``rule`` is the subject's own compatibility rule.
    """

    family: str
    subject: str
    state: str
    schema_id: int | None
    version: int | None
    rule: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schema text that wants to be the next version of a family."""

    family: str
    text: str


def shipped(families: Sequence[str] = ()) -> list[Candidate]:
    """What this release registers: all families, or those named.

    Raises:
        ConfigurationError: There is no such family.

    """
    unknown = set(families) - set(avro_schemas.families())
    if unknown:
        raise ConfigurationError(
            f"no such family: {', '.join(sorted(unknown))};"
            f" there are {', '.join(avro_schemas.families())}"
        )
    wanted = families or avro_schemas.families()
    return [Candidate(family, avro_schemas.canonical_text(family)) for family in wanted]


def candidate_from(path: Path, family: str) -> Candidate:
    """A candidate from a file.

    Raises:
        ConfigurationError: No such family, or the file is no JSON.

    """
    shipped([family])
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a readable JSON file") from error
    return Candidate(family, json.dumps(schema, ensure_ascii=False, separators=(",", ":")))


def check(registry: RegistryClient, candidate: Candidate) -> SchemaState:
    """How a candidate stands against what is registered; changes nothing.

    Raises:
        Unavailable: The registry does not answer.

    """
    subject = subject_of(RAW_PREFIX + candidate.family)
    versions = [registry.version(subject, number) for number in registry.versions(subject)]
    known = [version for version in versions if version is not None]
    rule = registry.compatibility(subject)
    problems = unusable(candidate)
    # Asked after that: a registry answers a schema that it cannot parse with an error, not a no.
    found = registry.find(subject, candidate.text) if known and not problems else None
    if found is not None:
        family, schema_id, version = candidate.family, found["id"], found["version"]
        return SchemaState(family, subject, "registered", schema_id, version, rule)
    if not problems:
        refusals = registry.refusals(subject, candidate.text)
        if refusals:
            problems = [f"breaks {rule or COMPATIBILITY}: every version must read every other"]
            problems += refusals + suspects(known[-1]["schema"], candidate.text)
        problems += changed_marks([version["schema"] for version in known], candidate)
    state = "incompatible" if problems else "compatible" if known else "missing"
    return SchemaState(candidate.family, subject, state, None, None, rule, "; ".join(problems))


def register(registry: RegistryClient, candidate: Candidate) -> SchemaState:
    """Set the subject's rule and register; the same again changes nothing.

    Raises:
        Unavailable: The registry does not answer.

    """
    subject = subject_of(RAW_PREFIX + candidate.family)
    state = check(registry, candidate)
    if state.state == "incompatible":
        return state
    if state.rule != COMPATIBILITY:
        registry.set_compatibility(subject, COMPATIBILITY)
    registry.register(subject, candidate.text)
    return check(registry, candidate)


def unusable(candidate: Candidate) -> list[str]:
    """Why the worker would refuse every such event; nothing: it would not."""
    leaves = avro_schemas.leaves(candidate.family)
    policy = SealingPolicy.of((leaf.path, leaf.kind, leaf.pii) for leaf in leaves)
    try:
        compile_text(candidate.text, policy, _LIMITS)
    except InvalidRecord as error:
        return [f"the worker cannot decode it: {error.detail or error.reason}"]
    return []


def changed_marks(earlier: Sequence[str], candidate: Candidate) -> list[str]:
    """Paths that an earlier version gave an owner and the candidate gives another, or none."""
    found = lint.changed_marks([json.loads(text) for text in earlier], json.loads(candidate.text))
    return [
        f"{path}: pii was {was!r} and cannot become {now!r}" for path, (was, now) in found.items()
    ]


def suspects(earlier: str, later: str) -> list[str]:
    """What most likely made two schemas incompatible: registries do not all say."""
    before, after = fields_of(json.loads(earlier)), fields_of(json.loads(later))
    added = [path for path in after if path not in before and "default" not in after[path]]
    removed = [path for path in before if path not in after and "default" not in before[path]]
    return [f"{path}: added without a default" for path in added] + [
        f"{path}: removed, and had no default" for path in removed
    ]


def state_row(state: SchemaState) -> dict[str, Any]:
    """For output."""
    return {
        "family": state.family,
        "subject": state.subject,
        "state": state.state,
        "schema_id": state.schema_id,
        "version": state.version,
        "compatibility": state.rule or "(none)",
        "detail": state.detail,
    }
