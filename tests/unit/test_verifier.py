"""The verifier that auditors are given: alone, short, and of one mind with RFC 6962, C2SP and the pipeline."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import subprocess
import sys
from base64 import b64encode
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline import verifier
from pipeline.compliance.prove import NotProven, prove_event
from pipeline.domain.errors import ChainBroken
from pipeline.domain.merkle import Frontier, leaf_hash, merkle_root
from pipeline.domain.multiproof import between
from pipeline.domain.proofs import consistency_proof, inclusion_proof, root_over
from pipeline.entrypoints.cli.main import app
from pipeline.keys.note_keys import Cosigner
from tests.export_support import (
    KEYS,
    LOG,
    ORIGIN,
    SIGNER,
    STRANGER,
    LogsInMemory,
    a_bundle,
    a_log,
)
from tests.unit.test_notes import NOTE, PETER
from tests.unit.test_proofs import INPUTS, ROOTS

SOURCE = Path(verifier.__file__)
LEAVES = [leaf_hash(bytes([number])) for number in range(70)]


def subtree(level: int, index: int) -> bytes:
    return merkle_root(LEAVES[index << level : (index + 1) << level])


def test_it_can_be_read_in_an_hour() -> None:
    lines = SOURCE.read_text(encoding="utf-8").splitlines()

    assert len([line for line in lines if line.strip()]) < 520


def test_it_imports_the_standard_library_and_one_signature_library() -> None:
    named = set()
    for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add((node.module or "").split(".")[0])

    assert named - sys.stdlib_module_names == {"cryptography"}


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """An empty folder with the verifier as the command line prints it, and ``cryptography`` beside it."""
    printed = CliRunner().invoke(app, ["verify-bundle", "--print-verifier"])
    assert printed.exit_code == 0
    (tmp_path / "verify.py").write_text(printed.stdout, encoding="utf-8")
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("cryptography", "cffi", "_cffi_backend"):
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            path = Path(found.origin)
            path = path.parent if path.name == "__init__.py" else path
            (packages / path.name).symlink_to(path)
    return tmp_path


def run_alone(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Without any package but ``cryptography``: no project, no site, no environment."""
    program = (
        "import sys, runpy; sys.path.append('packages'); sys.argv = ['verify.py', *sys.argv[1:]];"
        "runpy.run_path('verify.py', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *words],
        cwd=folder,
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_runs_in_an_empty_folder_on_a_machine_without_the_project(alone: Path) -> None:
    bundle = a_bundle(LogsInMemory({LOG: a_log(20)}))
    (alone / "good.tar").write_bytes(bundle)
    (alone / "bad.tar").write_bytes(bundle.replace(b"dora@", b"nora@"))
    (alone / "keys").write_text(f"# of the operator\n{SIGNER.verifier}\n")

    project = run_alone(alone, "-c", "import pipeline")
    good = run_alone(alone, "good.tar", "--key-file", "keys")
    bad = run_alone(alone, "bad.tar", "--key", str(SIGNER.verifier))
    nobody = run_alone(alone, "good.tar")

    assert project.returncode != 0
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines() == [
        f"{LOG}: 20 events, complete from leaf 0 to 19 of 20",
        "verified",
    ]
    assert bad.returncode == 1
    assert "WRONG manifest.sig: it is not of this manifest.json" in bad.stdout
    assert bad.stdout.endswith("NOT VERIFIED\n")
    assert nobody.returncode == 2
    assert "name one that you trust" in nobody.stderr


def test_the_command_line_verifies_alike(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    bundle = a_bundle(LogsInMemory({LOG: a_log(20)}))
    good.write_bytes(bundle)
    bad.write_bytes(bundle[:-1])
    words = ["verify-bundle", "--key", str(SIGNER.verifier), "-o", "json"]

    verified = CliRunner().invoke(app, [*words, str(good)])
    refused = CliRunner().invoke(app, [*words, str(bad)])

    assert '"verified": true' in verified.stdout
    assert verified.exit_code == 0
    assert "bundle: it ends too early" in refused.stdout
    assert refused.exit_code != 0


def test_the_published_note_holds_and_no_other() -> None:
    key = verifier.parse_key(PETER)

    text, signers = verifier.verify_note("note", NOTE, [key])

    assert text.endswith("what your problem is.\n")
    assert signers == {key}
    for wrong in (
        NOTE.replace(b"your problem", b"a problem"),
        NOTE[:-1],
        NOTE + b"x\n",
        b"",
        b"\n\n",
    ):
        with pytest.raises(verifier.Refused):
            verifier.verify_note("note", wrong, [key])


def test_a_signature_in_other_base64_is_refused() -> None:
    """Its last character has bits that count for nothing: C2SP signed-note wants them zero."""
    odd = NOTE.replace(b"BwJnAM=", b"BwJnAN=")

    with pytest.raises(verifier.Refused):
        verifier.verify_note("note", odd, [verifier.parse_key(PETER)])


@pytest.mark.parametrize("text", ["", "a+b+c", PETER.replace("c74f20a3", "c74f20a4"), PETER[:-4]])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(verifier.Refused):
        verifier.parse_key(text)


def test_the_trees_of_rfc_6962s_published_vectors() -> None:
    hashes = [verifier.leaf_hash(entry) for entry in INPUTS]

    for size in range(1, len(INPUTS) + 1):
        leaves = verifier.Leaves(iter(list(enumerate(hashes[:size]))))
        assert verifier.root_of_some(leaves, 0, size, iter(())).hex() == ROOTS[size - 1]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 64, 70])
