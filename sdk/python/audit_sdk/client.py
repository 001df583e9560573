"""``Audit``: one call per event family."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, Unpack

from confluent_kafka import KafkaError, Producer

from audit_sdk import context, process
from audit_sdk.codec import encode, validate
from audit_sdk.contract import contract
from audit_sdk.errors import AuditError, Problem
from audit_sdk.fields import (
    AdminActionFields,
    AuthenticationFields,
    DataAccessFields,
    ProfileUpdateFields,
    SecurityChangeFields,
)
from audit_sdk.identity import LONGEST_SEQUENCE, Identity, now_us
from audit_sdk.items import DeliveryClass, Item, Metrics
from audit_sdk.logs import log_event
from audit_sdk.progress import SYSTEM, Dropped, Heartbeats
from audit_sdk.publisher import Publisher
from audit_sdk.receipt import Receipt
from audit_sdk.registry import SchemaIds
from audit_sdk.settings import AuditSettings, producer_settings
from audit_sdk.spool import Spool
from audit_sdk.wire import raw_key

_FAMILIES: Final = tuple(name for name in contract().families if name != SYSTEM)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Audit:
    """Publishes audit events. One per process is enough; every method is thread-safe.

    A call builds the event (id, time, producer, request context), holds it to its family's contract
    and returns its ``event_id`` once it is accepted for delivery; what that promises is the delivery
    class of the family (``audit_sdk.publisher``). Nothing connects before the first event.

    ``close`` at the end, or use it as a context manager; at exit, also of a child of ``multiprocessing``,
    and on SIGTERM it is closed anyway.
    """

    def __init__(
        self,
        service: str | None = None,
        *,
        settings: AuditSettings | None = None,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        """``options`` are fields of ``AuditSettings``; what is missing comes from the environment.

        Raises:
            AuditConfigurationError: A setting does not fit.
        """
        self._settings = settings or AuditSettings.from_environment(service=service, **options)
        self._classes = {name: self._settings.class_of(name) for name in contract().families}
        self._heartbeat_tenant = self._settings.heartbeat_tenant or self._settings.tenant
        self._publisher = Publisher(
            self._make_producer,
            self._make_ids(),
            self._make_spool if self._settings.spool_dir is not None else None,
            metrics or Metrics(),
            buffer_bytes=self._settings.buffer_bytes,
            heartbeats=self._make_heartbeats if self._heartbeat_tenant else None,
        )
        self._begin()
        process.watch(self)

    def _begin(self) -> None:
        one = self._settings
        self._identity = Identity.here(one.service, one.version, one.environment, one.instance)

    # --- one call per family ---

    def login(self, **fields: Unpack[AuthenticationFields]) -> str:
        """An authentication: ``action`` is session.start and ``operation`` logon unless given."""
        return self.emit("authentication", {"action": "session.start", **fields})

    def data_access(self, action: str, operation: str, **fields: Unpack[DataAccessFields]) -> str:
        """Data that was read, searched, exported or shared."""
        return self.emit("data-access", {"action": action, "operation": operation, **fields})

    def profile_update(self, *, self_service: bool, **fields: Unpack[ProfileUpdateFields]) -> str:
        """What a service holds about a person changed: ``changes``, and whose it is: ``targets``."""
        named = {"action": "profile.update", "self_service": self_service}
        return self.emit("profile-update", named | fields)

    def admin_action(self, action: str, operation: str, **fields: Unpack[AdminActionFields]) -> str:
        """Something that takes administrative rights."""
        return self.emit("admin-action", {"action": action, "operation": operation, **fields})

    def security_change(
        self, action: str, change_kind: str, **fields: Unpack[SecurityChangeFields]
    ) -> str:
        """A control changed: a role, a credential, a factor, a policy, a key."""
        named = {"action": action, "change_kind": change_kind}
        return self.emit("security-change", named | fields)

    def emit(self, family: str, fields: Mapping[str, Any]) -> str:
        """Publish an event of any family; its id.

        ``fields`` are the event's own (docs/events.md). What they leave out, or is None, comes from the
        request context, then from here: ``event_id``, ``occurred_at`` (also a ``datetime``), ``tenant``,
        ``outcome`` (success) and ``producer``.

        Raises:
            InvalidEvent: It breaks the contract; nothing was sent.
            NotAccepted: It was not taken (spool full, client closed).
            NotDelivered: ``fail_closed`` only: not confirmed in time.
            LookupError: There is no such family, or it is the trail's own.
        """
        _require_service_family(family)
        return self._publish(family, context.merged(context.current(), fields))

    def send(self, family: str, fields: Mapping[str, Any]) -> Receipt:
        """``emit`` that does not wait: many events are accepted first, then waited for as a whole.

        Whatever the class of the family, the event is ``fail_closed`` in memory until it is settled.

        Raises:
            InvalidEvent: It breaks the contract; nothing was sent.
            NotAccepted: The memory is full (``buffer_bytes``), or the client is closed.
            LookupError: There is no such family, or it is the trail's own.
        """
        _require_service_family(family)
        event = context.merged(context.current(), fields)
        item = self._accept(family, event, DeliveryClass.FAIL_CLOSED)
        assert item is not None  # only best effort drops
        return Receipt(event["event_id"], self._publisher, item)

    def check(self, family: str, fields: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with an event as ``emit`` would publish it here and now, whatever its sequence
        will be: with a large one it has some bytes more. Sends nothing.
        """
        event = context.merged(context.current(), fields)
        self._complete(event)
        event["producer"] = self._identity.producer(LONGEST_SEQUENCE)
        return validate(family, event)

    def _publish(self, family: str, event: dict[str, Any]) -> str:
        delivery = self._classes[family]
        item = self._accept(family, event, delivery)
        if item is not None and delivery is DeliveryClass.FAIL_CLOSED:
            timeout_s = self._settings.fail_closed_timeout_s
            self._publisher.wait(item, event["event_id"], timeout_s)
        return str(event["event_id"])

    def _accept(self, family: str, event: dict[str, Any], delivery: DeliveryClass) -> Item | None:
        self._complete(event)

        def make(sequence: int) -> tuple[bytes, bytes]:
            event["producer"] = self._identity.producer(sequence)
            body = encode(family, event)
            return raw_key(event), body

        return self._publisher.accept(family, make, delivery)

    # --- life cycle ---

    def flush(self, timeout_s: float = 10.0) -> int:
        """Wait until the broker has what was accepted before; how many events it has not."""
        return self._publisher.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> int:
        """Flush and end; how many events the broker has not. Spooled ones go out with the next process.

        It returns within ``timeout_s`` (``close_timeout_s``) and a second, whatever does not answer.
        """
        process.forget(self)
        return self._publisher.close(
            self._settings.close_timeout_s if timeout_s is None else timeout_s
        )

    @property
    def dropped(self) -> Mapping[str, Dropped]:
        """By topic: what will not arrive."""
        return self._publisher.progress.dropped

    @property
    def pending(self) -> int:
        """Events that the broker has not confirmed yet."""
        return self._publisher.pending()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def after_fork(self) -> None:
        """In the child: a producer of its own, with an epoch of its own; the parent's events are the
        parent's.
        """
        self._publisher.after_fork()
        self._begin()

    # --- parts ---

    def _complete(self, event: dict[str, Any]) -> None:
        at = event.get("occurred_at")
        if at is None:
            event["occurred_at"] = at = now_us()
        elif isinstance(at, datetime):
            if at.tzinfo is None:
                at = at.astimezone()
            event["occurred_at"] = at = (at - _EPOCH) // timedelta(microseconds=1)
        if "event_id" not in event:
            event["event_id"] = self._identity.event_id(
                at if type(at) is int and at >= 0 else now_us()
            )
        event.setdefault("outcome", "success")
        if "tenant" not in event and self._settings.tenant is not None:
            event["tenant"] = self._settings.tenant

    def _make_heartbeats(self) -> Heartbeats:
        actor = {"type": "system", "tenant": self._heartbeat_tenant, "id_type": "unknown"}

        def send(fields: Mapping[str, Any]) -> None:
            try:
                self._publish(SYSTEM, {**fields, "tenant": actor["tenant"], "actor": actor})
            except AuditError as error:  # an event is worth more than what tells of it
                log_event(logging.WARNING, "audit_heartbeat_not_sent", why=str(error))

        return Heartbeats(self._settings.heartbeat_s, send)

    def _make_ids(self) -> SchemaIds:
        one = self._settings
        return SchemaIds(
            one.registry_url,
            username=one.registry_username,
            password=one.registry_password,
            ca_file=one.registry_ca_file,
            timeout_s=one.request_timeout_s,
        )

    def _make_producer(self, on_error: Callable[[KafkaError], None]) -> Any:
        one = self._settings
        own = {
            "error_cb": on_error,
            "bootstrap.servers": one.bootstrap,
            "client.id": f"audit-sdk-{one.service}",
            **one.kafka,
        }
        return Producer(producer_settings(own, queue_bytes=one.buffer_bytes))

    def _make_spool(self) -> Spool:
        assert self._settings.spool_dir is not None
        name = f"{self._identity.epoch}-{os.getpid()}"
        return Spool(self._settings.spool_dir, name, max_bytes=self._settings.spool_max_bytes)


def _require_service_family(family: str) -> None:
    if family not in _FAMILIES:
        raise LookupError(f"no event family is named {family!r}; there are {', '.join(_FAMILIES)}")
