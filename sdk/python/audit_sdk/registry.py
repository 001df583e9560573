"""Schema ids: asked of the registry once per family, by the schema that this SDK carries.

Confluent's REST interface, read only (``POST /subjects/<subject>`` looks a schema up).
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from audit_sdk.contract import contract
from audit_sdk.errors import AuditConfigurationError, AuditError


class RegistryUnavailable(AuditError):
    """The registry does not answer; asked again later."""


class SchemaIds:
    """Ids by family; asks once for each, and remembers."""

    def __init__(
        self,
        url: str,
        *,
        username: str = "",
        password: str = "",
        ca_file: Path | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Raises ``AuditConfigurationError``: the address or ``ca_file`` does not fit."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise AuditConfigurationError("registry_url must begin with http:// or https://")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        if username:
            secret = base64.b64encode(f"{username}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"
        self._tls = _tls(ca_file) if url.startswith("https") else None
        self._timeout_s = timeout_s
        self._known: dict[str, int] = {}

    def ask(self, family: str) -> int:
        """The id of the family's schema.

        Raises:
            AuditConfigurationError: The schema is not registered, or the registry refuses.
            RegistryUnavailable: Ask again later.
        """
        known = self._known.get(family)
        if known is not None:
            return known
        one = contract().families[family]
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            f"{self._url}/subjects/{one.subject}",
            data=json.dumps({"schema": one.schema_text}).encode(),
            headers=self._headers,
        )
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=self._timeout_s, context=self._tls
            ) as answer:
                found: dict[str, Any] = json.load(answer)
            self._known[family] = int(found["id"])
        except urllib.error.HTTPError as error:
            self._refused(family, error)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegistryUnavailable(f"registry: {type(error).__name__}") from None
        return self._known[family]

    def _refused(self, family: str, error: urllib.error.HTTPError) -> None:
        with error:
            body = error.read(10_000)
        if error.code == HTTPStatus.NOT_FOUND and b"error_code" in body:
            raise AuditConfigurationError(
                f"the schema of {family} is not registered; run: audit-trail schemas register"
            ) from None
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise AuditConfigurationError(
                f"the registry refuses registry_username or registry_password ({error.code})"
            ) from None
        raise RegistryUnavailable(f"registry: status {error.code}") from None


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one: it holds no certificate
        why = error.strerror or type(error).__name__
        raise AuditConfigurationError(f"registry_ca_file {ca_file} cannot be read: {why}") from None
