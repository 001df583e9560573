"""The schema registry as the command line sees it: subjects, versions, compatibility.

Confluent REST API (Apicurio serves it too). The worker reads through ``pipeline.codec.registry``;
this one also writes, and is used by people only.
"""

from __future__ import annotations

from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import httpx

from pipeline.codec.registry import is_a_registrys
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.tls import client_context, failure

if TYPE_CHECKING:
    from pipeline.settings import Settings

COMPATIBILITY: Final = "FULL_TRANSITIVE"
_NO_REGISTRY: Final = "AUDIT_REGISTRY_URL does not answer as a schema registry (Apicurio's API is at /apis/ccompat/v7)"
_CONTENT_TYPE: Final = {"Content-Type": "application/vnd.schemaregistry.v1+json"}


class Incompatible(ConfigurationError):
    """The registry refuses a schema; the message holds the registry's rule."""


class RegistryClient:
    """A context manager over one connection pool.

    Every method raises ``Unavailable`` if the registry does not answer and ``ConfigurationError``
    if it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        auth = None
        if settings.registry_username:
            password = settings.registry_password.get_secret_value()
            auth = httpx.BasicAuth(settings.registry_username, password)
        self._client = httpx.Client(
            base_url=settings.registry_url.rstrip("/") + "/",
            auth=auth,
            verify=client_context(settings.registry_ca_file, "AUDIT_REGISTRY_CA_FILE"),
            timeout=settings.request_timeout_s,
            headers=_CONTENT_TYPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def subjects(self) -> list[str]:
        """Every subject that has a version."""
        found: list[str] = self._ask("GET", "subjects")
        return found

    def versions(self, subject: str) -> list[int]:
        """Version numbers of a subject; none if it is unknown."""
        found: list[int] = self._ask("GET", f"subjects/{_part(subject)}/versions", absent=[])
        return found

    def version(self, subject: str, version: int | str) -> dict[str, Any] | None:
        """``{"id", "version", "schema"}``, or None; ``latest`` is a version too."""
        path = f"subjects/{_part(subject)}/versions/{version}"
        found: dict[str, Any] | None = self._ask("GET", path, absent=None)
        return found

    def find(self, subject: str, schema: str) -> dict[str, Any] | None:
        """``{"id", "version"}`` of a schema if the subject has it, by the registry's own equality.

        A registry may keep another text of the same schema: Apicurio drops a record's attributes.
        """
        path = f"subjects/{_part(subject)}"
        found: dict[str, Any] | None = self._ask("POST", path, body={"schema": schema}, absent=None)
        return found

    def compatibility(self, subject: str) -> str:
        """The subject's own rule; empty if it has none."""
        path = f"config/{_part(subject)}"
        found: dict[str, str] = self._ask("GET", path, absent={})
        return found.get("compatibilityLevel", "")

    def set_compatibility(self, subject: str, rule: str) -> None:
        """Durable on return."""
        self._ask("PUT", f"config/{_part(subject)}", body={"compatibility": rule})

    def refusals(self, subject: str, schema: str) -> list[str]:
        """What breaks the subject's rule; nothing: the schema may be registered."""
        if not self.versions(subject):
            return []
        path = f"compatibility/subjects/{_part(subject)}/versions?verbose=true"
        found = self._ask("POST", path, body={"schema": schema})
        if found["is_compatible"]:
            return []
        # Apicurio gives no messages, whatever one asks.
        return [str(message) for message in found.get("messages") or ["the registry says no"]]

    def register(self, subject: str, schema: str) -> int:
        """The schema's id; the same schema again gives the same id.

        Raises:
            Incompatible: By the subject's rule.

        """
        found = self._ask("POST", f"subjects/{_part(subject)}/versions", body={"schema": schema})
        return int(found["id"])

    def _ask(self, method: str, path: str, *, body: object = None, absent: Any = ...) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise Unavailable("registry", failure(error, "AUDIT_REGISTRY_CA_FILE")) from error
        status = answer.status_code
        if status == HTTPStatus.NOT_FOUND and not is_a_registrys(answer.content):
            raise ConfigurationError(
                _NO_REGISTRY
            )  # a proxy, or a wrong path: it knows of no schema
        if status == HTTPStatus.NOT_FOUND and absent is not ...:
            return absent
        if status == HTTPStatus.CONFLICT:
            raise Incompatible(_message(answer))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable("registry", f"status {status}")
        if answer.is_error:
            raise ConfigurationError(f"registry refuses {method} {path}: {_message(answer)}")
        try:
            return answer.json()
        except ValueError:
            raise ConfigurationError(_NO_REGISTRY) from None


def _part(subject: str) -> str:
    return quote(subject, safe="")


def _message(answer: httpx.Response) -> str:
    """Schemas hold no event: what the registry says of them may be shown."""
    try:
        said = answer.json()
        return f"{said.get('message', '')} (status {answer.status_code})"[:2_000]
    except (ValueError, AttributeError):
        return f"status {answer.status_code}"
