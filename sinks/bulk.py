"""The calls that the index destination makes, and what their answers mean.

Elasticsearch's own client, without its retries: the follower retries. Its exceptions end here.
Needs nothing of the server but its core: no ``GET /``, no scripts, no plug-in module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from elastic_transport import TransportError
from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, AsyncElasticsearch
from elasticsearch.serializer import JsonSerializer, NdjsonSerializer

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.domain.records import SealedEvent
from pipeline.tls import failure
from sinks.index_fields import index_template, mapping

_CONFLICT = 409
_TOO_LARGE = 413
_THROTTLED = (429, 503)
_INDEX_MISSING = "index_not_found_exception"
# What the server says of a document that it will never take. Other errors with status 400 are
# about the index (a closed one, say), and would be the same for a stub.
_REFUSALS = frozenset(
    {
        "document_parsing_exception",
        "mapper_parsing_exception",
        "strict_dynamic_mapping_exception",
        "illegal_argument_exception",
        "invalid_index_name_exception",
        "max_bytes_length_exceeded_exception",
        "request_too_large",
    }
)
_BULK_PATH = "/_bulk?filter_path=errors,items.*.status,items.*.error.type"
_NO_FAILURE = b'{"errors":false,'
_NDJSON = "application/vnd.elasticsearch+x-ndjson"
_BULK_HEADERS = {
    "accept": "application/vnd.elasticsearch+json; compatible-with=8",
    "content-type": f"{_NDJSON}; compatible-with=8",
}


class Line(NamedTuple):
    """The same of one event, when something has to be said about it alone."""

    text: bytes
    index_name: str
    event: SealedEvent
    log: str
    leaf: int
    is_stub: bool = False


class Chunk(NamedTuple):
    """Consecutive leaves of one log as they stand in a bulk body, actions and documents."""

    text: bytes
    log: str
    first_leaf: int
    events: Sequence[SealedEvent]


class Verdict(NamedTuple):
    """What the server said of one document; ``error`` is the type of the failure."""

    line: Line
    status: int
    error: str

    @property
    def refused(self) -> bool:
        """The document itself will never be taken."""
        return self.error in _REFUSALS

    @property
    def throttled(self) -> bool:
        """The server has no room for it now."""
        return self.status in _THROTTLED

    @property
    def index_missing(self) -> bool:
        """Its month has no index yet."""
        return self.error == _INDEX_MISSING


class Item(NamedTuple):
    """One document's part of a bulk answer."""

    status: int
    error: str


class BulkAnswer(NamedTuple):
    """A bulk answer. ``too_large``: nothing was looked at; send it in smaller parts."""

    errors: bool
    items: list[Item]
    too_large: bool = False


def indexed(verdict: Verdict) -> bool:
    """Whether a document is there: just created, or by an earlier try."""
    return verdict.status < 300 or verdict.status == _CONFLICT


def try_again(verdict: Verdict) -> bool:
    """Whether sending it again, perhaps in another form, can help."""
    return verdict.refused or verdict.throttled or verdict.index_missing


def unavailable(detail: str) -> Unavailable:
    """The outage that the follower waits out."""
    return Unavailable("elasticsearch", detail)


def _unreached(error: TransportError) -> Unavailable:
    return unavailable(failure(error, "AUDIT_ELASTICSEARCH_CA_FILE"))


class _Orjson(JsonSerializer):
    def json_dumps(self, data: Any) -> bytes:
        return orjson.dumps(data, default=self.default)

    def json_loads(self, data: bytes) -> Any:
        # A bulk answer without failures has a status per document that nobody reads: 6 us each.
        return {"errors": False} if data.startswith(_NO_FAILURE) else orjson.loads(data)


class _AsItIs(NdjsonSerializer):
    """Bodies are NDJSON already: looking at them costs three copies of each."""

    def dumps(self, data: Any) -> bytes:
        return bytes(data)


def connect(
    url: str, *, username: str, password: str, ca_file: str | None, timeout_s: float
) -> AsyncElasticsearch:
    """A client that tries once. Connections are made when they are needed."""
    return AsyncElasticsearch(
        url,
        basic_auth=(username, password) if username else None,
        ca_certs=ca_file or DEFAULT,
        request_timeout=timeout_s,
        max_retries=0,
        retry_on_timeout=False,
        retry_on_status=(),
        serializers={_Orjson.mimetype: _Orjson(), _NDJSON: _AsItIs()},
    )


class BulkClient:
    """Elasticsearch, as the index destination needs it. ``write`` calls may run side by side."""

    def __init__(self, client: AsyncElasticsearch) -> None:
        self._client = client

    async def bulk(self, body: bytes) -> BulkAnswer:
        """Send one NDJSON body.

        Raises:
            Unavailable: Nothing is known about the documents.
        """
        try:
            answer = await self._client.perform_request(
                "POST", _BULK_PATH, headers=_BULK_HEADERS, body=body
            )
        except TransportError as error:
            raise _unreached(error) from error
        except ApiError as error:
            if error.status_code == _TOO_LARGE:
                return BulkAnswer(errors=True, items=[], too_large=True)
            raise unavailable(f"status {error.status_code}") from None
        content: Mapping[str, Any] = answer.body
        if not content["errors"]:
            return BulkAnswer(errors=False, items=[])
        items = [
            Item(part["status"], part.get("error", {}).get("type", ""))
            for entry in content["items"]
            for part in entry.values()
        ]
        return BulkAnswer(errors=True, items=items)

    async def create_index(self, index: str) -> None:
        """Make a month's index; one that is there already is fine.

        The strict mapping goes along, so that a template that somebody removed costs settings only.

        Raises:
            Unavailable: Try again later.
        """
        try:
            await self._client.indices.create(index=index, mappings=mapping())
        except ApiError as error:
            if error.error != "resource_already_exists_exception":
                raise unavailable(f"cannot create an index: {error.error}") from None
        except TransportError as error:
            raise _unreached(error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


async def prepare_index(
    client: AsyncElasticsearch, prefix: str, *, replicas: int, refresh_s: float
) -> None:
    """Put the template, bring the mapping of existing months up to it, and check that it is used.

    Idempotent; adding fields to a mapping needs no new index.

    Raises:
        ConfigurationError: The server refuses it, or another template outranks it.
        Unavailable: Try again later.
    """
    template = index_template(prefix, replicas=replicas, refresh_s=refresh_s)
    try:
        await client.indices.put_index_template(name=prefix, body=template)
        await client.indices.put_mapping(
            index=f"{prefix}-*",
            properties=template["template"]["mappings"]["properties"],
            allow_no_indices=True,
        )
        would_be = await client.indices.simulate_index_template(name=f"{prefix}-2000.01")
    except TransportError as error:
        raise _unreached(error) from error
    except ApiError as error:
        if error.status_code in _THROTTLED or error.status_code >= 500:
            raise unavailable(f"status {error.status_code}") from None
        raise ConfigurationError(
            f"Elasticsearch refuses the template or the mapping of {prefix}-*: "
            f"{error.error} (status {error.status_code})"
        ) from None
    if would_be["template"]["mappings"] != template["template"]["mappings"]:
        raise ConfigurationError(
            f"another index template outranks {prefix}: remove it or choose another prefix"
        )
