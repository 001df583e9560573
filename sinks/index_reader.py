"""The search index as a verification reads it: documents by log and leaf, and those that are no leaf's.

Uses Elasticsearch's own client, without retries; needs ``read`` and ``maintenance`` on the indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from elastic_transport import TransportError
from elasticsearch import ApiError, AsyncElasticsearch

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.tls import failure

PAGE: Final = 5_000  # documents of one answer at most: some 10 MB with their sources
_REFUSALS: Final = (400, 401, 403, 404, 405)
_FIELDS: Final[Any] = ("audit.log", "audit.leaf_index", "event.hash", "@timestamp")


class Document(NamedTuple):
    """A document; ``source`` is whole, or the four fields of a comparison by id. Names are flat."""

    index_name: str
    id: str
    source: Mapping[str, Any]


class IndexReader:
    """Searches over the indices of one prefix; the client belongs to whoever made it."""

    def __init__(self, client: AsyncElasticsearch, prefix: str) -> None:
        self._client = client
        self._pattern = f"{prefix}-*"

    async def refresh(self) -> None:
        """Make everything that was indexed before visible. Raises as ``of_leaves``."""
        await self._call(lambda: self._client.indices.refresh(index=self._pattern))

    async def of_leaves(self, log: str, first: int, end: int, *, whole: bool) -> list[Document]:
        """Documents that say they are leaves ``first`` to before ``end`` of a log, in no order; more than
        one of a leaf, if there are, but of one leaf ``PAGE`` at most.

        Raises:
            Unavailable: The server does not answer; ask again later.
            ConfigurationError: It refuses: a permission, a field.
        """
        hits = await self._search(log, first, end, whole=whole)
        if len(hits) == PAGE and end - first > 1:
            # There may be more: two documents of one leaf have no order that a next page could go on from.
            middle = (first + end) // 2
            return [
                *await self.of_leaves(log, first, middle, whole=whole),
                *await self.of_leaves(log, middle, end, whole=whole),
            ]
        return [_document(hit) for hit in hits]

    async def foreign(self, logs: Mapping[str, int], limit: int) -> tuple[int, list[Document]]:
        """Documents that are no leaf of these logs (name → size): how many, and the first of them.

        Raises as ``of_leaves``.
        """
        beyond = [
            {
                "bool": {
                    "filter": [{"term": {"audit.log": log}}],
                    "must_not": [{"range": {"audit.leaf_index": {"gte": 0, "lt": size}}}],
                }
            }
            for log, size in logs.items()
        ]
        unknown = {"bool": {"must_not": [{"terms": {"audit.log": list(logs)}}]}}
        query = {"bool": {"should": [*beyond, unknown], "minimum_should_match": 1}}
        answer = await self._call(
            lambda: self._client.search(
                index=self._pattern,
                query=query,
                size=min(limit, PAGE),
                source=False,
                docvalue_fields=list(_FIELDS),
                track_total_hits=True,
                allow_no_indices=True,
            )
        )
        hits = answer["hits"]
        return int(hits["total"]["value"]), [_document(hit) for hit in hits["hits"]]

    async def _search(
        self, log: str, first: int, end: int, *, whole: bool
    ) -> Sequence[Mapping[str, Any]]:
        of_log = {"term": {"audit.log": log}}
        in_range = {"range": {"audit.leaf_index": {"gte": first, "lt": end}}}
        answer = await self._call(
            lambda: self._client.search(
                index=self._pattern,
                query={"bool": {"filter": [of_log, in_range]}},
                size=PAGE,
                source=whole,
                docvalue_fields=None if whole else list(_FIELDS),
                track_total_hits=False,
                allow_no_indices=True,
            )
        )
        hits: Sequence[Mapping[str, Any]] = answer["hits"]["hits"]
        return hits

    async def _call(self, ask: Any) -> Any:
        try:
            return await ask()
        except ApiError as error:
            # Of the answer only its kind: the body of an error quotes the request.
            kind = f"status {error.status_code} {error.message}"
            if error.status_code in _REFUSALS:
                raise ConfigurationError(f"elasticsearch refuses: {kind}") from None
            raise Unavailable("elasticsearch", kind) from None
        except TransportError as error:
            why = failure(error, "AUDIT_ELASTICSEARCH_CA_FILE")
            raise Unavailable("elasticsearch", why) from None


def _document(hit: Mapping[str, Any]) -> Document:
    source = hit.get("_source")
    if source is None:
        source = {name: values[0] for name, values in hit.get("fields", {}).items()}
    return Document(hit["_index"], hit["_id"], source)
