"""Proof files: the examples of the reference implementation, and what is refused."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.tlog_proof import TlogProof, TlogProofRefused, parse_tlog_proof

ONE, TWO = sha256(b"hash1").digest(), sha256(b"hash2").digest()
ONE_64, TWO_64 = b64encode(ONE).decode(), b64encode(TWO).decode()
EXTRA_64 = b64encode(b"extra information").decode()
HEADER = "c2sp.org/tlog-proof@v1"

# Of the tests of github.com/transparency-dev/formats/proof.
EXAMPLES = [
    (
        TlogProof(5, (ONE, TWO), b"test checkpoint\n"),
        f"{HEADER}\nindex 5\n{ONE_64}\n{TWO_64}\n\ntest checkpoint\n",
    ),
    (
        TlogProof(10, (ONE,), b"checkpoint data\n", b"extra information"),
        f"{HEADER}\nextra {EXTRA_64}\nindex 10\n{ONE_64}\n\ncheckpoint data\n",
    ),
    (TlogProof(0, (), b"checkpoint\n"), f"{HEADER}\nindex 0\n\ncheckpoint\n"),
    (TlogProof(0, (), b"cp\n", b""), f"{HEADER}\nextra \nindex 0\n\ncp\n"),
    (TlogProof(1, (), b"a\n\nb\n"), f"{HEADER}\nindex 1\n\na\n\nb\n"),
]


@pytest.mark.parametrize(("proof", "text"), EXAMPLES)
def test_the_published_examples_are_written_and_read(proof: TlogProof, text: str) -> None:
    assert proof.encode().decode() == text
    assert parse_tlog_proof(text.encode()) == proof


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{HEADER}\n",
        "wrong-header\nindex 0\n\ncheckpoint\n",
        f"{HEADER}\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n",
        f"{HEADER}\nextra YR==\nindex 0\n\ncp\n",  # padding bits that are not zero
        f"{HEADER}\nextra\nindex 0\n\ncp\n",
        f"{HEADER}\n\n\ncheckpoint\n",
        f"{HEADER}\nindex notanumber\n\ncheckpoint\n",
        f"{HEADER}\nindex -5\n\ncheckpoint\n",
        f"{HEADER}\nindex +1\n\ncp\n",
        f"{HEADER}\nindex 007\n\ncp\n",
        f"{HEADER}\nindex  1\n\ncp\n",
        f"{HEADER}\nindex 18446744073709551616\n\ncp\n",
        f"{HEADER}\nindex 1\n",
        f"{HEADER}\nindex 1\n\n",
        f"{HEADER}\r\nindex 5\r\n\r\ncp line\r\n",
        f"{HEADER}\nindex 0\n!!notbase64!!\n\ncheckpoint\n",
        f"{HEADER}\nindex 0\n{b64encode(bytes(64)).decode()}\n\ncheckpoint\n",
        f"{HEADER}\nindex 0\n" + f"{ONE_64}\n" * 64 + "\ncheckpoint\n",
        f"{HEADER}\nindex 0\n\N{EM DASH}\n\ncheckpoint\n",
        f"{HEADER}\nindex 0\n\n" + "x" * 70_000,
    ],
)
def test_what_is_no_proof_file_is_refused(text: str) -> None:
    with pytest.raises(TlogProofRefused):
        parse_tlog_proof(text.encode())


@given(
    index=st.integers(0, 2**64 - 1),
    hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    checkpoint=st.binary(min_size=1, max_size=60),
    extra=st.none() | st.binary(max_size=60),
)
def test_any_proof_is_read_back_as_it_was_written(
    index: int, hashes: list[bytes], checkpoint: bytes, extra: bytes | None
) -> None:
    proof = TlogProof(index, tuple(hashes), checkpoint, extra)

    assert parse_tlog_proof(proof.encode()) == proof
