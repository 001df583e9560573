"""Which orders and erasures are believed: those that a leaf of ``audit.raw.system`` names, and whose
leaves hash to the root that it commits to. Every other one gives no authority, and is a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID

from pipeline.compliance.authority_reader import AuthorityReader, ErasureRow
from pipeline.compliance.findings import Finding, Kind, Store
from pipeline.compliance.grants import Expired, Grants, expired
from pipeline.domain.erasure import (
    ACTION_DONE,
    LEAVES,
    OPERATION,
    REFS,
    SUBJECTS,
    refs_digest,
    subjects_digest,
)
from pipeline.domain.logs import SYSTEM_FAMILY, SYSTEM_TOPIC
from pipeline.domain.orders import EXPIRY, REDACTION, Order, decode_order
from sinks.archive_listing import KeyVersions


class AuthorityLoad:
    """One look at all of them: ``grants``, and what is wrong in ``findings``."""

    def __init__(self, reader: AuthorityReader) -> None:
        self._reader = reader
        self._months: list[tuple[Expired, Order, str]] = []
        self._classes: list[tuple[Expired, Order, str]] = []
        self.grants = Grants()
        self.findings: list[Finding] = []

    async def run(self) -> None:
        """Read and judge them. Raises ``Unavailable``: begin anew."""
        async for found, body in self._reader.orders():
            await self._order(found, body)
        self.grants.settle()
        roots = await self._reader.month_roots([scope for scope, _order, _key in self._months])
        for (scope, order, key), counted in zip(self._months, roots, strict=True):
            if self._has_root(order, counted, key):
                self.grants.months.append(scope)
        # The rows of a class may be gone with their month: whole months are judged before.
        for scope, order, key in self._classes:
            await self._class(scope, order, key)
        async for row in self._reader.erasures():
            await self._erasure(row)

    async def _order(self, found: KeyVersions, body: bytes | None) -> None:
        key = found.key
        if found.later or found.markers:
            what = (
                f"{found.later} later version(s) and {found.markers} delete marker(s) stand over it"
            )
            self._add(Kind.ADDED, what, key)
        if body is None:
            return
        try:
            order = decode_order(body)
            scope = None if order.expiry is None else expired(order, order.expiry)
        except (ValueError, TypeError, OverflowError):  # whoever can put objects wrote it
            self._add(Kind.CHANGED, "is no order that this release knows", key)
            return
        kinds = {REDACTION: scope is None, EXPIRY: scope is not None}
        if order.key != key or not kinds.get(order.kind, False):
            self._add(Kind.CHANGED, "holds another order than its name says", key)
            return
        event = await self._reader.leaf_of(order.event_id)
        if event is None:
            if not await self._reader.is_planned(order.request_id):
                what = (
                    f"no leaf of the trail names request {order.request_id}: it gives no authority"
                )
                self._add(Kind.MISSING, what, key)
        elif not _is_of_order(event, order, body):
            what = f"the leaf of request {order.request_id} says otherwise: it gives no authority"
            self._add(Kind.INCONSISTENT, what, key)
        elif scope is None:
            if self._has_root(order, await self._reader.redacted_root(order), key):
                self.grants.add_redaction(order)
        else:
            kind = self._months if scope.scope.tenant is None else self._classes
            kind.append((scope, order, key))

    async def _class(self, scope: Expired, order: Order, key: str) -> None:
        if any(month.includes(scope) for month in self.grants.months):
            return
        counted = await self._reader.class_root(scope.scope, scope.bounds)
        if self._has_root(order, counted, key):
            self.grants.classes.append(scope)

    def _has_root(self, order: Order, counted: tuple[bytes, int] | None, key: str) -> bool:
        if counted == (order.root, order.count):
            return True
        self._add(Kind.INCONSISTENT, _other_root(order.request_id), key)
        return False

    async def _erasure(self, row: ErasureRow) -> None:
        place = str(row.request_id)
        try:
            event_id = None if row.event_id is None else UUID(row.event_id)
        except ValueError:
            event_id = None
        event = None if event_id is None else await self._reader.leaf_of(event_id)
        if event is None:
            what = (
                f"no leaf of the trail commits to what erasure {place} affects: it gives no authority."
                " Is it under way? `audit-trail erase resume`, then verify again"
            )
            self._add(Kind.MISSING, what, place)
            return
        counted = await self._reader.erased_root(row.request_id)
        if not _is_of_erasure(event, row):
            what = f"the leaf of erasure {place} says otherwise: it gives no authority"
            self._add(Kind.INCONSISTENT, what, place)
        elif counted is None or _resource(event["clear"], LEAVES) != {
            f"{counted[0].hex()}/{counted[1]}"
        }:
            self._add(Kind.INCONSISTENT, _other_root(row.request_id), place)
        else:
            self.grants.erasures.add(row.request_id)
            for ref in row.subject_refs:
                self.grants.erased[ref.bytes].append(row.request_id)

    def _add(self, kind: Kind, what: str, place: str) -> None:
        self.findings.append(Finding(kind, Store.AUTHORITY, SYSTEM_TOPIC, what, place=place))


def _other_root(request_id: UUID) -> str:
    return (
        f"the leaves that request {request_id} affects do not have the root that its leaf commits to:"
        " it gives no authority"
    )


def _is_of_order(event: Mapping[str, Any], order: Order, body: bytes) -> bool:
    clear = event["clear"]
    said = [
        clear.get(f"authority.{name}") for name in ("request_id", "leaves", "root", "order_hash")
    ]
    meant = [str(order.request_id), order.count, order.root.hex(), sha256(body).hexdigest()]
    return (
        event["family"] == SYSTEM_FAMILY and clear.get("operation") == order.kind and said == meant
    )


def _is_of_erasure(event: Mapping[str, Any], row: ErasureRow) -> bool:
    clear = event["clear"]
    said = [event["family"], *(clear.get(name) for name in ("operation", "action", "ticket"))]
    meant = [SYSTEM_FAMILY, OPERATION, ACTION_DONE, str(row.request_id)]
    subjects = {subjects_digest(row.subject_hashes).hex()}
    refs = {refs_digest(row.subject_refs).hex()}
    return (
        said == meant and _resource(clear, SUBJECTS) == subjects and _resource(clear, REFS) == refs
    )


def _resource(clear: Mapping[str, Any], kind: str) -> set[Any]:
    """Ids of the resources of a kind."""
    return {
        clear.get(path.removesuffix("type") + "id")
        for path, value in clear.items()
        if path.startswith("resources.") and path.endswith(".type") and value == kind
    }