def test_it_reads_the_proofs_that_the_pipeline_makes(size: int) -> None:
    root = merkle_root(LEAVES[:size])

    for index in range(size):
        proof = iter(inclusion_proof(index, size, subtree))
        assert verifier.root_of_one(LEAVES[index], index, 0, size, proof) == root
        assert next(proof, None) is None
    for old in range(1, size):
        older = verifier.Checkpoint("", old, merkle_root(LEAVES[:old]))
        proof = iter(consistency_proof(old, size, subtree))
        assert verifier.both_roots(older, 0, size, proof) == (older.root, root)
        assert next(proof, None) is None


@given(chosen=st.sets(st.integers(0, 69), min_size=1), size=st.integers(1, 70))
def test_one_proof_holds_for_any_choice_of_leaves(chosen: set[int], size: int) -> None:
    known = sorted(leaf for leaf in chosen if leaf < size)
    ends = [-1, *known, size]
    groups = [group for after, before in pairwise(ends) for group in between(after, before, size)]
    proof = iter([root_over(group, subtree) for group in groups])
    leaves = verifier.Leaves(iter([(leaf, LEAVES[leaf]) for leaf in known]))

    root = verifier.root_of_some(leaves, 0, size, proof)

    assert root == Frontier().append(LEAVES[:size]).root()
    assert next(proof, None) is None
    assert len(groups) <= len(known) * size.bit_length() + 1


def test_a_range_of_a_large_log_is_proven_by_few_hashes() -> None:
    size, first, last = 5_000_000, 1_234_567, 1_300_000

    hashes = [*between(-1, first, size), *between(last, size, size)]

    assert len(hashes) <= 2 * size.bit_length()


# ---- The proof of one event ----------------------------------------------------------------------


def a_proof(leaf: int, *, extra: bool) -> tuple[bytes, bytes]:
    """A proof file and the event's bytes."""
    from dataclasses import replace

    events = a_log(45)
    event_id = UUID(bytes=events[leaf].event.event_id)
    found = asyncio.run(
        prove_event(
            LogsInMemory({LOG: events}),  # type: ignore[arg-type]
            lambda _name: None,
            event_id,
            keys=[SIGNER.verifier],
            origin=ORIGIN,
            interval_s=30,
        )
    )
    assert found.canonical is not None
    proof = replace(found.proof, extra=found.canonical) if extra else found.proof
    return proof.encode(), found.canonical


@pytest.mark.parametrize("leaf", [0, 17, 31, 32, 44])
def test_a_proof_verifies_with_its_event_beside_it_or_in_it(leaf: int) -> None:
    beside, entry = a_proof(leaf, extra=False)
    inside, _ = a_proof(leaf, extra=True)

    for proof, event in ((beside, entry), (inside, None)):
        report = verifier.verify_proof(proof, event, KEYS)
        assert report.problems == []
        assert report.statements == [f"leaf {leaf} of {ORIGIN}/{LOG}, 45 leaves"]


def test_a_proof_of_something_else_is_refused() -> None:
    proof, entry = a_proof(17, extra=False)
    other, _ = a_proof(18, extra=True)
    stranger = [verifier.parse_key(str(STRANGER.verifier))]
    witness = verifier.parse_key(str(Cosigner("witness.example.net", bytes(range(2, 34))).verifier))
    lines = proof.split(b"\n")
    short = b"\n".join([*lines[:2], *lines[3:]])

    for wrong, event, keys, named in (
        (proof, entry + b" ", KEYS, "not the leaf"),
        (proof, None, KEYS, "--event"),
        (proof, entry, stranger, "no key that you named"),
        (proof.replace(b"index 17", b"index 18"), entry, KEYS, "not the leaf"),
        (proof.replace(b"index 17", b"index 017"), entry, KEYS, "no index"),
        (proof.replace(b"index 17", b"index 45"), entry, KEYS, "no index"),
        (proof.replace(b"\n45\n", b"\n46\n"), entry, KEYS, "not of this text"),
        (short, entry, KEYS, "not the leaf"),
        (
            proof.replace(b"\n\n", b"\n" + b64encode(bytes(32)) + b"\n\n", 1),
            entry,
            KEYS,
            "too many",
        ),
        (other, entry, KEYS, "not the one in it"),
        (other, b"", KEYS, "not the one in it"),
        (proof, b"", KEYS, "not the leaf"),
        (proof, entry, [*KEYS, witness], "the witness witness.example.net has not cosigned"),
        (b"c2sp.org/tlog-proof@v1\n", entry, KEYS, "not a text with signatures"),
    ):
        (problem,) = verifier.verify_proof(wrong, event, keys).problems
        assert named in problem, problem


def proving(reader: LogsInMemory, event_id: UUID) -> None:
    asyncio.run(
        prove_event(
            reader,  # type: ignore[arg-type]
            lambda _name: None,
            event_id,
            keys=[SIGNER.verifier],
            origin=ORIGIN,
            interval_s=30,
        )
    )


def test_an_event_that_no_checkpoint_covers_yet_says_when_one_is_due() -> None:
    events = a_log(12)
    reader = LogsInMemory({LOG: events}, {LOG: [10]})

    with pytest.raises(NotProven, match=r"of 10 leaves.*within 30 s"):
        proving(reader, UUID(bytes=events[11].event.event_id))
    with pytest.raises(NotProven, match="no event"):
        proving(reader, UUID(int=1))


def test_a_log_that_is_not_what_was_signed_gives_no_proof() -> None:
    events = a_log(12)
    reader = LogsInMemory({LOG: events})
    events[3], events[4] = events[4], events[3]

    with pytest.raises(ChainBroken, match="audit-trail verify"):
        proving(reader, UUID(bytes=events[9].event.event_id))
