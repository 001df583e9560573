"""The schema registry, read only: cached, one request at a time per id, asynchronous.

A registry that is down is back pressure (``Unavailable``), never a dead letter; an id that the
registry does not know is remembered for ``unknown_for_s`` only, since it may be registered later.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from pipeline.domain.errors import InvalidRecord, Reason, Unavailable
from pipeline.tls import failure

_UNKNOWN = (400, 404, 422)  # what registries answer for an id that they cannot have
_REFUSED = (401, 403)
_SERVER_ERROR = 500
_TOO_MANY = 429
_LARGEST_ID = 2**31 - 1  # ids are Java ints


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema, and its version under each subject that the registry has it under."""

    schema_id: int
    text: str
    versions: Mapping[str, int]


class SchemaRegistry:
    """Schemas by id over the Confluent REST API.

    The base URL is fixed; ids are the only thing of a record that reaches a request.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
        unknown_for_s: float = 10.0,
        unknown_max: int = 1_000,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = (
            {"Authorization": aiohttp.encode_basic_auth(username, password)} if username else {}
        )
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._unknown_for_s = unknown_for_s
        self._unknown_max = unknown_max
        self._now = now
        self._known: dict[int, RegisteredSchema] = {}
        self._unknown: dict[int, float] = {}
        self._asked: dict[int, asyncio.Task[RegisteredSchema | None]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; asks nothing yet."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(ssl=True if self._tls is None else self._tls),
        )

    async def close(self) -> None:
        """Cancel what is asked and close the pool."""
        for task in self._asked.values():
            task.cancel()
        if self._session is not None:
            await self._session.close()

    def cached(self, schema_id: int) -> RegisteredSchema | None:
        """What is known without asking."""
        return self._known.get(schema_id)

    async def by_id(self, schema_id: int, subject: str) -> RegisteredSchema:
        """The schema of an id, which must be registered under ``subject``.

        Raises:
            InvalidRecord: The registry does not know the id, or only under other subjects.
            Unavailable: The registry does not answer; ask again later.
        """
        found = self._known.get(schema_id)
        if found is None or subject not in found.versions:
            # Known under other subjects only: it may have been registered under this one since.
            found = await self._ask_once(schema_id)
        if found is None:
            raise InvalidRecord(Reason.UNKNOWN_SCHEMA, f"schema id {schema_id}")
        if subject not in found.versions:
            raise InvalidRecord(Reason.SCHEMA_OF_OTHER_SUBJECT, f"schema id {schema_id}")
        return found

    async def _ask_once(self, schema_id: int) -> RegisteredSchema | None:
        now = asyncio.get_running_loop().time() if self._now is None else self._now()
        if self._unknown.get(schema_id, -1.0) > now:
            return self._known.get(schema_id)
        task = self._asked.get(schema_id)
        if task is None:
            task = asyncio.create_task(self._fetch(schema_id))
            self._asked[schema_id] = task
            task.add_done_callback(lambda _: self._asked.pop(schema_id, None))
        found = await asyncio.shield(task)
        if len(self._unknown) >= self._unknown_max:
            self._unknown.clear()
        self._unknown[schema_id] = now + self._unknown_for_s
        if found is not None:
            self._known[schema_id] = found
        return found

    async def _fetch(self, schema_id: int) -> RegisteredSchema | None:
        if schema_id > _LARGEST_ID:
            return None
        schema = await self._get(f"/schemas/ids/{schema_id}")
        if schema is None or schema.get("schemaType", "AVRO") != "AVRO":
            return None
        versions = await self._get(f"/schemas/ids/{schema_id}/versions")
        by_subject = {one["subject"]: int(one["version"]) for one in versions or ()}
        return RegisteredSchema(schema_id, schema["schema"], by_subject)

    async def _get(self, path: str) -> Any:
        if self._session is None:
            raise Unavailable("registry", "not open")
        try:
            async with self._session.get(self._url + path) as response:
                body = await response.read()
                if response.status in _UNKNOWN and is_a_registrys(body):
                    return None
                if response.status in _UNKNOWN:
                    raise Unavailable(
                        "registry",
                        f"status {response.status} without a registry's error code: does"
                        " AUDIT_REGISTRY_URL lead to one?",
                    )
                if response.status in _REFUSED:
                    raise Unavailable(
                        "registry",
                        f"status {response.status}: it refuses AUDIT_REGISTRY_USERNAME or"
                        " AUDIT_REGISTRY_PASSWORD",
                    )
                if response.status >= _SERVER_ERROR or response.status == _TOO_MANY:
                    raise Unavailable("registry", f"status {response.status}")
                response.raise_for_status()
                return orjson.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise Unavailable("registry", failure(error, "AUDIT_REGISTRY_CA_FILE")) from error


def is_a_registrys(answer: bytes) -> bool:
    """Whether an error comes from a registry: a proxy before it, or a wrong path, answers 404, too, and
    that is no reason for a dead letter. Source: Confluent's REST interface (``error_code``).
    """
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and isinstance(found.get("error_code"), int)
