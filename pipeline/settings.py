"""Every setting, once, with its meaning, unit and default.

Read from the environment (prefix ``AUDIT_``), then from the file that ``AUDIT_ENV_FILE`` names.
Secrets come from the environment or from files, never from flags; no value is ever logged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from avro_schemas import contract
from pipeline.domain.errors import ConfigurationError

MIB = 1024 * 1024
_LIMITS = contract.limits()
# Reserved (RFC 2606 section 2): nobody's name, so nobody's logs.
UNCHOSEN_ORIGIN = "audit-trail.invalid"


class Settings(BaseSettings):
    """One object per process, made in the composition root and handed on by constructor."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_", extra="ignore", frozen=True)

    # --- Kafka ---
    kafka_bootstrap: str = Field(
        "127.0.0.1:19092", description="Brokers, host:port, comma separated."
    )
    kafka_security_protocol: str = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_sasl_mechanism: str = Field("SCRAM-SHA-512", description="SASL mechanism.")
    kafka_username: str = Field("", description="SASL user name.")
    kafka_password: SecretStr = Field(SecretStr(""), description="SASL password.")
    kafka_ca_file: Path | None = Field(None, description="CA certificates for TLS.")
    consumer_group: str = Field("audit-trail", description="Faust app id and consumer group.")
    session_timeout_s: float = Field(
        20.0, gt=0, description="A worker silent for so long loses its partitions."
    )
    raw_partitions: int = Field(4, gt=0, description="Partitions of each raw topic, when created.")
    replication_factor: int = Field(1, gt=0, description="Of every topic, when created.")
    fetch_max_bytes: int = Field(1 * MIB, gt=0, description="Fetched per partition and request.")
    inflate_max_bytes: int = Field(
        32 * MIB, gt=0, description="A record batch that inflates past this pauses its partition."
    )

    # --- Schema registry ---
    registry_url: str = Field(
        "http://127.0.0.1:18081/apis/ccompat/v7", description="Confluent API base URL."
    )
    registry_username: str = Field("", description="Basic authentication user.")
    registry_password: SecretStr = Field(
        SecretStr(""), description="Basic authentication password."
    )

    registry_ca_file: Path | None = Field(None, description="CA certificates for https.")

    # --- PostgreSQL ---
    database_url: SecretStr = Field(
        SecretStr("postgresql://audit_writer@127.0.0.1:15432/audit"),
        description="Ledger, as audit_writer. TLS by ?sslmode=verify-full&sslrootcert=...",
    )
    database_admin_url: SecretStr = Field(
        SecretStr(""), description="As the owner, for `migrate` only; unset for workers."
    )
    database_reader_url: SecretStr = Field(
        SecretStr(""), description="As audit_reader (row-level security applies)."
    )
    database_redactor_url: SecretStr = Field(
        SecretStr(""),
        description="As audit_redactor: erasure, holds, redaction, expiry; unset for workers.",
    )
    signer_database_url: SecretStr = Field(
        SecretStr(""), description="As audit_signer, for `signer`; empty: AUDIT_DATABASE_URL."
    )
    auditor_database_url: SecretStr = Field(
        SecretStr(""), description="As audit_auditor, for verification; empty: AUDIT_DATABASE_URL."
    )

    # --- Elasticsearch ---
    elasticsearch_url: str = Field("http://127.0.0.1:19200", description="Search index.")
    elasticsearch_username: str = Field("", description="Basic authentication user.")
    elasticsearch_password: SecretStr = Field(SecretStr(""), description="And its password.")
    elasticsearch_ca_file: Path | None = Field(None, description="CA certificates for https.")
    index_prefix: str = Field("audit-events", description="Indices are <prefix>-YYYY.MM.")
    index_replicas: int = Field(0, ge=0, description="Replicas of new indices.")
    index_refresh_s: float = Field(0.5, gt=0, description="refresh_interval of new indices.")
    bulk_max_bytes: int = Field(2 * MIB, gt=0, description="Largest bulk request body.")

    # --- S3 ---
    s3_endpoint_url: str = Field("", description="Empty for AWS; else path-style addressing.")
    s3_region: str = Field("us-east-1", description="Region of both buckets.")
    s3_access_key_id: str = Field("", description="Empty: the SDK's own credential chain.")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="Goes with the key id.")
    s3_ca_file: Path | None = Field(None, description="CA certificates for https.")
    s3_archive_bucket: str = Field("audit-archive", description="Versioned, Object Lock.")
    s3_vault_bucket: str = Field("audit-vault", description="Blobs and key escrow; no lock.")
    s3_lock_mode: str = Field(
        "GOVERNANCE", pattern="^(GOVERNANCE|COMPLIANCE)$", description="COMPLIANCE in production."
    )
    archive_max_events: int = Field(50_000, gt=0, description="An object is cut at so many leaves,")
    archive_max_bytes: int = Field(32 * MIB, gt=0, description="or at so many bytes before zstd,")
    archive_max_age_s: float = Field(10.0, gt=0, description="or when its oldest leaf is so old.")

    # --- Keys ---
    key_file: Path | None = Field(
        None, description="Local key provider: 32 bytes as hex, mode 0600."
    )
    kms_key_id: str = Field(
        "", description="AWS KMS key (ARN, id or alias/...) instead of AUDIT_KEY_FILE."
    )
    kms_mac_key_file: Path | None = Field(
        None, description="With KMS: the wrapped MAC key that `audit-trail mac-key` wrote."
    )
    kms_region: str = Field("us-east-1", description="Region of the KMS key.")
    kms_endpoint_url: str = Field("", description="Empty for AWS. Credentials: the SDK's chain.")
    import_key_file: Path | None = Field(
        None, description="Secret of importing principals: 32 bytes as hex, mode 0600."
    )
    subject_cache_size: int = Field(20_000, gt=0, description="Subjects whose keys stay in memory.")

    operator: str = Field(
        "", description="Who runs a command, for the record; empty: account and host."
    )

    # --- Keeping: holds, redaction, expiry ---
    system_tenant: str = Field(
        "",
        description="Whose the trail's own events are that are no single tenant's; empty: the first.",
    )
    trail_wait_s: float = Field(
        60.0, gt=0, description="So long a command waits until a worker has stored its event."
    )
    keeper_interval_s: float = Field(
        3600.0, gt=0, description="How often `keeper run` applies policies, expiries and holds."
    )
    keeper_http_port: int = Field(
        9111, ge=0, description="The keeper's /metrics, /healthz, /readyz, on AUDIT_HTTP_HOST."
    )

    # --- Erasure ---
    erasure_four_eyes: bool = Field(
        default=True, description="Another operator than the one who asked must approve an erasure."
    )
    erasure_wait_s: float = Field(
        120.0,
        gt=0,
        description="So long `erase` waits for workers and followers before it says pending.",
    )
    erasure_backup_days: int = Field(
        30,
        ge=0,
        description="How long backups and snapshots of any store live; on the certificate.",
    )

    # --- Checkpoints ---
    log_origin: str = Field(
        UNCHOSEN_ORIGIN,
        pattern=r"^[^\s+/]([^\s+]*[^\s+/])?$",
        max_length=200,
        description="First part of every log's name in checkpoints, such as audit.example.com/trail;"
        " chosen once: another one makes other logs.",
    )
    signing_key_file: Path | None = Field(
        None,
        description="Keys that sign checkpoints, as `audit-trail signing-key` writes it; 0600.",
    )
    verifier_keys_file: Path | None = Field(
        None,
        description="Keys that are trusted to have signed: one verifier key a line, # comments.",
    )
    witnesses_file: Path | None = Field(
        None, description="Witnesses that cosign: URL and verifier key a line, # comments."
    )
    witness_timeout_s: float = Field(
        5.0, gt=0, le=30, description="So long a checkpoint waits for its cosignatures."
    )
    signer_interval_s: float = Field(
        30.0, gt=0, le=60, description="A log that grows gets a checkpoint so often."
    )
    signer_http_port: int = Field(
        9109, ge=0, description="The signer's /metrics, /healthz, /readyz, on AUDIT_HTTP_HOST."
    )
    log_http_host: str = Field("127.0.0.1", description="Listener of `audit-trail log serve`.")
    log_http_port: int = Field(9110, ge=0, description="Its port.")

    # --- Judge ---
    event_max_bytes: int = Field(
        _LIMITS["event_bytes"], gt=0, description="Avro body of one event."
    )
    text_max_chars: int = Field(
        _LIMITS["text_chars"], gt=0, description="Any text without a limit of its own."
    )
    label_key_max_bytes: int = Field(
        _LIMITS["label_key_bytes"], gt=0, description="Key of a map entry, UTF-8."
    )
    label_value_max_bytes: int = Field(
        _LIMITS["label_value_bytes"], gt=0, description="Value of a map entry, UTF-8."
    )
    items_max: int = Field(_LIMITS["items"], gt=0, description="Elements of any array or map.")
    changes_max: int = Field(_LIMITS["changes"], gt=0, description="Elements of `changes`.")
    future_tolerance_s: int = Field(300, ge=0, description="occurred_at after broker time.")
    retention_days: int = Field(7 * 365 + 2, gt=0, description="Older events are `expired`.")
    import_retention_days: int = Field(20 * 365 + 5, gt=0, description="The same, imported ones.")
    late_after_s: int = Field(86_400, gt=0, description="Stored this long after: marked late.")

    # --- Worker ---
    batch_max_events: int = Field(2_000, gt=0, description="Events in one ledger transaction.")
    intake_max_bytes: int = Field(4 * MIB, gt=0, description="Fetched and not yet in the ledger.")
    follower_linger_s: float = Field(
        0.25,
        ge=0,
        description="What comes within so long goes to a store in one write, if it is few.",
    )
    follower_max_bytes: int = Field(
        32 * MIB, gt=0, description="Held per follower; beyond, it reads the ledger instead."
    )
    follower_pace_share: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="Of the time, how long intake may wait for a store that answers and is nearly full.",
    )
    follower_pace_patience_s: float = Field(
        30.0,
        ge=0,
        description="For how long in all it waits so; then for a tenth of the time, until the store"
        " has not been behind for as long.",
    )
    follower_lagging_s: float = Field(
        15.0,
        gt=0,
        description="/readyz calls a follower lagging whose oldest leaf waits for longer than this"
        " and archive_max_age_s together.",
    )
    catch_up_events: int = Field(5_000, gt=0, description="Leaves per catch-up read.")
    retry_first_s: float = Field(0.2, gt=0, description="First wait after an outage; doubles.")
    retry_max_s: float = Field(5.0, gt=0, description="Longest wait between two tries.")
    outage_limit_s: float = Field(
        3600.0, gt=0, description="Ledger, broker or registry down this long: the worker exits."
    )
    recovery_limit_s: float = Field(
        60.0, gt=0, description="No progress in recovering tables for this long: the worker exits."
    )
    request_timeout_s: float = Field(10.0, gt=0, description="One call to any server.")
    dead_letter_ratio: float = Field(
        0.5, gt=0, le=1, description="More bad records than this in the window pause a partition."
    )
    dead_letter_window: int = Field(1_000, gt=0, description="Records the ratio is taken over.")
    tenants_refresh_s: float = Field(10.0, gt=0, description="How often new tenants are looked up.")
    http_host: str = Field("127.0.0.1", description="Listener of /metrics, /healthz, /readyz.")
    http_port: int = Field(9108, ge=0, description="Its port.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    drain: bool = Field(default=False, description="Exit 0 once every follower is at the end.")


def load_settings(**overrides: Any) -> Settings:
    """The process's settings.

    Raises:
        ConfigurationError: A value does not fit; the message names the variable, not the value.
    """
    env_file = os.environ.get("AUDIT_ENV_FILE")
    if env_file and not Path(env_file).is_file():
        raise ConfigurationError(f"AUDIT_ENV_FILE names {env_file}, which does not exist")
    try:
        return Settings(_env_file=env_file, **overrides)
    except ValidationError as error:
        wrong = "; ".join(
            f"AUDIT_{str(problem['loc'][0]).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ConfigurationError(wrong) from None
