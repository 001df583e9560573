"""How confluent-kafka's clients reach the brokers, and why the brokers do not let them in.

librdkafka retries for ever, so a call that is refused only times out; what it says of the
connection (a wrong password, an unknown authority) comes by a callback that is kept here.
"""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import KafkaError

from pipeline.settings import Settings
from pipeline.tls import checked_ca_file

_AUTHENTICATION: Final = frozenset(
    {
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's local codes have no other name
    }
)
# A handshake may also end because a broker is shutting down: only a certificate is a refusal.
_VERIFY_FAILED: Final = "certificate verify failed"


class Complaints:
    """librdkafka's error callback; ``refusal`` is the last one that a person must mend."""

    def __init__(self) -> None:
        self.refusal = ""

    def __call__(self, error: KafkaError) -> None:
        """Take one error; called from the client's ``poll`` and ``flush``."""
        if error.code() in _AUTHENTICATION:
            self.refusal = (
                "the broker refuses AUDIT_KAFKA_USERNAME or AUDIT_KAFKA_PASSWORD"
                f" ({error.name().lstrip('_')})"
            )
        elif _VERIFY_FAILED in error.str():
            self.refusal = f"the broker's {_VERIFY_FAILED} (AUDIT_KAFKA_CA_FILE)"


def client_configuration(settings: Settings, complaints: Complaints) -> dict[str, Any]:
    """What every client needs.

    Raises:
        ConfigurationError: AUDIT_KAFKA_CA_FILE cannot be used.
    """
    configuration: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "socket.timeout.ms": int(settings.request_timeout_s * 1000),
        "log_level": 0,
        "error_cb": complaints,
    }
    ca_file = checked_ca_file(settings.kafka_ca_file, "AUDIT_KAFKA_CA_FILE")
    if ca_file is not None:
        configuration["ssl.ca.location"] = ca_file
    if settings.kafka_security_protocol.startswith("SASL"):
        configuration |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    return configuration
