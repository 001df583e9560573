"""Signing keys: wrapped, several at once, retired and never lost; whom a verifier trusts."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationError
from pipeline.keys.note_keys import sign_note, verify_note
from pipeline.keys.provider import LocalKeyProvider
from pipeline.keys.signing_keys import (
    KEYS_MAX,
    active_keys,
    add_key,
    make_key,
    open_signer,
    read_keys,
    retire_key,
    trusted_keys,
)

PROVIDER = LocalKeyProvider(bytes(range(32)))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORIGIN = "audit.example.com/trail"


def a_key_file(folder: Path, keys: int = 1) -> Path:
    path = folder / "signing.json"
    for _ in range(keys):
        add_key(path, make_key(PROVIDER, ORIGIN, now=NOW))
    return path


def test_a_key_comes_back_and_signs_what_its_verifier_key_verifies(tmp_path: Path) -> None:
    path = a_key_file(tmp_path)

    (key,) = read_keys(path)
    note = sign_note("text\n", [open_signer(PROVIDER, key)])

    assert verify_note(note, [key.verifier]) == [key.verifier]
    assert (key.made_at, key.retired_at) == (NOW, None)


def test_the_file_is_its_owners_alone_and_holds_no_seed_in_clear(tmp_path: Path) -> None:
    path = a_key_file(tmp_path)

    (key,) = read_keys(path)
    seed = PROVIDER.unwrap(key.wrapped_seed, b"signing-key")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert seed.hex() not in path.read_text()
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_keys(path)


def test_a_retired_key_stays_in_the_file_and_signs_no_more(tmp_path: Path) -> None:
    path = a_key_file(tmp_path, 2)
    old, new = read_keys(path)

    retired = retire_key(path, old.verifier.key_id.hex(), now=NOW)
    again = retire_key(path, old.verifier.key_id.hex(), now=NOW.replace(year=2027))

    assert read_keys(path) == [retired, new]
    assert again == retired
    assert active_keys(read_keys(path)) == [new]


def test_the_last_key_that_signs_cannot_be_retired(tmp_path: Path) -> None:
    path = a_key_file(tmp_path)
    (key,) = read_keys(path)

    with pytest.raises(ConfigurationError, match="last key"):
        retire_key(path, key.verifier.key_id.hex(), now=NOW)


def test_a_seed_under_another_keys_name_is_refused(tmp_path: Path) -> None:
    path = a_key_file(tmp_path, 2)
    found = json.loads(path.read_text())
    found["keys"][0]["wrapped_seed"] = found["keys"][1]["wrapped_seed"]
    path.write_text(json.dumps(found))

    with pytest.raises(ConfigurationError, match="another key's"):
        open_signer(PROVIDER, read_keys(path)[0])


def test_another_provider_opens_no_seed(tmp_path: Path) -> None:
    (key,) = read_keys(a_key_file(tmp_path))

    with pytest.raises(ConfigurationError, match="cannot be unwrapped"):
        open_signer(LocalKeyProvider(bytes(32)), key)


@pytest.mark.parametrize("text", ["", "{}", '{"v":1}', '{"v":2,"keys":[]}', '{"v":1,"keys":[{}]}'])
def test_what_is_no_key_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "signing.json"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match="AUDIT_SIGNING_KEY_FILE"):
        read_keys(path)


def test_the_number_of_keys_is_bounded_and_a_writer_that_was_cut_off_is_named(
    tmp_path: Path,
) -> None:
    path = a_key_file(tmp_path, KEYS_MAX)

    with pytest.raises(ConfigurationError, match="the most that it may"):
        add_key(path, make_key(PROVIDER, ORIGIN, now=NOW))
    (tmp_path / ".signing.json.partial").touch()
    with pytest.raises(ConfigurationError, match="then remove it"):
        retire_key(path, read_keys(path)[0].verifier.key_id.hex(), now=NOW)


def test_trusted_keys_come_from_the_options_or_else_from_the_file(tmp_path: Path) -> None:
    first, second = (make_key(PROVIDER, ORIGIN, now=NOW).verifier for _ in range(2))
    keys_file = tmp_path / "trusted"
    keys_file.write_text(f"# of the trail\n\n{first}\n")

    assert trusted_keys([], keys_file) == [first]
    assert trusted_keys([str(second)], keys_file) == [second]
    with pytest.raises(ConfigurationError, match="no key is trusted"):
        trusted_keys([], None)
    keys_file.write_text("# none\n")
    with pytest.raises(ConfigurationError, match="empty"):
        trusted_keys([], keys_file)
    keys_file.write_text(f"{first}\nnonsense\n")
    with pytest.raises(ConfigurationError, match="line 2"):
        trusted_keys([], keys_file)
