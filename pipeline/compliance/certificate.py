"""The certificate of an erasure: what was done and when, signed, without any identifier.

JSON of two members: ``certificate``, and ``note``, a C2SP signed note whose text is the certificate as
canonical JSON on one line. Whoever has the trail's verifier keys checks it with any signed-note tool.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pipeline.compliance.erasure_parts import Pending, Tools, facts_of
from pipeline.compliance.erasure_steps import cut_journal, drop_escrow
from pipeline.domain.canonical import canonical_json
from pipeline.domain.erasure import Step
from pipeline.domain.notes import Note
from pipeline.keys.note_keys import sign_note
from sinks.erasure_store import Request

FORMAT_VERSION: Final = 1


async def certify(tools: Tools, request: Request) -> dict[str, Any]:
    """Sign and store the first certificate: from now on no interface gives the person's data."""
    since = await tools.store.now()
    gone_by = since + timedelta(days=_longest_days(tools, request))
    certificate = signed(tools, _content(request, since=since, gone_by=gone_by))
    await tools.store.certify(
        request.request_id, since=since, gone_by=gone_by, certificate=certificate
    )
    return {}


async def settle(tools: Tools, request: Request) -> None:
    """Search all of the vault, cut the journal once more (a worker that was stopped through the erasure may
    have written since), take replaced documents off the disks; ``complete`` once the time is over.

    Raises:
        Pending: What lives by retention alone has not gone yet; says until when.
    """
    dropped = await drop_escrow(tools, request, everywhere=True)
    await cut_journal(tools)
    merged = await asyncio.to_thread(tools.index.expunge)
    facts = {"escrow_keys": dropped["keys"], "indices_merged": merged}
    await tools.store.note(request.request_id, Step.SETTLED, facts)
    since, gone_by = request.inaccessible_since, request.gone_by
    now = await tools.store.now()
    if since is None or gone_by is None or now < gone_by:
        raise Pending(f"retention of letters, topics and backups ends on {_text(gone_by)}")
    content = _content(request, since=since, gone_by=gone_by) | {"physically_gone_at": _text(now)}
    await tools.store.complete(request.request_id, signed(tools, content))


def signed(tools: Tools, content: dict[str, Any]) -> str:
    """The certificate as it is handed over."""
    note: Note = sign_note(canonical_json(content).decode() + "\n", tools.signers)
    return json.dumps(
        {"certificate": content, "note": note.encode().decode()}, ensure_ascii=True, indent=2
    )


def _content(request: Request, *, since: datetime, gone_by: datetime) -> dict[str, Any]:
    leaf, leaves = facts_of(request, Step.LEAF), facts_of(request, Step.LEAVES)
    escrow, letters = facts_of(request, Step.ESCROW), facts_of(request, Step.LETTERS)
    index, topics = facts_of(request, Step.INDEX), facts_of(request, Step.TOPICS)
    return {
        "v": FORMAT_VERSION,
        "request_id": str(request.request_id),
        "kind": "erasure",
        "tenant": request.tenant,
        "identifiers": len(request.subject_hashes),
        "requested_at": _text(request.requested_at),
        "approved_at": _text(request.approved_at),
        "four_eyes": request.four_eyes,
        "erased_at": _text(request.erased_at),
        "inaccessible_since": _text(since),
        "physically_gone_by": _text(gone_by),
        "ordered_leaf": {"log": leaf["log"], "leaf_index": leaf["leaf_index"]},
        "leaf": {"log": leaves["log"], "leaf_index": leaves["leaf_index"]},
        "affected_leaves": leaves["leaves"],
        "affected_root": leaves["root"],
        "counts": {
            "keys": len(request.subject_refs),
            "escrow_objects": escrow["objects"],
            "documents": index["documents"],
            "dead_letters": letters["letters"],
            "topic_partitions": len(topics["deleted_below"]),
        },
    }


def _longest_days(tools: Tools, request: Request) -> int:
    bounds = tools.bounds
    days = [bounds.raw_days, bounds.backups_days]
    if facts_of(request, Step.LETTERS)["letters"]:
        days.append(bounds.letters_days)
    return max(days)


def _text(moment: datetime | None) -> str:
    if moment is None:
        return "unknown"
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
