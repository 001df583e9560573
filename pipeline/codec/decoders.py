"""Decoders by schema id: the registry's schemas, compiled once, refused once."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

from pipeline.codec.compiler import Decode, compile_decoder
from pipeline.codec.limits import Limits
from pipeline.codec.policy import SealingPolicy
from pipeline.codec.registry import RegisteredSchema, SchemaRegistry
from pipeline.codec.types import Node, parse
from pipeline.domain.errors import InvalidRecord, Reason
from pipeline.domain.logs import family_of, subject_of

# What the pipeline itself reads of every event: path → the kinds of type that it may have.
REQUIRED = {
    "event_id": {"string"},
    "occurred_at": {"long"},
    "tenant": {"string"},
    "action": {"string"},
    "outcome": {"enum", "string"},
    "severity": {"enum", "string"},
    "imported": {"boolean"},
    "actor.type": {"enum", "string"},
    "actor.tenant": {"string"},
    "actor.id_type": {"string", "enum"},
}
_CACHE_MAX = 1_000


class Decoders:
    """The decoder for a (topic, schema id), asked of the registry when it is new. ``keep`` is told of each
    schema before the first event of it is decoded.
    """

    def __init__(
        self,
        registry: SchemaRegistry,
        policies: Mapping[str, SealingPolicy],
        limits: Limits,
        *,
        keep: Callable[[str, RegisteredSchema], Awaitable[None]] | None = None,
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._limits = limits
        self._keep = keep
        self._by_topic: dict[str, dict[int, Decode]] = {}
        self._trees: dict[tuple[str, int], Node] = {}
        self._refused: dict[tuple[str, int], InvalidRecord] = {}

    def ready(self, topic: str) -> Mapping[int, Decode]:
        """The decoders that a topic has already, by schema id."""
        return self._by_topic.setdefault(topic, {})

    def policy(self, topic: str) -> SealingPolicy:
        """The sealing policy of a topic's family."""
        return self._policies[family_of(topic)]

    def tree(self, topic: str, schema_id: int) -> Node:
        """The writer's schema of a decoder that is ready."""
        return self._trees[topic, schema_id]

    async def decoder(self, topic: str, schema_id: int) -> Decode:
        """The decoder of a schema id on a topic.

        Raises:
            InvalidRecord: The id is unknown, of another subject, or its schema cannot be used.
            Unavailable: The registry, or who keeps its schemas, does not answer; ask again later.
        """
        refused = self._refused.get((topic, schema_id))
        if refused is not None:
            raise InvalidRecord(refused.reason, refused.detail)
        registered = await self._registry.by_id(schema_id, subject_of(topic))
        try:
            decode, tree = compile_text(registered.text, self.policy(topic), self._limits)
        except InvalidRecord as refusal:
            if len(self._refused) >= _CACHE_MAX:
                self._refused.clear()
            self._refused[topic, schema_id] = refusal
            raise
        if self._keep is not None:
            await self._keep(topic, registered)
        ready = self._by_topic.setdefault(topic, {})
        if len(ready) >= _CACHE_MAX:
            for known in ready:
                del self._trees[topic, known]
            ready.clear()
        ready[schema_id] = decode
        self._trees[topic, schema_id] = tree
        return decode


def compile_text(text: str, policy: SealingPolicy, limits: Limits) -> tuple[Decode, Node]:
    """The decoder of a writer's schema as the registry has it, and the schema parsed.

    Raises:
        InvalidRecord: ``schema_unusable``: the worker would refuse every event of it.
    """
    if len(text) > limits.schema_bytes:
        raise InvalidRecord(Reason.SCHEMA_UNUSABLE, "the schema's text is too long")
    try:
        schema = json.loads(text)
        check_required(schema, limits)
        return compile_decoder(schema, policy, limits), parse(schema, limits)
    except (ValueError, RecursionError, SyntaxError, MemoryError) as error:
        raise InvalidRecord(Reason.SCHEMA_UNUSABLE, type(error).__name__) from None


def check_required(schema: object, limits: Limits) -> None:
    """Whether events of a schema have what the pipeline reads of each.

    Raises:
        InvalidRecord: ``schema_unusable``, naming the first path that is missing.
    """
    root = parse(schema, limits)
    for path, kinds in REQUIRED.items():
        node = root
        for name in path.split("."):
            children = {field: child for field, child, _declared in node.fields}
            if name not in children:
                raise InvalidRecord(Reason.SCHEMA_UNUSABLE, f"no field {path}")
            node = children[name]
        if node.kind not in kinds:
            raise InvalidRecord(Reason.SCHEMA_UNUSABLE, f"{path} is a {node.kind}")
