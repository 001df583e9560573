"""What every key provider promises, over the local one and AWS KMS (its protocol, over HTTP)."""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.keys.kms import CONTEXT_NAME, connect, make_mac_key
from pipeline.keys.provider import KEY_BYTES, KeyProvider, load_provider, load_seed_provider
from pipeline.keys.signing_keys import make_key, open_signer
from pipeline.settings import Settings, load_settings
from tests.kms_server import KeyService, key_service

KEY_ID = "0d6a9f62-8f0a-4cbd-8a5e-2f1f6d3c9b01"
OTHER_KEY_ID = "7c1c5a3e-1a55-4f0e-9b0b-6a1f0f7f2c02"
CONTEXT = b"tenant:acme"
LETTER = b"dead-letter:audit.raw.authentication:0:17"

# Opens the same root again, as another process would.
Open = Callable[[], KeyProvider]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-test")
    for name in [name for name in os.environ if name.startswith("AUDIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def service() -> Iterator[KeyService]:
    with key_service(KEY_ID, OTHER_KEY_ID) as service:
        yield service


def local(folder: Path) -> Settings:
    key_file = folder / f"{secrets.token_hex(4)}.key"
    key_file.write_text(secrets.token_hex(32), encoding="ascii")
    key_file.chmod(0o600)
    return load_settings(key_file=key_file)


def kms(folder: Path, service: KeyService, key_id: str = KEY_ID) -> Settings:
    settings = load_settings(
        kms_key_id=key_id,
        kms_endpoint_url=service.url,
        kms_mac_key_file=folder / f"{secrets.token_hex(4)}.mac",
        request_timeout_s=2.0,
    )
    assert settings.kms_mac_key_file
    make_mac_key(settings, settings.kms_mac_key_file)
    return settings


@pytest.fixture(params=["local", "kms"])
def root(request: pytest.FixtureRequest, tmp_path: Path, service: KeyService) -> Open:
    chosen = local(tmp_path) if request.param == "local" else kms(tmp_path, service)
    return lambda: load_provider(chosen)


@pytest.fixture(params=["local", "kms"])
def other_root(request: pytest.FixtureRequest, tmp_path: Path, service: KeyService) -> KeyProvider:
    chosen = local(tmp_path) if request.param == "local" else kms(tmp_path, service, OTHER_KEY_ID)
    return load_provider(chosen)


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), name=st.text(max_size=40))
def test_another_process_unwraps_what_was_wrapped(root: Open, key: bytes, name: str) -> None:
    context = b"tenant:" + name.encode("utf-8", "replace")

    wrapped = root().wrap(key, context)

    assert root().unwrap(wrapped, context) == key
    assert key not in wrapped


@pytest.mark.parametrize("context", [CONTEXT, LETTER])
def test_wrapping_twice_gives_two_texts_and_one_key(root: Open, context: bytes) -> None:
    provider, key = root(), os.urandom(KEY_BYTES)

    one, two = provider.wrap(key, context), provider.wrap(key, context)

    assert one != two
    assert provider.unwrap(one, context) == provider.unwrap(two, context) == key


@pytest.mark.parametrize(
    ("wrapped_for", "asked_for"),
    [
        (CONTEXT, b"tenant:acme2"),
        (CONTEXT, LETTER),
        (LETTER, CONTEXT),
        (LETTER, LETTER + b"8"),
        (CONTEXT, b""),
    ],
)
def test_a_key_opens_for_its_own_context_only(
    root: Open, wrapped_for: bytes, asked_for: bytes
) -> None:
    wrapped = root().wrap(os.urandom(KEY_BYTES), wrapped_for)

    with pytest.raises(ConfigurationError):
        root().unwrap(wrapped, asked_for)


def test_a_key_opens_under_its_own_root_only(root: Open, other_root: KeyProvider) -> None:
    wrapped = root().wrap(os.urandom(KEY_BYTES), CONTEXT)

    with pytest.raises(ConfigurationError, match="unwrapped"):
        other_root.unwrap(wrapped, CONTEXT)


def test_no_cut_and_no_flipped_bit_is_taken_for_a_key(root: Open) -> None:
    provider = root()
    wrapped = provider.wrap(os.urandom(KEY_BYTES), CONTEXT)
    cuts = [wrapped[:length] for length in range(len(wrapped))]
    flips = [
        wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(len(wrapped))
    ]

    for damaged in cuts + flips:
        with pytest.raises(ConfigurationError):
            provider.unwrap(damaged, CONTEXT)


