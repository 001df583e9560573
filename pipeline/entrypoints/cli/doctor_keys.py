"""Keys: the files are there and closed to others; every tenant's key opens with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.checks import Finding
from pipeline.entrypoints.cli.tenants import key_context, wrapped_keys
from pipeline.keys.provider import KEY_BYTES, load_provider, read_key_file

if TYPE_CHECKING:
    from pipeline.settings import Settings


def key_files(settings: Settings) -> Sequence[Finding]:
    """AUDIT_KEY_FILE, or the KMS key, must be right; the import key may be absent."""
    findings = []
    wanted = [("import key file", settings.import_key_file, "AUDIT_IMPORT_KEY_FILE", False)]
    if settings.kms_key_id:
        findings.append(_kms_key(settings))
    else:
        wanted.insert(0, ("key file", settings.key_file, "AUDIT_KEY_FILE", True))
    for check, path, setting, is_needed in wanted:
        if path is None and not is_needed:
            findings.append(Finding(check, "ok", "not set: nobody may import"))
            continue
        try:
            read_key_file(path, setting)
        except ConfigurationError as error:
            problem, _, advice = str(error).partition("; run: ")
            findings.append(Finding(check, "fail", problem, f"run: {advice}" if advice else ""))
        else:
            findings.append(Finding(check, "ok", f"{path}, for its owner only"))
    return findings


def _kms_key(settings: Settings) -> Finding:
    """It opens the MAC key, and what it wraps now it unwraps again."""
    context = key_context("audit-trail doctor")
    try:
        provider = load_provider(settings)
        opens = provider.unwrap(provider.wrap(bytes(KEY_BYTES), context), context)
    except ConfigurationError as error:
        return Finding("kms key", "fail", str(error), "see AUDIT_KMS_KEY_ID and its policy")
    if opens != bytes(KEY_BYTES):
        return Finding(
            "kms key", "fail", f"{settings.kms_key_id} unwraps another key than it wrapped"
        )
    return Finding("kms key", "ok", f"{settings.kms_key_id} wraps and unwraps; the MAC key opens")


def tenant_keys(settings: Settings) -> Sequence[Finding]:
    """There are tenants, and the key provider opens the key of each."""
    keys = wrapped_keys(settings)
    if not keys:
        advice = "run: audit-trail tenants add NAME"
        return [Finding("tenants", "warn", "none: every event goes to the dead letter", advice)]
    provider = load_provider(settings)
    closed = []
    for tenant, wrapped in keys.items():
        try:
            provider.unwrap(wrapped, key_context(tenant))
        except ConfigurationError:
            closed.append(tenant)
    if closed:
        advice = "the key provider is not the one that these tenants were added with"
        detail = f"the keys of {len(closed)} of {len(keys)} do not open ({closed[0]}, …)"
        return [Finding("tenants", "fail", detail, advice)]
    return [Finding("tenants", "ok", f"{len(keys)}, every key opens")]
