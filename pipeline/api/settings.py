"""Every setting of the relay, once, with its meaning, unit and default.

Read like ``pipeline.settings``: from the environment (prefix ``AUDIT_RELAY_``), then from the file that
``AUDIT_ENV_FILE`` names. How Kafka and the registry are reached stands in ``pipeline.settings``.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.domain.errors import ConfigurationError

KIB = 1024
MIB = 1024 * KIB
BATCH_EVENTS_MAX = 100  # of the interface: a client may rely on it, so it is no setting


class RelaySettings(BaseSettings):
    """One object per process, made in the composition root and handed on by constructor."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_RELAY_", extra="ignore", frozen=True)

    # --- Listener ---
    host: str = Field("127.0.0.1", description="Where the relay listens.")
    port: int = Field(8095, ge=0, le=65_535, description="Its port.")
    connections_max: int = Field(1_000, gt=0, description="Open connections; more get a bare 503.")
    requests_max: int = Field(
        64, gt=0, description="Batches in work at once, each in a thread; more get 503."
    )
    keep_alive_s: int = Field(5, gt=0, description="An idle connection is closed after so long.")
    drain_s: int = Field(10, gt=0, description="On SIGTERM open requests may take so long to end.")
    origins: str = Field(
        "",
        description="Origins whose pages may send, comma separated, such as https://app.acme.example.",
    )
    trusted_proxies: str = Field(
        "",
        description="Networks whose X-Forwarded-For counts, comma separated, such as 10.0.0.0/8.",
    )

    # --- What is recorded ---
    allow_file: Path | None = Field(
        None,
        description="JSON: which actions a browser may record; see samples/relay/actions.json.",
    )
    service: str = Field(
        "audit-relay", min_length=1, description="`producer.service` of its events."
    )
    environment: str = Field("", description="`producer.environment` of its events.")
    id_type: str = Field("user_id", min_length=1, description="What kind of id a token's `sub` is.")
    heartbeat_tenant: str = Field("", description="Tenant of its heartbeats; empty: none are sent.")

    # --- The application's tokens ---
    issuer: str = Field("", description="OpenID provider; https, or http on loopback. Empty: none.")
    audience: str = Field("", description="`aud` that its tokens must have.")
    tenant_claim: str = Field("tenant", min_length=1, description="Claim that names the tenant.")
    issuer_ca_file: Path | None = Field(None, description="CA certificates for the issuer's https.")
    issuer_timeout_s: float = Field(5.0, gt=0, description="One answer of the issuer.")
    keys_lifetime_s: float = Field(600.0, gt=0, description="The issuer's keys count for so long.")
    keys_refetch_s: float = Field(
        30.0, gt=0, description="They are asked for at most once in so long, whatever tokens name."
    )
    keys_max: int = Field(64, gt=0, description="Keys in the issuer's key set; more are refused.")
    keys_max_bytes: int = Field(256 * KIB, gt=0, description="Largest answer of the issuer.")
    leeway_s: float = Field(30.0, ge=0, description="Clocks may differ by so much.")
    token_max_bytes: int = Field(8 * KIB, gt=0, description="Largest token.")

    # --- Relay tokens ---
    token_key_file: Path | None = Field(
        None,
        description="Secret of relay tokens: 32 bytes as hex, mode 0600. Unset: none are taken.",
    )
    token_max_s: int = Field(900, gt=0, description="Longest life of a relay token.")

    # --- Requests ---
    body_max_bytes: int = Field(256 * KIB, gt=0, description="Largest body of a request.")
    body_timeout_s: float = Field(10.0, gt=0, description="A body must be there after so long.")
    actor_events_per_minute: int = Field(
        600, ge=BATCH_EVENTS_MAX, description="Events of one actor; refused ones count."
    )
    tenant_events_per_minute: int = Field(
        30_000, ge=BATCH_EVENTS_MAX, description="Events of one tenant; refused ones count."
    )
    rate_storage: str = Field(
        "memory://", description="Where rates are counted: a storage URI of the package limits."
    )
    replay_window_s: float = Field(
        900.0,
        gt=0,
        description="An event id may be so old, or so far ahead, and is remembered so long.",
    )
    replay_max_ids: int = Field(
        200_000, ge=BATCH_EVENTS_MAX, description="Ids that are remembered; when full, events wait."
    )

    # --- Delivery ---
    ack_timeout_s: float = Field(5.0, gt=0, description="The brokers have so long; then it is 503.")
    retry_after_s: int = Field(2, gt=0, description="Retry-After of a 503.")
    buffer_max_bytes: int = Field(32 * MIB, gt=0, description="Events that wait for the brokers.")
    ready_max_age_s: float = Field(
        2.0, gt=0, description="/readyz asks the brokers so often at most."
    )

    @field_validator("allow_file", "issuer_ca_file", "token_key_file", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("issuer")
    @classmethod
    def _issuer_is_safe(cls, value: str) -> str:
        if value and not is_safe_url(value):
            raise ValueError("must be https, or http on a loopback address")
        return value

    @field_validator("origins")
    @classmethod
    def _origins_are_exact(cls, value: str) -> str:
        for origin in listed(value):
            parts = urlsplit(origin)
            if (
                parts.scheme not in ("http", "https")
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ValueError("an origin is scheme://host or scheme://host:port, without a path")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: str) -> str:
        for network in listed(value):
            ipaddress.ip_network(network)
        return value

    @model_validator(mode="after")
    def _tokens_have_an_audience(self) -> Self:
        if self.issuer and not self.audience:
            raise ValueError("AUDIT_RELAY_ISSUER needs AUDIT_RELAY_AUDIENCE")
        return self

    @property
    def origin_list(self) -> tuple[str, ...]:
        return listed(self.origins)

    @property
    def proxy_list(self) -> tuple[str, ...]:
        return listed(self.trusted_proxies)


def listed(text: str) -> tuple[str, ...]:
    """The parts of a comma separated text."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def is_safe_url(url: str) -> bool:
    """Whether nobody between can change what it answers: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    if parts.scheme != "http":
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_relay_settings(**overrides: Any) -> RelaySettings:
    """The process's settings.

    Raises:
        ConfigurationError: A value does not fit; the message names the variable, not the value.
    """
    env_file = os.environ.get("AUDIT_ENV_FILE")
    if env_file and not Path(env_file).is_file():
        raise ConfigurationError(f"AUDIT_ENV_FILE names {env_file}, which does not exist")
    try:
        return RelaySettings(_env_file=env_file, **overrides)
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join(
                [*(f"AUDIT_RELAY_{str(place).upper()}" for place in one["loc"][:1]), one["msg"]]
            )
            for one in error.errors()
        )
        raise ConfigurationError(wrong) from None
