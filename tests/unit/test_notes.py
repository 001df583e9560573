"""Signed notes and checkpoints: C2SP's published example, and what is refused."""

from __future__ import annotations

import pytest

from pipeline.domain.checkpoints import (
    Checkpoint,
    CheckpointRefused,
    log_of,
    origin_of,
    parse_checkpoint,
)
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import EMPTY_ROOT
from pipeline.domain.notes import Note, NoteRefused, Signature, VerifierKey, parse_note
from pipeline.keys.note_keys import Cosigner, NoteSigner, sign_note, verify_note

# The example of Go's golang.org/x/mod/sumdb/note, which C2SP signed-note describes.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
NAME = LogName("audit.raw.data-access", 3, 2)
SEED = bytes(range(32))


def test_the_published_note_holds() -> None:
    key = VerifierKey.parse(PETER)
    assert str(key) == PETER
    note = parse_note(NOTE)
    assert verify_note(note, [key]) == [key]
    assert note.encode() == NOTE


def test_a_changed_text_does_not_hold() -> None:
    note = parse_note(NOTE.replace(b"your problem is", b"the problem is"))
    with pytest.raises(NoteRefused, match="not of this text"):
        verify_note(note, [VerifierKey.parse(PETER)])


def test_what_is_signed_here_is_verified_here() -> None:
    old, new = NoteSigner("audit.example.org", SEED), NoteSigner("audit.example.org", bytes(32))
    witness = Cosigner("witness.example.net", bytes(range(1, 33)))
    checkpoint = Checkpoint(origin_of("audit.example.org", NAME), 0, EMPTY_ROOT)
    note = sign_note(checkpoint.text, [old, new])
    note = Note(note.text, (*note.signatures, witness.cosign(note.text, at_s=1_764_000_000)))
    read = parse_note(note.encode())
    keys = [old.verifier, new.verifier, witness.verifier]
    assert verify_note(read, keys) == keys
    assert verify_note(read, keys[1:2]) == keys[1:2]  # after a rotation, by either
    assert parse_checkpoint(read.text) == checkpoint


def test_the_time_of_a_cosignature_is_signed() -> None:
    witness = Cosigner("w", SEED)
    line = witness.cosign("a\n", at_s=7)
    moved = Signature(line.name, line.key_id, (8).to_bytes(8, "big") + line.signature[8:])
    with pytest.raises(NoteRefused):
        verify_note(Note("a\n", (moved,)), [witness.verifier])


def test_a_note_that_nobody_known_signed_is_refused() -> None:
    stranger = NoteSigner("PeterNeumann", SEED)
    with pytest.raises(NoteRefused, match="no trusted key"):
        verify_note(parse_note(NOTE), [stranger.verifier])


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"text\n",
        b"text\n\n",
        NOTE[:-1],
        NOTE.replace("—".encode(), b"-"),
        NOTE + b"x",
        NOTE.replace(b"x08go", b"x0 go"),
        NOTE.replace(b"If you", b"If\x00you"),
        b"\xff" + NOTE,
        b"a" * 70_000,
    ],
)
def test_what_is_no_note_is_refused(encoded: bytes) -> None:
    with pytest.raises(NoteRefused):
        parse_note(encoded)


@pytest.mark.parametrize(
    "text", ["", "a", "a+b+c", PETER.replace("c74f", "c74e"), PETER.replace("Peter", "Pe ter")]
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteRefused):
        VerifierKey.parse(text)


def test_a_checkpoint_is_three_lines() -> None:
    checkpoint = Checkpoint(origin_of("audit.example.org", NAME), 70_000, bytes(32))
    assert checkpoint.text == (
        "audit.example.org/audit.raw.data-access/3/2\n70000\n"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    )
    assert log_of("audit.example.org", checkpoint.origin) == NAME
    with pytest.raises(CheckpointRefused):
        log_of("audit.example.com", checkpoint.origin)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n1\n",
        "o\n01\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n-1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n١\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n1\nAAAA\n",
        "o\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=\n",
        "\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nextension\n",
        "o\n9223372036854775808\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(CheckpointRefused):
        parse_checkpoint(text)


def test_a_signature_in_other_base64_is_refused() -> None:
    """Its last character has bits that count for nothing: they must be zero."""
    with pytest.raises(NoteRefused, match="a signature line is"):
        parse_note(NOTE.replace(b"BwJnAM=", b"BwJnAN="))
