"""Judging a decoded event, and finding out whose its values are (DESIGN §2, step 3; RFC.md §2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from pipeline.codec import judge
from pipeline.codec.compiler import Flat, Groups
from pipeline.codec.judge import Horizon
from pipeline.codec.policy import ACTOR, SUBJECT, TARGET, UNATTRIBUTED
from pipeline.domain.errors import InvalidRecord, Reason
from pipeline.domain.records import Record
from pipeline.keys.subjects import Subject, unattributed

UNKNOWN_ID = "unknown"  # an id type: the value names nobody that the producer knows
ANONYMOUS = "anonymous"
# A value outside of a party belongs to the first party of its kind, else to the actor.
FIRST_PARTY = {TARGET: "targets.0", SUBJECT: "data_subjects.0"}


class Judged(NamedTuple):
    """A record that is accepted, before its values are sealed."""

    record: Record
    schema: int
    event_id: bytes
    occurred_at_us: int
    clear: Flat
    owned: Sequence[tuple[Subject, Flat]]  # the actor's first


# Named tuples of what is at hand already: their own constructors are calls in Python.
_judged = partial(tuple.__new__, Judged)
_subject_of = partial(tuple.__new__, Subject)


class _PartyPaths(dict[str, tuple[str, str, str]]):
    """Where a party's triple stands, by its prefix."""

    def __missing__(self, prefix: str) -> tuple[str, str, str]:
        paths = self[prefix] = (f"{prefix}.tenant", f"{prefix}.id_type", f"{prefix}.id")
        return paths


class Judge:
    """Knows the tenants; ``import_key`` is what importing principals prove to have."""

    def __init__(self, horizon: Horizon, import_key: bytes | None) -> None:
        self._horizon = horizon
        self._import_key = import_key
        self.tenants: frozenset[str] = frozenset()
        self._party_paths = _PartyPaths()

    def event(self, record: Record, schema: int, clear: Flat, groups: Groups) -> Judged:
        """The event, if it is acceptable. Raises ``InvalidRecord``."""
        text = clear["event_id"]
        octets = judge.event_id(text)
        clear["event_id"] = text.lower()
        if clear["tenant"] not in self.tenants:
            raise InvalidRecord(Reason.TENANT_UNKNOWN, "tenant")
        occurred_at_us: int = clear["occurred_at"]
        imported: bool = clear["imported"]
        judge.check_time(occurred_at_us, record.timestamp * 1000, self._horizon, imported=imported)
        if imported:
            judge.check_import(record, self._import_key)
        owned = self._owners(clear, groups, occurred_at_us)
        return _judged((record, schema, octets, occurred_at_us, clear, owned))

    def _owners(
        self, clear: Flat, groups: Groups, occurred_at_us: int
    ) -> Sequence[tuple[Subject, Flat]]:
        """Each subject once, with the values that are sealed to it; the actor first."""
        values = groups[ACTOR]
        tenant = clear["actor.tenant"]
        if tenant not in self.tenants:
            raise InvalidRecord(Reason.TENANT_UNKNOWN, "actor.tenant")
        identifier = values.get("actor.id") or clear.get("actor.id")
        id_type = clear["actor.id_type"]
        if (
            not identifier
            or id_type == UNKNOWN_ID
            or clear["actor.type"] == ANONYMOUS
            or not tenant
        ):
            actor = unattributed(clear["tenant"], occurred_at_us)
        else:
            actor = _subject_of((tenant, id_type, identifier))
        if len(groups) == 1:
            return ((actor, values),) if values else ()
        owned = {actor: values}
        for prefix, more in groups.items():
            if prefix == ACTOR:
                continue
            subject = self._party(prefix, actor, clear, groups, occurred_at_us)
            if more:
                known = owned.setdefault(subject, more)
                if known is not more:
                    owned[subject] = {**known, **more}
        if not owned[actor]:
            del owned[actor]
        return tuple(owned.items())

    def _party(
        self, prefix: str, actor: Subject, clear: Flat, groups: Groups, occurred_at_us: int
    ) -> Subject:
        """The subject of a group's values other than the actor's: the party that the prefix names,
        or the tenant's unattributed key.
        """
        if prefix == UNATTRIBUTED:
            return unattributed(clear["tenant"], occurred_at_us)
        if prefix in FIRST_PARTY:
            prefix = FIRST_PARTY[prefix]
            if prefix not in groups:
                return actor
        tenant_path, id_type_path, id_path = self._party_paths[prefix]
        tenant = clear.get(tenant_path)
        if tenant not in self.tenants:
            raise InvalidRecord(Reason.TENANT_UNKNOWN, tenant_path)
        identifier = groups[prefix].get(id_path) or clear.get(id_path)
        id_type = clear.get(id_type_path, UNKNOWN_ID)
        if not identifier or id_type == UNKNOWN_ID or not tenant:
            return unattributed(clear["tenant"], occurred_at_us)
        return _subject_of((tenant, id_type, identifier))
