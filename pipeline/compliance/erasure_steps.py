"""The steps of an erasure that reach into the stores: vault, journal, followers, index, letters, topics.

Each may be done again; each returns what it counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from pipeline.compliance.erasure_parts import Pending, RawPlace, Tools, facts_of
from pipeline.domain.erasure import Step
from pipeline.domain.escrow import written_at_us
from pipeline.domain.logs import KEY_JOURNAL_TOPIC
from pipeline.domain.orders import affected_root
from sinks.erasure_store import Head, Request
from sinks.index_rewrite import Overwritten, Place

FOLLOWERS: Final = ("index", "archive")
_KEYS_AT_ONCE: Final = 5_000
_LEAVES_AT_ONCE: Final = 1_000
_VAULT_CALLS: Final = 4
_US: Final = 1_000_000
# Copies of a key are written within a worker's tries to escrow it; the rest of the vault is searched
# when the request is settled.
_COPIES_WITHIN_US: Final = 3_600 * _US


async def drop_escrow(tools: Tools, request: Request, *, everywhere: bool) -> dict[str, Any]:
    """Rewrite the vault's escrow objects without the person's keys: all that were written from the time
    on when the first one was made, up to an hour after the last one was escrowed, or ``everywhere``.
    """
    rows = await tools.store.subjects(request.subject_hashes)
    refs = frozenset(row.subject_ref.bytes for row in rows if row.erased_at is not None)
    if not refs:
        return {"objects": 0, "keys": 0}
    first_us = min(_us(row.created_at) for row in rows)
    named = [row.escrow for row in rows if row.escrow is not None]
    last_us = None
    if not everywhere and len(named) == len(rows):
        last_us = max(written_at_us(name) for name in named) + _COPIES_WITHIN_US
    objects = keys = 0
    async for names in _several(tools.vault.escrow_names(after_us=first_us)):
        wanted = [name for name in names if last_us is None or written_at_us(name) <= last_us]
        dropped = await asyncio.gather(*[tools.vault.drop(name, refs) for name in wanted])
        objects += sum(1 for count in dropped if count)
        keys += sum(dropped)
        if len(wanted) < len(names):
            break
    return {"objects": objects, "keys": keys}


async def cut_journal(tools: Tools) -> dict[str, Any]:
    """Delete the key journal up to where the vault holds every living key of it."""
    end = await asyncio.to_thread(tools.brokers.journal_end)
    escrowed = 0
    while refs := await tools.keys.unescrowed_refs(_KEYS_AT_ONCE):
        await tools.escrow.ensure(set(refs))
        escrowed += len(refs)
        if len(refs) < _KEYS_AT_ONCE:
            break
    if end:
        await asyncio.to_thread(tools.brokers.delete_below, {(KEY_JOURNAL_TOPIC, 0): end})
    return {"escrowed": escrowed, "deleted_below": end}


async def wait_for_followers(tools: Tools, request: Request) -> dict[str, Any]:
    """Until the ledger has read what the topics held, and index and archive have what it then held."""
    ends = facts_of(request, Step.HEADS)["raw"]
    wanted = {_place(name): end for name, end in ends.items() if end}
    deadline = time.monotonic() + tools.bounds.wait_s
    while True:
        reached = await tools.store.next_offsets()
        left = [place for place, end in wanted.items() if reached.get(place, 0) < end]
        if not left:
            break
        await _look_again(tools, deadline, f"intake of {_some(left)}")
    heads = await tools.store.heads_after_erasure()
    while True:
        positions = await tools.store.positions(FOLLOWERS)
        behind = [
            f"{follower} of {head.name}"
            for head in heads
            for follower in FOLLOWERS
            if positions.get((follower, head.log_id), 0) < head.size
        ]
        if not behind:
            return {"heads": [[h.topic, h.partition, h.next_offset] for h in _newest(heads)]}
        await _look_again(tools, deadline, f"{len(behind)} followers, {behind[0]} among them")


async def affected_leaves(tools: Tools, request: Request) -> tuple[bytes, int]:
    """Note them; the root over their hashes, by log name and index, and how many there are."""
    hashes = await tools.store.keep_leaves(request.request_id, request.subject_refs)
    return affected_root(hashes), len(hashes)


def _pages(leaves: Mapping[int, Sequence[int]]) -> Iterator[dict[int, list[int]]]:
    """Leaves by log, about ``_LEAVES_AT_ONCE`` at a time: a person is in many logs, with few leaves in most."""
    page: dict[int, list[int]] = {}
    size = 0
    for log_id, indexes in leaves.items():
        for start in range(0, len(indexes), _LEAVES_AT_ONCE):
            part = list(indexes[start : start + _LEAVES_AT_ONCE])
            page.setdefault(log_id, []).extend(part)
            size += len(part)
            if size >= _LEAVES_AT_ONCE:
                yield page
                page, size = {}, 0
    if page:
        yield page


async def _read_places(tools: Tools, page: Mapping[int, Sequence[int]]) -> list[Place]:
    """The events of a page as ledger and keys have them now."""
    places: list[Place] = []
    for log_id, indexes in page.items():
        name, leaves = await tools.ledger.read_some(log_id, indexes)
        await tools.opener.open_some(name, leaves)
        places += [Place(str(name), index, event) for index, event in leaves]
    return places


async def overwrite_documents(tools: Tools, request: Request) -> dict[str, Any]:
    """Replace the document of each affected leaf by what catch-up would build; then count them."""
    written = Overwritten()
    for page in _pages(await tools.store.kept_leaves(request.request_id)):
        read = partial(_read_places, tools, page)
        written = written.plus(await tools.overwriter.overwrite(read, refresh=False))
    await asyncio.to_thread(tools.index.refresh)
    seen = await asyncio.to_thread(tools.index.count, request.subject_refs)
    documents = written.documents + written.stubs
    if seen < written.documents:
        raise Pending(f"the index shows {seen} of {documents} documents")
    return {"documents": documents, "stubs": written.stubs}


async def destroy_letters(tools: Tools, request: Request) -> dict[str, Any]:
    """Destroy the keys of dead letters that name the person, or whose record had a key of theirs."""
    hashes = frozenset(request.subject_hashes)
    named = await asyncio.to_thread(tools.brokers.letters_naming, hashes)
    letters = await tools.store.destroy_letters(request.request_id, request.raw_key_hashes, named)
    return {"letters": letters}


async def cut_topics(tools: Tools, request: Request) -> dict[str, Any]:
    """Delete raw records up to where the ledger was: the archive has every leaf of them."""
    heads = facts_of(request, Step.FOLLOWERS)["heads"]
    below = {(topic, partition): offset for topic, partition, offset in heads if offset}
    ends = await asyncio.to_thread(tools.brokers.raw_ends)
    below = {place: offset for place, offset in below.items() if place in ends}
    await asyncio.to_thread(tools.brokers.delete_below, below)
    return {"deleted_below": {f"{topic}/{part}": at for (topic, part), at in below.items()}}


async def _look_again(tools: Tools, deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise Pending(f"waits for {what}: is a worker running? (audit-trail status)")
    await tools.sleep(tools.bounds.look_s)


async def _several(names: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    """As many as there are calls at once."""
    part: list[str] = []
    async for name in names:
        part.append(name)
        if len(part) == _VAULT_CALLS:
            yield part
            part = []
    if part:
        yield part


def _newest(heads: Sequence[Head]) -> list[Head]:
    """Of each partition the log that is read now: log ids grow with epochs."""
    return list({(head.topic, head.partition): head for head in heads}.values())


def _place(name: str) -> RawPlace:
    topic, partition = name.rsplit("/", 1)
    return topic, int(partition)


def _some(places: Sequence[RawPlace]) -> str:
    topic, partition = places[0]
    return f"{topic}/{partition}" + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * _US)
