"""The folder of rule files, and the file of overrides: read, reread when they change.

A file that is no rule is refused with line and reason; the rule that it held before stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from pipeline.detections.lines import Unreadable, read
from pipeline.detections.reading import RuleFile, read_rule
from pipeline.domain.detection.rules import Refused, Rule, RuleSet

ENDING = ".yml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder held. ``digests`` tells whether it has changed since."""

    files: Sequence[RuleFile] = ()
    refusals: Sequence[Refused] = ()
    digests: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def rules(self) -> RuleSet:
        """The rules that are in force."""
        return RuleSet([one.rule for one in self.files], self.refusals)


def load_rules(
    folder: Path, *, overrides: Path | None = None, last: Loaded | None = None
) -> Loaded:
    """The rules of a folder; ``last`` itself if nothing changed.

    Raises:
        OSError: The folder, or a file in it, cannot be read.
    """
    texts = {path.stem: path.read_bytes() for path in sorted(folder.glob(f"*{ENDING}"))}
    override_text = overrides.read_bytes() if overrides else None
    digests = {name: sha256(text).digest() for name, text in texts.items()}
    if overrides and override_text is not None:
        digests[str(overrides)] = sha256(override_text).digest()
    if last is not None and digests == last.digests:
        return last
    before = {one.rule.name: one for one in last.files} if last else {}
    files: list[RuleFile] = []
    refusals: list[Refused] = []
    for name, text in texts.items():
        try:
            files.append(read_rule(_decoded(text), name))
        except Unreadable as error:
            refusals.append(Refused(f"{name}{ENDING}", error.line, error.reason))
            if name in before:
                files.append(before[name])
    if overrides and override_text is not None:
        rules = [one.rule for one in files]
        try:
            found = read_overrides(_decoded(override_text), rules)
            files = [
                replace(one, rule=replace(one.rule, overrides=found.get(one.rule.name, {})))
                for one in files
            ]
        except Unreadable as error:
            refusals.append(Refused(overrides.name, error.line, error.reason))
            files = [
                replace(one, rule=replace(one.rule, overrides=before[one.rule.name].rule.overrides))
                if one.rule.name in before
                else one
                for one in files
            ]
    return Loaded(files, refusals, digests)


def read_overrides(
    text: str, rules: Sequence[Rule]
) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """Rule → tenant → measure → the bound that holds there in place of the rule's.

    Raises:
        Unreadable: Names the line and the reason.
    """
    known = {
        rule.name: {one.name for one in rule.measures if one.gte is not None or one.lte is not None}
        for rule in rules
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, tenants in read(text).mapping("the file").items():
        if name not in known:
            raise Unreadable(tenants.line, f"there is no rule {name}")
        for tenant, measures in tenants.mapping(name).items():
            for measure, value in measures.mapping(tenant).items():
                if measure not in known[name]:
                    raise Unreadable(value.line, f"{name} has no bound {measure}")
                bounds = found.setdefault(name, {}).setdefault(tenant, {})
                bounds[measure] = value.number(measure)
    return found


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(1, f"not UTF-8 at byte {error.start}") from None
