"""The key of each dead letter: random, wrapped by the key provider, remembered by its position.

A letter that is made again after a crash gets the key that it had; one whose key an erasure destroyed
gets a key that nobody remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from os import urandom

from pipeline.codec.dead_letter_format import LetterId, key_context, letter_id
from pipeline.domain.records import DeadLetter
from pipeline.keys.provider import KEY_BYTES, KeyProvider
from sinks.subject_store import DeadLetterKey, Position, SubjectStore


def letter_keys(
    store: SubjectStore, provider: KeyProvider
) -> Callable[[Sequence[DeadLetter]], Awaitable[Sequence[bytes]]]:
    """What makes or finds the keys of letters, in their order; durable on return."""

    def propose(
        letters: Sequence[DeadLetter], identities: Sequence[LetterId], keys: Sequence[bytes]
    ) -> list[DeadLetterKey]:
        proposed = []
        for letter, identity, key in zip(letters, identities, keys, strict=True):
            raw_key = letter.record.key
            proposed.append(
                DeadLetterKey(
                    topic=identity.topic,
                    partition=identity.partition,
                    offset=identity.offset,
                    epoch=identity.epoch,
                    wrapped_key=provider.wrap(key, key_context(identity)),
                    reason=letter.reason.value,
                    raw_key_hash=provider.mac(raw_key) if raw_key is not None else None,
                )
            )
        return proposed

    def unwrap(
        stored: Mapping[Position, bytes], identities: Sequence[LetterId], fresh: Sequence[bytes]
    ) -> list[bytes]:
        return [
            provider.unwrap(stored[identity], key_context(identity)) if identity in stored else key
            for identity, key in zip(identities, fresh, strict=True)
        ]

    async def keys_of(letters: Sequence[DeadLetter]) -> Sequence[bytes]:
        identities = [letter_id(letter) for letter in letters]
        keys = [urandom(KEY_BYTES) for _ in letters]
        # Off the event loop: the key provider may ask a server.
        proposed = await asyncio.to_thread(propose, letters, identities, keys)
        stored = await store.dead_letter_keys(proposed)
        if all(stored.get(key.position) == key.wrapped_key for key in proposed):
            return keys
        return await asyncio.to_thread(unwrap, stored, identities, keys)

    return keys_of