def test_macs_are_the_same_in_every_process_and_of_one_root(
    root: Open, other_root: KeyProvider
) -> None:
    message = b"\x00\x00\x00\x04acme"

    assert root().mac(message) == root().mac(message)
    assert len(root().mac(message)) == 32
    assert root().mac(message) != root().mac(message + b"2")
    assert root().mac(message) not in (other_root.mac(message), sha256(message).digest())


def test_kms_is_asked_per_tenant_and_once_for_all_dead_letters(
    tmp_path: Path, service: KeyService
) -> None:
    provider = load_provider(kms(tmp_path, service))
    service.calls.clear()
    service.contexts.clear()

    for number in range(50):
        context = LETTER + b"%d" % number
        provider.unwrap(provider.wrap(os.urandom(KEY_BYTES), context), context)
    for tenant in (b"tenant:acme", b"tenant:beta", b"tenant:acme"):
        provider.wrap(os.urandom(KEY_BYTES), tenant)

    assert dict(service.calls) == {"GenerateDataKey": 3}
    assert service.contexts == {"dead-letter", "tenant:acme", "tenant:beta"}


def test_another_process_asks_kms_once_for_each_data_key(
    tmp_path: Path, service: KeyService
) -> None:
    chosen = kms(tmp_path, service)
    first = load_provider(chosen)
    wrapped = [
        (first.wrap(bytes(KEY_BYTES), LETTER + b"%d" % n), LETTER + b"%d" % n) for n in range(9)
    ]
    second = load_provider(chosen)
    service.calls.clear()

    for text, context in wrapped:
        second.unwrap(text, context)

    assert dict(service.calls) == {"Decrypt": 1}


def test_kms_that_denies_is_a_setting_to_mend_and_one_that_is_away_is_an_outage(
    tmp_path: Path, service: KeyService
) -> None:
    chosen = kms(tmp_path, service)
    provider = load_provider(chosen)
    away = chosen.model_copy(update={"kms_endpoint_url": "http://127.0.0.1:9"})
    unknown = chosen.model_copy(update={"kms_key_id": "alias/nobody"})

    service.denied = True
    try:
        with pytest.raises(ConfigurationError, match=r"AccessDenied.*AUDIT_KMS_KEY_ID"):
            provider.wrap(bytes(KEY_BYTES), CONTEXT)
    finally:
        service.denied = False
    with pytest.raises(ConfigurationError, match="NotFound"):
        load_provider(unknown)
    with pytest.raises(Unavailable, match="kms"):
        load_provider(away)
    assert provider.unwrap(provider.wrap(bytes(KEY_BYTES), CONTEXT), CONTEXT) == bytes(KEY_BYTES)


def test_a_mac_key_file_is_wrapped_is_needed_and_is_never_written_over(
    tmp_path: Path, service: KeyService
) -> None:
    chosen = kms(tmp_path, service)
    path = chosen.kms_mac_key_file
    assert path
    written = path.read_bytes()

    with pytest.raises(ConfigurationError, match="there already"):
        make_mac_key(chosen, path)
    with pytest.raises(ConfigurationError, match="audit-trail mac-key"):
        load_provider(chosen.model_copy(update={"kms_mac_key_file": None}))
    assert path.read_bytes() == written
    path.write_text("no base64!", encoding="ascii")
    with pytest.raises(ConfigurationError, match="base64"):
        load_provider(chosen)
    # A data key of another purpose, wrapped by the same root, is no MAC key.
    made = connect(chosen).generate_data_key_without_plaintext(
        KeyId=KEY_ID, KeySpec="AES_256", EncryptionContext={CONTEXT_NAME: "tenant:acme"}
    )
    path.write_bytes(b64encode(made["CiphertextBlob"]))
    with pytest.raises(ConfigurationError, match="InvalidCiphertext"):
        load_provider(chosen)


def test_seeds_open_without_the_mac_key_and_under_their_own_context_alone(
    service: KeyService,
) -> None:
    settings = load_settings(kms_key_id=KEY_ID, kms_endpoint_url=service.url, request_timeout_s=2.0)
    service.contexts.clear()

    key = make_key(load_seed_provider(settings), "audit.example.com", now=datetime.now(UTC))
    provider = load_seed_provider(settings)

    assert open_signer(provider, key).verifier == key.verifier
    assert service.contexts == {"signing-key"}
    with pytest.raises(ConfigurationError, match="no MAC key"):
        provider.mac(b"")
