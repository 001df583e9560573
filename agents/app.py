"""The Faust application: its settings, its transport, its agents; registered here, explicitly."""

from __future__ import annotations

import ssl
from typing import Any, cast

import faust
from yarl import URL

from agents.reading import RawPartitions
from agents.transport import BatchConsumer, BatchTransport
from pipeline.domain.errors import ConfigurationError
from pipeline.settings import Settings
from pipeline.tls import client_context

# Records unpacked, and then prepared, at a time: about 50 ms in which nothing else runs.
_POLL_RECORDS = 2_000
_HEARTBEATS = 5  # per session timeout


class AuditApp(faust.App):
    """A Faust app over ``BatchTransport``."""

    raw: RawPartitions
    fetch_room_bytes: int

    def _new_transport(self) -> Any:
        return BatchTransport(self.conf.broker_consumer, self)

    def _new_consumer(self) -> Any:
        consumer = cast("BatchConsumer", super()._new_consumer())
        consumer.raw = self.raw
        consumer.fetch_room_bytes = self.fetch_room_bytes
        return consumer

    @property
    def batch_consumer(self) -> BatchConsumer:
        """The consumer, as what it is."""
        return cast("BatchConsumer", self.consumer)


def make_app(settings: Settings, raw: RawPartitions, *, datadir: str) -> AuditApp:
    """The app of one worker; nothing is connected yet."""
    brokers = [URL(f"kafka://{host}") for host in settings.kafka_bootstrap.split(",")]
    session_s = settings.session_timeout_s
    app = AuditApp(
        settings.consumer_group,
        broker=brokers,
        broker_credentials=credentials(settings),
        ssl_context=tls_context(settings),
        store="memory://",
        datadir=datadir,
        web_enabled=False,
        web_tables_enabled=False,
        autodiscover=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=True,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / _HEARTBEATS,
        broker_request_timeout=max(session_s + 1, 40.0),
        broker_rebalance_timeout=max(session_s, 30.0),
        # Fetching may rest for as long as an outage: that is no reason to lose the partitions.
        broker_max_poll_interval=settings.outage_limit_s + 600,
        broker_max_poll_records=_POLL_RECORDS,
        consumer_max_fetch_size=settings.fetch_max_bytes,
        worker_redirect_stdouts=False,
    )
    app.raw = raw
    app.fetch_room_bytes = settings.intake_max_bytes
    return app


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the broker connection, if the security protocol has TLS."""
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    return client_context(settings.kafka_ca_file, "AUDIT_KAFKA_CA_FILE")


def credentials(settings: Settings) -> Any:
    """What Faust calls broker credentials."""
    protocol = settings.kafka_security_protocol
    context = tls_context(settings)
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(context=context)
    if protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        return faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    raise ConfigurationError(
        "AUDIT_KAFKA_SECURITY_PROTOCOL is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"
    )
