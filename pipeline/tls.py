"""TLS of the connections to servers: contexts from settings, and what went wrong in plain words.

Hostnames and chains are always verified; there is no setting that switches that off.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from pipeline.domain.errors import ConfigurationError


def client_context(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    """Trusts the certificates in ``ca_file`` alone, or the system's when there is none.

    Raises:
        ConfigurationError: The file that the setting names is not there or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"{setting}: {ca_file} holds no readable certificate") from None


def checked_ca_file(ca_file: Path | None, setting: str) -> str | None:
    """The same file for clients that make their own context. Raises as ``client_context``."""
    if ca_file is None:
        return None
    client_context(ca_file, setting)
    return str(ca_file)


def failure(error: BaseException, setting: str) -> str:
    """The kind of a connection's failure; of a certificate also why, and which setting to look at.

    What a certificate's check says names the server, never a secret or an event.
    """
    name = type(error).__name__
    seen: set[int] = set()
    open_questions: list[BaseException] = [error]
    while open_questions:
        current = open_questions.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, ssl.SSLCertVerificationError):
            why = getattr(current, "verify_message", "")
            if why:  # aiohttp has a subclass that only wraps the one which knows
                return f"{name}: certificate verify failed: {why} ({setting})"
        inner = (current.__cause__, current.__context__, *_wrapped(current))
        open_questions += [one for one in inner if isinstance(one, BaseException)]
    return name


def _wrapped(error: BaseException) -> list[object]:
    """What client libraries keep of an inner error: arguments, urllib3's reason, elastic's list."""
    found: list[object] = [*error.args, getattr(error, "reason", None)]
    errors = getattr(error, "errors", ())
    return found + list(errors) if isinstance(errors, tuple | list) else found
