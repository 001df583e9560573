"""Witnesses: cosignatures of real ones over HTTP, sizes that differ, answers that are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client import CollectorRegistry

from pipeline.compliance.metrics import SignerMetrics
from pipeline.compliance.witnesses import REST_S, Witness, Witnesses, load_witnesses
from pipeline.domain.checkpoints import Checkpoint, origin_of
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import merkle_root
from pipeline.domain.notes import Note, Signature
from pipeline.domain.proofs import consistency_proof
from pipeline.keys.note_keys import NoteSigner, sign_note, verify_note
from tests import witness as stand_in

ORIGIN = "audit.example.com/trail"
KEY = NoteSigner(ORIGIN, bytes(range(32)))
NAME = LogName("audit.raw.authentication", 0)
LEAVES = [sha256(b"%d" % leaf).digest() for leaf in range(100)]
Prove = Callable[[int], Awaitable[list[bytes]]]


def a_checkpoint(size: int, leaves: Sequence[bytes] = LEAVES) -> tuple[Checkpoint, Note]:
    checkpoint = Checkpoint(origin_of(ORIGIN, NAME), size, merkle_root(leaves[:size]))
    return checkpoint, sign_note(checkpoint.text, [KEY])


def proving(size: int, leaves: Sequence[bytes] = LEAVES) -> Prove:
    async def prove(old_size: int) -> list[bytes]:
        return consistency_proof(
            old_size,
            size,
            lambda level, index: merkle_root(leaves[index << level : (index + 1) << level]),
        )

    return prove


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[stand_in.Witness]:
    made = stand_in.Witness(tmp_path / "seen.json", [KEY.verifier], origin_prefix=ORIGIN)
    with stand_in.serving(made):
        yield made


class Asked:
    """Witnesses that are asked for checkpoints of one log, one after the other."""

    def __init__(self, *witnesses: Witness, timeout_s: float = 5.0) -> None:
        self.registry = CollectorRegistry()
        self.clock_s = 0.0
        self.witnesses = Witnesses(
            witnesses, SignerMetrics(self.registry), timeout_s=timeout_s, now=lambda: self.clock_s
        )

    def cosign(
        self, *sizes: int, old_size: int = 0, leaves: Sequence[bytes] = LEAVES
    ) -> list[list[Signature]]:
        async def cosign() -> list[list[Signature]]:
            await self.witnesses.open()
            found, old = [], old_size
            for size in sizes:
                checkpoint, note = a_checkpoint(size, leaves)
                found.append(
                    await self.witnesses.cosign(
                        checkpoint, note, proving(size, leaves), old_size=old
                    )
                )
                old = size
            await self.witnesses.close()
            return found

        return asyncio.run(cosign())

    def failures(self) -> float:
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "audit_witness_failures_total"
        )


def asked(witness: stand_in.Witness, **options: float) -> Asked:
    return Asked(Witness(witness.url, witness.key), **options)


def test_a_log_that_grows_is_cosigned_and_its_note_verifies(witness: stand_in.Witness) -> None:
    cosignatures = asked(witness).cosign(1, 7, 8, 100)

    for size, found in zip((1, 7, 8, 100), cosignatures, strict=True):
        _, note = a_checkpoint(size)
        cosigned = Note(note.text, (*note.signatures, *found))
        assert verify_note(cosigned, [witness.key]) == [witness.key]
        assert verify_note(cosigned, [KEY.verifier]) == [KEY.verifier]
    assert witness.answers == [200] * 4
    assert witness.seen()[origin_of(ORIGIN, NAME)][0] == 100


def test_one_that_has_an_older_size_says_so_and_is_given_the_proof_from_there(
    witness: stand_in.Witness,
) -> None:
    asked(witness).cosign(10)
    ((found),) = asked(witness).cosign(50, old_size=40)

    assert len(found) == 1
    assert witness.answers == [200, 409, 200]


def test_one_that_never_saw_the_log_begins_anew(witness: stand_in.Witness) -> None:
    (found,) = asked(witness).cosign(50, old_size=40)

    assert len(found) == 1
    assert witness.answers == [409, 200]


def test_the_same_checkpoint_is_cosigned_again(witness: stand_in.Witness) -> None:
    asked(witness).cosign(50)
    (found,) = asked(witness).cosign(50, old_size=20)

    assert len(found) == 1
    assert witness.answers == [200, 409, 200]


def test_a_history_that_does_not_lead_on_is_refused_and_counted(
    witness: stand_in.Witness,
) -> None:
    asked(witness).cosign(50)
    other = [sha256(leaf).digest() for leaf in LEAVES]
    at = asked(witness)

    assert at.cosign(60, old_size=50, leaves=other) == [[]]
    assert at.failures() == 1
    assert witness.answers == [200, 422]
    assert witness.seen()[origin_of(ORIGIN, NAME)][0] == 50


def test_one_that_has_seen_more_than_is_signed_is_an_alarm(
    witness: stand_in.Witness, caplog: pytest.LogCaptureFixture
) -> None:
    asked(witness).cosign(50)
    at = asked(witness)

    assert at.cosign(30, old_size=20) == [[]]
    assert "rolled back" in str([vars(record).get("audit_fields") for record in caplog.records])


def test_another_root_of_the_same_size_is_an_alarm(
    witness: stand_in.Witness, caplog: pytest.LogCaptureFixture
) -> None:
    asked(witness).cosign(50)
    other = [sha256(leaf).digest() for leaf in LEAVES]

    assert asked(witness).cosign(50, old_size=50, leaves=other) == [[]]
    assert "another root" in str([vars(record).get("audit_fields") for record in caplog.records])


def test_a_log_that_the_witness_does_not_trust_is_not_cosigned(
    witness: stand_in.Witness,
) -> None:
    witness.log_keys = [NoteSigner(ORIGIN, bytes(32)).verifier]

    assert asked(witness).cosign(50) == [[]]
    assert witness.answers == [403]


def test_one_that_is_slow_or_away_delays_one_checkpoint_and_is_left_alone_for_a_while(
    witness: stand_in.Witness, tmp_path: Path
) -> None:
    slow = stand_in.Witness(tmp_path / "slow.json", [KEY.verifier], origin_prefix=ORIGIN, name="s")
    slow.delay_s = 3.0
    with stand_in.serving(slow):
        at = Asked(
            Witness(witness.url, witness.key),
            Witness(slow.url, slow.key),
            Witness("http://127.0.0.1:1", slow.key),
            timeout_s=0.4,
        )
        began = time.monotonic()
        found = at.cosign(10, 20, 30)
        took_s = time.monotonic() - began
        resting = list(slow.answers)
        at.clock_s = REST_S + 1
        slow.delay_s = 0.0
        (again,) = at.cosign(40, old_size=30)

    assert [len(one) for one in found] == [1, 1, 1]
    assert took_s < 1.5
    assert at.failures() == 3  # slow once, away twice
    assert resting == []
    assert sorted(one.name for one in again) == ["s", "witness.example.net"]


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "text/plain", b""),
        (200, "text/plain", b"nonsense\n"),
        (200, "text/plain", "— witness.example.net AAAAAAAA\n".encode()),
        (200, "text/plain", b"x" * 100_000),
        (409, "text/x.tlog.size", b"-1\n"),
        (409, "text/x.tlog.size", b"99999999999999999999\n"),
        (409, "text/plain", b"5\n"),
        (302, "text/plain", b""),
        (500, "text/plain", b""),
    ],
)
def test_an_answer_that_is_none_costs_a_cosignature_and_nothing_else(
    status: int, kind: str, body: bytes, witness: stand_in.Witness
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        at = Asked(Witness(f"http://127.0.0.1:{server.server_address[1]}", witness.key))
        assert at.cosign(10) == [[]]
        assert at.failures() == 1
    finally:
        server.shutdown()
        server.server_close()


def test_two_at_once_never_take_a_witness_back(witness: stand_in.Witness) -> None:
    async def both() -> None:
        one, two = asked(witness).witnesses, asked(witness).witnesses
        await one.open()
        await two.open()
        for size in range(2, 40, 2):
            await asyncio.gather(
                *(
                    by.cosign(*a_checkpoint(of), proving(of), old_size=size - 2)
                    for by, of in ((one, size), (two, size - 1))
                )
            )
            assert witness.seen()[origin_of(ORIGIN, NAME)][0] in (size, size - 1)
        await one.close()
        await two.close()

    asyncio.run(both())


def test_the_file_of_witnesses_is_read_line_by_line(
    tmp_path: Path, witness: stand_in.Witness
) -> None:
    path = tmp_path / "witnesses"
    path.write_text(f"# ours\n\nhttps://witness.example.net/a/ {witness.key}\n")

    assert load_witnesses(None) == []
    assert load_witnesses(path) == [Witness("https://witness.example.net/a", witness.key)]
    for line in (
        f"ftp://x {witness.key}",
        f"https://x/?a {witness.key}",
        "https://x",
        f"https://x {KEY.verifier}",
        f"{witness.key}",
    ):
        path.write_text(f"# one\n{line}\n")
        with pytest.raises(ConfigurationError, match="line 2"):
            load_witnesses(path)
