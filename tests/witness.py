"""A witness as C2SP tlog-witness describes it: a real HTTP server that cosigns what only grew.

What it cosigned last is in one file, replaced whole and flushed before it answers, under one lock: a
size is never taken back, whoever asks at the same moment and whenever it is killed.
"""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.domain.checkpoints import CheckpointRefused, parse_checkpoint
from pipeline.domain.merkle import EMPTY_ROOT
from pipeline.domain.notes import NoteRefused, VerifierKey, parse_note
from pipeline.domain.proofs import PROOF_MAX, ProofRefused, verify_consistency
from pipeline.keys.note_keys import Cosigner, verify_note

SIZE_TYPE = "text/x.tlog.size"


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, body: str = "", kind: str = "text/plain") -> None:
        super().__init__(status)
        self.status, self.body, self.kind = status, body, kind


class Witness:
    """Cosigns the logs whose origin begins with ``origin_prefix``, signed by one of ``log_keys``."""

    def __init__(
        self,
        state_file: Path,
        log_keys: Sequence[VerifierKey],
        *,
        origin_prefix: str,
        name: str = "witness.example.net",
    ) -> None:
        self.log_keys = list(log_keys)
        self.answers: list[int] = []  # the status of each request
        self.delay_s = 0.0
        self.url = ""
        self._state_file = state_file
        self._origin_prefix = origin_prefix
        self._cosigner = Cosigner(name, os.urandom(32))
        self._lock = threading.Lock()

    @property
    def key(self) -> VerifierKey:
        return self._cosigner.verifier

    def seen(self) -> dict[str, tuple[int, str]]:
        """Origin → size and root (hexadecimal) that it cosigned last."""
        if not self._state_file.exists():
            return {}
        found = json.loads(self._state_file.read_text(encoding="utf-8"))
        return {origin: (size, root) for origin, (size, root) in found.items()}

    def add_checkpoint(self, body: bytes) -> str:
        """The cosignature line, once it is remembered what was cosigned."""
        old_size, proof, encoded = _parse(body)
        try:
            note = parse_note(encoded)
            checkpoint = parse_checkpoint(note.text)
        except (NoteRefused, CheckpointRefused):
            raise Refusal(400) from None
        if not checkpoint.origin.startswith(f"{self._origin_prefix}/"):
            raise Refusal(404)
        try:
            verify_note(note, self.log_keys)
        except NoteRefused:
            raise Refusal(403) from None
        if old_size > checkpoint.size:
            raise Refusal(400)
        with self._lock:
            state = self.seen()
            held_size, held_root = state.get(checkpoint.origin, (0, ""))
            if old_size != held_size:
                raise Refusal(409, f"{held_size}\n", SIZE_TYPE)
            if old_size == checkpoint.size and held_root != checkpoint.root.hex():
                raise Refusal(409, f"{held_size}\n", SIZE_TYPE)
            try:
                # From nothing, an empty proof leads to any root.
                root = bytes.fromhex(held_root) if old_size else EMPTY_ROOT
                verify_consistency(old_size, root, checkpoint.size, checkpoint.root, proof)
            except ProofRefused:
                raise Refusal(422) from None
            state[checkpoint.origin] = (checkpoint.size, checkpoint.root.hex())
            self._persist(state)
        return self._cosigner.cosign(note.text, at_s=int(time.time())).line

    def _persist(self, state: dict[str, tuple[int, str]]) -> None:
        partial = self._state_file.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._state_file)


def _parse(body: bytes) -> tuple[int, list[bytes], bytes]:
    head, blank, note = body.partition(b"\n\n")
    first, *lines = head.decode("ascii", "replace").split("\n")
    word, _, size = first.partition(" ")
    if not blank or word != "old" or not size.isdecimal() or str(int(size)) != size:
        raise Refusal(400)
    if len(lines) > PROOF_MAX:
        raise Refusal(400)
    try:
        return int(size), [b64decode(line, validate=True) for line in lines], note
    except ValueError:
        raise Refusal(400) from None


@contextmanager
def serving(witness: Witness) -> Iterator[Witness]:
    """On a free port of the loopback address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(witness.delay_s)
            status, answer, kind = 404, "", "text/plain"
            if self.path == "/add-checkpoint":
                try:
                    status, answer = 200, witness.add_checkpoint(body)
                except Refusal as refusal:
                    status, answer, kind = refusal.status, refusal.body, refusal.kind
            witness.answers.append(status)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer.encode())))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    witness.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield witness
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
