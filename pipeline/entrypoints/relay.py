"""The relay's process: every part made, served, and ended in order.

It ends with 0 when told to (SIGTERM, Ctrl-C): no new connection, open requests get ``drain_s``, then the
SDK's client is closed, which sends its last heartbeat.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable

import httpx
from audit_sdk import Audit, AuditConfigurationError, AuditSettings, DeliveryClass
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from pipeline.api.allowed import load_allowed
from pipeline.api.app import create_app
from pipeline.api.metrics import RelayMetrics
from pipeline.api.oidc import ApplicationTokens, IssuerKeys
from pipeline.api.rates import Rates
from pipeline.api.relay import RelayParts
from pipeline.api.replays import Replays
from pipeline.api.settings import RelaySettings
from pipeline.api.tokens import RelayTokens, Tokens
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import SERVICE_FAMILIES
from pipeline.entrypoints.http_server import HttpServer
from pipeline.kafka_access import Complaints, client_configuration
from pipeline.keys.provider import read_key_file
from pipeline.logging import configure_logging, log_event
from pipeline.settings import Settings
from pipeline.tls import checked_ca_file

log = logging.getLogger(__name__)


def run_relay(settings: Settings, relay: RelaySettings) -> None:
    """Serve until told to end.

    Raises:
        ConfigurationError: A setting, the allow-list, or the port.
    """
    configure_logging(settings.log_level)
    audit = make_audit(settings, relay)
    parts = RelayParts(
        audit=audit,
        tokens=make_tokens(relay),
        rates=Rates(
            relay.rate_storage,
            actor_per_minute=relay.actor_events_per_minute,
            tenant_per_minute=relay.tenant_events_per_minute,
            retry_after_s=relay.retry_after_s,
        ),
        replays=Replays(
            window_s=relay.replay_window_s,
            max_ids=relay.replay_max_ids,
            retry_after_s=relay.retry_after_s,
        ),
        allowed=load_allowed(relay.allow_file),
    )
    brokers = BrokerCheck(
        AdminClient(client_configuration(settings, Complaints())),
        timeout_s=relay.ack_timeout_s,
        max_age_s=relay.ready_max_age_s,
    )
    app = create_app(relay, parts, RelayMetrics(CollectorRegistry()), broker_answers=brokers.answer)
    server = HttpServer(
        app,
        host=relay.host,
        port=relay.port,
        settings="AUDIT_RELAY_HOST or AUDIT_RELAY_PORT",
        on_started=lambda: log_event(log, "relay_started", host=relay.host, port=relay.port),
        connections_max=relay.connections_max,
        keep_alive_s=relay.keep_alive_s,
        drain_s=relay.drain_s,
    )
    try:
        server.serve_until_told()
    finally:
        left = audit.close()
        log_event(log, "relay_ended", unconfirmed=left)


def make_audit(settings: Settings, relay: RelaySettings) -> Audit:
    """The SDK's client: every family fail closed, one bounded memory.

    Raises:
        ConfigurationError: A setting does not fit.
    """
    configuration = client_configuration(settings, Complaints())
    del configuration["bootstrap.servers"]
    try:
        return Audit(
            settings=AuditSettings(
                service=relay.service,
                environment=relay.environment or None,
                bootstrap=settings.kafka_bootstrap,
                registry_url=settings.registry_url,
                registry_username=settings.registry_username,
                registry_password=settings.registry_password.get_secret_value(),
                registry_ca_file=settings.registry_ca_file,
                kafka=configuration,
                delivery=dict.fromkeys(SERVICE_FAMILIES, DeliveryClass.FAIL_CLOSED),
                buffer_bytes=relay.buffer_max_bytes,
                fail_closed_timeout_s=relay.ack_timeout_s,
                close_timeout_s=relay.ack_timeout_s,
                heartbeat_tenant=relay.heartbeat_tenant or None,
                request_timeout_s=settings.request_timeout_s,
            )
        )
    except AuditConfigurationError as error:
        raise ConfigurationError(str(error)) from None


def make_tokens(relay: RelaySettings) -> Tokens:
    """The verifiers that are configured.

    Raises:
        ConfigurationError: None is, or the key file cannot be used.
    """
    application = None if not relay.issuer else _application_tokens(relay)
    own = None if relay.token_key_file is None else make_relay_tokens(relay)
    if application is None and own is None:
        raise ConfigurationError(
            "the relay takes no tokens: set AUDIT_RELAY_ISSUER and AUDIT_RELAY_AUDIENCE,"
            " or AUDIT_RELAY_TOKEN_KEY_FILE"
        )
    return Tokens(application, own, max_bytes=relay.token_max_bytes)


def make_relay_tokens(relay: RelaySettings) -> RelayTokens:
    """Mints and verifies relay tokens; raises ``ConfigurationError``."""
    key = read_key_file(relay.token_key_file, "AUDIT_RELAY_TOKEN_KEY_FILE")
    return RelayTokens(key, max_life_s=relay.token_max_s, leeway_s=relay.leeway_s)


def _application_tokens(relay: RelaySettings) -> ApplicationTokens:
    ca_file = checked_ca_file(relay.issuer_ca_file, "AUDIT_RELAY_ISSUER_CA_FILE")
    keys = IssuerKeys(
        relay.issuer,
        httpx.Client(
            timeout=relay.issuer_timeout_s,
            follow_redirects=False,
            verify=ssl.create_default_context(cafile=ca_file),
        ),
        lifetime_s=relay.keys_lifetime_s,
        refetch_s=relay.keys_refetch_s,
        timeout_s=relay.issuer_timeout_s,
        max_keys=relay.keys_max,
        max_bytes=relay.keys_max_bytes,
    )
    return ApplicationTokens(
        keys,
        issuer=relay.issuer,
        audience=relay.audience,
        tenant_claim=relay.tenant_claim,
        leeway_s=relay.leeway_s,
        retry_after_s=relay.retry_after_s,
    )


class BrokerCheck:
    """Whether a broker answers, asked at most once in a while. Thread-safe; blocks up to its timeout."""

    def __init__(
        self,
        client: AdminClient,
        *,
        timeout_s: float,
        max_age_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._max_age_s = max_age_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._answered = False

    def answer(self) -> bool:
        """As of at most ``max_age_s`` ago."""
        with self._lock:
            if self._monotonic() - self._asked_at > self._max_age_s:
                try:
                    self._client.list_topics("audit.raw.data-access", timeout=self._timeout_s)
                    self._answered = True
                except KafkaException:
                    self._answered = False
                self._asked_at = self._monotonic()
            return self._answered
